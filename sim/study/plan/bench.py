"""Runs of a plan: layouts in so many replicas under so much traffic, each run once and kept as a row."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sim.spec.plan import Search
from sim.spec.scenario import Scenario
from sim.study.plan.bounds import Demand
from sim.study.plan.layouts import Layout
from sim.study.plan.ledger import Ledger
from sim.study.plan.traffic import busier, shorter
from sim.study.plan.trial import Trial, binding
from sim.study.replicate.replicate import seeded

FIGURES = {
    "ttft_p50": "ttft_s.p50", "ttft_p99": "ttft_s.p99", "tpot_mean": "tpot_s.mean", "tpot_p99": "tpot_s.p99", "e2e_p99": "e2e_s.p99",
    "attainment": "slo.attainment", "output_tokens_per_s": "throughput.output_tokens_per_s",
    "output_tokens_per_s_per_gpu": "throughput.output_tokens_per_s_per_gpu",
    "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens", "gpu_watts": "energy.gpu_watts", "busy": "gpu.busy_fraction",
    "kv_peak": "kv.peak_fraction",
}  # fmt: skip


class Draw(NamedTuple):
    """Under which part of the traffic a run is, and with which seed: `number` of a replication, 0 for that of the scenario."""

    share: float = 1.0
    number: int = 0


WHOLE = Draw()


class Bench:
    """What was asked of a `ledger`, and came of it. `rows`: one per run, in the order in which they were asked for; `pilots`: runs beside
    them, which say what the traffic asks for.
    """

    def __init__(self, layouts: Sequence[Layout], search: Search, ledger: Ledger):
        self.layouts, self.search, self.ledger = layouts, search, ledger
        self.rows: list[dict[str, Any]] = []
        self.pilots = 0
        self._known: dict[tuple[Any, ...], Trial] = {}

    @property
    def searched(self) -> int:
        """Runs so far, without the further seeds that confirm an answer."""
        return sum(not row["replication"] for row in self.rows) + self.pilots

    def scenario(self, place: int, replicas: int, growth: float, share: float = 1.0) -> Scenario:
        """A layout in so many replicas, under part of so many times the traffic."""
        layout = self.layouts[place]
        return layout.sized(replicas, shorter(busier(layout.whole, growth), share))

    def one(self, place: int, replicas: int, growth: float, share: float = 1.0) -> Trial:
        """The run with the seed of the scenario."""
        key = place, replicas, growth, share, 0
        if key not in self._known:
            self._keep(key, self.ledger.one(key, lambda: self.scenario(place, replicas, growth, share)))
        return self._known[key]

    def other(self, place: int, replicas: int, scenario: Scenario, what: str, draw: Draw = WHOLE) -> Trial:
        """A run of a layout changed in some way (`what`); the scenario is of the part of the traffic that `draw` says, its seed is set."""
        key = place, replicas, what, *draw
        if key not in self._known:
            self._keep(key, self.ledger.one(key, lambda: seeded(scenario, draw.number)))
        return self._known[key]

    def known(self, place: int, replicas: int, growth: float) -> dict[Draw, Trial]:
        """All runs so far of a layout in so many replicas under so many times the traffic."""
        return {Draw(*key[3:]): one for key, one in self._known.items() if key[:3] == (place, replicas, growth)}

    def many(self, place: int, replicas: int, growth: float, runs: int) -> list[Trial]:
        """Runs with seeds of their own, the whole traffic each; fewer when so many of them failed that the rest cannot mend it."""
        found = [self.one(place, replicas, growth)]
        spare = runs - self.wanted(runs)
        while len(found) < runs and sum(not one.met for one in found) <= spare:
            # A layout at its edge fails soon; one that does not is worth processes.
            batch = range(len(found), min(2 * len(found), runs) if len(found) < 4 else runs)
            keys = [(place, replicas, growth, 1.0, number) for number in batch]
            missing = [key for key in keys if key not in self._known]
            base = self.scenario(place, replicas, growth)
            for key, made in zip(missing, self.ledger.many(missing, lambda key, base=base: seeded(base, key[-1])), strict=True):  # type: ignore[misc]
                self._keep(key, made)
            found += [self._known[key] for key in keys]
        return found

    def demand(self, place: int, growth: float, number: int = 0) -> Demand | None:
        """What so many times the traffic asks for, by the run of a layout; `number`: which traffic. Raises BadInput as the run does."""
        most, share = self.search.counts[-1], self.search.short
        found = self.ledger.demand(("demand", growth, number), lambda: self.scenario(place, most, growth, share))
        self.pilots += 1
        return found

    def wanted(self, runs: int) -> int:
        """Of so many runs, those that have to meet the SLO."""
        return max(1, int(-(-self.search.meets * runs // 1)))

    def confirmed(self, place: int, replicas: int, growth: float, runs: int) -> bool:
        """Whether enough of so many runs met the SLO."""
        return sum(one.met for one in self.many(place, replicas, growth, runs)) >= self.wanted(runs)

    def failed(self, place: int, growth: float) -> tuple[int, Trial] | None:
        """Of the runs of a layout that failed under so much traffic the one with the most replicas."""
        found = [(key[1], one) for key, one in self._known.items() if key[0] == place and key[2] == growth and not one.met]
        return max(found, key=lambda each: each[0], default=None)

    def usd(self, place: int, replicas: int, growth: float) -> float:
        """Dollars per hour: for GPUs and nodes of sandboxes; of a pool that is scaled, of all that the run had."""
        layout = self.layouts[place]
        if layout.fixed:
            return layout.hourly(replicas)
        return self.one(place, replicas, growth, self.search.short).paid(layout.hourly(replicas))

    def outcome(self, place: int, replicas: int, growth: float) -> tuple[int, int]:
        """Of the runs of the whole traffic, how many met the SLO, and how many there were."""
        found = [one.met for key, one in self._known.items() if key[:4] == (place, replicas, growth, 1.0)]
        return sum(found), len(found)

    def _keep(self, key: tuple[Any, ...], found: Trial) -> None:
        self._known[key] = found
        place, replicas, growth, share, number = key
        layout = self.layouts[place]
        own = isinstance(growth, float)
        usd = layout.hourly(replicas) if layout.fixed else found.paid(layout.hourly(replicas))
        self.rows.append({
            "layout": layout.words, "place": place, "replicas": replicas, "gpus": layout.gpus(replicas), "usd_per_hour": usd,
            "growth": growth if own else None, "changed": None if own else growth, "share": share, "replication": number,
            "met": found.met, "verdict": found.verdict, "binds": binding(found), "limit": found.tightest[0],
            "over_limit": found.tightest[1], "refused": found.refused,
            "tokens_per_s_per_user": 1.0 / found.figures["tpot_s.mean"] if found.figures.get("tpot_s.mean") else None,
            **{name: found.figures.get(path) for name, path in FIGURES.items()},
        })  # fmt: skip
