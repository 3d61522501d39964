"""The sandbox an agent works in, alone or together with the agents that work for it.

It is asked for at the beginning or when a tool first needs it, and whoever needs it meanwhile waits for the same one. One that crashed is
gone, and another one is asked for at the next use. It is given back when the agent it belongs to ends, whatever the way.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import Any

from workloads.programs.options import Home as Wanted


class Home:
    """`lease` is held, or None. `ask(pool, image)` asks for a sandbox: an event that succeeds with a lease or a refusal, and that can be
    withdrawn.
    """

    __slots__ = ("_ask", "_coming", "_image", "_users", "_wanted", "lease", "open", "refused")

    def __init__(self, wanted: Wanted, ask: Any, image: int):
        self._wanted, self._ask, self._image = wanted, ask, image
        self._coming: Any = None
        self._users = 0
        self.lease: Any = None
        self.open, self.refused = True, False

    def settle(self) -> Generator[Any, Any, None]:
        """Wait until there is one; `refused` says if there will be none."""
        self.gone()
        while self.lease is None and self.open:
            if self._coming is None:
                self.refused = False
                self._coming = self._ask(self._wanted.pool, self._image)
                self._coming.callbacks.insert(0, self._came)
            yield self._coming
            if self.refused:
                return

    def use(self) -> None:
        """A tool begins to use it."""
        self._users += 1

    def used(self) -> None:
        """A tool is done with it."""
        self._users -= 1
        if not self._wanted.keep and not self._users:
            self.lost()

    def lost(self) -> None:
        """It is no use any more."""
        if self.lease is not None:
            lease, self.lease = self.lease, None
            lease.release()

    def rest(self) -> None:
        """Nobody will need it for a while: where its pool has snapshots it is put away, and comes back with the next command."""
        if not self.gone():
            self.lease.pause()

    def leave(self) -> None:
        """Give it back, also when it is still on its way."""
        self.open = False
        if self._coming is not None:
            self._coming.withdraw()
        self.lost()

    def gone(self) -> bool:
        """Whether there is none, or none any more."""
        if self.lease is not None and not self.lease.open:
            self.lease = None
        return self.lease is None

    def _came(self, event: Any) -> None:
        self._coming = None
        self.refused = isrefusal(event.value)
        if self.refused:
            return
        self.lease = event.value


def isrefusal(answer: Any) -> bool:
    """Whether what a sandbox pool answered is no sandbox."""
    return hasattr(answer, "reason")
