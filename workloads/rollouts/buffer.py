"""Where accepted groups wait for the trainer: in the order they came or the freshest first, with a version at put and a cap.

`fifo` trains on what has waited longest, so that nothing starves and the lag is that of the queue; `fresh` on what was written by the
newest policy, so that the lag is least and old groups wait until the cap or a gate drops them. A full buffer loses the one that waited
longest (`fifo`, as verl's message queue) or the stalest (`fresh`).
"""
from __future__ import annotations

from collections.abc import Callable, Container
from typing import Literal

from sim.core.rollout import Group

Order = Literal["fifo", "fresh"]


class Buffer:
    """`cap` groups at most, 0: any number. A group is put when it is accepted and `group.put` is set."""

    __slots__ = ("_groups", "cap", "order")

    def __init__(self, order: Order = "fifo", cap: int = 0):
        self.order, self.cap = order, cap
        self._groups: dict[int, Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, group: Group) -> bool:
        return group.number in self._groups

    def put(self, group: Group) -> Group | None:
        """Add a group; the one that had to go for it, which may be the same. Raises ValueError where it is in the buffer already."""
        if group.number in self._groups:
            raise ValueError(f"group {group.number} is in the buffer already")
        self._groups[group.number] = group
        if not self.cap or len(self._groups) <= self.cap:
            return None
        lost = next(iter(self._groups.values())) if self.order == "fifo" else self._sorted()[-1]
        return self._groups.pop(lost.number)

    def take(self, count: int, fits: Callable[[Group], bool] | None = None) -> list[Group]:
        """So many groups in order, of those that fit; none where there are fewer."""
        ready = [group for group in self._sorted() if fits is None or fits(group)][:count]
        if len(ready) < count:
            return []
        for group in ready:
            del self._groups[group.number]
        return ready

    def remove(self, numbers: Container[int]) -> list[Group]:
        """Take out whoever is named and there, in order of coming."""
        gone = [group for group in self._groups.values() if group.number in numbers]
        for group in gone:
            del self._groups[group.number]
        return gone

    def _sorted(self) -> list[Group]:
        """As they would be taken; equals in order of coming."""
        groups = list(self._groups.values())
        return groups if self.order == "fifo" else sorted(groups, key=lambda group: -group.oldest)
