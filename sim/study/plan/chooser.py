"""Which layouts to look at, when there are more than can be looked at: Optuna's tree-structured Parzen estimator proposes them.

It is told what each layout it proposed costs, or exceeds (Bergstra et al. 2011, NeurIPS). What it saw in one search it does not forget in
the next, of more traffic. The same seed proposes the same.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, MutableMapping, Sequence

from sim.core.errors import BadInput
from sim.study.plan.cheapest import Offer
from sim.study.plan.layouts import Layouts

REFUSED = 1e12  # dollars per hour of what cannot be
PATIENCE = 3  # times as many proposals as layouts wanted, for it repeats itself


def proposed(layouts: Layouts, trials: int, seed: int) -> Chooser:
    """Raises BadInput where Optuna is not installed."""
    try:
        import optuna
    except ImportError:
        message = f"there are {len(layouts):,} layouts, more than plan.trials ({trials}); choosing among them needs Optuna"
        raise BadInput(f"{message}: pip install 'burstsim[plan]', or raise plan.trials") from None
    return Chooser(layouts, trials, optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=max(8, trials // 4)))


class Chooser:
    """The order in which `cheapest` looks at layouts, each proposed in view of those before."""

    def __init__(self, layouts: Layouts, trials: int, sampler: object):
        import optuna

        self._layouts, self._trials = layouts, trials
        self._axes = {name: optuna.distributions.CategoricalDistribution(list(range(len(axis)))) for name, axis in layouts.axes.items()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=sampler)  # type: ignore[arg-type]
        self._seen: list[int] = []

    def __call__(self, offers: Sequence[Offer], told: MutableMapping[int, float]) -> Iterator[int]:
        yield from (place for place in self._seen if offers[place].least < math.inf)
        for _ in range(PATIENCE * self._trials):
            if len(self._seen) >= min(self._trials, len(self._layouts)):
                return
            asked = self._study.ask(self._axes)
            place = self._layouts.place([asked.params[name] for name in self._axes])
            if place not in self._seen:
                self._seen.append(place)
                yield place
            cost = told.get(place, math.inf)
            self._study.tell(asked, cost if math.isfinite(cost) else REFUSED)
