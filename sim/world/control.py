"""What a trainer may do to the replicas of a pool: pause them, change their weights, have caches kept or computed anew, put them to sleep.

A pause takes effect at each replica when its step in flight has ended (the interruptible generation of AReaL and verl), or when it has
finished the calls it has, while new ones are held at the front door (a gateway that drains). What is between two weights is then the
caller's: seconds of loading, or bytes over the network. Caches of the old weights are kept (PipelineRL, SkyRL) or recomputed (AReaL, verl):
then every request under way is prefilled again, in the order in which it was admitted, in chunks and beside the decoders like any prompt.

A request knows nothing of versions. Who wants to know which version made which of its tokens asks for its `progress` at each update.
What callers learn comes half a nanosecond off the whole ones (`Deadline`), where no step ends and no request arrives.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Literal

from simpy import Event

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.registry import BATCHERS
from sim.core.request import Request
from sim.core.transfer import Transfer
from sim.world.lifecycle import Life, Lifecycle
from sim.world.timer import GRID, Deadline

if TYPE_CHECKING:
    from sim.world.cluster import World

UPDATE, SLEEP, DRAIN = range(3)
ABORTED = "aborted"


class Stand:
    """A replica while it is paused: since when, and why, in turn; and tokens whose keys and values it threw away."""

    __slots__ = ("forgotten", "life", "turns")

    def __init__(self, life: Life, since: float):
        self.life, self.forgotten = life, 0
        self.turns = [(since, DRAIN)]


class Control:
    """Of one pool. Replicas that come up while it is paused have the new weights, and serve."""

    def __init__(self, world: World, lifecycle: Lifecycle, transfer: Callable[[Transfer], Event]):
        self._env, self._door, self._engines = world.env, world.door, world.engines
        self._lifecycle, self._transfer = lifecycle, transfer
        self._record = world.recorder.tables["pauses"]
        self._rows: list[tuple[int, float, float, int, int, int]] = []
        self._done: Event | None = None
        self._missing = 0
        self._draining: dict[int, Life] = {}
        self._stands: dict[int, Stand] = {}
        self.paused = self.asleep = False
        self.prefills = lifecycle.pool.role == "prefill"
        world.recorder.watches.append(lambda request, _: self.left(request))

    # -- pausing ------------------------------------------------------------
    @property
    def halting(self) -> Event | None:
        """Succeeds when all replicas stand still; None where none is about to."""
        return self._done

    def pause(self, wait: Literal["none", "calls"] = "none") -> Event:
        """No step begins from now on, or with `calls` from when a replica has finished those it has; requests that come wait. The event
        succeeds when all stand still.
        """
        assert not self.paused, "the pool is paused already"
        self.paused, self._done = True, self._env.event()
        lives = [*self._lifecycle.ready, *self._lifecycle.draining]
        self._missing = len(lives)
        if wait == "calls":
            self._lifecycle.withhold()
        for life in lives:
            if wait == "calls" and life.engine.in_flight:
                self._draining[life.index] = life
            else:
                self._halt(life)
        if not lives:
            Deadline(self._env, self._env.now, UPDATE, self._stand_still)
        return self._done

    def resume(self) -> None:
        """Go on, after the event of `pause`."""
        assert self.paused, "the pool is not paused"
        assert self._done is None, "some replicas have a step in flight"
        assert not self.asleep, "the pool is asleep"
        stands, self._stands, self.paused = self._stands, {}, False
        for stand in stands.values():
            self._write(stand, self._env.now)
            stand.life.engine.resume()
        self._lifecycle.offer()

    def left(self, request: Request) -> None:
        """A request has left a replica for good: with its last token, called off or handed on."""
        life = self._draining.get(request.replica)
        if life is not None and not life.engine.in_flight:
            del self._draining[life.index]
            self._halt(life)

    def _halt(self, life: Life) -> None:
        life.engine.pause(lambda: self._stopped(life))

    def _stopped(self, life: Life) -> None:
        self._stands[life.index] = Stand(life, self._env.now)
        self._missing -= 1
        if not self._missing:
            Deadline(self._env, self._env.now, UPDATE, self._stand_still)

    def _stand_still(self, why: int) -> None:
        self._turn(why)
        done, self._done = self._done, None
        assert done is not None
        done.succeed()

    def _turn(self, why: int) -> None:
        now = self._env.now
        for stand in self._stands.values():
            # Who waited for the comb of the clock alone did not wait.
            since = stand.turns.pop()[0] if now - stand.turns[-1][0] <= 2 * GRID else now
            stand.turns.append((since, why))

    # -- while it is paused ------------------------------------------------------------
    def forget(self, everything: bool) -> None:
        """Throw away what is cached for nobody under way, in lower tiers too, or `everything`: then who is under way is prefilled again."""
        for stand in self._stands.values():
            stand.forgotten += stand.life.engine.forget(everything)

    def update(
        self, how: float | Transfer, kv: Literal["keep", "recompute"] = "keep", clear_prefix: bool = True
    ) -> Event:
        """Change the weights, which takes so many seconds or is a transfer over the network, then go on. A pool that was paused before
        stays so. The event succeeds when that is done.

        `kv`: what requests under way have cached is kept, or computed anew. `clear_prefix`: what is cached for nobody is thrown away.
        """
        return self._env.process(self._update(how, kv == "recompute", clear_prefix))

    def _update(self, how: float | Transfer, recompute: bool, clear: bool) -> Generator[Any, Any, None]:
        was = self.paused
        if not was:
            yield self.pause()
        if isinstance(how, Transfer):
            yield self._transfer(how)
        yield self._after(0.0 if isinstance(how, Transfer) else how)
        if recompute or clear:
            self.forget(recompute)
        if not was:
            self.resume()

    def sleep(self) -> Event:
        """Free the memory of the GPUs: no keys and values are left, and no step is made until `wake`. Who is under way waits, and is
        computed again then. The event succeeds when all are asleep; a pool that was not paused is so then, and stays so.

        Raises BadInput for prefill replicas, whose blocks others have yet to fetch.
        """
        if self.prefills:
            message = f"pool {self._lifecycle.pool.name} prefills for others, who fetch what it has computed; it cannot be put to sleep"
            raise BadInput([Problem(message, "cluster.pools")])
        return self._env.process(self._sleep())

    def _sleep(self) -> Generator[Any, Any, None]:
        if not self.paused:
            yield self.pause()
        self.forget(True)
        assert all(stand.life.engine.kv.free == stand.life.engine.kv.blocks for stand in self._stands.values())
        self.asleep = True
        self._turn(SLEEP)

    def wake(self) -> None:
        """The memory is the replicas' own again; they stay paused."""
        assert self.asleep, "the pool is not asleep"
        self.asleep = False
        self._turn(UPDATE)

    def _after(self, seconds: float) -> Event:
        done = self._env.event()

        def over(_: Any) -> None:
            done.succeed()

        Deadline(self._env, self._env.now + seconds, None, over)
        return done

    def load(self) -> tuple[float, int]:
        """The share of its cache that the fullest replica uses, and preemptions of all replicas so far."""
        engines = [life.engine for life in self._lifecycle.lives]
        return max((engine.used / engine.kv.blocks for engine in engines), default=0.0), sum(engine.preemptions for engine in engines)

    @property
    def longest(self) -> tuple[int, str]:
        """Tokens of the longest request that a replica holds, prompt and answer, and what limits it."""
        return self._lifecycle.opened.limit

    def seats(self) -> list[tuple[int, int, int]]:
        """Number, tokens of its cache and requests at a time of each replica that is ready."""
        most = self._lifecycle.pool.engine.max_num_seqs
        return [(life.index, life.engine.kv.blocks * self._lifecycle.pool.engine.block_size, most) for life in self._lifecycle.ready]

    def views(self) -> list[tuple[int, int, int, int, int]]:
        """Number, requests that run, and wait, tokens of its cache in use, and in all, of each replica that is ready."""
        size = self._lifecycle.pool.engine.block_size
        found = []
        for life in self._lifecycle.ready:
            engine = life.engine
            running = len(engine.running)
            found.append((life.index, running, engine.in_flight - running, engine.used * size, engine.kv.blocks * size))
        return found

    @property
    def brings(self) -> bool:
        """Whether replicas can fetch keys and values from the memory of their hosts."""
        return all(life.engine.moves is not None for life in self._lifecycle.ready)

    # -- requests ------------------------------------------------------------
    def progress(self, request: Request) -> int:
        """Tokens generated for a request by now, wherever it is."""
        return self._engines[request.replica].progress(request) if request.replica >= 0 else request.generated

    def abort(self, requests: Iterable[Request], reason: str = ABORTED) -> None:
        """Call requests off: of a paused pool at once, else at the end of the step in flight. Each call's event succeeds as ever, and
        `generated` says how far it got; `continued` is the rest of it, which the caller may send, now or later.
        """
        for request in requests:
            self._door.cancel(request, reason)

    def continued(self, request: Request) -> Request:
        """What is left of a request that was called off, as one of its own: what it had generated belongs to the prompt, and is found in
        the cache where it is there still. Raises ValueError where nothing is left.
        """
        prompt, output = request.prompt + request.generated, request.output - request.generated
        if output < 1:
            raise ValueError(f"request {request.id} has all its tokens")
        other = Request(-1, self._env.now, prompt, output, request.workload, request.session)
        other.service, other.priority, other.adapter, other.pause = request.service, request.priority, request.adapter, request.pause
        # What follows its content has the key of its reply, be it prompt or answer.
        other.content, other.reply, other.program, other.ahead = request.content, request.reply, request.program, request.ahead
        return other

    # -- what is written down ------------------------------------------------------------
    def close(self, end: float) -> None:
        """The clock has stopped: rows of the table `pauses` of a run that ended at `end`, in the order in which they ended."""
        for stand in self._stands.values():
            self._write(stand, math.nan)
        for row in self._rows:
            if row[1] <= end:
                index, start, until, *rest = row
                self._record.append((index, start, until if until <= end else math.nan, *rest))

    def _write(self, stand: Stand, now: float) -> None:
        engine = stand.life.engine
        life = stand.life
        forgotten, gone = stand.forgotten, life.left if life.left == life.left else life.end
        for (since, why), end in zip(stand.turns, [*(since for since, _ in stand.turns[1:]), now], strict=True):
            # A replica that was drained may be gone already.
            until = gone if gone == gone and not end < gone else end
            if since < until or until != until:
                self._rows.append((engine.index, since, until, why, engine.decoders, forgotten))
                forgotten = 0


def controlled(world: World, number: int, name: str, transfer: Callable[[Transfer], Event]) -> Control:
    """The control of a pool for workload `number`. Raises BadInput for one that does not train, or a pool that there is not, that another
    one trains, or that cannot be paused.
    """
    at, known = f"workloads.{number}", {lifecycle.pool.name: lifecycle for lifecycle in world.lifecycles}
    if name not in known:
        raise BadInput([Problem(f"no pool is named '{name}'; {did_you_mean(name, known)}", at)])
    if not world.workloads[number].trains:
        raise BadInput([Problem(f"it does not train, so that pool {name} is not its to pause", at)])
    engine = known[name].pool.engine
    if BATCHERS.find(engine.batcher["kind"]).pads:  # type: ignore[attr-defined]
        message = f"pool {name} forms static batches, which cannot be interrupted; choose another batcher, such as vllm_v1"
        raise BadInput([Problem(message, at)])
    if name not in world.controls:
        world.controls[name] = number, Control(world, known[name], transfer)
    owner, found = world.controls[name]
    if owner != number:
        raise BadInput([Problem(f"pool {name} is trained by another workload already; one pool has the weights of one", at)])
    return found
