"""What an agent has in its context: a prompt that only grows, until it is replaced by a summary of itself.

Every call sends the whole of it again. What a prefix cache can find of it is told by keys (`sim/core/content.py`): the system prompt has
one key for all agents of a role, what is told and what is answered has keys of the agent's own. After a compaction or an edit nothing but
the system prompt is as before, so that the rest has to be computed anew.
"""
from __future__ import annotations

from collections.abc import Callable

from sim.core.content import Content
from workloads._prefixes import longer


class Context:
    """`tokens` there are; `sent` of them were part of the last prompt or its answer. `replaced` is the sum of those there were whenever it
    was compacted. `keys(n)` gives fresh keys.
    """

    __slots__ = ("_content", "_keys", "_system", "replaced", "sent", "tokens")

    def __init__(self, system: Content, keys: Callable[[int], int]):
        self._system = self._content = system
        self._keys = keys
        self.tokens = system.ends[-1] if system.ends else 0
        self.sent = self.replaced = 0

    def told(self, tokens: int) -> None:
        """Something more, which nobody else says."""
        self.tokens += tokens

    def asked(self, key: int, tokens: int) -> None:
        """Something more, which `key` names: others may have been told the same."""
        self.tokens += tokens
        self._content = longer(self._content, key, self.tokens)

    def prompt(self) -> Content:
        """What a call sends: all of it."""
        content = self._content
        if not content.ends or content.ends[-1] < self.tokens:
            self._content = content = longer(content, self._keys(1), self.tokens)
        self.sent = self.tokens
        return content

    def answered(self, key: int, tokens: int) -> None:
        """The answer to the last prompt, whose tokens `key` names."""
        self.tokens += tokens
        self._content = longer(self._content, key, self.tokens)
        self.sent = self.tokens

    def compacted(self, tokens: int) -> None:
        """So many tokens, a summary and what is kept, in place of all but the system prompt."""
        self.replaced += self.tokens
        self.edited()
        self.tokens = self.sent + tokens

    def edited(self) -> None:
        """All but the system prompt is other than it was, and as long."""
        self._content = self._system
        self.sent = self._system.ends[-1] if self._system.ends else 0
