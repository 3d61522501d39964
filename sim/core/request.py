"""A request is data, not a process: what was asked, how far it got, and when.

There are no phases: `computed` tokens (whose keys and values are in the cache) chase `known` tokens (the prompt and what was generated).
Chunked prefill, preemption and resumption are the same arithmetic.
"""
from __future__ import annotations

import math
from typing import Any

COMPLETED, REJECTED, FAILED, UNFINISHED = range(4)
STATUSES = ("completed", "rejected", "failed", "unfinished")


class Request:
    """One call of a model.

    `prompt` and `output` are token counts, the latter what will be generated; times are seconds of the simulation, NaN until they happen.
    `cached` tokens at the front of the prompt are in every engine's cache already (a shared system prompt, say) and are not computed.
    `joined` is the engine's step count when the request joined the decode group, whose members advance together; `done` is a SimPy
    event for callers that wait, else None.
    """

    __slots__ = (
        "admitted", "arrival", "cached", "computed", "done", "first", "generated", "id", "joined", "last", "order",
        "output", "preemptions", "prompt", "replica", "session", "stalled", "workload",
    )

    def __init__(self, id: int, arrival: float, prompt: int, output: int, workload: int = 0, session: int = -1):
        self.id = id
        self.arrival = arrival
        self.prompt = prompt
        self.output = output
        self.workload = workload
        self.session = session
        self.cached = self.computed = self.generated = self.preemptions = 0
        self.replica = self.joined = self.order = -1
        self.admitted = self.first = self.last = self.stalled = math.nan
        self.done: Any = None
