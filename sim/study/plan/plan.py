"""The cheapest cluster that holds its service levels, for the traffic of a scenario and for its growth, and why it is that one.

`plan` looks among the layouts of the scenario's block `plan` (`layouts.py`) for the fewest dollars per hour. It refuses what does not
fit or has no price, bounds the rest from below by closed forms (`bounds.py`), searches by branch and bound with bisection on replicas
(`cheapest.py`; which layouts, by Optuna where they are too many), and confirms the answer with replications: so large a share of
them as `meets` says has to hold. What does not is taken to fail, and the search goes on.

The answer is then taken apart: what binds with one replica fewer and what would relax it, how much more traffic it bears, what each
assumption is worth, and what the other layouts would have cost (`study/plan/sensitivity.py`).
"""
from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.spec import compose, outside
from sim.spec.keys import STUDIES
from sim.spec.load import dump, load, located, plain, whole
from sim.spec.scenario import Scenario
from sim.spec.yaml_marks import Document
from sim.study.journal import Kind, decided
from sim.study.plan.bench import Bench
from sim.study.plan.layouts import Layouts
from sim.study.plan.ledger import Ledger, Question
from sim.study.plan.planner import Planner
from sim.study.run import run
from sim.study.saved import complete, mapping_of, rows_of
from sim.study.shelf import put
from sim.study.smallest import limited

SAVED, RUNS = "plan.json", "runs.csv"
BEST = "best"
KIND = Kind("trials.jsonl", "plan", ("key",), SAVED)
Row = dict[str, Any]
# What saved rows, and the answer, have at least.
ROWS = {
    "layouts": ("place", "layout", "state", "replicas", "usd_per_hour", "at_least", "why"),
    "answers": ("growth", "place", "layout", "replicas", "gpus", "usd_per_hour", "met", "met_low", "met_high", "runs"),
    "tornado": (
        "name", "until", "rival", "rival_usd_per_hour", "was_replicas", "low_usd_per_hour", "was_usd_per_hour", "high_usd_per_hour",
    ),
    "relax": ("lever", "met", "limit", "over_limit"), "reachable": ("limit", "limit_s", "reached_s", "ok"),
    "assumed": ("kind", "source", "date", "figures", "error"),
}  # fmt: skip
BEST_OF = (
    *ROWS["answers"], "binds", "binds_text", "short", "share", "gpus_per_replica", "pool_gpus", "nodes", "free_gpus", "usd_per_year",
    "run_usd_per_hour", "usd_per_million_output_tokens", "kilowatts",
)  # fmt: skip


@dataclass
class Plan:
    """`answers`: one per growth; `best`: the first of them taken apart, None where nothing meets the SLO; `layouts`: what became of each;
    `runs`: every run, a row each; `tornado`, `relax`: see `study/plan/sensitivity.py`; `head`: times the traffic that the answer bears, a
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
        # How it looks is known to a room above this one, which the package finds by its name (see `study/result.py`).
        return sim.plan_html(self)


def plan(
    given: Scenario | Mapping[str, Any] | Document | str | Path, folder: str | Path | None = None, *, explain: bool = True, jobs: int = 1,
    force: bool = False,
) -> Plan:  # fmt: skip
    """Search, confirm and `explain`: a scenario, its path, or what its YAML would give.

    `folder` keeps what is done, is gone on with, and has the plan at last; one that has it already is replaced with `force`. `jobs`:
    processes for replications. Raises BadInput without a block `plan` or an SLO, for a search that is empty or contradicts itself, and
    for a folder of something else.
    """
    found: Plan = question(given, explain).answer(Path(folder) if folder is not None else None, jobs=jobs, force=force)
    return found


def question(given: Scenario | Mapping[str, Any] | Document | str | Path, explain: bool = True) -> Question:
    """What `plan` asks. Raises BadInput as it does."""
    document = written(given)
    scenario = whole(document)
    if scenario.plan is None:
        raise BadInput("the scenario has no plan; give one, such as plan: {gpu: [h100_sxm, l40s], replicas: {range: {min: 1, max: 64}}}")
    try:
        limited(scenario)
    except BadInput as error:
        raise BadInput(located(error.problems, scenario)) from None
    search, layouts = scenario.plan, Layouts(scenario, scenario.plan, document)

    def find(ledger: Ledger) -> Plan:
        found = Plan(scenario, **Planner(scenario, layouts, Bench(layouts, search, ledger)).found(explain))
        found.seconds = ledger.seconds
        return found

    return Question(KIND, decided(asked(document)), find, save)


def written(given: Scenario | Mapping[str, Any] | Document | str | Path) -> Document:
    """What was written of a scenario: a file with all it extends, a mapping, or one that was read, whose defaults are all filled in."""
    if isinstance(given, Document):
        return given
    if isinstance(given, str | Path):
        return compose.from_file(Path(given))
    return compose.from_mapping(plain(given) if isinstance(given, Scenario) else given)


def asked(document: Document) -> dict[str, Any]:
    """The mapping of a scenario with its plan, without other studies; paths are absolute."""
    return {key: value for key, value in outside.absolute(document).items() if key == "plan" or key not in STUDIES}


def save(found: Plan, folder: Path) -> None:
    """Write plan.json, its runs as runs.csv, and the answer as a scenario that can be run, best.yaml, with its run in the folder best; each
    whole or not at all.
    """
    for left in (folder / BEST, *folder.glob(f".{BEST}.*")):
        shutil.rmtree(left, ignore_errors=True)
    (folder / "best.yaml").unlink(missing_ok=True)
    if found.answer is not None:
        run(found.answer).save(folder / BEST)
    said = {name: value for name, value in vars(found).items() if name not in ("runs", "scenario", "answer")}
    texts = {"scenario.yaml": dump(found.scenario), RUNS: found.frame.to_csv(index=False)}
    if found.answer is not None:
        texts["best.yaml"] = dump(found.answer)
    put(folder, texts | {SAVED: json.dumps(said | {"version": sim.__version__}, indent=2) + "\n"})


def read(folder: Path) -> Plan:
    """A saved plan. Raises BadInput when the folder holds none."""
    again = "plan it again with --force"
    names = [one.name for one in fields(Plan) if one.name not in ("scenario", "runs", "answer")]
    said = mapping_of(folder / SAVED, "plan", again, names)
    for name, keys in ROWS.items():
        rows_of(said, name, folder / SAVED, keys)
    if said["best"] is not None:
        complete(said["best"], "best", folder / SAVED, BEST_OF)
    try:
        text = (folder / RUNS).read_text("utf-8")
        if not text.endswith("\n"):
            raise ValueError("it is cut off")
        table = pd.read_csv(io.StringIO(text))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput([Problem(f"holds no runs of a plan: {why}; {again}", file=str(folder / RUNS))]) from error
    runs = table.astype(object).where(table.notna(), None).to_dict("records")
    answer = load(folder / "best.yaml", lookup=False) if said["best"] else None
    kept = {name: said[name] for name in names}
    return Plan(**kept, scenario=load(folder / "scenario.yaml", lookup=False), runs=runs, answer=answer)
