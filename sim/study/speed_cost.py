"""Speed against cost: what a user gets (tokens per second) against what a GPU gives, and what a token then costs.

The closed workload of a scenario is run at one concurrency after the other, for each layout asked for. Few users at a time are served
fast and share the weights' traffic among few; many share it among many and wait for each other. A point is on the frontier when no other
gives both more to a user and more per GPU: what is not on it is never the right choice.
"""
from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.spec.curve import Curve
from sim.spec.load import dump, load, loads, located, plain
from sim.spec.scenario import Scenario
from sim.study.run import run
from sim.study.saved import mapping_of, rows_of
from sim.study.shelf import put
from sim.study.validate.store import program

SAVED = "curve.json"
# Figures of a point and where a summary has them.
FIGURES = {
    "gpus": "gpu.count", "output_tokens_per_s_per_gpu": "throughput.output_tokens_per_s_per_gpu", "ttft_p50": "ttft_s.p50",
    "ttft_p95": "ttft_s.p95", "tpot_p50": "tpot_s.p50", "tpot_mean": "tpot_s.mean",
    "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens", "input_usd_per_million": "cost.input_usd_per_million",
    "output_usd_per_million": "cost.output_usd_per_million", "joules_per_output_token": "energy.joules_per_output_token",
    "gpu_watts": "energy.gpu_watts", "grams_per_output_token": "carbon.grams_per_output_token", "busy": "gpu.busy_fraction",
    "preemptions": "kv.preemptions",
}  # fmt: skip
NOTHING = "-"
FEW = 4  # points for each process that are worth the seconds it takes to begin
Progress = Callable[..., None]


class Point(NamedTuple):
    """One run of the sweep: `layout` says what was varied, `scenario` is complete."""

    concurrency: int
    layout: str
    scenario: Scenario


class Sweep(NamedTuple):
    """`rows`, one per finished point: concurrency, layout, `tokens_per_s_per_user` (one over mean TPOT), the figures above in seconds,
    tokens, dollars, joules and grams, and whether it is on the `frontier`. `wanted`: how many points there are.
    """

    scenario: Scenario
    rows: list[dict[str, Any]]
    wanted: int

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame(self.rows)


def points(scenario: Scenario) -> list[Point]:
    """Every run of the scenario's curve, layout by layout. Raises BadInput without a curve, without exactly one closed workload, and for
    what a combination rules out.
    """
    curve = scenario.curve
    if curve is None:
        raise BadInput("the scenario has no curve; give one, such as curve: {concurrency: [1, 4, 16, 64]}")
    kinds = [str(workload["kind"]) for workload in scenario.workloads]
    if kinds != ["closed"]:
        message = f"found the workloads {', '.join(kinds)}; a curve needs exactly one of kind closed, whose concurrency it changes"
        raise BadInput(located([Problem(message, "workloads")], scenario))
    rest = {key: value for key, value in plain(scenario).items() if key != "curve"}
    found, problems = [], dict[Problem, None]()
    for layout in _layouts(curve):
        for concurrency in curve.concurrency:
            load_of = {"workloads.0.concurrency": concurrency, "workloads.0.num_requests": concurrency * curve.rounds}
            try:
                one = loads(rest, {**layout, **load_of})
                found.append(Point(concurrency, _words(layout), one))
            except BadInput as error:
                said = _words(layout)
                problems |= dict.fromkeys(Problem(f"{said}: {problem.path}: {problem.message}", "curve.vary") for problem in error.problems)
    if problems:
        raise BadInput(located(list(problems), scenario))
    return found


