"""Three wishes at once: tokens per second of a user, tokens per second of a GPU, and dollars per million tokens. What no point beats is
chosen.

Every layout of the block `plan`, or the cluster as written, is run with one replica at rising load: parts of the rate that it cannot exceed
(`bounds.py`), or numbers of clients where they wait for their answers. A point is on the frontier when no other is at least as good in all
three and better in one. An overloaded run is on none: what it gives it does not give for long. Speeds are of answers: one over the mean
TPOT for a user, all output tokens over time and GPUs.
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.core.explain import show
from sim.spec.load import dump, load, located, whole
from sim.spec.plan import Search
from sim.spec.scenario import Scenario
from sim.spec.yaml_marks import Document
from sim.study.journal import Kind, decided
from sim.study.plan import bounds
from sim.study.plan.layouts import SAME, Layout, Layouts
from sim.study.plan.ledger import Ledger, Question
from sim.study.plan.plan import asked, written
from sim.study.plan.traffic import busier, scales
from sim.study.plan.trial import Trial
from sim.study.saved import DAMAGED, mapping_of, rows_of
from sim.study.shelf import put

SAVED = "pareto.json"
KIND = Kind("trials.jsonl", "frontier", ("key",), SAVED)
SHARES = (0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)  # of the rate that a replica cannot exceed
FACTORS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of what is written, where no such rate is known
FEWEST = 100  # requests of a point, so that a low load says something too
FIGURES = {
    "output_tokens_per_s_per_gpu": "throughput.output_tokens_per_s_per_gpu", "ttft_p50": "ttft_s.p50", "ttft_p99": "ttft_s.p99",
    "tpot_p50": "tpot_s.p50", "tpot_p99": "tpot_s.p99", "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens",
    "joules_per_output_token": "energy.joules_per_output_token", "requests_per_s": "throughput.requests_per_s", "gpus": "gpu.count",
}  # fmt: skip
SPEED, YIELD, PRICE = "tokens_per_s_per_user", "output_tokens_per_s_per_gpu", "usd_per_million_output_tokens"
MOST = 64  # layouts


class Point(NamedTuple):
    """One run: `load` is the rate of requests, or clients, of one replica; where neither is written, times the traffic."""

    layout: str
    load: float
    scenario: Scenario


class Pareto(NamedTuple):
    """`rows`, one per point: layout, load, the three speeds and prices, further figures, `met`, and whether it is on the `frontier`.
    `refused`: layouts that cannot be, with the reason.
    """

    scenario: Scenario
    rows: list[dict[str, Any]]
    refused: list[tuple[str, str]]

    @property
    def frame(self) -> pd.DataFrame:
        """The points as a table."""
        return pd.DataFrame(self.rows)

    @property
    def frontier(self) -> pd.DataFrame:
        """Those on the frontier, the fastest for a user first."""
        table = self.frame
        return table[table["frontier"]].sort_values(SPEED, ascending=False, ignore_index=True)

    def _repr_html_(self) -> str:
        return sim.pareto_html(self)  # see `study/result.py`


def pareto(
    given: Scenario | Mapping[str, Any] | Document | str | Path, folder: str | Path | None = None, *, jobs: int = 1, force: bool = False,
) -> Pareto:  # fmt: skip
    """Run all points and mark the frontier.

    `folder` keeps what is done, is gone on with, and has the frontier at last; one that has it already is replaced with `force`. Raises
    BadInput where nothing of the traffic can be raised, for too many layouts, and for a folder of something else.
    """
    found: Pareto = question(given).answer(Path(folder) if folder is not None else None, jobs=jobs, force=force)
    return found


def question(given: Scenario | Mapping[str, Any] | Document | str | Path) -> Question:
    """What `pareto` asks. Raises BadInput as it does."""
    document = written(given)
    scenario = whole(document)
    if not scales(scenario, busier):
        message = "nothing of its traffic can be raised; a frontier is of traffic with a rate or a concurrency"
        raise BadInput(located([Problem(message, "workloads")], scenario))
    layouts = Layouts(scenario, scenario.plan or Search(), document)
    if len(layouts) > MOST:
        raise BadInput(located([Problem(f"there are {len(layouts):,} layouts; a frontier takes {MOST} at most", "plan")], scenario))
    return Question(KIND, decided(asked(document)), lambda ledger: _found(scenario, layouts, ledger), save)


def _found(scenario: Scenario, layouts: Layouts, ledger: Ledger) -> Pareto:
    points, refused = list[Point](), list[tuple[str, str]]()
    for layout in layouts:
        if not layout.refused:
            points += _points(layout, ledger)
        elif not layout.refused.startswith(SAME):
            refused.append((layout.words, layout.refused))
    if not points:
        reasons = ". ".join(dict.fromkeys(f"{layout}: {why}" for layout, why in refused))
        raise BadInput(located([Problem(f"none of the layouts can be: {reasons}", "plan")], scenario))
    by = {(point.layout, number): point for number, point in enumerate(points)}
    found = ledger.many(list(by), lambda key: by[key[0], key[1]].scenario)
    rows = [_row(point, one) for point, one in zip(points, found, strict=True) if not one.refused]
    refused += [(point.layout, one.refused) for point, one in zip(points, found, strict=True) if one.refused]
    return Pareto(scenario, marked(rows), list(dict.fromkeys(refused)))


def marked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `frontier`; one without all three figures, or overloaded, is not on it.

    >>> rows = [{SPEED: 2, YIELD: 1, PRICE: 1, "verdict": ""}, {SPEED: 1, YIELD: 2, PRICE: 1, "verdict": ""},
    ...         {SPEED: 1, YIELD: 1, PRICE: 1, "verdict": ""}]
    >>> [row["frontier"] for row in marked(rows)]
    [True, True, False]
    """
    able = [row[SPEED] is not None and row[YIELD] is not None and row["verdict"] != "overloaded" for row in rows]
    # Without prices two wishes are left.
    points = [(row[SPEED] or 0.0, row[YIELD] or 0.0, -(row[PRICE] or 0.0)) for row in rows]
    kept = [point for point, fits in zip(points, able, strict=True) if fits]
    return [
        {**row, "frontier": fits and not any(_beats(other, mine) for other in kept)}
        for row, mine, fits in zip(rows, points, able, strict=True)
    ]  # fmt: skip


