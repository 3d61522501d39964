"""The contents of a recording's prompts, made when a call is sent, with as few keys as tell what is shared.

A conversation that goes on where the one before ended is one key, however many turns it has: the content of a prompt ends where nobody
shares more of it, and the rest is its own. So a prompt after five hundred turns costs no more than the first. A prompt that goes into the
answer before needs that answer's key, since an answer is no part of a prompt.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from sim.core.content import Content
from workloads._prefixes import cut, longer
from workloads.programs.script import Shares

if TYPE_CHECKING:
    from workloads.base import Client


class Contents:
    """Contents of one pass through a recording. Two keys per row, of its prompt and of its answer: `base + 2 row` and the one after."""

    __slots__ = ("_asked", "_base", "_end", "_owner", "_shares")

    def __init__(self, world: Client, shares: Shares, plan: tuple[list[int], list[int], list[bool]]):
        self._shares, (self._end, self._owner, self._asked) = shares, plan
        self._base = world.keys(2 * len(shares.ref))

    def of(self, row: int, start: Content, made: dict[int, Content]) -> tuple[Content, int]:
        """(content, reply) of a row; `made` keeps those of one session. A row that goes on from no other begins with `start`."""
        shares, end, base = self._shares, self._end, self._base
        path = [row]
        while path[-1] not in made and shares.ref[path[-1]] >= 0:
            path.append(shares.ref[path[-1]])
        for one in reversed(path):
            if one in made:
                continue
            before, owner = shares.ref[one], self._owner[one]
            if before < 0:
                content = cut(start, shares.prompt[one])
            else:
                content = made[before]
                if shares.shared[one] > shares.prompt[before]:
                    content = longer(content, base + 2 * before + 1, shares.shared[one])
                content = cut(content, shares.shared[one])
            if owner < 0:
                made[one] = content
            elif content.keys and content.keys[-1] == base + 2 * owner:
                made[one] = Content(content.keys, (*content.ends[:-1], end[one]), content.common)
            else:
                made[one] = longer(content, base + 2 * owner, end[one])
        return made[row], base + 2 * row + 1 if self._asked[row] else 0


def plan(shares: Shares) -> tuple[list[int], list[int], list[bool]]:
    """Of each row: where its content ends, whose key names what is new in it (-1: nothing is shared of that), whether its answer is shared.

    >>> plan(Shares([-1, 0, 1, 0], [0, 100, 150, 60], [110, 160, 170, 90], True))
    ([100, 150, 150, 60], [0, 0, -1, -1], [False, False, False, False])
    """
    ref, shared, prompt = shares.ref, shares.shared, shares.prompt
    end, asked = [max(0, tokens) for tokens in shared], [False] * len(ref)
    for row, before in enumerate(ref):
        if before >= 0:
            if shared[row] > prompt[before]:
                asked[before] = True
            end[before] = max(end[before], min(shared[row], prompt[before]))
    for row, wanted in enumerate(asked):
        if wanted:
            end[row] = prompt[row]
    owner, gone_on = [-1] * len(ref), [False] * len(ref)
    for row, before in enumerate(ref):
        if end[row] <= shared[row]:
            continue
        goes_on = before >= 0 and not asked[before] and owner[before] >= 0 and shared[row] == end[before] and not gone_on[before]
        if goes_on:
            gone_on[before] = True
        owner[row] = owner[before] if goes_on else row
    return end, owner, asked
