"""A world without engines for workloads: it keeps what is sent, and answers each call after a time of its own."""
from __future__ import annotations

from itertools import count

import simpy

from sim.core.registry import WORKLOADS
from sim.core.request import Request
from sim.core.rng import stream
from sim.core.tables import tables


class World:
    """`service` gives the seconds until a request is answered; `refuse` says which requests are turned away at once."""

    def __init__(self, seed=1, service=lambda request: 1.0, refuse=lambda request: False):
        self.env, self.name, self.seed = simpy.Environment(), "test", seed
        self.service, self.refuse = service, refuse
        self.requests, self.remarks, self.fresh, self.numbers = [], [], 1, count()
        self.tables, self.cancelled, self.pools, self.closed = tables(), [], {}, []

    def rng(self, name):
        return stream(self.seed, name)

    def keys(self, count):
        first, self.fresh = self.fresh, self.fresh + count
        return first

    def request(self, prompt, output, session=-1, content=None, reply=0):
        request = Request(len(self.requests), self.env.now, prompt, output, session=session)
        request.content, request.reply = content, reply
        return request

    def number(self):
        return next(self.numbers)

    def label(self, table, column, text):
        return self.tables[table].label(column, text)

    def note(self, table, row):
        self.tables[table].append(row)

    def closing(self, call):
        self.closed.append(call)

    def cancel(self, request, reason="cancelled"):
        if request.last != request.last:
            request.reason = reason
            self.cancelled.append((self.env.now, request))

    def sandbox(self, pool, image=0):
        return self.pools[pool](image)

    def submit(self, request):
        self.requests.append(request)

    def call(self, request):
        self.submit(request)
        refused = self.refuse(request)
        event = self.env.timeout(0.0 if refused else self.service(request), request)
        event.callbacks.append(lambda _: self._answered(request, refused))
        return event

    def _answered(self, request, refused):
        request.generated = 0 if refused else request.output
        if not refused and not request.reason:
            request.last = self.env.now


def driven(options, world=None, **settings):
    """The world after the workload of these options has been driven to its end."""
    world = world or World(**settings)
    checked, problems = WORKLOADS.check(options)
    assert problems == []
    workload = WORKLOADS.make(checked)
    world.remarks += workload.prepare()
    world.env.process(workload.drive(world))
    world.env.run()
    return world


def shared(one, other):
    """Tokens that the prompts of two requests are known to have in common."""
    return common(one.content, other.content)


def common(one, other):
    """Tokens that two contents have in common."""
    alike = 0
    for (key, end), (key_, end_) in zip(zip(*one[:2], strict=True), zip(*other[:2], strict=True), strict=False):
        if key != key_:
            break
        alike = min(end, end_)
        if end != end_:
            break
    return alike
