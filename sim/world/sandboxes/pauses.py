"""Sandboxes that pause: their memory goes to the node's disk, memory and cores are free for others, and later it comes back.

A snapshot takes as much disk as the sandbox's base of memory, from the begin of its writing to the end of its reading. Who comes back goes
before those that are not placed yet: its node takes no others while it waits.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from simpy import Event

from sim.world.sandboxes.lease import GONE, HERE, IDLE, PAUSED, RESTORING, SAVING, Lease, Ran, ready
from sim.world.sandboxes.node import Node
from sim.world.sandboxes.sharing import ring

if TYPE_CHECKING:
    from sim.world.sandboxes.pool import Pool

FULL = 1.0 + 1e-9


class Pauses:
    """Those of one pool."""

    def __init__(self, pool: Pool):
        self._pool, self._snapshot = pool, pool.spec.snapshot
        self._size = pool.spec.memory.base

    def pause(self, lease: Lease) -> Event:
        """Write it to disk. The event says whether it was."""
        pool, node = self._pool, lease.node
        event = Event(pool.env)
        if self._snapshot is None or lease.state != IDLE or node is None or node.disk + self._size > pool.spec.storage * FULL:
            return event.succeed(lease.state == PAUSED)
        node.write(self._size)
        lease.turn(SAVING)
        ring(pool.env, pool.env._now + self._snapshot.save.at(pool.draw()), self._saved, (lease, event))
        return event

    def _saved(self, what: tuple[Lease, Event]) -> None:
        lease, event = what
        if lease.state != SAVING:
            event.succeed(False)
            return
        node = lease.node
        assert node is not None
        lease.turn(PAUSED)
        node.active -= 1
        node.kept += 1
        node.hold(lease, 0.0)
        event.succeed(True)
        if lease.pending or lease.resumed:
            node.resumes.append(lease)
        self._pool.freed(node)

    def resume(self, lease: Lease) -> Event:
        """Bring it back. The event says whether it is there."""
        if lease.state in HERE or lease.state < IDLE or lease.state == GONE:
            return ready(self._pool.env, lease.state in HERE)
        event = Event(self._pool.env)
        first = not lease.resumed
        lease.resumed.append(event)
        node = lease.node
        assert node is not None
        if lease.state == PAUSED and first:
            node.resumes.append(lease)
            self.feed(node)
        return event

    def feed(self, node: Node) -> None:
        """Let those come back that the node has room for."""
        while node.resumes:
            lease = node.resumes[0]
            if lease.state == PAUSED:
                if node.active >= node.most or not node.fits(self._size):
                    return
                node.active += 1
                node.kept -= 1
                node.hold(lease, self._size)
                lease.turn(RESTORING)
                assert self._snapshot is not None
                ring(self._pool.env, self._pool.env._now + self._snapshot.restore.at(self._pool.draw()), self._restored, lease)
            node.resumes.popleft()
        self._pool.rooms.changed(node)

    def _restored(self, lease: Lease) -> None:
        if lease.state != RESTORING:
            return
        node, pool = lease.node, self._pool
        assert node is not None
        node.write(-self._size)
        lease.turn(IDLE)
        pool.watch(lease)
        self._answer(lease, True)
        pending, lease.pending = lease.pending, []
        for command in pending:
            pool.commands.admit(command)
        pool.freed(node)

    def _answer(self, lease: Lease, there: bool) -> None:
        waiting, lease.resumed = lease.resumed, []
        for event in waiting:
            event.succeed(there)

    def lost(self, lease: Lease) -> None:
        """It ends: nobody need wait for it."""
        self._answer(lease, False)
        pending, lease.pending = lease.pending, []
        for command in pending:
            command.over = True
            command.succeed(Ran("crash", self._pool.env._now - command.asked, command.started))