def _points(layout: Layout, ledger: Ledger) -> Iterator[Point]:
    base = layout.sized(1)
    rates = [one["rate"] for one in base.workloads if one.get("rate") is not None]
    clients = [one["concurrency"] for one in base.workloads if one.get("concurrency") is not None]
    if clients and not rates:
        most = layout.mine.engine.max_num_seqs * layout.step.lanes
        for power in range(most.bit_length()):
            yield Point(layout.words, float(2**power), _sent(busier(base, 2**power / sum(clients))))
        return
    written = sum(rates) if rates else 1.0
    wanted = ledger.demand(("demand", layout.words), lambda: base)
    most_rate = 1.0 / bounds.each(layout, wanted) if wanted is not None else None
    now = wanted.requests / wanted.window if wanted is not None and wanted.window else None
    factors = [part * most_rate / now for part in SHARES] if most_rate and now else list(FACTORS)
    for factor in factors:
        yield Point(layout.words, written * factor, _sent(busier(base, factor)))


def _sent(scenario: Scenario) -> Scenario:
    """The scenario with enough requests."""
    made = []
    for options in scenario.workloads:
        count = options.get("num_requests")
        made.append(options if count is None else {**options, "num_requests": max(count, FEWEST, 2 * (options.get("concurrency") or 0))})
    return scenario.model_copy(update={"workloads": tuple(made)})


def _row(point: Point, one: Trial) -> dict[str, Any]:
    tpot = one.figures.get("tpot_s.mean")
    return {
        "layout": point.layout, "load": point.load, SPEED: 1.0 / tpot if tpot else None, "verdict": one.verdict,
        "met": one.met if one.limits else None, **{name: one.figures.get(path) for name, path in FIGURES.items()},
    }  # fmt: skip


def _beats(other: tuple[float, ...], mine: tuple[float, ...]) -> bool:
    return other != mine and all(a >= b for a, b in zip(other, mine, strict=True))


def save(found: Pareto, folder: Path) -> None:
    """Write pareto.json and the points as pareto.csv, each whole or not at all."""
    said = {"version": sim.__version__, "name": found.scenario.name, "refused": found.refused, "rows": found.rows}
    texts = {"scenario.yaml": dump(found.scenario), "pareto.csv": found.frame.to_csv(index=False)}
    put(folder, texts | {SAVED: json.dumps(said, indent=2) + "\n"})


def read(folder: Path) -> Pareto:
    """A saved frontier. Raises BadInput when the folder holds none."""
    path = folder / SAVED
    said = mapping_of(path, "frontier", "run it again with --force", ("rows", "refused"))
    rows = rows_of(said, "rows", path, ("layout", "load", SPEED, "verdict", "met", "frontier", *FIGURES))
    try:
        refused = [(str(layout), str(why)) for layout, why in said["refused"]]
    except (TypeError, ValueError) as error:
        what = f"found {show(said['refused'])}; layouts with reasons are wanted: {DAMAGED}"
        raise BadInput([Problem(what, "refused", str(path))]) from error
    return Pareto(load(folder / "scenario.yaml", lookup=False), rows, refused)