def sweep(scenario: Scenario, folder: Path | None = None, jobs: int = 1, progress: Progress | None = None) -> Iterator[Sweep]:
    """Run the points, `jobs` at a time; yields what is finished after each. With a folder the rows are kept in it, and points that are
    there already, of the same scenario and program, are not run again. Raises BadInput as `points` does, and for what a run refuses.
    """
    every = points(scenario)
    old = {row["key"]: row for row in _saved(folder)["rows"]} if folder is not None and (folder / SAVED).is_file() else {}
    keys = [hashlib.sha256(f"{dump(point.scenario)}{program()}".encode()).hexdigest()[:24] for point in every]
    done = {key: old[key] for key in keys if key in old}
    missing = [(key, point) for key, point in zip(keys, every, strict=True) if key not in done]
    for row in itertools.chain([None], _all(missing, jobs)):
        if row is not None:
            done[row["key"]] = row
        if progress is not None:
            progress(len(done), len(every), "points")
        if row is None and missing:
            continue
        finished = Sweep(scenario, marked([done[key] for key in keys if key in done]), len(every))
        if folder is not None:
            save(finished, folder)
        yield finished


def marked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `frontier`: whether no other is at least as good to a user and per GPU, and better in one of them."""
    both = [(row["tokens_per_s_per_user"] or 0.0, row["output_tokens_per_s_per_gpu"] or 0.0) for row in rows]
    return [{**row, "frontier": not any(_beats(other, mine) for other in both)} for row, mine in zip(rows, both, strict=True)]


def prepare(scenario: Scenario, folder: Path, force: bool) -> None:
    """Make the folder of a sweep. One of the same scenario is gone on with; another is replaced with `force`. Raises BadInput."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / SAVED).is_file():
                raise BadInput(f"{folder} is not empty and holds no curve ({SAVED}); choose another folder")
            if not force and _saved(folder)["scenario"] != dump(scenario):
                raise BadInput(f"{folder} holds the curve of another scenario; choose another folder, or give --force to replace it")
            if force:
                (folder / SAVED).unlink()
        folder.mkdir(parents=True, exist_ok=True)
        put(folder, {"scenario.yaml": dump(scenario)})
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def save(found: Sweep, folder: Path) -> None:
    """Write curve.json and curve.csv, each whole or not at all."""
    said = {"version": sim.__version__, "scenario": dump(found.scenario), "wanted": found.wanted, "rows": found.rows}
    put(folder, {SAVED: json.dumps(said, indent=2) + "\n", "curve.csv": found.table.to_csv(index=False)})


def read(folder: Path) -> Sweep:
    """A saved sweep. Raises BadInput when the folder holds none."""
    said = _saved(folder)
    rows_of(said, "rows", folder / SAVED, ("concurrency", "layout", "frontier", "held_back", *FIGURES))
    return Sweep(load(folder / "scenario.yaml", lookup=False), said["rows"], said["wanted"])


def _saved(folder: Path) -> dict[str, Any]:
    said = mapping_of(folder / SAVED, "curve", "run the scenario again with --force", ("scenario", "wanted", "rows"))
    rows_of(said, "rows", folder / SAVED, ("key",))
    return said


def _all(missing: Sequence[tuple[str, Point]], jobs: int) -> Iterator[dict[str, Any]]:
    if min(jobs, len(missing) // FEW) <= 1:
        yield from (_one(key, point) for key, point in missing)
        return
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(_one)(key, point) for key, point in missing)


def _one(key: str, point: Point) -> dict[str, Any]:
    summary = run(point.scenario).summary
    row = {name: _at(summary, path) for name, path in FIGURES.items()}
    user = 1.0 / row["tpot_mean"] if row["tpot_mean"] else None
    ok, held = all(entry["ok"] for entry in summary["audit"].values()), " ".join(reason["text"] for reason in summary["why"])
    return {"key": key, "concurrency": point.concurrency, "layout": point.layout, "tokens_per_s_per_user": user, **row, "held_back": held,
            "audit_ok": ok}  # fmt: skip


def _layouts(curve: Curve) -> list[dict[str, Any]]:
    return [dict(zip(curve.vary, values, strict=True)) for values in itertools.product(*curve.vary.values())]


def _words(layout: Mapping[str, Any]) -> str:
    """What a layout is called: the last words of its keys with their values."""
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in layout.items()) or NOTHING


def _beats(other: tuple[float, float], mine: tuple[float, float]) -> bool:
    return other != mine and other[0] >= mine[0] and other[1] >= mine[1]


def _at(summary: Any, path: str) -> Any:
    for key in path.split("."):
        summary = summary[key] if summary is not None else None
    return summary
