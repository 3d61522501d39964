"""Programs at a gate (`policy/gate/`): what they have under way at the replicas of one fleet, and the calls of those that are paused.

A gate looks at times apart from all others, half a nanosecond beside the whole ones on which answers arrive, so that it sees the same
whatever the engine; and only while something is under way or held, so that a run ends with its traffic. A program ends with a call after
which none is expected. One whose call came to nothing may come back; the gate's policy knows how long to wait for that.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from simpy import Environment

from sim.core.record import Table
from sim.core.request import COMPLETED, Request
from sim.policy.gate.base import Gate, Room
from sim.policy.route.base import View
from sim.world.fleet import Fleet
from sim.world.timer import Deadline

Name = tuple[int, int]


class Held(NamedTuple):
    """A call that is held since `since`, s, and how to send it on."""

    request: Request
    since: float
    send: Callable[[Request], None]


class Program:
    """What `policy/gate/base.py` says of a program, and: `contexts` are the tokens of each of its sessions, `held` its calls that are held,
    `stopped` is when it was paused, s (NaN: it was never let in), and `home` where its calls go (-1: where the router sends them).
    """

    __slots__ = ("contexts", "held", "home", "number", "paused", "replica", "running", "since", "stopped", "tokens")

    def __init__(self, number: int):
        self.number = number
        self.tokens = self.running = 0
        self.replica = self.home = -1
        self.since = self.stopped = math.nan
        self.paused = True
        self.contexts: dict[Name, int] = {}
        self.held: list[Held] = []

    @property
    def asking(self) -> bool:
        return bool(self.held)

    def holds(self, name: Name, tokens: int) -> None:
        """A session of it has a context of so many tokens; 0: it is over."""
        self.tokens += tokens - self.contexts.get(name, 0)
        if tokens:
            self.contexts[name] = tokens
        else:
            self.contexts.pop(name, None)


class Gated:
    """The gate before a fleet. `record` is its table of calls that were held; `holding` counts those that are."""

    def __init__(self, env: Environment, fleet: Fleet, policy: Gate, record: Table):
        self._env, self._fleet, self._policy, self._record = env, fleet, policy, record
        self._programs: dict[Name, Program] = {}
        self._under: dict[int, Program] = {}
        self._count = self._looks = self.holding = 0
        self._awake = False

    def passes(self, request: Request, send: Callable[[Request], None]) -> bool:
        """Whether a call that comes now goes on; otherwise it is held, and `send` is called with it when its program does."""
        if not self._awake:
            self._wake()
        program = self._programs.get(request.task)
        if program is None:
            program = self._programs[request.task] = Program(self._count)
            self._count += 1
        program.holds(_session(request), _own(request))
        if program.paused:
            # Nobody overtakes those who wait.
            if self.holding or program.running or not self._policy.enter(program):
                program.held.append(Held(request, self._env.now, send))
                self.holding += 1
                return False
            program.stopped = math.nan
        program.running += 1
        self._under[request.id] = program
        return True

    def narrowed(self, request: Request, views: Sequence[View]) -> Sequence[View]:
        """Of the replicas that can have a call that goes on, those that its program may use."""
        home = self._under[request.id].home
        if home < 0:
            return views
        return [view for view in views if view.index == home] or views

    def sent(self, request: Request) -> None:
        """A call went on to the replica that it is marked with."""
        program = self._under[request.id]
        program.replica = request.replica
        if program.paused and not program.held:
            program.paused = False
            self._policy.entered(program)

    def ended(self, request: Request, status: int) -> None:
        """A request has ended, whatever it came to."""
        program = self._under.pop(request.id, None)
        if program is None:
            return
        program.running -= 1
        name = _session(request)
        if status == COMPLETED and request.pause == request.pause:
            program.holds(name, _own(request) + request.generated)
        elif status == COMPLETED or name[1] < 0:
            if not program.paused:
                self._policy.left(program, program.contexts.get(name, 0))
            program.holds(name, 0)
        if program.running:
            return
        program.since = self._env.now
        if not program.contexts and not program.held:
            del self._programs[request.task]
        elif program.paused:
            self._give_up(program)

    def let_go(self, request: Request) -> bool:
        """A call that is held is wanted no more; False when it is not held here."""
        program = self._programs.get(request.task)
        item = next((item for item in program.held if item.request is request), None) if program is not None else None
        if program is None or item is None:
            return False
        program.held.remove(item)
        self._note(program, item, self._env.now)
        return True

    def close(self) -> list[Request]:
        """The clock has stopped; returns the requests that are still held."""
        held = [(program, item) for program in self._programs.values() for item in program.held]
        for program, item in held:
            self._note(program, item, math.nan)
        return [item.request for _, item in held]

    # -- looking ------------------------------------------------------------
    def _wake(self) -> None:
        """Something comes after a time in which nothing was under way."""
        self._awake = True
        self._look()
        self._looks = math.floor(self._env.now / self._policy.every)
        self._again()

    def _again(self) -> None:
        self._looks += 1
        Deadline(self._env, self._looks * self._policy.every, None, self._ring)

    def _ring(self, _: None) -> None:
        self._awake = bool(self._under or self.holding)
        if self._awake:
            self._look()
            self._again()

    def _look(self) -> None:
        now = self._env.now
        rooms = []
        for engine in self._fleet.engines:
            size = engine.kv.block_size
            rooms.append(Room(engine.index, engine.kv.blocks * size, engine.used * size))
        programs = list(self._programs.values())
        pause, resume = self._policy.look(now, rooms, programs)
        for program in pause:
            assert isinstance(program, Program)
            self._pause(program)
        for program, replica in resume:
            assert isinstance(program, Program)
            self._resume(program, replica)

    def _pause(self, program: Program) -> None:
        program.paused, program.stopped = True, self._env.now
        if not program.running:
            self._give_up(program)

    def _give_up(self, program: Program) -> None:
        """It will not come back for a while: nothing is kept for its sessions until then."""
        for engine in self._fleet.engines:
            if engine.index == program.replica and engine.moves is not None and engine.moves.keeper is not None:
                for name in program.contexts:
                    engine.moves.keeper.give_up(name)

    def _resume(self, program: Program, replica: int) -> None:
        held, program.held = program.held, []
        program.paused, program.home, program.replica = False, replica, replica
        for item in held:
            self._note(program, item, self._env.now)
            program.running += 1
            self._under[item.request.id] = program
            item.send(item.request)

    def _note(self, program: Program, item: Held, end: float) -> None:
        self.holding -= 1
        request = item.request
        number = request.program if request.program >= 0 else request.session
        self._record.append((request.id, number, program.stopped, item.since, end))


def _session(request: Request) -> Name:
    return request.workload, request.session if request.session >= 0 else -2 - request.id


def _own(request: Request) -> int:
    """Tokens of a prompt beyond those that sessions share; at least 1."""
    return max(request.prompt - (request.content.common if request.content is not None else 0), 1)
