"""A tail policy that says where answers run, around another that says how many are launched and which are kept."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from sim.core.registry import TAILS
from sim.core.rollout import Trajectory
from sim.core.rounds import Batch, Launch, Left, Replica
from sim.policy.tail.base import Fate, Tail


@dataclasses.dataclass
class Within(Tail):
    """`rounds` is a kind of tail; it answers whatever the kind around it does not."""

    rounds: Annotated[Any, TAILS] = dataclasses.field(default_factory=lambda: {"kind": "wait_all"})
    _inner: Tail = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self._inner = self.rounds = TAILS.make(self.rounds) if isinstance(self.rounds, Mapping) else self.rounds

    def launch(self, batch: Batch, left: Left) -> Launch:
        return self._inner.launch(batch, left)

    def over(self, launch: Launch, complete: int) -> bool:
        return self._inner.over(launch, complete)

    def fate(self) -> Fate:
        return self._inner.fate()

    def limit(self, tokens: int) -> int:
        return self._inner.limit(tokens)

    def masks(self, trajectory: Trajectory) -> bool:
        return self._inner.masks(trajectory)

    def piece(self, left: int) -> int:
        return self._inner.piece(left)

    def rank(self, trajectory: Trajectory) -> tuple[float, ...]:
        return self._inner.rank(trajectory)

    @property
    def sends_home(self) -> bool:
        return self._inner.sends_home

    def home(self, trajectory: Trajectory, own: int, replicas: Sequence[Replica]) -> int:
        return self._inner.home(trajectory, own, replicas)

    @property
    def every(self) -> float:
        return self._inner.every

    def moves(self, replicas: Sequence[Replica]) -> list[tuple[int, int]]:
        return self._inner.moves(replicas)
