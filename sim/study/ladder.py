"""Climb a ladder: run a scenario step by step, and say what each step bought.

Every step is run twice over: on the fleet as written, for latency, waste and evenness, and on the smallest fleet that carries the same
traffic within the SLO (`study/smallest.py`), for throughput per GPU and money. All steps meet the same arrivals and the same draws.

A step that trains by reinforcement learning has no traffic that a fleet could be too small for, and needs no SLO: it is run once, as
written, and compared by its own figures (`study/rl/compare.py`).

A factor compares a step with the one it was put on: throughput per GPU over throughput per GPU, dollars per token the other way round, so
that above 1 is better. Factors of the steps kept multiply to the whole gain. They depend on the order: what two steps both remove, the
first one is given credit for.
"""
from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.spec.load import dump, load, located, steps
from sim.spec.scenario import Scenario
from sim.study.facts import Bins
from sim.study.metrics import Facts
from sim.study.result import Result
from sim.study.run import Watch, run
from sim.study.saved import mapping_of, rows_of
from sim.study.shelf import put
from sim.study.smallest import MOST, Fleet, limited, smallest
from sim.study.validate.store import program
from sim.world.cluster import World

SAVED, TABLE = "ladder.json", "ladder.parquet"
LEARNS = "rl"
PARTS = 24  # of the time in which requests arrive, for the evenness over time
Pages = Mapping[str, Callable[[Result], str]]
# Figures of a step and where a summary has them; those of the smallest fleet are named `needed_*`.
AS_WRITTEN = {
    "gpus": "gpu.count", "verdict": "verdict", "slo_met": "slo.met", "attainment": "slo.attainment", "ttft_p50": "ttft_s.p50",
    "ttft_p95": "ttft_s.p95", "tpot_p50": "tpot_s.p50", "tpot_p95": "tpot_s.p95", "e2e_p95": "e2e_s.p95",
    "output_tokens_per_s": "throughput.output_tokens_per_s", "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens",
    "busy": "gpu.busy_fraction", "kv_mean": "kv.mean_fraction", "kv_internal": "kv.internal_fragmentation",
    "kv_external": "kv.external_fragmentation", "preemptions": "kv.preemptions",
}  # fmt: skip
NEEDED = {
    "gpus": "gpu.count", "usd_per_hour": "cost.usd_per_hour", "output_tokens_per_s_per_gpu": "throughput.output_tokens_per_s_per_gpu",
    "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens", "ttft_p95": "ttft_s.p95", "tpot_p95": "tpot_s.p95",
    "busy": "gpu.busy_fraction",
}  # fmt: skip
# Factor: the figure it compares, and whether more of it is better.
FACTORS = {
    "throughput_factor": ("needed_output_tokens_per_s_per_gpu", True), "cost_factor": ("needed_usd_per_million_output_tokens", False),
    "ttft_factor": ("ttft_p95", False), "tpot_factor": ("tpot_p95", False),
}  # fmt: skip


