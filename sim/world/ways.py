"""Who answers whom: the pools that a workload's requests go to, and the stages of a cascade behind them.

A workload, and each end of a cascade, names a pool or a model, which is all pools that serve it; nothing at all is every pool, or the first
service of the only cascade. Where a workload asks for the pools that a cascade starts from, its requests go through that cascade, and
through the next one that starts where it leads.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.rng import Keyed
from sim.spec.cascade import Cascade
from sim.spec.scenario import Pool, Scenario
from sim.world.cascade import Step

Pools = tuple[str, ...]


class Ways:
    """`services` are the pools of each workload, by name, and then those of later stages and of judges; `chains` the steps of those
    workloads, by number, whose requests go through a cascade.

    `wanted` and `names` are what each workload asks for (None: it sends no requests), and its name; `models` what else it asks for, by the
    key that says so. `others` are the numbers of those services, by workload and model. Raises BadInput with all that is wrong.
    """

    def __init__(
        self, scenario: Scenario, pools: Sequence[Pool], wanted: Sequence[str | None], names: Sequence[str],
        models: Sequence[Mapping[str, str]] = (),
    ):  # fmt: skip
        self._pools, self._model, self._seed = pools, scenario.model, scenario.seed
        self._cascades = scenario.cluster.cascades
        self._names = names
        self._problems: list[Problem] = []
        self._ends = [self._resolved(cascade, f"cluster.cascades.{i}") for i, cascade in enumerate(self._cascades)]
        self._check(scenario.cluster.quality)
        # Who sends nothing has a service like any other; nothing comes of it.
        everybody = tuple(pool.name for pool in pools)
        self.services: list[Pools] = [
            everybody if model is None else self._first(model, f"workloads.{number}.model") for number, model in enumerate(wanted)
        ]
        asked = [(number, model, where) for number, more in enumerate(models) for where, model in more.items()]
        others = [self._serving(model, f"workloads.{number}.{where}") for number, model, where in asked]
        self._silent = {number for number, model in enumerate(wanted) if model is None}
        if self._problems:
            raise BadInput(self._problems)
        self.others = {(number, model): self._add(pools) for (number, model, _), pools in zip(asked, others, strict=True)}
        self.chains: dict[int, list[Step]] = {}
        for number in range(len(wanted)):
            if wanted[number] is None:
                continue
            steps = self._steps(number)
            if steps:
                self.chains[number] = steps

    def unasked(self) -> list[str]:
        """Pools that no request can reach."""
        asked = {name for number, service in enumerate(self.services) if number not in self._silent for name in service}
        return [pool.name for pool in self._pools if pool.name not in asked]

    def _serving(self, wanted: str, where: str) -> Pools:
        """The pools that serve a name; notes what is wrong with them."""
        found = [pool for pool in self._pools if not wanted or wanted in (pool.name, pool.model or self._model)]
        if not found:
            known = sorted({name for pool in self._pools for name in (pool.name, pool.model or self._model)})
            near = did_you_mean(wanted, known) if known else "there are no pools; write cluster.pools"
            self._problems.append(Problem(f"no pool serves '{wanted}'; {near}", where))
        roles = {pool.role for pool in found}
        if roles == {"decode"}:
            self._problems.append(Problem(f"only decode pools serve '{wanted}'; prompts need a pool that computes them", where))
        if "prefill" in roles and "decode" not in roles:
            self._problems.append(Problem(f"prefill pools serve '{wanted}', but no decode pool does", where))
        return tuple(pool.name for pool in found)

    def _first(self, wanted: str, where: str) -> Pools:
        heads = [i for i, (start, _) in enumerate(self._ends) if all(start != to for _, to in self._ends)]
        if wanted or not heads:
            return self._serving(wanted, where)
        if len(heads) > 1:
            starts = " or ".join(self._cascades[i].start for i in heads)
            self._problems.append(Problem(f"missing; there are several cascades, so say where its requests go first: {starts}", where))
        return self._ends[heads[0]][0]

    def _resolved(self, cascade: Cascade, where: str) -> tuple[Pools, Pools]:
        if cascade.verifier.model is not None:
            self._serving(cascade.verifier.model, f"{where}.verifier.model")
        for name in cascade.escalate.classes or ():
            if name not in self._names:
                near = did_you_mean(name, self._names)
                self._problems.append(Problem(f"no workload is named '{name}'; {near}", f"{where}.escalate.classes.{name}"))
        return self._serving(cascade.start, f"{where}.from"), self._serving(cascade.to, f"{where}.to")

    def _check(self, quality: dict[str, float]) -> None:
        """Cascades that share a start or go round, and qualities of nothing."""
        starts = [start for start, _ in self._ends]
        for i, start in enumerate(starts):
            where, cascade = f"cluster.cascades.{i}", self._cascades[i]
            if start in starts[:i]:
                self._problems.append(Problem(f"another cascade starts from '{cascade.start}' already; an answer goes on one way", where))
            way = [i]
            while self._ends[way[-1]][1] in starts and way[-1] not in way[:-1]:
                way.append(starts.index(self._ends[way[-1]][1]))
            if i in way[1:]:
                circle = " -> ".join(self._cascades[step].start for step in way)
                self._problems.append(Problem(f"the cascade goes in a circle: {circle}; an answer must end somewhere", f"{where}.to"))
        known = sorted({name for cascade in self._cascades for name in (cascade.start, cascade.to)})
        for name in quality:
            if name not in known:
                self._problems.append(Problem(f"'{name}' is no stage of a cascade; {did_you_mean(name, known)}", f"cluster.quality.{name}"))

    def _steps(self, number: int) -> list[Step]:
        """The steps from a workload's first service to the last; their services are added."""
        steps: list[Step] = []
        here, starts = self.services[number], [start for start, _ in self._ends]
        while here in starts:
            at = starts.index(here)
            cascade, here = self._cascades[at], self._ends[at][1]
            judge = None if cascade.verifier.model is None else self._add(self._serving(cascade.verifier.model, ""))
            draws = Keyed(self._seed, f"cascade.{cascade.start}.{cascade.to}.{self._names[number]}")
            steps.append(Step(cascade, draws, self._add(here), judge))
        return steps

    def _add(self, pools: Pools) -> int:
        self.services.append(pools)
        return len(self.services) - 1
