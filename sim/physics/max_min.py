"""Max-min fair rates, kept up to date as flows come and go at a cost that follows what changes and not what is there.

Progressive filling raises the rate per weight of all flows together until a link is full or a flow reaches its own limit; flows of a full
link stay where they are, and the others rise on. Done anew at each change, it costs flows times links. Here every flow stays bound to one
full link, and all flows bound to a link have one rate per weight, the link's level. Rates are max-min fair exactly when (1) each link that
flows are bound to is full, (2) no link carries more than it can, and (3) no flow bound to a link crosses another whose level is lower
(Bertsekas and Gallager, Data Networks (1992), section 6.5.2: bottleneck links). So after a change only the links it touches are looked at
again, the lowest level first; a link whose level moves passes that on to the links its flows cross; a link takes over those flows whose
level is above its own. Levels are found from sums over flows that are bound to the same link, not flow by flow.

Most links are never full. A flow has a promised level up to which it has room reserved on such links, and nobody looks at them while the
levels stay below the promises: without this, each change would visit all flows of a full link. Only links that are full, or nearly so, are
tracked.

Numbers: links in the order given, then one for flows that are bound to nothing yet, then one for each flow's own limit. Bytes/s.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush

# Levels that differ by less are equal: rounding must neither bind flows anew nor send changes round in circles.
SAME, STILL = 1e-12, 1e-14
# A link that carries all but this share of its capacity counts as full.
FULL = 1e-9
# Below this share of its capacity, sums of small changes are exact enough.
CLEAR = 1 - 1e-6
# A link is tracked from this share of its capacity on, and let go below LOOSE; promises are MORE than is needed, so that they last.
NEAR, LOOSE, MORE, ENOUGH = 0.95, 0.85, 1.25, 1.1


class Flow:
    """A flow as the links see it: `uses` is weight * share for each of its `links`; `bound` is the link that holds it back."""

    __slots__ = ("bound", "links", "number", "promise", "uses", "weight")

    def __init__(self, number: int, links: tuple[int, ...], uses: tuple[float, ...], weight: float):
        self.number, self.links, self.uses, self.weight = number, links, uses, weight
        self.bound, self.promise = -1, 0.0


class FairShares:
    """The flows of one priority. `level[link]` is the rate per weight of the flows bound to it, infinite where it holds nobody back."""

    def __init__(self, capacities: Sequence[float]):
        self.capacity = [*capacities, math.inf]
        self.nowhere = count = len(capacities)
        self.level = [math.inf] * (count + 1)
        self.flows: list[dict[Flow, None]] = [{} for _ in self.capacity]
        self.members: list[dict[Flow, None]] = [{} for _ in self.capacity]
        # Of a tracked link: by the link to which its flows are bound, the sum of what they use per level and how many they are.
        self._from: list[dict[int, list[float]] | None] = [None] * (count + 1)
        self._into: list[dict[int, None]] = [{} for _ in self.capacity]
        self._guard, self._reserved, self._load = [math.inf] * (count + 1), [0.0] * (count + 1), [0.0] * (count + 1)
        self._free: list[int] = []
        self.pinned: set[int] = set()
        self._marked: set[int] = set()
        self._heap: list[tuple[float, int]] = []
        self.changed: dict[int, None] = {}
        self.seen: dict[int, None] = {}
        self.moved: dict[Flow, None] = {}

    def own(self, limit: float) -> int:
        """A link of one flow's own: its limit."""
        if self._free:
            link = self._free.pop()
            self.capacity[link] = limit
            return link
        self.capacity.append(limit)
        self.level.append(math.inf)
        self.flows.append({})
        self.members.append({})
        self._from.append(None)
        self._into.append({})
        self._guard.append(math.inf)
        self._reserved.append(0.0)
        self._load.append(0.0)
        return len(self.capacity) - 1

    def add(self, flow: Flow) -> None:
        """A flow comes; its rate is known after `settle`."""
        capacity, level = self.capacity, self.level
        most, first = math.inf, -1
        for link, use in zip(flow.links, flow.uses, strict=True):
            here = min(capacity[link] / use, level[link])
            if here < most:
                most, first = here, link
        flow.bound, flow.promise = self.nowhere, most
        self.members[self.nowhere][flow] = None
        for link, use in zip(flow.links, flow.uses, strict=True):
            if self._from[link] is None and link != first and self._reserved[link] + use * most > NEAR * capacity[link]:
                self._assess(link)
            self.flows[link][flow] = None
            sums = self._from[link]
            if sums is not None:
                self._count(link, self.nowhere, use)
                self._mark(link)
            elif link == first or self._reserved[link] + use * most > NEAR * capacity[link]:
                self._track(link)
            else:
                self._reserved[link] += use * most

    def remove(self, flow: Flow) -> None:
        """A flow goes."""
        del self.members[flow.bound][flow]
        for link, use in zip(flow.links, flow.uses, strict=True):
            del self.flows[link][flow]
            if self._from[link] is not None:
                self._discount(link, flow.bound, use)
                self._mark(link)
            else:
                self._reserved[link] = self._reserved[link] - use * flow.promise if self.flows[link] else 0.0
            if link > self.nowhere:
                self._let_go(link)
                self._free.append(link)

    def offer(self, link: int, capacity: float) -> None:
        """A link can carry more or less than before."""
        self.capacity[link] = capacity
        if self._from[link] is not None:
            self._mark(link)
        elif self._reserved[link] > NEAR * capacity:
            self._assess(link)

    def pin(self, link: int) -> None:
        """Keep track of a link's load, full or not."""
        self.pinned.add(link)
        if self._from[link] is None:
            self._track(link)
        else:
            self._mark(link)

    def unpin(self, link: int) -> None:
        """Keep track no longer, unless it is full."""
        self.pinned.discard(link)
        if self._from[link] is not None:
            self._mark(link)

    def load(self, link: int) -> float:
        """Bytes/s of all flows over a tracked link, once settled."""
        return self._load[link] if self.level[link] == math.inf else self.capacity[link]

    def full(self, link: int) -> bool:
        """Whether a link carries all it can, once settled."""
        if self.level[link] < math.inf:
            return True
        return bool(self._from[link]) and self._load[link] >= self.capacity[link] * (1 - FULL)

    def settle(self) -> None:
        """Find the levels. Then `changed` are the links whose level is another, `moved` the flows bound to another link, and `seen` the
        links whose load may be another; the caller clears them.
        """
        heap, marked, level = self._heap, self._marked, self.level
        while heap:
            key, link = heappop(heap)
            if link not in marked:
                continue
            new, taken = self._level(link)
            if heap and new > heap[0][0] and new > key and new < math.inf:
                heappush(heap, (new, link))
                continue
            marked.discard(link)
            self.seen[link] = None
            old = level[link]
            for source in taken:
                self._take(link, source)
            if new == old or (abs(new - old) <= STILL * new and new < math.inf):
                new = old
            else:
                level[link] = new
                self.changed[link] = None
                self._pass_on(link, new - old)
            if new < math.inf and new > self._guard[link]:
                self._cover(link)
        for link in self.seen:
            if self._from[link] is not None and level[link] == math.inf and link not in self.pinned and (
                self._load[link] <= LOOSE * self.capacity[link]
            ):
                self._let_go(link)

    def _pass_on(self, link: int, rise: float) -> None:
        """Mark the links whose load moves with a level; those that stay clearly below what they can carry only get the new load."""
        level, marked, load = self.level, self._marked, self._load
        for other in self._into[link]:
            if other == link or other in marked:
                continue
            if level[other] == math.inf and -math.inf < rise < math.inf and other not in self.pinned:
                load[other] += rise * self._from[other][link][0]  # type: ignore[index]
                if load[other] < CLEAR * self.capacity[other]:
                    self.seen[other] = None
                    continue
            marked.add(other)
            heappush(self._heap, (level[other], other))

    def _level(self, link: int) -> tuple[float, list[int]]:
        """The level at which a link is full, infinite if it is not, and the links from which it takes over flows."""
        sums, level, room = self._from[link], self.level, self.capacity[link]
        fixed = top = own = 0.0
        for source, (use, _) in sums.items():  # type: ignore[union-attr]
            if source == link:
                own = use
            else:
                here = level[source]
                fixed += use * here
                if here > top:
                    top = here
        if own:
            new = (room - fixed) / own
            if top <= new * (1 + SAME):
                return new, []
        elif fixed <= room * (1 + SAME):
            self._load[link] = fixed
            return math.inf, []
        order = sorted((level[source], source) for source in sums if source != link)  # type: ignore[union-attr]
        below = [0.0]
        for here, source in order[:-1]:
            below.append(below[-1] + sums[source][0] * here)  # type: ignore[index]
        taken: list[int] = []
        new = math.inf
        for at in range(len(order) - 1, -1, -1):
            source = order[at][1]
            taken.append(source)
            own += sums[source][0]  # type: ignore[index]
            new = max(0.0, (room - below[at]) / own)
            if at == 0 or order[at - 1][0] <= new * (1 + SAME):
                break
        return new, taken

    def _take(self, link: int, source: int) -> None:
        """Bind to `link` those of its flows that are bound to `source`."""
        mine, theirs = self.flows[link], self.members[source]
        if len(theirs) < len(mine):
            flows = [flow for flow in theirs if link in flow.links]
        else:
            flows = [flow for flow in mine if flow.bound == source]
        members, guard = self.members[link], self._guard[link]
        for flow in flows:
            del theirs[flow]
            members[flow] = None
            flow.bound = link
            self.moved[flow] = None
            if flow.promise < guard:
                guard = flow.promise
            for other, use in zip(flow.links, flow.uses, strict=True):
                if self._from[other] is not None:
                    self._discount(other, source, use)
                    self._count(other, link, use)
                    if other != link:
                        self._mark(other)
        self._guard[link] = guard

    def _mark(self, link: int) -> None:
        if link not in self._marked:
            self._marked.add(link)
            heappush(self._heap, (self.level[link], link))

    def _count(self, link: int, source: int, use: float) -> None:
        sums = self._from[link]
        entry = sums.get(source)  # type: ignore[union-attr]
        if entry is None:
            sums[source] = [use, 1]  # type: ignore[index]
            self._into[source][link] = None
        else:
            entry[0] += use
            entry[1] += 1

    def _discount(self, link: int, source: int, use: float) -> None:
        sums = self._from[link]
        entry = sums[source]  # type: ignore[index]
        entry[1] -= 1
        if entry[1]:
            entry[0] -= use
        else:
            del sums[source]  # type: ignore[union-attr]
            del self._into[source][link]

    def _track(self, link: int) -> None:
        self._from[link] = {}
        for flow in self.flows[link]:
            self._count(link, flow.bound, flow.uses[flow.links.index(link)])
        self._mark(link)

    def _let_go(self, link: int) -> None:
        """Track a link no longer; with flows, only if they leave room."""
        sums = self._from[link]
        if sums is None:
            self._reserved[link] = 0.0
            return
        for source in sums:
            del self._into[source][link]
        self._from[link] = None
        self._marked.discard(link)
        self.level[link], self._guard[link] = math.inf, math.inf
        self._reserved[link] = sum(flow.promise * flow.uses[flow.links.index(link)] for flow in self.flows[link])
        if self._reserved[link] > NEAR * self.capacity[link]:
            self._assess(link)

    def _assess(self, link: int) -> None:
        """Take back what was promised to the flows of an untracked link beyond what they need; track it if they need too much."""
        level, uses = self.level, [(flow, flow.uses[flow.links.index(link)]) for flow in self.flows[link]]
        load = sum(use * level[flow.bound] for flow, use in uses)
        room = NEAR * self.capacity[link]
        if load * (1 + SAME) >= room:
            self._track(link)
            return
        spare = math.sqrt(room / load) if load else 1.0
        for flow, _ in uses:
            if flow.promise > level[flow.bound] * spare:
                self._promise(flow, level[flow.bound] * spare)
                self._guard[flow.bound] = min(self._guard[flow.bound], flow.promise)
        self._reserved[link] = sum(flow.promise * use for flow, use in uses)

    def _promise(self, flow: Flow, level: float) -> None:
        for link, use in zip(flow.links, flow.uses, strict=True):
            if self._from[link] is None:
                self._reserved[link] += use * (level - flow.promise)
        flow.promise = level

    def _cover(self, link: int) -> None:
        """Promise the members of a link at least its level."""
        level, reserved, capacity = self.level[link], self._reserved, self.capacity
        for flow in list(self.members[link]):
            if flow.promise >= level * ENOUGH:
                continue
            more = level * MORE - flow.promise
            loose = [(other, use) for other, use in zip(flow.links, flow.uses, strict=True) if self._from[other] is None]
            if all(reserved[other] + use * more <= NEAR * capacity[other] for other, use in loose):
                self._promise(flow, level * MORE)
            elif flow.promise < level:
                for other, use in loose:
                    if reserved[other] + use * (level - flow.promise) > NEAR * capacity[other]:
                        self._assess(other)
                self._promise(flow, level)
        self._guard[link] = min((flow.promise for flow in self.members[link]), default=math.inf)