class Ladder(NamedTuple):
    """`rows`, one per step that is finished: its name, why, kept and folder, the figures above in seconds, tokens and dollars, what held
    requests back on the fleet as written, spreads of utilisation, factors. `wanted`: how many steps there are. `most`: the bound of the
    search for the smallest fleet, replicas of a pool.
    """

    scenario: Scenario
    rows: list[dict[str, Any]]
    wanted: int
    most: int

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table, but for what has figures of its own."""
        return pd.DataFrame([{name: value for name, value in row.items() if name not in (LEARNS, "others")} for row in self.rows])


def climb(
    scenario: Scenario, folder: Path | None = None, *, pages: Pages | None = None, watch: Watch | None = None,
    progress: Callable[..., None] | None = None, most: int = MOST,
) -> Iterator[Ladder]:  # fmt: skip
    """Run the steps one after the other; yields the ladder as far as it is finished after each of them.

    With a folder, the result of each step (as written) is saved in it, with `pages` as `Result.save` takes them, and the rows so far; steps
    that are there already, of the same scenario and program, are not run again. `watch` is for each run, `progress(done, total, name)` for
    the whole. Raises BadInput without an SLO, and for what a run refuses.
    """
    scenarios = steps(scenario)
    if not scenarios:
        raise BadInput("the scenario has no ladder; give steps, such as ladder: [{name: tp 2, set: {cluster.pools.0.parallel.tp: 2}}]")
    _able(scenario, scenarios)
    old = {row["key"]: row for row in _saved(folder)["rows"]} if folder is not None and (folder / SAVED).is_file() else {}
    rows: list[dict[str, Any]] = []
    below: dict[str, Any] | None = None
    for number, (rung, step) in enumerate(zip(scenario.ladder, scenarios, strict=True)):
        if progress is not None:
            progress(number, len(scenarios), rung.name)
        key = hashlib.sha256(f"{dump(step)}{program()}{most}".encode()).hexdigest()[:24]
        place = f"{number + 1:02}-{re.sub(r'[^a-z0-9]+', '-', rung.name.lower()).strip('-')}"
        row = old.get(key)
        if row is None or (folder is not None and not (folder / place).is_dir()):
            result = run(step, watch=watch)
            if folder is not None:
                result.save(folder / place, (folder / place).is_dir(), pages)
            fleet = None if learns(step) else smallest(step, _guess(step, below), most, lambda one: run(one, watch=watch))
            row = figures(result, fleet)
        words = {"key": key, "name": rung.name, "why": rung.why, "kept": rung.kept, "folder": place}
        row = words | {name: value for name, value in row.items() if name not in words} | factors(row, below)
        rows.append(row)
        below = row if rung.kept else below
        ladder = Ladder(scenario, list(rows), len(scenarios), most)
        if folder is not None:
            save(ladder, folder)
        yield ladder


def figures(result: Result, fleet: Fleet | None) -> dict[str, Any]:
    """A step in figures: its run as written, and the smallest fleet; without one those figures are None. `rl`: those of its one run of
    reinforcement learning, None where there is none, or several; `others`: requests beside it.
    """
    trained = list((result.summary["rl"] or {}).values())
    across, over_time = spreads(Facts(result))
    audits = [one.summary["audit"] for one in (result, fleet.result if fleet else result)]
    return {
        **{name: _at(result.summary, path) for name, path in AS_WRITTEN.items()}, "spread_replicas": across, "spread_time": over_time,
        "held_back": " ".join(reason["text"] for reason in result.summary["why"]) or None,
        "needed_replicas": sum(fleet.replicas) if fleet else None,
        **{f"needed_{name}": _at(fleet.result.summary, path) if fleet else None for name, path in NEEDED.items()},
        "rl": trained[0] if len(trained) == 1 else None, "others": others(result) if trained else None,
        "audit_ok": all(entry["ok"] for audit in audits for entry in audit.values()),
    }  # fmt: skip


def others(result: Result) -> dict[str, float | None] | None:
    """Requests beside those of reinforcement learning: how many, those completed, seconds to the first token and the end; None without."""
    requests = result.requests
    mine = requests[~requests["workload"].isin([one["name"] for one in result.meta.get("rl", [])])]
    if not len(mine):
        return None
    done = mine[mine["status"] == "completed"]
    points = {"ttft_p50": ("ttft", 0.5), "ttft_p95": ("ttft", 0.95), "e2e_p50": ("e2e", 0.5), "e2e_p95": ("e2e", 0.95)}
    return {"requests": len(mine), "completed": len(done),
            **{name: float(done[column].quantile(share)) if len(done) else None for name, (column, share) in points.items()}}  # fmt: skip


def learns(scenario: Scenario) -> bool:
    """Whether a workload of it is reinforcement learning."""
    return any(options["kind"] == LEARNS for options in scenario.workloads)


def factors(row: Mapping[str, Any], below: Mapping[str, Any] | None) -> dict[str, float | None]:
    """How many times better a step is than the one it was put on, by each of FACTORS; None where one of the two has no figure."""

    def factor(name: str, more: bool) -> float | None:
        new, old = row[name], below[name] if below else None
        return None if not new or not old else new / old if more else old / new

    return {name: factor(*said) for name, said in FACTORS.items()}


def spreads(facts: Facts) -> tuple[float | None, float | None]:
    """How uneven the GPUs are used while requests arrive: standard deviation over mean of the busy share, across replicas and over PARTS
    equal parts of that time. None when nothing ran then.
    """
    edges = np.linspace(*facts.arrivals, PARTS + 1)
    if edges[0] == edges[-1]:
        return None, None
    count = len(facts.gpus)
    bins = [Bins(edges) for _ in range(count)]
    for page in facts.stretches():
        order = np.argsort(page["replica"], kind="stable")
        parts = np.searchsorted(page["replica"][order], np.arange(count + 1))
        for number, (begin, end) in enumerate(pairwise(parts)):
            bins[number].add(page["start"][order[begin:end]], page.end[order[begin:end]])
    busy = np.array([one.means() for one in bins])
    fleet = facts.gpus @ busy / facts.gpus.sum()
    if not fleet.any():
        return None, None
    shares = busy.mean(axis=1)
    return float(shares.std() / shares.mean()), float(fleet.std() / fleet.mean())


def prepare(scenario: Scenario, folder: Path, force: bool) -> None:
    """Make the folder of a ladder. One of the same scenario is gone on with; another is replaced with `force`. Raises BadInput."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / SAVED).is_file():
                raise BadInput(f"{folder} is not empty and holds no ladder ({SAVED}); choose another folder")
            if force:
                shutil.rmtree(folder)
            elif _saved(folder)["scenario"] != dump(scenario):
                raise BadInput(f"{folder} holds the ladder of another scenario; choose another folder, or give --force to replace it")
        folder.mkdir(parents=True, exist_ok=True)
        put(folder, {"scenario.yaml": dump(scenario)})
        if not (folder / SAVED).is_file():
            save(Ladder(scenario, [], len(scenario.ladder), MOST), folder)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def save(ladder: Ladder, folder: Path) -> None:
    """Write ladder.json and ladder.parquet, each whole or not at all."""
    said = ladder._asdict() | {"version": sim.__version__, "scenario": dump(ladder.scenario)}
    put(folder, {TABLE: ladder.table.to_parquet(), SAVED: json.dumps(said, indent=2) + "\n"})


