"""The carbon of a run: of its electricity, by the grids and hours it was drawn in, and of making the machines.

Location-based: what the site drew in an hour of the run's clock times what the grid of the pool emits in that hour of the day (UTC).
Nothing is known without grids, and then there are no figures.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.spec.power import HOURS
from sim.study.energy import hours, site_joules, site_kwh
from sim.study.metric import Metric, ratio
from sim.study.training import site_joules_by_hour

if TYPE_CHECKING:
    from sim.study.metrics import Facts

YEAR = 365.25 * 86400.0


def grams(facts: Facts) -> np.ndarray | None:
    """gCO2e of electricity, [pool or trainer, hour of the run's clock]; None without grids."""
    grids = facts.meta.get("grids")
    if not grids:
        return None
    start = facts.result.scenario.carbon.start_hour  # type: ignore[union-attr]
    clock = (start + np.arange(hours(facts)) + 0.5).astype(int) % HOURS
    intensity = np.array([np.asarray(grids[name]["hours"])[clock] for name in _names(facts)])
    drawn = [*site_joules(facts), *(site_joules_by_hour(facts, one) for one in facts.meta.get("trainers", []))]
    found: np.ndarray = np.array(drawn) / 3.6e6 * intensity
    return found


def _names(facts: Facts) -> list[str]:
    return [*facts.pools, *(one["name"] for one in facts.meta.get("trainers", []))]


def _embodied(facts: Facts) -> float:
    """gCO2e of making the GPUs, for the time they were there."""
    carbon = facts.result.scenario.carbon
    if carbon is None or carbon.embodied is None:
        return 0.0
    rate = carbon.embodied.kg_per_gpu * 1e3 / (carbon.embodied.years * YEAR)
    trained = facts.end * sum(one["gpus"] for one in facts.meta.get("trainers", []) if not one.get("shares"))
    return rate * (float((facts.gpus * facts.lifetimes).sum()) + trained)


def _all_grams(facts: Facts) -> float | None:
    found = grams(facts)
    return None if found is None else float(found.sum()) + _embodied(facts)


def _grams_per_token(facts: Facts) -> Any:
    found = _all_grams(facts)
    return None if found is None else ratio(found, facts.tokens[1])


def _grams_per_request(facts: Facts) -> Any:
    found = _all_grams(facts)
    return None if found is None else ratio(found, float(facts.counts[0]))


def _by_hour(facts: Facts) -> Any:
    found = grams(facts)
    return None if found is None else found.sum(axis=0).tolist()


def _by_pool(facts: Facts) -> Any:
    found = grams(facts)
    return None if found is None else dict(zip(_names(facts), found.sum(axis=1).tolist(), strict=True))


def _intensity(facts: Facts) -> Any:
    found = grams(facts)
    return None if found is None else ratio(float(found.sum()), site_kwh(facts))


CARBON = (
    Metric("carbon.grams", "gCO2e", "of the site's electricity, and of making the GPUs where that is given; None: no grid", _all_grams),
    Metric("carbon.grams_per_output_token", "gCO2e", "that over output tokens of completed requests", _grams_per_token),
    Metric("carbon.grams_per_request", "gCO2e", "that over completed requests", _grams_per_request),
    Metric("carbon.embodied_grams", "gCO2e", "of making the GPUs, for the time they were there; None where it is not given",
           lambda facts: _embodied(facts) or None),
    Metric("carbon.grams_per_kwh", "gCO2e/kWh", "of the electricity used, by the hours and places it was used in", _intensity),
    Metric("carbon.grams_by_hour", "gCO2e", "of electricity, by hour of the run's clock", _by_hour),
    Metric("carbon.grams_by_pool", "gCO2e", "of electricity, by pool and trainer", _by_pool),
)  # fmt: skip
