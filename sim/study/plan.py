"""The cheapest cluster that holds its service levels, for the traffic of a scenario and for its growth, and why it is that one.

`plan` looks among the layouts of the scenario's block `plan` (`study/layouts.py`) for the fewest dollars per hour. It refuses what does not
fit or has no price, bounds the rest from below by closed forms (`study/bounds.py`), searches by branch and bound with bisection on replicas
(`study/cheapest.py`; which layouts, by Optuna where they are too many), and confirms the answer with replications: so large a share of
them as `meets` says has to hold. What does not is taken to fail, and the search goes on.

The answer is then taken apart: what binds with one replica fewer and what would relax it, how much more traffic it bears, what each
assumption is worth, and what the other layouts would have cost (`study/sensitivity.py`).
"""
from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.spec import compose
from sim.spec.load import dump, load, located, plain, whole
from sim.spec.scenario import Scenario
from sim.spec.yaml_marks import Document
from sim.study.bench import Bench
from sim.study.layouts import Layouts
from sim.study.planner import Planner
from sim.study.shelf import put
from sim.study.smallest import limited

SAVED = "plan.json"
Row = dict[str, Any]


@dataclass
class Plan:
    """`answers`: one per growth; `best`: the first of them taken apart, None where nothing meets the SLO; `layouts`: what became of each;
    `runs`: every run, a row each; `tornado`, `relax`: see `study/sensitivity.py`; `head`: times the traffic that the answer bears, a
    bracket; `reachable`: without an answer, what comes nearest. `assumed`: where figures come from, of the answer; `extrapolated`: what of
    it was not measured. `searched`: runs until the first answer; `whole`: those that looking at every layout and number would take.
    """

    scenario: Scenario
    answers: list[Row]
    best: Row | None
    layouts: list[Row]
    runs: list[Row]
    tornado: list[Row] = field(default_factory=list)
    relax: list[Row] = field(default_factory=list)
    head: tuple[float, float | None] | None = None
    reachable: list[Row] = field(default_factory=list)
    assumed: list[Row] = field(default_factory=list)
    extrapolated: list[str] = field(default_factory=list)
    searched: int = 0
    whole: int = 0
    seconds: float = 0.0
    answer: Scenario | None = None

    @property
    def runners_up(self) -> pd.DataFrame:
        """The layouts that lost, with what they would cost, or at least, and why: cheapest first."""
        return pd.DataFrame([row for row in self.layouts if row["state"] != "best"])

    @property
    def frame(self) -> pd.DataFrame:
        """Every run."""
        return pd.DataFrame(self.runs)

    def _repr_html_(self) -> str:
        best = self.best
        if best is None:
            return f"<p><b>Nothing that may be chosen meets the SLO.</b></p>{pd.DataFrame(self.reachable).to_html(index=False)}"
        said = f"{best['replicas']} × {best['layout']}: {best['gpus']} GPUs, ${best['usd_per_hour']:,.2f} an hour"
        table = pd.DataFrame(self.layouts)[["layout", "state", "replicas", "usd_per_hour", "at_least", "why"]]
        return f"<p><b>{escape(said)}</b></p><p>{escape(best['binds_text'])}</p>{table.to_html(index=False, na_rep='')}"


def plan(
    given: Scenario | Mapping[str, Any] | Document | str | Path, *, explain: bool = True, jobs: int = 1,
    progress: Callable[..., None] | None = None,
) -> Plan:  # fmt: skip
    """Search, confirm and `explain`: a scenario, its path, or what its YAML would give. `progress(done, None, what)` is told of every run.

    Raises BadInput without a block `plan` or an SLO, and for a search that is empty or contradicts itself.
    """
    document = written(given)
    scenario = whole(document)
    if scenario.plan is None:
        raise BadInput("the scenario has no plan; give one, such as plan: {gpu: [h100_sxm, l40s], replicas: {range: {min: 1, max: 64}}}")
    try:
        limited(scenario)
    except BadInput as error:
        raise BadInput(located(error.problems, scenario)) from None
    began = time.perf_counter()
    layouts = Layouts(scenario, scenario.plan, document)
    bench = Bench(layouts, scenario.plan, jobs, progress)
    found = Plan(scenario, **Planner(scenario, layouts, bench).found(explain))
    found.seconds = time.perf_counter() - began
    return found


def written(given: Scenario | Mapping[str, Any] | Document | str | Path) -> Document:
    """What was written of a scenario: a file with all it extends, a mapping, or one that was read, whose defaults are all filled in."""
    if isinstance(given, Document):
        return given
    if isinstance(given, str | Path):
        return compose.from_file(Path(given))
    return compose.from_mapping(plain(given) if isinstance(given, Scenario) else given)


def save(found: Plan, folder: Path) -> None:
    """Write plan.json, its runs as runs.csv, and the answer as a scenario that can be run, best.yaml; each whole or not at all."""
    said = {name: value for name, value in vars(found).items() if name not in ("runs", "scenario", "answer")}
    texts = {"scenario.yaml": dump(found.scenario), "runs.csv": found.frame.to_csv(index=False)}
    if found.answer is not None:
        texts["best.yaml"] = dump(found.answer)
    put(folder, texts | {SAVED: json.dumps(said | {"version": sim.__version__}, indent=2) + "\n"})


def read(folder: Path) -> Plan:
    """A saved plan. Raises BadInput when the folder holds none."""
    try:
        said = json.loads((folder / SAVED).read_text("utf-8"))
        del said["version"]
        table = pd.read_csv(folder / "runs.csv")
        runs = table.astype(object).where(table.notna(), None).to_dict("records")
        answer = load(folder / "best.yaml", lookup=False) if said["best"] else None
        return Plan(**said, scenario=load(folder / "scenario.yaml", lookup=False), runs=runs, answer=answer)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"holds no plan of this version: {error}; plan it again with --force"
        raise BadInput([Problem(message, file=str(folder / SAVED))]) from error
