"""GPUs that two pools share: one replica gives them up, its weights go to the host's memory, and one of the other pool wakes on them.

Rollouts end in a long tail, after which a trainer works and the GPUs of their engines idle: they can serve until the next round begins.
And by night, when few ask, those that serve can roll out. Each pair of replicas changes hands by itself: whoever has nothing left is first.

Requests are never lost or run twice. Who gives GPUs up takes no new ones; those it has are finished, or go through the front door to
another replica with the tokens they have, and all that was cached for them is computed again there; or they are called off, where that is
wanted (`spec/lending.py`).

Replicas may end their steps at one instant, up to rounding. So that rounding never decides into whose batch those go that are sent on,
they are half a nanosecond off the whole ones (`Deadline`), as are all decisions made here.
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from simpy import Event

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.record import Table
from sim.core.request import Request
from sim.physics import host_room
from sim.policy.lend import ByLoad
from sim.spec.hardware import gpu, node
from sim.spec.lending import HandOver, Shares, When
from sim.world.lifecycle import DRAINING, Life, Lifecycle
from sim.world.timer import Answer, Deadline

if TYPE_CHECKING:
    from sim.world.cluster import World

LENT = "lent"
LEND, TAKE_BACK = range(2)
# With requests held and nothing done about it, thresholds will not be met for ever after.
PATIENCE = 8 * 86400.0


class Pair:
    """The GPUs of one replica of each pool. `life` has them, which is the borrower's if they are `lent`, and is to be so if `wanted`.

    `turn` is waited for while its life drains: True when nothing is left, False when it is to stay after all. `settled` succeeds when
    nothing moves any more. `row` is that of the hand-over under way.
    """

    __slots__ = ("lent", "life", "row", "settled", "tries", "turn", "wanted")

    def __init__(self, life: Life, lent: bool):
        self.life, self.lent, self.wanted = life, lent, lent
        self.turn: Event | None = None
        self.settled: Event | None = None
        self.tries = 0
        self.row: Row | None = None


class Row:
    """A hand-over, as in the table `lendings`."""

    __slots__ = ("called_off", "empty", "giver", "how", "kind", "sent_on", "served", "start", "taker")

    def __init__(self, kind: int, giver: int, how: str, start: float):
        self.kind, self.giver, self.how, self.start = kind, giver, how, start
        self.taker, self.empty, self.served = -1, math.nan, math.nan
        self.sent_on = self.called_off = 0


class Sharing:
    """Of two pools. Replicas that wake have the weights that are in use by then, and an empty cache.

    Pauses of a `Control` and hand-overs may meet: a replica that is paused gives its GPUs up when it has nothing left, or is not waited for
    any longer; those that come while the pool is paused serve. `idles`, where somebody sets it, is asked with the name of a pool when a
    replica with shared GPUs has nothing left and is not the last: whether they go to the other pool.
    """

    def __init__(self, world: World, owner: Lifecycle, borrower: Lifecycle, options: Shares):
        self._world, self._env, self.options = world, world.env, options
        self.owner, self.borrower = owner, borrower
        lives = borrower.ready if options.lent else owner.ready[:borrower.pool.replicas]
        self._pairs = [Pair(life, options.lent) for life in lives]
        self._mine = {owner, borrower}
        self._rows: list[Row] = []
        self.idles: Callable[[str], bool] | None = None
        world.recorder.watches.append(lambda request, _: self._left(request))

    def check(self, number: int) -> None:
        """Raise BadInput, at pool `number`, where a host's memory is too small for what sleeps there. Nobody says that weights do where
        seconds are stated for both ways.
        """
        pool, site = self.borrower.pool, self._world.site
        if self.options.lend.switch is not None and self.options.take_back.switch is not None:
            return
        usual = node(pool.node or gpu(pool.gpu).node)
        hosts = [(usual, min(len(self._pairs) * pool.parallel.gpus, usual.gpus))]
        if site is not None:
            there = Counter(host for pair in self._pairs for host, _ in site.places[pair.life.index])
            hosts = [(node(site.topology.hosts[host].node), count) for host, count in there.items()]
        held = {f"weights of {one.pool.name}": one.opened.memory.weights for one in (self.owner, self.borrower)}
        advice = "share fewer replicas, write weights in fewer bytes (precision), or state switch for both ways if they come from elsewhere"
        for its_node, count in hosts:
            host_room.check(its_node, count, held, advice, f"cluster.pools.{number}.shares")

    # -- who has the GPUs ------------------------------------------------------------
    @property
    def lent(self) -> int:
        """Replicas whose GPUs the borrower has, or is about to get."""
        return sum(pair.wanted for pair in self._pairs)

    def has(self, pool: str) -> int:
        """Replicas of owner or borrower that have shared GPUs, or are about to get them."""
        return self.lent if pool == self.borrower.pool.name else len(self._pairs) - self.lent

    def lend(self, replicas: int | None = None) -> Event:
        """The owner gives up the GPUs of so many replicas more, by default of all that it shares: those with the fewest requests first.

        The event succeeds when the borrower serves on all of them, or when they were taken back before it did.
        """
        return self._turn(True, replicas)

    def take_back(self, replicas: int | None = None) -> Event:
        """The owner gets the GPUs of so many replicas back, by default of all. The event succeeds when it serves on them."""
        return self._turn(False, replicas)

    def _turn(self, lent: bool, replicas: int | None) -> Event:
        pairs = [pair for pair in self._pairs if pair.wanted != lent]
        # Those on their way back first, then those with the least to do, the latest of equals.
        pairs.sort(key=lambda pair: (pair.lent != lent, pair.life.engine.in_flight, -pair.life.index))
        moving = [self._start(pair, lent) for pair in pairs[:replicas]]
        moving += [pair.settled for pair in self._pairs if pair.wanted == lent and pair.settled is not None]
        return self._env.all_of(list(dict.fromkeys(moving)))

    def _start(self, pair: Pair, lent: bool) -> Event:
        pair.wanted = lent
        if pair.settled is None:
            pair.settled = self._env.event()
            self._env.process(self._move(pair))
        elif pair.turn is not None:
            turn, pair.turn = pair.turn, None
            self._world.pool_of[pair.life.index].keep(pair.life)
            turn.succeed(False)
        return pair.settled

    # -- how they change hands ------------------------------------------------------------
    def _move(self, pair: Pair) -> Generator[Any, Any, None]:
        while pair.lent != pair.wanted:
            yield from self._hand_over(pair)
        settled, pair.settled = pair.settled, None
        assert settled is not None
        settled.succeed()

    def _hand_over(self, pair: Pair) -> Generator[Any, Any, None]:
        giver, taker = (self.borrower, self.owner) if pair.lent else (self.owner, self.borrower)
        kind, options = (TAKE_BACK, self.options.take_back) if pair.lent else (LEND, self.options.lend)
        life = pair.life
        pair.row = row = Row(kind, life.index, options.how, self._env.now)
        self._rows.append(row)
        pair.turn = turn = self._env.event()
        pair.tries += 1
        giver.retire(life, lambda: self._emptied(pair))
        if life.state == DRAINING:
            grace = options.grace if options.how == "drain" else 0.0
            Deadline(self._env, self._env.now + grace, (pair, pair.tries, options), self._waited)
        gone = yield turn
        if not gone:
            return
        row.empty = self._env.now
        if options.switch is None:
            yield from giver.sleep(life)
        pair.life = taker.follow(life)
        row.taker, pair.lent = pair.life.index, not pair.lent
        yield from taker.wake(pair.life, options.switch)
        row.served = self._env.now

    def _emptied(self, pair: Pair) -> None:
        # None where it was just told to stay.
        if pair.turn is not None:
            turn, pair.turn = pair.turn, None
            turn.succeed(True)

    def _waited(self, what: tuple[Pair, int, HandOver]) -> None:
        """Nobody is waited for any longer: those who are left have to go."""
        pair, tries, options = what
        if pair.tries == tries and pair.turn is not None and pair.life.state == DRAINING:
            turn, pair.turn = pair.turn, None
            self._world.pool_of[pair.life.index].hurry(pair.life)
            self._env.process(self._clear(pair, turn, options.how == "abort"))

    def _clear(self, pair: Pair, turn: Event, aborts: bool) -> Generator[Any, Any, None]:
        engine, control = pair.life.engine, self._world.controls.get(self._world.pool_of[pair.life.index].pool.name)
        if control is not None and control[1].halting is not None:
            yield control[1].halting
        if not engine.paused:
            still = self._env.event()
            engine.pause(lambda: _ring(still))
            yield still
            yield self._at(self._env.now)
        row, door = pair.row, self._world.door
        assert row is not None
        for request in self._begun(pair.life) if aborts else ():
            row.called_off += 1
            door.cancel(request, LENT)
        engine.forget(True)
        requests, table = engine.release(), self._world.recorder.tables["requeues"]
        assert not engine.in_flight
        row.sent_on += len(requests)
        for request in requests:
            table.append((request.id, pair.life.index, self._env.now))
            # What was found for it where it waited is not there any more.
            request.leaf, request.linked, request.order, request.computed, request.fetch = None, 0, -1, 0, 0
            door.again(request)
        turn.succeed(True)

    @staticmethod
    def _begun(life: Life) -> list[Request]:
        """The requests of a replica that have tokens."""
        engine = life.engine
        every: list[Request] = [*engine.running.values(), *engine.ready, *engine.loading, *engine.waiting]
        return [request for request in every if request.generated]

    def _left(self, request: Request) -> None:
        """A request has left its replica for good."""
        if request.replica >= 0:
            lifecycle = self._world.pool_of[request.replica]
            if lifecycle in self._mine:
                life = self._world.lives[request.replica]
                lifecycle.left(life, request)
                if self.idles is not None and not life.engine.in_flight:
                    Answer(self._env, self._env.now, request, lambda _: self._idle(lifecycle, life))

    def _idle(self, lifecycle: Lifecycle, life: Life) -> None:
        """A replica may have nothing left."""
        pair = next((pair for pair in self._pairs if pair.life is life), None)
        if pair is None or pair.settled is not None or life.engine.in_flight or len(lifecycle.ready) < 2:
            return
        if self.idles is not None and self.idles(lifecycle.pool.name):
            self._start(pair, not pair.lent)

    # -- who decides ------------------------------------------------------------
    def start(self) -> None:
        """Set going what decides by itself."""
        when = self.options.when
        if when is not None:
            self._env.process(self._by_clock(when) if when.between is not None else self._by_load(when))

    def _by_clock(self, when: When) -> Generator[Any, Any, None]:
        while True:
            yield self._at(when.change(self._env.now))
            if self._world.over():
                return
            self._decide(when.lent(self._env.now))

    def _by_load(self, when: When) -> Generator[Any, Any, None]:
        assert when.load_below is not None
        assert when.load_above is not None
        rule, stuck, number = ByLoad(when.load_below, when.load_above, when.during), 0.0, 0
        while True:
            number += 1
            yield self._at(number * when.every)
            now = self._env.now
            if self._world.over() or now - stuck > PATIENCE:
                return
            self._decide(rule.lends(now, self.load(), bool(self.lent)))
            if not any(_stuck(lifecycle) for lifecycle in (self.owner, self.borrower)):
                stuck = now

    def load(self) -> float:
        """The owner's requests under way and held, over all its replicas, lent or not; without end where nobody is there for them."""
        held = sum(fleet.holding for fleet in self.owner.fleets)
        if held and not self.owner.ready:
            return math.inf
        lives: Iterable[Life] = (*self.owner.ready, *self.owner.draining)
        return (sum(life.engine.in_flight for life in lives) + held) / self.owner.pool.replicas

    def _decide(self, lent: bool) -> None:
        if lent:
            self.lend()
        else:
            self.take_back()

    def _at(self, time: float) -> Event:
        rings = self._env.event()
        Deadline(self._env, time, rings, _ring)
        return rings

    # -- what is written down ------------------------------------------------------------
    def close(self, end: float) -> None:
        """The clock has stopped: rows of the table `lendings` of a run that ended at `end`."""
        table: Table = self._world.recorder.tables["lendings"]
        owner, borrower = table.label("owner", self.owner.pool.name), table.label("borrower", self.borrower.pool.name)
        hows = table.labels["how"]
        for row in self._rows:
            if row.start <= end:
                empty, served = (time if time <= end else math.nan for time in (row.empty, row.served))
                table.append((
                    owner, borrower, row.kind, row.giver, row.taker if empty == empty else -1, row.start, empty, served,
                    hows.index(row.how), row.sent_on, row.called_off,
                ))  # fmt: skip


