"""What a prompt says, without its words: which stretches of tokens it shares with other requests, by name.

Two requests have equal tokens up to a point when their segments up to there have equal keys. That is all a prefix cache needs to know, and
it is what traces give: chained hashes of blocks (Mooncake), turns of a session, a system prompt. Keys are integers that mean the same in
the whole run; `World.keys` hands out fresh ones.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Content(NamedTuple):
    """The known segments of a prompt, from its first token on: segment i is `keys[i]` and ends before token `ends[i]` (ascending).

    A key names the tokens of its segment given all segments before it: a longer and a shorter segment of one key agree as far as the
    shorter goes. Tokens after the last end are the request's own: its `reply` key names them. `common` tokens at the front are a system
    prompt that many sessions share; what is found beyond them comes from the request's own past.
    """

    keys: Sequence[int]
    ends: Sequence[int]
    common: int = 0
