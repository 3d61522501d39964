"""A request is data, not a process: what was asked, how far it got, and when.

There are no phases: `computed` tokens (whose keys and values are in the cache) chase `known` tokens (the prompt and what was generated).
Chunked prefill, preemption and resumption are the same arithmetic.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sim.core.content import Content

COMPLETED, REJECTED, FAILED, UNFINISHED = range(4)
STATUSES = ("completed", "rejected", "failed", "unfinished")


class Request:
    """One call of a model.

    `prompt` and `output` are token counts, the latter what will be generated; times are seconds of the simulation, NaN until they happen.
    `content` says what of the prompt other requests may share, `reply` is the key of all that follows it (0: nobody can ask for it again).
    `brought` tokens have their keys and values elsewhere (on a prefill replica, in the host's memory) and need no computing; `fetch` of
    them have to be moved into the cache before the request can run. `cached` tokens were found when it was first
    admitted. `leaf` and `linked` belong to the cache: where the request's shared blocks end, and how many they are.
    `order` is its place in order of admission, 0 while it holds blocks without running, -1 while it holds none. `joined` is the engine's
    step count when it joined the decode group, whose members advance together; `done` is a SimPy event for callers that wait, else None.
    `asked` are prompt and output as sent, while a static batch has padded them. A higher `priority` goes first where the batcher heeds it.
    `adapter` is the number of the low-rank adapter it asks for, -1: none. `service` says which replicas it goes to: those of its workload,
    or of a stage of a cascade. `pause` is how many seconds after its end its session is expected to ask again, NaN: never.
    `program` is the number of the session that its session works for, -1: that is its own.
    `ahead` is how many tokens its program will still have generated after it, NaN where its sender does not know.
    `watch`, where somebody has set it, is called when the first token is out. `reason` is why it was turned away or called off, else empty.
    """

    __slots__ = (
        "adapter", "admitted", "ahead", "arrival", "asked", "brought", "cached", "computed", "content", "done", "fetch", "first",
        "generated", "id", "joined", "last", "leaf", "linked", "order", "output", "pause", "preemptions", "priority", "program",
        "prompt", "reason", "replica", "reply", "service", "session", "stalled", "watch", "workload",
    )  # fmt: skip

    def __init__(self, id: int, arrival: float, prompt: int, output: int, workload: int = 0, session: int = -1):
        self.id = id
        self.arrival = arrival
        self.prompt = prompt
        self.output = output
        self.workload = self.service = workload
        self.session = session
        self.content: Content | None = None
        self.leaf: Any = None
        self.done: Any = None
        self.watch: Callable[[Request], None] | None = None
        self.reason = ""
        self.brought = self.cached = self.computed = self.fetch = self.generated = 0
        self.linked = self.preemptions = self.priority = self.reply = 0
        self.asked: tuple[int, int] | None = None
        self.adapter = self.replica = self.joined = self.order = self.program = -1
        self.admitted = self.ahead = self.first = self.last = self.pause = self.stalled = math.nan

    @property
    def task(self) -> tuple[int, int]:
        """What names the program it belongs to among all: that of its session, its session, or the request itself where it has none."""
        if self.program >= 0:
            return self.workload, self.program
        return self.workload, self.session if self.session >= 0 else -2 - self.id

    def unpadded(self) -> Request:
        """Itself, with the lengths it was sent with where a batch had padded it."""
        if self.asked is not None:
            self.prompt, self.output = self.asked
            self.generated = min(self.generated, self.output)
            self.asked = None
        return self
