"""One sandbox, from being asked for to being given back, and what its holder may do with it.

A lease is data: pools, nodes and commands move it from state to state, and it keeps the seconds it spent in each. Seconds, bytes.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from simpy import Environment, Event

if TYPE_CHECKING:
    from sim.world.sandboxes.node import Node
    from sim.world.sandboxes.pool import Pool

WAITING, PULLING, QUEUED, BOOTING, IDLE, BUSY, SAVING, PAUSED, RESTORING, GONE = range(10)
HERE = (IDLE, BUSY)
PAUSING = (SAVING, PAUSED, RESTORING)
NAN = math.nan


class Refusal(NamedTuple):
    """Why there is no sandbox: quota, full (too many wait), boot_failed, timeout (of its boot)."""

    reason: str


class Ran(NamedTuple):
    """What came of a command: ok, timeout, crash (it, or its sandbox, was killed) or stopped (by who ran it). `queued`: seconds waiting for
    a slot, and for a sandbox that was paused; `started`: when its work began, or NaN.
    """

    outcome: str
    queued: float
    started: float


class Ask(Event):
    """A sandbox asked for: succeeds with a `Lease`, or with a `Refusal`."""

    def __init__(self, env: Environment):
        super().__init__(env)
        self.lease: Lease | None = None

    @property
    def queued(self) -> bool:
        """Whether no node has room for it yet."""
        return not self.triggered and self.lease is not None and self.lease.state == WAITING

    def withdraw(self) -> None:
        """It is not wanted any more: what comes of it is given back, also when it has come already. The event may never succeed then."""
        if self.triggered:
            if isinstance(self._value, Lease):
                self._value.release()
        elif self.lease is not None and self.lease.open:
            self.lease.pool.end(self.lease, "withdrawn")


class Command(Event):
    """A command in a sandbox: succeeds with `Ran`. `seconds` of work on `cores`; infinite: it hangs until its `timeout`. `number`: which of
    its sandbox's it is.
    """

    __slots__ = ("asked", "burst", "cores", "lease", "number", "over", "seconds", "slot", "started", "ticket", "timeout")

    def __init__(self, lease: Lease, seconds: float, cores: float, timeout: float | None):
        super().__init__(lease.pool.env)
        self.lease, self.seconds, self.cores, self.timeout = lease, seconds, cores, timeout
        self.asked = lease.pool.env._now
        self.started = self.slot = NAN
        self.burst, self.ticket, self.number = 0.0, 0, 0
        self.over = False

    def stop(self) -> None:
        """End it now; nothing happens if it has ended."""
        if not self.over:
            self.lease.pool.commands.stop(self)


class Lease:
    """A sandbox of `pool` on `node`. `workload` holds it (empty: nobody yet); `lost` succeeds, with why, if it crashes or is taken away.

    `warm`: nobody had asked for it when it was made. `asked`, `placed`, `booted`, `granted` and `ended` are times (NaN: not yet); `idle`,
    `busy` and `paused` seconds since it was granted, `held` bytes of memory and `memory` byte-seconds, `bursts` bytes that commands under
    way have beside the base.
    """

    __slots__ = (
        "ask", "asked", "booted", "bursts", "busy", "cpu", "doomed", "ended", "execs", "granted", "held", "hit", "idle", "image", "killed",
        "lost", "memory", "node", "number", "paused", "pending", "placed", "pool", "resumed", "running", "since", "slot", "state", "stored",
        "warm", "watched", "workload",
    )  # fmt: skip

    def __init__(self, pool: Pool, number: int, image: int, workload: str):
        self.pool, self.number, self.image, self.workload = pool, number, image, workload
        self.asked, self.warm = pool.env._now, not workload
        self.placed = self.booted = self.granted = self.ended = NAN
        self.since = self.stored = self.asked
        self.idle = self.busy = self.paused = self.memory = self.cpu = self.slot = 0.0
        self.held = self.bursts = 0.0
        self.execs = self.killed = 0
        self.state = WAITING
        self.hit, self.doomed, self.watched = True, False, False
        self.node: Node | None = None
        self.ask: Ask | None = None
        self.running: dict[Command, None] = {}
        self.pending: list[Command] = []
        self.resumed: list[Event] = []
        self.lost = Event(pool.env)

    @property
    def open(self) -> bool:
        """Whether it is there, or is coming."""
        return self.state != GONE

    def run(self, seconds: float, cores: float | None = None, timeout: float | None = None) -> Command:
        """Run a command of so many seconds of work on `cores` (default: those the sandbox requests): it waits for a slot of the node, and
        is slowed down while the node's cores are asked for by more than they can serve. A paused sandbox is resumed first.

        `timeout` counts from when its work begins. The event returned succeeds with `Ran`.
        """
        return self.pool.commands.ask(Command(self, seconds, self.pool.spec.cores if cores is None else cores, timeout))

    def hang(self, timeout: float) -> Command:
        """A command that never ends of itself, and needs no cores; it has a slot until its time-out."""
        return self.pool.commands.ask(Command(self, math.inf, 0.0, timeout))

    def pause(self) -> Event:
        """Write it to disk and give back memory and cores. Succeeds with True when that is done; at once with False where the pool has no
        snapshots, the disk no room, or it is not idle.
        """
        return self.pool.pauses.pause(self)

    def resume(self) -> Event:
        """Bring it back, as soon as its node has room. Succeeds with whether it is there."""
        return self.pool.pauses.resume(self)

    def release(self) -> None:
        """Give it back; commands that run in it crash. Nothing happens when it is gone already."""
        if self.state != GONE:
            self.pool.end(self, "released")

    def turn(self, state: int, at: float | None = None) -> None:
        """Go over to another state, now or `at`, and account for the seconds in the one before."""
        now, old = self.pool.env._now if at is None else at, self.state
        if old == BUSY:
            self.busy += now - self.since
        elif old == IDLE:
            if self.granted == self.granted:
                self.idle += now - self.since
        elif old in PAUSING:
            self.paused += now - self.since
        self.state, self.since = state, now
        if self.workload:
            self.pool.last = now

    def hold(self, held: float, at: float | None = None) -> None:
        """Take so many bytes of memory, from now or `at` on."""
        now = self.pool.env._now if at is None else at
        self.memory += self.held * (now - self.stored)
        self.held, self.stored = held, now


def ready(env: Environment, value: Any) -> Event:
    """An event that has succeeded."""
    event = Event(env)
    event.succeed(value)
    return event