def read(folder: Path) -> Ladder:
    """A saved ladder. Raises BadInput when the folder holds none."""
    said = _saved(folder)
    rows_of(said, "rows", folder / SAVED, ("why", "kept", "folder", "held_back", "audit_ok", *AS_WRITTEN, *FACTORS))
    if not said["rows"]:
        raise BadInput(f"{folder} holds a ladder of which no step is finished yet; run its scenario again")
    return Ladder(load(folder / "scenario.yaml", lookup=False), said["rows"], said["wanted"], said["most"])


def _saved(folder: Path) -> dict[str, Any]:
    said = mapping_of(folder / SAVED, "ladder", "run the scenario again with --force", ("scenario", "wanted", "most", "rows"))
    rows_of(said, "rows", folder / SAVED, ("key", "name"))
    return said


def _able(scenario: Scenario, scenarios: Sequence[Scenario]) -> None:
    """Raise BadInput, at the steps' own lines, for what no run could begin with: said before the first step and not after hours."""
    problems = []
    for number, step in enumerate(scenarios):
        try:
            if not learns(step):
                limited(step)
            World(step)
        except BadInput as error:
            problems += [Problem(f"{problem.path}: {problem.message}".lstrip(": "), f"ladder.{number}") for problem in error.problems]
    if problems:
        raise BadInput(located(problems, scenario))


def _guess(step: Scenario, below: Mapping[str, Any] | None) -> int | None:
    """Replicas to begin the search with: as many GPUs as the step below needed."""
    if below is None or below["needed_gpus"] is None:
        return None
    pools = [pool for pool in step.cluster.pools if pool.shares is None]
    return max(1, round(below["needed_gpus"] * max(p.replicas for p in pools) / sum(p.replicas * p.parallel.gpus for p in pools)))


def _at(summary: Any, path: str) -> Any:
    for key in path.split("."):
        summary = summary[key] if summary is not None else None
    return summary
