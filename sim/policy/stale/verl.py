"""verl's fully asynchronous trainer: how much may be generated beyond what one version trains on, as a fraction of it.

max_required = B (1 + staleness_threshold), B = ppo_mini_batch_size x require_batches x trigger_parameter_sync_step groups per version;
concurrency = min(16 x servers, max_required). No group starts while the queue holds max_required, or while as many have been started
since the last publication, where those count that were active, cancelled or queued at that time (`staleness_samples`). By that rule who
was rejected keeps counting until then. A pause ends at the publication, or when the monitor looks, every 10 s.

Threshold 0 streams within one version, 1 is about one step off.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.ledger import Ledger
from sim.core.rollout import Group
from sim.core.units import Seconds
from sim.policy.stale.base import Loss, Room, Staleness


@dataclasses.dataclass
class Verl(Staleness):
    """`per_server` groups at a time for each rollout replica; `monitor` is how often a pause is looked at again."""

    staleness_threshold: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    per_server: Annotated[int, Field(ge=1, le=10**6)] = 16
    monitor: Annotated[Seconds, Field(gt=0, le=86_400)] = 10.0
    _counted: int = dataclasses.field(default=0, init=False)

    @property
    def poll(self) -> float:
        return self.monitor

    def may_start(self, ledger: Ledger) -> Room:
        most = int(ledger.batch * (1.0 + self.staleness_threshold))
        if ledger.queued >= most or self._counted >= most:
            return Room(0, True)
        seats = min(self.per_server * ledger.servers, most) - ledger.active - ledger.partial
        return Room(max(min(most - self._counted, seats), 0), False)

    def started(self, ledger: Ledger, group: Group) -> None:
        self._counted += 1

    def on_publish(self, ledger: Ledger) -> list[Loss]:
        self._counted = ledger.active + ledger.partial + ledger.queued
        return []
