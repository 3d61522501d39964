"""What each link carried, over time: bytes in bins of equal width, seconds in which it carried anything, seconds in which it was full.

A run may last a second or a week, and a network have ten links or a hundred thousand: when there are more than BINS bins, or more than
ROWS of them with bytes, counted link by link, two become one. So memory stays bounded, and no width has to be chosen.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.core.record import Table
from sim.physics.topology import Link

BINS = 512
ROWS = 131_072
FINEST = 1e-3


class Usage:
    """`until` is the end of the bin that is being filled, s: who moves bytes calls `turn` before any move beyond it."""

    def __init__(self, links: int):
        self.width, self.until = FINEST, FINEST
        self._index = self._rows = 0
        self._bins: dict[int, dict[int, float]] = {0: {}}
        self.current = self._bins[0]
        self._users, self._full = [0] * links, [False] * links
        self._busy_since, self._full_since = [0.0] * links, [0.0] * links
        self._busy, self._filled = [0.0] * links, [0.0] * links

    def move(self, links: Sequence[int], shares: Sequence[float], size: float) -> None:
        """Bytes of a flow in this bin."""
        current = self.current
        for link, share in zip(links, shares, strict=True):
            current[link] = current.get(link, 0.0) + size * share

    def turn(self, now: float) -> None:
        """Go to the next bin; where nothing moves until `now`, straight to the one of that time."""
        self._index = max(self._index + 1, int(now / self.width))
        self._rows += len(self.current)
        while self._index >= BINS or (self._rows > ROWS and self._index > 1):
            self._merge()
        self.until = (self._index + 1) * self.width
        self.current = self._bins.setdefault(self._index, {})

    def _merge(self) -> None:
        merged: dict[int, dict[int, float]] = {}
        for index, carried in self._bins.items():
            half = merged.setdefault(index // 2, {})
            for link, size in carried.items():
                half[link] = half.get(link, 0.0) + size
        self._bins, self._index, self.width = merged, self._index // 2, self.width * 2
        self._rows = sum(len(carried) for carried in merged.values())

    def begin(self, links: Sequence[int], now: float) -> None:
        """One more flow moves over these links."""
        for link in links:
            if not self._users[link]:
                self._busy_since[link] = now
            self._users[link] += 1

    def end(self, links: Sequence[int], now: float) -> None:
        """One less does."""
        for link in links:
            self._users[link] -= 1
            if not self._users[link]:
                self._busy[link] += now - self._busy_since[link]

    def flows(self, link: int) -> int:
        """How many flows move over a link now."""
        return self._users[link]

    def full(self, link: int, full: bool, now: float) -> None:
        """From now on a link carries all it can, or less."""
        if full != self._full[link]:
            if full:
                self._full_since[link] = now
            else:
                self._filled[link] += now - self._full_since[link]
            self._full[link] = full

    def write(self, links: Sequence[Link], tables: Mapping[str, Table], end: float) -> None:
        """Rows of `links` (all of them) and of `usage` (bins in which something moved), in order of links, then time."""
        table = tables["links"]
        sums = [0.0] * len(links)
        rows = []
        for index in sorted(self._bins):
            for link, size in self._bins[index].items():
                sums[link] += size
                start = index * self.width
                rows.append((link, start, max(min(self.width, end - start), 0.0), size))
        for number, one in enumerate(links):
            self.full(number, False, end)
            busy = self._busy[number] + (end - self._busy_since[number] if self._users[number] else 0.0)
            table.append((table.label("link", one.name), table.label("kind", one.kind), one.capacity, one.latency, sums[number], busy,
                          self._filled[number]))  # fmt: skip
        for row in sorted(rows):
            if row[3]:
                tables["usage"].append(row)
