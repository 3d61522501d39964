"""Least attained service first: the session that has been given least goes before those that were given more, equals by arrival.

PLAS of Autellix (Luo et al., 2025): the priority of an agent's call is the service all its earlier calls got; sessions that have run
long are taken to run on. Service is counted in tokens, computed and generated, an output token weighing more (2 in llm-d). With `quantum`
sessions are told apart by level only, as there: levels end at 1, 3, 7, ... quanta. A request without a session is one of its own.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from pydantic import Field

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order

Weight = Annotated[float, Field(ge=0, le=1e6)]


@dataclasses.dataclass
class LeastAttained(Order):
    """Weights of a token computed of a prompt and of a token generated; `quantum` in such units, None: no levels."""

    meters: ClassVar[bool] = True

    input_weight: Weight = 1.0
    output_weight: Weight = 2.0
    quantum: Annotated[float, Field(gt=0)] | None = None
    _attained: dict[int, float] = dataclasses.field(default_factory=dict, init=False)
    _began: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict, init=False)

    def queue(self) -> Waiting:
        return Ranked(self.level)

    def victim(self, running: dict[int, Request]) -> Request:
        return last(self.level, running)

    def level(self, request: Request) -> float:
        """What its session has been given, in weighted tokens, or the level that falls into."""
        attained = self._attained.get(request.session, 0.0) if request.session >= 0 else 0.0
        return attained if self.quantum is None else int(attained / self.quantum + 1).bit_length() - 1

    def admitted(self, request: Request) -> None:
        if request.session >= 0:
            self._began[request.id] = request.computed, request.generated

    def left(self, request: Request, step: int) -> None:
        """Count what this run gave it: tokens of the prompt computed, again where a preemption had lost them, and tokens generated."""
        if request.session < 0:
            return
        computed, generated = self._began.pop(request.id)
        inputs = min(request.computed, request.prompt) - min(computed, request.prompt)
        service = self.input_weight * inputs + self.output_weight * (request.generated - generated)
        self._attained[request.session] = self._attained.get(request.session, 0.0) + service
