"""All that moves between machines, on links that it shares: one fluid flow for each transfer, its rate max-min fair among all others.

A transfer is data, not a process. All flows bound to one link have one rate per weight (`physics/max_min.py`), so each such link has a
virtual clock that runs at that rate: a flow's end is a fixed time on it, and when the rate changes only the link's next end is reckoned
anew. The next end of all links is one timer. What begins and ends in one instant is one change: it is settled after everything else
of the instant. Bytes, seconds, bytes/s.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple

from simpy import Environment, Event

from sim.core.record import Table
from sim.physics.max_min import FairShares, Flow
from sim.physics.priority_shares import PriorityShares
from sim.physics.topology import Link, Path
from sim.world.clock import LAST
from sim.world.timer import GRID, Timer
from sim.world.usage import Usage


class Cargo(NamedTuple):
    """What is sent: `size` bytes of a kind (kv, weights, image, ...), from where to where; `limit`: most bytes/s of its own."""

    kind: str
    source: str
    target: str
    size: float
    weight: float = 1.0
    priority: int = 0
    limit: float = math.inf


class Group:
    """The flows bound to one link: its level, and the virtual clock that it drives, in bytes per weight, as of `since`."""

    __slots__ = ("count", "ends", "level", "link", "shares", "since", "version", "virtual")

    def __init__(self, shares: FairShares, link: int, now: float):
        self.shares, self.link, self.since = shares, link, now
        self.level = self.virtual = 0.0
        self.count = self.version = 0
        self.ends: list[tuple[float, int, Stream]] = []

    def at(self, now: float) -> float:
        """The virtual clock."""
        return self.virtual + (now - self.since) * self.level


class Stream(Flow):
    """A flow with what the network knows of it; `ends` is when, on the virtual clock of its group, its last byte is in."""

    __slots__ = ("asked", "cargo", "counted", "done", "ends", "group", "held", "moving", "path", "shares", "since", "ticket")

    def __init__(self, number: int, cargo: Cargo, path: Path, done: Callable[[], None], asked: float):
        super().__init__(number, path.links, tuple(cargo.weight * share for share in path.shares), cargo.weight)
        self.cargo, self.path, self.done, self.asked = cargo, path, done, asked
        self.ends = self.counted = self.since = 0.0
        self.group: Group | None = None
        self.shares: FairShares | None = None
        self.moving, self.ticket = False, 0
        self.held: dict[int, float] = {}

    def moved(self, now: float) -> float:
        """Bytes moved so far."""
        if self.group is None:
            return 0.0
        return min(max(self.cargo.size - (self.ends - self.group.at(now)) * self.weight, self.counted), self.cargo.size)


class Ring(Event):
    """Calls `ring(event)` on a whole nanosecond, after everything else of it."""

    def __init__(self, env: Environment, nanosecond: int, ring: Callable[[Any], None]):
        self.env = env
        self.callbacks = [ring]
        self._value = nanosecond
        self._ok = True
        # An absolute time: now + (time - now) would bring rounding back.
        heappush(env._queue, (nanosecond * GRID, LAST, next(env._eid), self))  # type: ignore[arg-type]


class Network:
    """Links and what moves over them. `tables` are those of the run: `flows`, `links` and `usage` are written."""

    def __init__(self, env: Environment, links: Sequence[Link], tables: Mapping[str, Table]):
        self.links = tuple(links)
        self._env, self._tables = env, tables
        self._shares = PriorityShares([link.capacity for link in links])
        self._usage = Usage(len(self.links))
        self._streams: dict[int, Stream] = {}
        self._groups: dict[FairShares, dict[int, Group]] = {}
        self._touched: dict[Group, None] = {}
        self._next: list[tuple[int, int, Group]] = []
        self._instant: list[tuple[int, int]] = []
        self._count = self._version = 0
        self._armed: int | None = None
        self._last = 0.0
        self._settling = False
        self._watchers: dict[int, tuple[tuple[int, ...], Callable[[float], None]]] = {}
        self._watched: dict[int, list[int]] = {}
        self._said: dict[int, float] = {}

    def send(self, cargo: Cargo, path: Path, done: Callable[[], None]) -> int:
        """Move `cargo` along `path`: the first byte moves `path.latency` from now, and `done` is called on a whole nanosecond when the last
        is in; of one nanosecond, in the order in which they were sent. Returns the number of the flow.
        """
        number = self._count
        self._count += 1
        self._streams[number] = Stream(number, cargo, path, done, self._env.now)
        if cargo.size <= 0 or not path.links:
            heappush(self._instant, (_nanosecond(self._env.now + path.latency), number))
            self._arm()
        elif path.latency > 0:
            Timer(self._env, path.latency, number, lambda timer: self._begin(timer._value))
        else:
            self._begin(number)
        return number

    @property
    def now(self) -> float:
        """Seconds on the clock."""
        return self._env.now

    def fair(self, path: Path, priority: int = 0) -> float:
        """Bytes/s that one more flow of weight 1 would get at least, now: its even part of each link, lower priorities apart."""
        ranks = [shares for rank, shares in self._shares.ranks if rank >= priority]
        parts = (
            self.links[link].capacity / (share * (1 + sum(len(shares.flows[link]) for shares in ranks)))
            for link, share in zip(path.links, path.shares, strict=True)
        )
        return min(parts, default=math.inf)

    def call_off(self, flow: int) -> None:
        """Stop a flow: it is recorded with what it moved, and `done` is not called. Nothing happens if it has ended."""
        if flow in self._streams:
            self._turn(self._env.now)
            self._end(self._streams[flow], math.nan)

    def watch(self, links: Sequence[int], changed: Callable[[float], None]) -> int:
        """Call `changed(share)` whenever the largest share of capacity that flows take of any of these links changes; it begins at 0.

        Beside n flows one more gets at least its fair part, so the share is at most n / (n + 1). Returns the number of the watcher.
        """
        self._version += 1
        number = self._version
        for link in links:
            self._watched.setdefault(link, []).append(number)
        self._watchers[number], self._said[number] = (tuple(links), changed), 0.0
        self._shares.watch(links)
        self._later()
        return number

    def unwatch(self, number: int) -> None:
        """Tell a watcher no more."""
        links, _ = self._watchers.pop(number)
        del self._said[number]
        for link in links:
            self._watched[link].remove(number)
        self._shares.unwatch([link for link in links if not self._watched[link]])

    def close(self, end: float) -> None:
        """Record the flows still under way as cut off at `end`, or the last end of a flow if that is later, and what the links carried."""
        end = max(end, self._last)
        self._turn(end)
        for stream in self._streams.values():
            self._credit(stream, end)
            self._record(stream, math.nan, stream.counted, end)
        self._streams.clear()
        self._usage.write(self.links, self._tables, end)

    def _begin(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        cargo, path = stream.cargo, stream.path
        shares = stream.shares = self._shares.rank(cargo.priority)
        stream.since = self._env.now
        if cargo.limit < min(self.links[link].capacity / share for link, share in zip(path.links, path.shares, strict=True)):
            stream.links += (shares.own(cargo.limit),)
            stream.uses += (cargo.weight,)
        self._shares.add(stream, shares)
        self._later()

    def _later(self) -> None:
        """Settle after everything else of this instant."""
        if not self._settling:
            self._settling = True
            Timer(self._env, 0.0, 0, self._settle)

    def _settle(self, _: Any) -> None:
        self._settling = False
        now = self._env.now
        self._turn(now)
        self._shares.settle()
        for _, shares in self._shares.ranks:
            if shares.seen:
                self._follow(shares, now)
        for group in self._touched:
            if group.count:
                self._price(group)
        self._touched.clear()
        self._arm()
        if self._watchers:
            self._tell()
        for _, shares in self._shares.ranks:
            shares.seen.clear()

    def _follow(self, shares: FairShares, now: float) -> None:
        """Bring the groups of a rank up to date with its levels."""
        groups, touched = self._groups.setdefault(shares, {}), self._touched
        paused = []
        for link in shares.changed:
            group = groups.get(link)
            if group is not None:
                group.virtual, group.since = group.at(now), now
                touched[group] = None
        for flow in shares.moved:
            stream: Stream = flow  # type: ignore[assignment]
            old, group = stream.group, groups.get(stream.bound)
            if group is None:
                group = groups[stream.bound] = Group(shares, stream.bound, now)
            elif group is old:
                continue
            group.virtual, group.since = group.at(now), now
            if old is None:
                left = stream.cargo.size / stream.weight
            else:
                left = max(stream.ends - old.at(now), 0.0)
                self._leave(stream, old, now)
            stream.group, stream.since, stream.ends = group, now, group.virtual + left
            group.count += 1
            self._version += 1
            stream.ticket = self._version
            heappush(group.ends, (stream.ends, stream.ticket, stream))
            touched[group] = None
            paused.append(stream)
        for group in touched:
            if group.shares is shares and group.count:
                if (group.level > 0) != (shares.level[group.link] > 0):
                    paused += shares.members[group.link]  # type: ignore[arg-type]
                group.level = shares.level[group.link]
        for stream in paused:
            if stream.moving != (stream.group.level > 0):  # type: ignore[union-attr]
                self._credit(stream, now)
                stream.moving = not stream.moving
                (self._usage.begin if stream.moving else self._usage.end)(stream.path.links, now)
        for link in shares.seen:
            if link < shares.nowhere:
                self._usage.full(link, self._shares.full(link), now)
        shares.changed.clear()
        shares.moved.clear()

    def _leave(self, stream: Stream, group: Group, now: float) -> None:
        """A stream leaves its group."""
        stream.held[group.link] = stream.held.get(group.link, 0.0) + now - stream.since
        group.count -= 1
        if group.count:
            self._touched[group] = None
        else:
            group.version = -1
            self._groups[group.shares].pop(group.link)

    def _price(self, group: Group) -> None:
        """Reckon the next end of a group."""
        ends = group.ends
        while ends[0][2].ticket != ends[0][1]:
            heappop(ends)
        self._version += 1
        group.version = self._version
        if group.level > 0:
            heappush(self._next, (_nanosecond(group.since + (ends[0][0] - group.virtual) / group.level), self._version, group))

    def _arm(self) -> None:
        """Have the timer ring at the next end."""
        following = self._next
        while following and following[0][2].version != following[0][1]:
            heappop(following)
        soonest = min([heap[0][0] for heap in (following, self._instant) if heap], default=None)
        if soonest is not None and (self._armed is None or soonest < self._armed):
            self._armed = soonest
            Ring(self._env, soonest, self._ring)

    def _ring(self, event: Any) -> None:
        if event._value != self._armed:
            return
        self._armed = None
        last, ended = event._value, []
        self._turn(self._env.now)
        while self._instant and self._instant[0][0] <= last:
            number = heappop(self._instant)[1]
            if number in self._streams:
                ended.append(self._streams[number])
        while self._next and self._next[0][0] <= last:
            _, version, group = heappop(self._next)
            if version == group.version:
                ended += self._due(group, last)
        ended.sort(key=lambda stream: stream.number)
        for stream in ended:
            self._end(stream, self._env.now)
        self._arm()
        for stream in ended:
            stream.done()

    def _due(self, group: Group, last: int) -> list[Stream]:
        """The streams of a group whose last byte is in by a nanosecond."""
        ends, found = group.ends, []
        while ends:
            end, ticket, stream = ends[0]
            if stream.ticket == ticket:
                if _nanosecond(group.since + (end - group.virtual) / group.level) > last:
                    break
                found.append(stream)
            heappop(ends)
        return found

    def _end(self, stream: Stream, end: float) -> None:
        """Take a stream out and record it; `end` is NaN if it was called off."""
        self._last = now = self._env.now
        del self._streams[stream.number]
        moved = stream.cargo.size if end == end else stream.moved(now)
        if stream.shares is not None:
            self._usage.move(stream.path.links, stream.path.shares, moved - stream.counted)
            if stream.moving:
                self._usage.end(stream.path.links, now)
            if stream.group is not None:
                self._leave(stream, stream.group, now)
                stream.group, stream.ticket = None, 0
            stream.shares.remove(stream)
            self._later()
        self._record(stream, end, moved, now)

    def _record(self, stream: Stream, end: float, moved: float, now: float) -> None:
        cargo, table = stream.cargo, self._tables["flows"]
        if stream.group is not None:
            stream.held[stream.group.link] = stream.held.get(stream.group.link, 0.0) + now - stream.since
        longest = max(stream.held, key=lambda link: stream.held[link], default=len(self.links))
        bound = self.links[longest].name if longest < len(self.links) else ""
        labels = table.label("kind", cargo.kind), table.label("source", cargo.source), table.label("target", cargo.target)
        table.append((*labels, stream.asked, end, cargo.size, moved, cargo.weight, cargo.priority, table.label("bound", bound)))

    def _turn(self, now: float) -> None:
        """Fill the bins of time that have passed."""
        usage = self._usage
        while usage.until <= now:
            idle = True
            for stream in self._streams.values():
                if stream.moving:
                    idle = False
                    self._credit(stream, usage.until)
            usage.turn(now if idle else usage.until)

    def _credit(self, stream: Stream, now: float) -> None:
        """Bytes that a stream has moved since it was last looked at are in the bin that is being filled."""
        moved = stream.moved(now)
        self._usage.move(stream.path.links, stream.path.shares, moved - stream.counted)
        stream.counted = moved

    def _tell(self) -> None:
        """Tell those who watch links whose load has changed."""
        seen = {watcher: None for _, shares in self._shares.ranks for link in shares.seen for watcher in self._watched.get(link, ())}
        for watcher in seen:
            links, changed = self._watchers[watcher]
            share = max((self._taken(link) for link in links), default=0.0)
            if abs(share - self._said[watcher]) > 1e-12:
                self._said[watcher] = share
                changed(share)

    def _taken(self, link: int) -> float:
        """What flows leave no further flow of a watched link, as a share of its capacity."""
        flows = self._usage.flows(link)
        return min(self._shares.load(link) / self.links[link].capacity, flows / (flows + 1))


def _nanosecond(time: float) -> int:
    return round(time / GRID) + 1