def _ring(event: Event) -> None:
    event.succeed()


def _stuck(lifecycle: Lifecycle) -> bool:
    """Whether requests are held for a pool that has nobody to take them."""
    return not lifecycle.ready and not lifecycle.starting and any(fleet.holding for fleet in lifecycle.fleets)


def sharings(world: World) -> list[Sharing]:
    """Those of a scenario, in order of the borrowers. Raises BadInput where a host's memory is too small for the weights that sleep there.
    """
    lifecycles = {lifecycle.pool.name: lifecycle for lifecycle in world.lifecycles}
    borrowing = [(one, one.pool.shares) for one in world.lifecycles if one.pool.shares is not None]
    found = [Sharing(world, lifecycles[shares.pool], one, shares) for one, shares in borrowing]
    problems: list[Problem] = []
    for sharing in found:
        try:
            sharing.check(world.lifecycles.index(sharing.borrower))
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
    return found


def shared(world: World, number: int, name: str) -> Sharing:
    """The sharing of a pool, be it owner or borrower, for workload `number`. Raises BadInput for one that does not train, a pool that
    shares no GPUs, or one whose `when` decides.
    """
    at, found = f"workloads.{number}", {one.pool.name: sharing for sharing in world.sharings for one in (sharing.owner, sharing.borrower)}
    if name not in found:
        near = did_you_mean(name, found) if found else "no pool does: write shares at the one that borrows"
        raise BadInput([Problem(f"pool {name} shares no GPUs; {near}", at)])
    if not world.workloads[number].trains:
        raise BadInput([Problem(f"it does not train, so that the GPUs of pool {name} are not its to lend", at)])
    if found[name].options.when is not None:
        raise BadInput([Problem(f"its when decides who has the GPUs of pool {name}; leave it out where a workload lends them", at)])
    return found[name]
