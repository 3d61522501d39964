"""A session's blocks stay for a time to live: a fixed one, or the one that Continuum (arXiv 2511.02230) derives from what was observed.

Its rule keeps for the tau that maximises P(pause <= tau) (T eta + R) - tau. P is taken from the pauses observed, T is the mean wait of
those that came back to a cache that was gone, R the time to have it again (the shorter of computing and reloading it), and eta says how
far the calls a session has made foretell how few are left. Before `min_samples` pauses were seen they are taken to be exponential with
mean 1 s, for which tau = ln(T eta + R), or nothing when that is negative.
"""
from __future__ import annotations

import dataclasses
import math
from typing import Annotated, ClassVar

from pydantic import Field

from sim.core.request import Request
from sim.core.units import Seconds
from sim.policy.retain.base import LET_GO, Fate, State


@dataclasses.dataclass
class Ttl:
    """`seconds`: a fixed time to live; without it Continuum's rule decides, which trusts what it saw from `min_samples` pauses on. `firm`:
    the blocks are pinned, as there: others wait rather than use them up.
    """

    offloads: ClassVar[bool] = False

    seconds: Annotated[Seconds, Field(gt=0)] | None = None
    min_samples: Annotated[int, Field(ge=1, le=512)] = 100
    firm: bool = False

    def decide(self, request: Request, state: State) -> Fate:
        return Fate(keep, firm=self.firm) if (keep := self._keep(state)) > 0.0 else LET_GO

    def _keep(self, state: State) -> float:
        """The time to live."""
        if self.seconds is not None:
            return self.seconds
        history = state.history
        worth = history.queueing * history.eta + min(state.recompute, state.reload)
        pauses = history.pauses
        if len(pauses) < self.min_samples:
            return math.log(worth) if worth > 1.0 else 0.0
        best, gain = 0.0, 0.0
        for number, pause in enumerate(pauses, 1):
            if number / len(pauses) * worth - pause > gain:
                best, gain = pause, number / len(pauses) * worth - pause
        # Up to the next whole millisecond: whoever comes back after exactly that pause is in time, whatever the rounding.
        return (math.floor(best * 1e3) + 1) / 1e3 if best else 0.0
