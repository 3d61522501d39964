"""prime-rl: start as many as the engines hold, and drop what has become too old when a version is published.

Groups whose oldest token, or whose start, is more than `max_off_policy_steps` versions ago are cancelled before the update and swept from
the queue: time in the queue counts. How many run at a time follows the use of the KV cache: x `grow` once as many groups as may run have
ended while less than `low` is used; above `soft` no more start than would use `target`; above `hard` the youngest are cancelled down to
that; a preemption cuts to the share `cut`. The last is our figure, as is that the cancelled begin again: the code's are not stated.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from pydantic import Field

from sim.core.ledger import Ledger
from sim.core.rollout import ACCEPTED, DONE, PARTIAL, RUNNING, SCORED
from sim.policy.stale.base import Loss, Room, Staleness

Share = Annotated[float, Field(gt=0, le=1)]


@dataclasses.dataclass
class PrimeRl(Staleness):
    """`max_inflight` trajectories at most, and `initial` at first (all of them where it is not given)."""

    looks: ClassVar[bool] = True
    max_off_policy_steps: Annotated[int, Field(ge=0, le=10**6)] = 8
    max_inflight: Annotated[int, Field(ge=1, le=10**9)] = 1024
    initial: Annotated[int, Field(ge=1, le=10**9)] | None = None
    grow: Annotated[float, Field(gt=1, le=100)] = 1.25
    low: Share = 0.6
    soft: Share = 0.8
    hard: Share = 0.9
    target: Share = 0.7
    cut: Share = 0.5
    _limit: float = dataclasses.field(default=0.0, init=False)
    _turned: int = dataclasses.field(default=0, init=False)
    _preempted: int = dataclasses.field(default=0, init=False)

    @classmethod
    def check(cls, values: dict[str, float]) -> list[tuple[str, str]]:
        """What is wrong with options that are fine one by one."""
        low, target, soft, hard = (values[key] for key in ("low", "target", "soft", "hard"))
        if not low <= target <= soft <= hard:
            return [("target", f"low {low:g}, target {target:g}, soft {soft:g} and hard {hard:g} are wanted in ascending order")]
        return []

    def limit(self, ledger: Ledger) -> float:
        """Groups that may run at a time, now."""
        most = float(self.max_inflight // ledger.samples)
        first = most if self.initial is None else float(self.initial // ledger.samples)
        return min(self._limit or first, most)

    def may_start(self, ledger: Ledger) -> Room:
        return Room(max(int(self.limit(ledger)) - ledger.active - ledger.partial, 0), False)

    def on_publish(self, ledger: Ledger) -> list[Loss]:
        live = ledger.live(RUNNING, PARTIAL, DONE, SCORED, ACCEPTED)
        return [Loss(group, "drop") for group in live if ledger.version - group.oldest > self.max_off_policy_steps]

    def look(self, ledger: Ledger) -> list[Loss]:
        limit, running = self.limit(ledger), ledger.active
        turnover = ledger.finished - self._turned >= int(limit)
        lost: list[Loss] = []
        wanted = limit
        if ledger.preemptions > self._preempted:
            wanted = min(limit, running * self.cut)
        elif ledger.kv > self.soft:
            wanted = min(limit, int(running * self.target / ledger.kv))
            if ledger.kv > self.hard:
                lost = [Loss(group, "restart") for group in list(ledger.live(RUNNING))[max(int(wanted), 1) :]]
        elif ledger.kv < self.low and turnover:
            wanted = limit * self.grow
        if turnover or wanted < limit:
            self._turned = ledger.finished
        self._preempted = ledger.preemptions
        self._limit = max(wanted, 1.0)
        return lost
