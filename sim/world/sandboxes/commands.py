"""Commands in sandboxes: they wait for one of their node's slots, share its cores, take memory for a while, and end.

No command is a process: a slot is a place in a queue, work is a job of processor sharing (`sharing.py`), a time-out an alarm that finds
the command over. Memory that a command wants beyond its sandbox's limit, or beyond what its node has, kills it, as the kernel does; the
sandbox goes on.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sim.core.rng import Luck, mix
from sim.spec.sandboxes import NOTHING
from sim.world.sandboxes.lease import BUSY, HERE, IDLE, NAN, PAUSING, Command, Ran
from sim.world.sandboxes.sharing import ring

if TYPE_CHECKING:
    from sim.world.sandboxes.node import Node
    from sim.world.sandboxes.pool import Pool

FULL = 1.0 + 1e-9


class Commands:
    """Those of one pool."""

    def __init__(self, pool: Pool):
        self._pool, spec = pool, pool.spec
        self._slots, self._overhead = spec.exec.slots or math.inf, spec.exec.overhead
        self._bursts = spec.memory.burst != NOTHING
        self._keeps = spec.kind == "microvm"
        self._key = mix(pool.key, 3)

    def ask(self, command: Command) -> Command:
        """Run it as soon as it can."""
        lease = command.lease
        if lease.state in PAUSING:
            lease.pending.append(command)
            self._pool.pauses.resume(lease)
        elif lease.state not in HERE:
            command.over = True
            command.succeed(Ran("crash", 0.0, NAN))
        else:
            self.admit(command)
        return command

    def admit(self, command: Command) -> None:
        """Its sandbox is there: it gets a slot, or waits for one."""
        lease = command.lease
        node = lease.node
        assert node is not None
        lease.running[command] = None
        lease.execs += 1
        command.number = lease.execs
        if lease.state == IDLE:
            lease.turn(BUSY)
        if node.slots < self._slots:
            self._begin(command)
        else:
            node.waiting.append(command)

    def stop(self, command: Command) -> None:
        """Who ran it wants it no more."""
        if command in command.lease.running:
            self.end(command, "stopped")
        else:
            command.lease.pending.remove(command)
            command.over = True
            command.succeed(Ran("stopped", self._pool.env._now - command.asked, NAN))

    def _begin(self, command: Command) -> None:
        node, now = command.lease.node, self._pool.env._now
        assert node is not None
        node.slots += 1
        command.slot = now
        if self._overhead:
            ring(self._pool.env, now + self._overhead, self._start, command)
        else:
            self._start(command)

    def _start(self, command: Command) -> None:
        if command.over:
            return
        lease, env = command.lease, self._pool.env
        node = lease.node
        assert node is not None
        command.started = env._now
        if self._bursts and not self._grab(command):
            lease.killed += 1
            self.end(command, "crash")
            return
        if command.seconds < math.inf:
            command.ticket = node.cpu.add(command, command.seconds, command.cores)
        if command.timeout is not None:
            ring(env, command.started + command.timeout, self._late, command)

    def _grab(self, command: Command) -> bool:
        """Take the memory it wants; False when there is none."""
        spec, lease = self._pool.spec, command.lease
        node = lease.node
        assert node is not None
        luck = Luck(mix(mix(self._key, lease.number), command.number))
        size = spec.memory.burst.at(luck.next())
        wanted = max(spec.memory.base + lease.bursts + size, lease.held if self._keeps else 0.0)
        if wanted > (spec.limit or math.inf) * FULL or not node.fits(wanted - lease.held):
            return False
        command.burst = size
        lease.bursts += size
        node.hold(lease, wanted)
        if spec.memory.burst_time is not None:
            ring(self._pool.env, command.started + spec.memory.burst_time.at(luck.next()), self._let_go, command)
        return True

    def _let_go(self, command: Command) -> None:
        """Its burst is over."""
        lease, size = command.lease, command.burst
        if not size:
            return
        command.burst = 0.0
        lease.bursts = lease.bursts - size if len(lease.running) > 1 else 0.0
        if not self._keeps and lease.node is not None:
            lease.node.hold(lease, self._pool.spec.memory.base + lease.bursts)
            if lease.node.resumes or (self._pool.queue and self._pool.rooms.passed):
                self._pool.freed(lease.node)

    def _late(self, command: Command) -> None:
        if not command.over:
            self.end(command, "timeout")

    def done(self, command: Command) -> None:
        """Its work is done."""
        command.ticket = 0
        command.lease.cpu += command.seconds * command.cores
        self.end(command, "ok")

    def end(self, command: Command, outcome: str) -> None:
        """End one that waits for a slot or runs."""
        lease, now = command.lease, self._pool.env._now
        node = lease.node
        assert node is not None
        command.over = True
        if command.ticket:
            lease.cpu += node.cpu.remove(command.ticket) * command.cores
        self._let_go(command)
        del lease.running[command]
        begun = command.slot == command.slot
        queued = (command.slot if begun else now) - command.asked
        lease.slot += queued
        command.succeed(Ran(outcome, queued, command.started))
        if not lease.running and lease.state == BUSY:
            lease.turn(IDLE)
        if begun:
            node.slots -= 1
            self._next(node)

    def _next(self, node: Node) -> None:
        """Those that wait for a slot begin. One that is killed as it begins ends in here, and leaves its slot to this same loop."""
        if node.feeding:
            return
        node.feeding = True
        while node.waiting and node.slots < self._slots:
            following = node.waiting.popleft()
            if not following.over:
                self._begin(following)
        node.feeding = False
