"""Least attained service first: the program that has been given least goes before those that were given more, equals by arrival.

PLAS of Autellix (Luo et al., 2025): the priority of an agent's call is the service all its earlier calls got; programs that have run
long are taken to run on. Service is counted in tokens, computed and generated, an output token weighing more (2 in llm-d). With `quantum`
programs are told apart by level only, as there: levels end at 1, 3, 7, ... quanta. A request without a session is a program of its own.

Service may be forgotten: with `half_life` h, that of a call which arrived s seconds ago weighs 2^(-s/h), as llm-d decays it. All programs
forget alike, so they are compared by log2 of the sum of service x 2^(arrival/h), which stands still while they wait.

Who has been given much may starve where new programs keep coming. With `aging` a call gains a claim while it waits: of two calls the one
that arrived s seconds earlier has s x aging less counted against it. Autellix lifts those who waited too long to the first level.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sim.core.request import Request
from sim.core.units import Seconds
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order

Weight = Annotated[float, Field(ge=0, le=1e6)]


@dataclasses.dataclass
class LeastAttained(Order):
    """Weights of a token computed of a prompt and of a token generated; `quantum` in such units, None: no levels. `by`: what service is
    added up over. `half_life` in which service is forgotten, None: never. `aging` in such units per second, or levels where there are some.
    """

    meters: ClassVar[bool] = True

    input_weight: Weight = 1.0
    output_weight: Weight = 2.0
    quantum: Annotated[float, Field(gt=0)] | None = None
    by: Literal["program", "session"] = "program"
    half_life: Annotated[Seconds, Field(gt=0)] | None = None
    aging: Weight = 0.0
    _attained: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict, init=False)
    _began: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict, init=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["half_life"] is not None:
            for key in ("quantum", "aging"):
                if values[key]:
                    yield key, f"found {values[key]:g}; not with half_life, under which only the order of programs stands still, no amount"

    def queue(self) -> Waiting:
        return Ranked(self.rank)

    def victim(self, running: dict[int, Request]) -> Request:
        return last(self.rank, running)

    def rank(self, request: Request) -> float:
        """What counts against it."""
        level = self.level(request)
        return level + self.aging * request.arrival if self.aging else level

    def level(self, request: Request) -> float:
        """What its program has been given: weighted tokens, where they are forgotten their logarithm, or the level they fall into."""
        attained = self._attained.get(self._whose(request), -math.inf if self.half_life else 0.0)
        return attained if self.quantum is None else int(attained / self.quantum + 1).bit_length() - 1

    def admitted(self, request: Request) -> None:
        if request.session >= 0 or request.program >= 0:
            self._began[request.id] = request.computed, request.generated

    def left(self, request: Request, step: int) -> None:
        """Count what this run gave it: tokens of the prompt computed, again where a preemption had lost them, and tokens generated."""
        if request.session < 0 and request.program < 0:
            return
        computed, generated = self._began.pop(request.id)
        inputs = min(request.computed, request.prompt) - min(computed, request.prompt)
        service = self.input_weight * inputs + self.output_weight * (request.generated - generated)
        whose, attained = self._whose(request), self._attained
        if self.half_life is None:
            attained[whose] = attained.get(whose, 0.0) + service
        elif service > 0:
            fresh, before = math.log2(service) + request.arrival / self.half_life, attained.get(whose, -math.inf)
            most = max(fresh, before)
            attained[whose] = most + math.log2(2.0 ** (fresh - most) + 2.0 ** (before - most))

    def _whose(self, request: Request) -> tuple[int, int]:
        return request.task if self.by == "program" or request.session < 0 else (request.workload, request.session)
