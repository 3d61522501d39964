"""Published runs of reinforcement learning simulated beside what was published: the one function the command line calls.

    rows -plan-> scenarios -fit the length laws-> -run-> figures -compare-> errors.csv, and what was assumed for each row

Rows of the file come first, then those of the project's own table (`rl_published.csv`). Speed-ups are over the run of the same setup whose
published one is 1. A row that cannot be done is listed with the reason.
"""
from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.study.validate import rl_lengths
from sim.study.validate.rl_figures import Found, figures_of, fit_of
from sim.study.validate.rl_goals import judged
from sim.study.validate.rl_plan import Assumed, Plan, plan_of
from sim.study.validate.rl_rows import read

COLUMNS = ("id", "metric", "measured", "predicted", "ape")
OWN = "rl_published.csv"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Doing:
    """What simulates: `figures` of a plan, and `fitted`, the mean length with which its generation takes what was published, and what it
    takes then.
    """

    figures: Callable[[Plan], Found] = figures_of
    fitted: Callable[[Plan], tuple[float, float]] = fit_of


@dataclass
class RlSummary:
    """What came of a table: `plans` in order, each with `found` figures by id, or a reason; `errors` with COLUMNS; `goals` as judged.

    `fits`: of each fitted law, the run it was fitted to, the mean it has, and both times.
    """

    table: str
    plans: list[Plan]
    found: dict[str, Found]
    rows: dict[str, dict[str, Any]]
    could_not: list[dict[str, str]]
    errors: pd.DataFrame
    fits: list[dict[str, Any]] = field(default_factory=list)
    goals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "table": self.table, "version": sim.__version__, "rows": len(self.found) + len(self.could_not), "predicted": len(self.found),
            "cpu_s": sum(found.cpu_s for found in self.found.values()), "goals": self.goals, "fits": self.fits,
            "runs": [
                {"id": plan.id, "mode": plan.mode, "inputs": plan.inputs, "measured": plan.measured,
                 "predicted": self.found[plan.id].figures, "assumed": [one._asdict() for one in plan.assumed]}
                for plan in self.plans if plan.id in self.found
            ],
            "could_not": self.could_not,
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """errors.csv, could_not.csv and summary.json. Raises BadInput when they cannot be written."""
        try:
            self.errors.to_csv(folder / "errors.csv", index=False, float_format="%.6g")
            pd.DataFrame(self.could_not, columns=["id", "why"]).to_csv(folder / "could_not.csv", index=False)
            (folder / "summary.json").write_text(json.dumps(_plain(self.figures), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def validate_rl(
    path: Path, out: Path | None = None, *, own: bool = True, jobs: int = 1, progress: Progress | None = None, doing: Doing | None = None
) -> RlSummary:
    """Simulate every row of the table, and with `own` those of the project's; write to `out` where one is given.

    `jobs`: processes (0: one per core); `doing`: what simulates, by default the simulator. Raises BadInput for a table that cannot be used,
    or when no row could be simulated.
    """
    doing = doing or Doing()
    rows, could_not = gathered(path, own)
    if out is not None:
        _writable(out)
    first = [plan_of(row) for row in rows]
    to_fit = {plan.setup: plan for plan in reversed(first) if not plan.reason and plan.fits == plan.fits}
    total, done = len(to_fit) + len(rows), 0
    fits: list[dict[str, Any]] = []
    laws: dict[tuple[Any, ...], rl_lengths.Length] = {}
    unfit: dict[tuple[Any, ...], str] = {}
    for plan, law in zip(to_fit.values(), _each(doing.fitted, list(to_fit.values()), jobs), strict=True):
        if isinstance(law, str):
            unfit[plan.setup] = f"could not be fitted to gen_s of {plan.id}: {law}"
        else:
            laws[plan.setup] = rl_lengths.Length(law[0], "fitted", f"mean fitted to gen_s of {plan.id} ({plan.fits:g} s) alone")
            fits.append({"id": plan.id, "mean_tokens": law[0], "reported": plan.fits, "simulated": law[1]})
        done = _told(progress, done, total)
    plans = [plan_of(row, laws[plan.setup]) if plan.setup in laws else plan for row, plan in zip(rows, first, strict=True)]
    plans = [replace(plan, assumed=(*plan.assumed, *_default(unfit.get(plan.setup)))) for plan in plans]
    could_not += [{"id": plan.id, "why": plan.reason} for plan in plans if plan.reason]
    found: dict[str, Found] = {}
    good = [plan for plan in plans if not plan.reason]
    done = _told(progress, done, total, len(plans) - len(good))
    for plan, figures in zip(good, _each(doing.figures, good, jobs), strict=True):
        if isinstance(figures, str):
            could_not.append({"id": plan.id, "why": figures})
        else:
            found[plan.id] = figures
        done = _told(progress, done, total)
    _speedups(plans, found)
    if not found:
        raise BadInput([Problem(f"{one['id']}: {one['why']}", file=str(path)) for one in could_not[:20]])
    errors = errors_of(plans, found)
    summary = RlSummary(
        path.name, plans, found, {row["id"]: row for row in rows}, could_not, errors, fits, judged(errors, plans, found)
    )  # fmt: skip
    if out is not None:
        summary.save(out)
    return summary


def _writable(folder: Path) -> None:
    """Said before a long run, not after it. Raises BadInput when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "errors.csv").touch()
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def gathered(path: Path, own: bool) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of the table and of the project's own, and those that cannot be used as {id, why}. Raises BadInput as `read` does."""
    rows, could_not = read(path)
    if own:
        with as_file(files("sim.study.validate").joinpath(OWN)) as ours:
            more, _ = read(ours)
        known = {row["id"] for row in rows}
        rows += [row for row in more if row["id"] not in known]
    return filled(rows), could_not


def filled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose GPU is not said get that of the other rows of their source, where that is one."""
    chips: dict[str, set[str]] = {}
    for row in rows:
        if row["gpu"]:
            chips.setdefault(row["source"], set()).add(row["gpu"])
    found = []
    for row in rows:
        one = chips.get(row["source"], set())
        if not row["gpu"] and len(one) == 1:
            chip = next(iter(one))
            row = row | {"gpu": chip, "filled": (*row["filled"], ("GPU", chip, "the other rows of this source"))}
        found.append(row)
    return found


def errors_of(plans: Iterable[Plan], found: Mapping[str, Found]) -> pd.DataFrame:
    """COLUMNS for each figure both published and simulated, but for what a law was fitted to and what speed-ups are over."""
    rows = []
    for plan in plans:
        if plan.id not in found:
            continue
        for metric, value in plan.measured.items():
            predicted = found[plan.id].figures.get(metric, math.nan)
            trivial = (metric == "gen_s" and plan.fits == plan.fits) or (metric == "speedup_vs_sync" and value == 1)
            if not trivial and predicted == predicted and value:
                rows.append((plan.id, metric, value, predicted, abs(predicted / value - 1)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _each(do: Callable[[Plan], Any], plans: Sequence[Plan], jobs: int) -> Iterator[Any]:
    """What comes of each plan, in order; a text says why nothing did."""
    jobs = jobs or os.cpu_count() or 1
    if min(jobs, len(plans)) <= 1:
        yield from (_tried(do, plan) for plan in plans)
        return
    from joblib import Parallel, delayed

    # Processes that have grown are replaced, which is no fault.
    warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
    yield from Parallel(n_jobs=jobs, return_as="generator")(delayed(_tried)(do, plan) for plan in plans)


def _default(why: str | None) -> list[Assumed]:
    """That the default length law stayed, if it did for a reason."""
    return [Assumed("length law", "the default", why)] if why else []


def _tried(do: Callable[[Plan], Any], plan: Plan) -> Any:
    try:
        return do(plan)
    except BadInput as error:
        return "; ".join(problem.message for problem in error.problems)
    except Exception as error:  # one row that breaks the simulator must not cost the others
        return f"the simulator failed: {type(error).__name__}: {error}"


def _told(progress: Progress | None, done: int, total: int, more: int = 1) -> int:
    if progress and more:
        progress(done + more, total)
    return done + more


def _speedups(plans: Sequence[Plan], found: Mapping[str, Found]) -> None:
    """Steps, or what a plan says, over those of the base of each setup, into the figures."""
    bases = {plan.setup: plan for plan in reversed(plans) if plan.id in found and plan.measured.get("speedup_vs_sync") == 1}
    for plan in plans:
        base = bases.get(plan.setup)
        if plan.id in found and base is not None:
            own, other = found[plan.id].figures, found[base.id].figures
            if own.get(plan.speedup) and other.get(plan.speedup):
                own["speedup_vs_sync"] = other[plan.speedup] / own[plan.speedup]


def _plain(value: Any) -> Any:
    """NaN is no JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
