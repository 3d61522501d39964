"""Validate the simulator on a whole table of measured runs: the one function the command line calls."""
from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.study.validate.errors import by, errors_of, requests_of
from sim.study.validate.goals import judged
from sim.study.validate.held_out import CONSTANTS, fit_constants, residuals
from sim.study.validate.predict import predict
from sim.study.validate.releases import by_release
from sim.study.validate.runs import read
from sim.study.validate.scenario_of import Case, case_of
from sim.study.validate.store import Store, key_of

Progress = Callable[[int, int], None]
GROUPS = (
    ("metric",), ("metric", "source"), ("metric", "gpu"), ("metric", "engine"), ("metric", "model"),
    ("metric", "source", "engine", "gpu"), ("metric", "source", "engine", "gpu", "model"),
)  # fmt: skip


@dataclass
class Summary:
    """What came of a table. `errors` and `held` (leave-one-model-out) have the columns of errors.csv, `requests` those of requests.csv.

    `could_not`: {run_id, why} of every row that was chosen and has no prediction. `assumed`: how many runs each assumption was made for.
    `constants`: host and front end per engine and GPU as fitted to all models, beside those in use, seconds.
    `releases`: the same per release of an engine, with how far models it was not fitted on are from it (`releases.by_release`).
    """

    table: str
    chosen: int
    errors: pd.DataFrame
    held: pd.DataFrame
    requests: pd.DataFrame
    could_not: list[dict[str, str]]
    assumed: dict[str, int]
    constants: list[dict[str, Any]]
    releases: list[dict[str, Any]]
    cpu_s: float
    version: str = field(default=sim.__version__)

    @functools.cached_property
    def goals(self) -> list[dict[str, Any]]:
        return judged(self.errors, self.held, self.requests)

    @functools.cached_property
    def figures(self) -> dict[str, Any]:
        """What summary.json holds; errors as fractions."""
        return {
            "table": self.table, "version": self.version, "rows": self.chosen, "predicted": self.chosen - len(self.could_not),
            "cpu_s": self.cpu_s, "goals": self.goals,
            "errors": {" x ".join(keys): by(self.errors, keys) for keys in GROUPS},
            "leave_one_model_out": {" x ".join(keys): by(self.held, keys) for keys in GROUPS},
            "constants": self.constants, "releases": self.releases, "assumed": self.assumed, "could_not": self.could_not,
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """errors.csv, held_out.csv, requests.csv, could_not.csv and summary.json. Raises BadInput when they cannot be written."""
        tables = {"errors": self.errors, "held_out": self.held, "requests": self.requests,
                  "could_not": pd.DataFrame(self.could_not, columns=["run_id", "why"])}  # fmt: skip
        try:
            for name, table in tables.items():
                table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
            (folder / "summary.json").write_text(json.dumps(self.figures, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def validate(
    runs: Path, where: str | None, replay: Path | None, out: Path, *, jobs: int = 0, force: bool = False, progress: Progress | None = None
) -> Summary:
    """Simulate every chosen run of the table and write predictions, errors and their summary to `out`.

    `where`: which rows (default: quality ok); `replay`: the folder of files the table names (default: beside the table). `jobs`: processes
    (0: one per core). Finished rows are kept in `out` as they end and not run again unless `force`; `progress(done, all)` is called after
    each. Raises BadInput when nothing can be done; a row that cannot be is listed with the reason in place of that.
    """
    table, could_not = read(runs, where)
    if replay is not None and not replay.is_dir():
        raise BadInput(f"--replay {replay}: no such folder; the folder holding the request files of the table is wanted")
    # A table may name its files from its own folder or from the one above, as a collection of several does.
    folders = [replay] if replay else [runs.parent, runs.parent.parent]
    chosen = len(table) + len(could_not)
    store = Store(out, force)
    rows, cases = {row["run_id"]: row for row in table.to_dict("records")}, []
    for row in rows.values():
        try:
            cases.append(case_of(row, folders))
        except BadInput as error:
            could_not.append({"run_id": row["run_id"], "why": str(error)})
    jobs, ticks = jobs or os.cpu_count() or 1, _Ticks(progress, 2 * len(cases))
    found = _all(store, [(case, {}) for case in cases], jobs, ticks)
    could_not += [{"run_id": case.run_id, "why": row["problem"]} for case, row in zip(cases, found, strict=True) if row["problem"]]
    good = [(case, _joined(case, rows[case.run_id], row)) for case, row in zip(cases, found, strict=True) if not row["problem"]]
    if not good:
        reasons = Counter(entry["why"] for entry in could_not).most_common(5)
        raise BadInput([Problem(f"none of the {chosen} rows could be simulated"), *(Problem(f"{n} rows: {why}") for why, n in reasons)])
    done = [row for _, row in good]
    points = residuals(done)
    held = _held_out(store, good, points, jobs, ticks)
    ticks.finish()
    summary = Summary(
        table=runs.name, chosen=chosen, errors=errors_of(done), held=errors_of(held), requests=requests_of(done), could_not=could_not,
        assumed=dict(Counter(text for case, _ in good for text in case.assumed).most_common()), constants=_constants(points),
        releases=by_release(points),
        cpu_s=sum(row["cpu_s"] for row in [*done, *held]),
    )  # fmt: skip
    summary.save(out)
    return summary


def _all(store: Store, wanted: Sequence[tuple[Case, Mapping[str, float]]], jobs: int, ticks: _Ticks) -> list[dict[str, Any]]:
    """The stored row of each case, run where there is none yet."""
    keys = [key_of(case, constants) for case, constants in wanted]
    missing = {key: each for key, each in zip(keys, wanted, strict=True) if store.get(key) is None}
    ticks.add(len(keys) - len(missing))
    for row in _run(missing, jobs):
        store.put(row)
        ticks.add(1)
    found = [store.get(key) for key in keys]
    return [row for row in found if row is not None]


def _run(missing: Mapping[str, tuple[Case, Mapping[str, float]]], jobs: int) -> Iterator[dict[str, Any]]:
    """Rows as they end, in any order."""
    if min(jobs, len(missing)) <= 1:
        yield from (_one(key, case, constants) for key, (case, constants) in missing.items())
        return
    from joblib import Parallel, delayed

    work = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=4)
    yield from work(delayed(_one)(key, case, constants) for key, (case, constants) in missing.items())


def _one(key: str, case: Case, constants: Mapping[str, float]) -> dict[str, Any]:
    """A row for the store: figures, or why there are none."""
    nothing: dict[str, Any] = {"figures": {}, "constants": {}, "requests": [], "cpu_s": 0.0}
    try:
        return {"key": key, "run_id": case.run_id, "problem": "", **predict(case, constants)}
    except BadInput as error:
        return {"key": key, "run_id": case.run_id, "problem": "; ".join(problem.message for problem in error.problems), **nothing}
    except Exception as error:  # one row that breaks the simulator must not cost a thousand others
        return {"key": key, "run_id": case.run_id, "problem": f"the simulator failed: {type(error).__name__}: {error}", **nothing}


def _held_out(
    store: Store, good: Sequence[tuple[Case, dict[str, Any]]], points: pd.DataFrame, jobs: int, ticks: _Ticks
) -> list[dict[str, Any]]:
    """Every run again, with the constants fitted without its model."""
    fitted = {model: fit_constants(points, model) for model in sorted({row["model"] for _, row in good})}
    again = [(case, fitted[row["model"]].get((row["framework"], row["gpu"]), {})) for case, row in good]
    found = _all(store, again, jobs, ticks)
    return [{**row, **new} for (_, row), new in zip(good, found, strict=True) if not new["problem"]]


def _joined(case: Case, row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    pool = case.scenario["cluster"]["pools"][0]
    clients = float(row["concurrency"])
    if clients != clients:
        # Of an open loop, Little's law.
        clients = float(row["request_rate"]) * float(row["e2e_mean_ms"]) / 1e3
    return {
        **found, "measured": case.measured, "source": row["source"], "gpu_written": row["gpu"], "model_written": row["model"],
        "engine": row["engine"], "model": case.scenario["model"], "gpu": pool["gpu"], "framework": pool["engine"]["framework"],
        "version": pool["engine"].get("framework_version", ""), "split": len(case.scenario["cluster"]["pools"]) > 1,
        "concurrency": clients if clients == clients else None, "engine_side": "frontend_overhead" in pool["engine"],
    }  # fmt: skip


def _constants(points: pd.DataFrame) -> list[dict[str, Any]]:
    fitted = fit_constants(points)
    return [
        {"engine": framework, "gpu": gpu, "runs": len(group), "in_use": {name: float(group[name].median()) for name in CONSTANTS},
         "fitted": fitted.get((str(framework), str(gpu)), {})}
        for (framework, gpu), group in points.groupby(["framework", "gpu"])
    ]  # fmt: skip


class _Ticks:
    """Counts rows, and tells."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def add(self, count: int) -> None:
        self.done += count
        if self.progress and count:
            self.progress(self.done, self.total)

    def finish(self) -> None:
        self.add(self.total - self.done)
