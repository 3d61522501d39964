"""The most traffic that a cluster bears: up to which load it meets its service levels (the knee), and up to which service keeps up at all.

A load is a factor of the traffic written, or of one key of it. That a higher load never does better is taken for granted. The knee is
bracketed in growing steps and then halved, first with a quarter of the requests, then with half, at last with all of them: short runs say
where to look, long ones what is true, for a queue takes time to grow. One seed gives one answer; how sure it is, several seeds say, at
loads around it. An overloaded run has not met anything, whatever its percentiles.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import sim
from sim.core.errors import BadInput, Problem
from sim.spec.keys import Keys
from sim.spec.load import dump, load, loads, located, plain
from sim.spec.scenario import Scenario
from sim.study.journal import Kind, decided
from sim.study.plan import bounds
from sim.study.plan.layouts import Layout
from sim.study.plan.ledger import Ledger, Question
from sim.study.plan.traffic import busier, scales, shorter
from sim.study.plan.trial import Trial, binding
from sim.study.replicate.interval import share
from sim.study.replicate.replicate import given, seeded
from sim.study.saved import DAMAGED, mapping_of, rows_of
from sim.study.shelf import put
from sim.study.smallest import limited
from sim.study.sweep.space import plain as without_studies

LENGTHS = ((0.25, 0.1), (0.5, 0.05), (1.0, 0.02))  # share of the requests, and how narrow the bracket is to be then
SAVED = "capacity.json"
KIND = Kind("trials.jsonl", "capacity", ("key",), SAVED)
WIDE = 1.5  # the largest step of a search
FAR = 1024.0  # times the traffic written, and one over it: beyond, nothing is looked for
AROUND = (0.7, 0.85, 0.95, 1.0, 1.05, 1.15, 1.3)  # loads of the curve, over that of the knee
FIGURES = {
    "ttft_p50": "ttft_s.p50", "ttft_p99": "ttft_s.p99", "tpot_p50": "tpot_s.p50", "tpot_p99": "tpot_s.p99", "e2e_p99": "e2e_s.p99",
    "attainment": "slo.attainment", "requests_per_s": "throughput.requests_per_s",
    "output_tokens_per_s": "throughput.output_tokens_per_s", "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens",
    "busy": "gpu.busy_fraction",
}  # fmt: skip


class Bracket(NamedTuple):
    """`low` holds, `high` does not: loads. 0 and inf where none was found to hold, or to fail."""

    low: float
    high: float


class Capacity(NamedTuple):
    """`knee` and `saturation` are brackets of loads, factors of what is written; `unit` is what the load of 1 is of `key`, None for all
    traffic. `rows`: the curve, one per load, figures as means over `replications` and the share that met the SLO, with its interval.
    `binds`: what fails just above the knee, `why` in the words of that run. `best`: where none meets it, the limits of the least load.
    """

    scenario: Scenario
    key: str | None
    unit: float | None
    knee: Bracket
    saturation: Bracket
    rows: list[dict[str, Any]]
    binds: str
    why: list[str]
    best: list[dict[str, Any]]
    replications: int
    runs: int

    @property
    def frame(self) -> pd.DataFrame:
        """The curve as a table."""
        return pd.DataFrame(self.rows)

    @property
    def met(self) -> float | None:
        """Share of the replications that met the SLO at the lower end of the bracket."""
        return next((row["met"] for row in self.rows if row["load"] == self.knee.low), None)

    def _repr_html_(self) -> str:
        return sim.capacity_html(self)  # see `study/result.py`


def capacity(
    scenario: Scenario | Mapping[str, Any] | str | Path, key: str | None = None, folder: str | Path | None = None, *,
    replications: int = 5, jobs: int = 1, force: bool = False,
) -> Capacity:  # fmt: skip
    """Find knee and saturation of a scenario, for all its traffic or for one `key` such as workloads.0.rate.

    `folder` keeps what is done, is gone on with, and has the answer at last; one that has it already is replaced with `force`. Raises
    BadInput without an SLO, for a key that is no positive number, where there is no rate to be raised, and for a folder of something else.
    """
    asked = question(given(scenario), key, replications)
    found: Capacity = asked.answer(Path(folder) if folder is not None else None, jobs=jobs, force=force)
    return found


def question(scenario: Scenario, key: str | None = None, replications: int = 5) -> Question:
    """What `capacity` asks. Raises BadInput as it does."""
    try:
        limited(scenario)
    except BadInput as error:
        raise BadInput(located(error.problems, scenario)) from None
    at, unit = _loaded(scenario, key)

    def find(ledger: Ledger) -> Capacity:
        return _found(scenario, Loads(key, unit, at, ledger), replications)

    return Question(KIND, {"key": key, **decided(without_studies(scenario))}, find, save)


class Loads:
    """Runs of a scenario by load, a factor of `key`, which is `unit` as written."""

    def __init__(self, key: str | None, unit: float | None, at: Callable[[float], Scenario], ledger: Ledger):
        self.key, self.unit = key, unit
        self._at, self._ledger = at, ledger
        self._asked: dict[tuple[float, float, int], None] = {}

    @property
    def runs(self) -> int:
        """How many different ones were asked for."""
        return len(self._asked)

    @property
    def least(self) -> float:
        """The least load that was run with all requests."""
        return min(load for load, length, _ in self._asked if length == 1.0)

    def once(self, load: float, length: float) -> Trial:
        """Part of the requests, with the seed of the scenario."""
        self._asked[load, length, 0] = None
        return self._ledger.one((load, length, 0), lambda: shorter(self._at(load), length))

    def many(self, loads: Sequence[float], replications: int) -> list[list[Trial]]:
        """All requests at each load, with so many seeds."""
        keys = [(load, 1.0, number) for load in loads for number in range(replications)]
        self._asked |= dict.fromkeys(keys)
        found = self._ledger.many(keys, lambda key: seeded(self._at(key[0]), key[2]))
        return [found[start : start + replications] for start in range(0, len(found), replications)]


def _found(scenario: Scenario, loads: Loads, replications: int) -> Capacity:
    key, unit, knee = loads.key, loads.unit, Bracket(0.0, math.inf)
    for length, within in LENGTHS:
        knee = bracket(lambda load, length=length: loads.once(load, length).met, within, knee)  # type: ignore[misc]
    if not knee.low:
        first = loads.once(loads.least, 1.0)
        floor = bounds.impossible(Layout({}, 0, scenario), None) if scenario.cluster.pools else ""
        why = [f"{floor}, at any load."] if floor else list(first.why)
        return Capacity(scenario, key, unit, knee, knee, [], binding(first), why, list(first.limits), replications, loads.runs)
    saturation = bracket(lambda load: loads.once(load, 1.0).verdict != "overloaded", LENGTHS[0][1], knee)
    beyond = [loads.once(knee.high, 1.0)] if math.isfinite(knee.high) else []
    points = sorted({knee.low, *([knee.high] if beyond else []), *(knee.low * around for around in AROUND)})
    rows = [_row(load, unit, found) for load, found in zip(points, loads.many(points, replications), strict=True)]
    binds, why = (binding(beyond[0]), list(beyond[0].why)) if beyond else ("", [])
    return Capacity(scenario, key, unit, knee, saturation, rows, binds, why, [], replications, loads.runs)


def bracket(holds: Callable[[float], bool], within: float, before: Bracket = Bracket(0.0, math.inf)) -> Bracket:  # noqa: B008
    """The load between which and the next `holds` turns false, to a ratio of 1 + `within`; `before` is where to look first.

    >>> found = bracket(lambda load: load < 5, 0.05)
    >>> found.low < 5 <= found.high < 1.05 * found.low
    True
    """
    low, high = before.low or 1.0, before.high
    # What shorter runs said is asked again at its ends, and left in small steps that grow where it was wrong.
    step = max(high / low, 1.0 + within) if before.low and math.isfinite(high) else WIDE
    if holds(low):
        high = high if math.isfinite(high) else low * step
        while holds(high):
            step = min(step * step, WIDE)
            low, high = high, high * step
            if high > FAR:
                return Bracket(low, math.inf)
    else:
        low, high = low / step, low
        while not holds(low):
            step = min(step * step, WIDE)
            low, high = low / step, low
            if low < 1.0 / FAR:
                return Bracket(0.0, high)
    while high / low > 1.0 + within:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return Bracket(low, high)


def headroom(scenario: Scenario, holds: Callable[[Scenario], bool], within: float = 0.05) -> Bracket | None:
    """Times the traffic that a cluster bears which bears it once; None where nothing of it can be raised."""
    if not scales(scenario, busier):
        return None
    return bracket(lambda load: holds(busier(scenario, load)), within)


def _loaded(scenario: Scenario, key: str | None) -> tuple[Callable[[float], Scenario], float | None]:
    """How the scenario is at a load, and what of the key a load of 1 is."""
    if key is None:
        if not scales(scenario, busier):
            kinds = ", ".join(str(one["kind"]) for one in scenario.workloads)
            message = f"nothing of {kinds} can be raised; a capacity is of traffic with a rate or a concurrency (or name a key with --key)"
            raise BadInput(located([Problem(message, "workloads")], scenario))
        sole = scenario.workloads[0] if len(scenario.workloads) == 1 else {}
        rates = [sole[name] for name in ("rate", "concurrency") if sole.get(name) is not None]
        return (lambda load: busier(scenario, load)), (float(rates[0]) if rates else None)
    data = plain(scenario)
    whole = Keys(data, (key,)).whole(key)
    value = data
    for name in key.split("."):
        value = value[int(name)] if isinstance(value, list) else (value or {}).get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise BadInput(f"--key {key}: found {value}; a number above 0 is wanted in the scenario, to be multiplied")
    kept: Mapping[str, Any] = {name: part for name, part in data.items() if name not in ("ladder", "curve", "plan", "sweep")}
    places = key.split(".")
    sent = places[0] == "workloads" and places[-1] in ("rate", "concurrency", "rate_scale")

    def at(load: float) -> Scenario:
        if sent and len(places) == 3:
            one = busier(scenario.model_copy(update={"workloads": (scenario.workloads[int(places[1])],)}), load).workloads[0]
            every = (*scenario.workloads[: int(places[1])], one, *scenario.workloads[int(places[1]) + 1 :])
            return scenario.model_copy(update={"workloads": every})
        return loads(kept, {key: max(1, round(value * load)) if whole else value * load})

    return at, float(value)


def _row(load: float, unit: float | None, found: list[Trial]) -> dict[str, Any]:
    met = share([one.met for one in found]) if len(found) > 1 else None
    row: dict[str, Any] = {
        "load": load, "value": None if unit is None else unit * load, "runs": len(found), "met": sum(one.met for one in found) / len(found),
        "met_low": met.low if met else None, "met_high": met.high if met else None,
        "overloaded": sum(one.verdict == "overloaded" for one in found) / len(found),
    }  # fmt: skip
    for name, path in FIGURES.items():
        values = [one.figures[path] for one in found if path in one.figures]
        row[name] = sum(values) / len(values) if values else None
    return row


def said(found: Capacity) -> dict[str, Any]:
    """A capacity as JSON; a bracket without an end has None there."""
    kept_ = {name: value for name, value in found._asdict().items() if name != "scenario"}
    return kept_ | {"knee": _finite(found.knee), "saturation": _finite(found.saturation)}


def save(found: Capacity, folder: Path) -> None:
    """Write capacity.json and the curve as capacity.csv, each whole or not at all."""
    texts = {"scenario.yaml": dump(found.scenario), "capacity.csv": found.frame.to_csv(index=False)}
    put(folder, texts | {SAVED: json.dumps(said(found) | {"version": sim.__version__}, indent=2) + "\n"})


def read(folder: Path) -> Capacity:
    """A saved capacity. Raises BadInput when the folder holds none."""
    path = folder / SAVED
    told = mapping_of(path, "capacity", "find it again with --force", [name for name in Capacity._fields if name != "scenario"])
    try:
        ends = {name: Bracket(*(math.inf if end is None else float(end) for end in told[name])) for name in ("knee", "saturation")}
    except (TypeError, ValueError) as error:
        raise BadInput([Problem(f"has a knee or a saturation that is no pair of loads ({error}): {DAMAGED}", file=str(path))]) from error
    rows_of(told, "rows", path, ("load", "value", "runs", "met", "met_low", "met_high", "overloaded", *FIGURES))
    kept = {name: told[name] for name in Capacity._fields if name not in ("scenario", *ends)}
    return Capacity(**kept, **ends, scenario=load(folder / "scenario.yaml", lookup=False))


def _finite(one: Bracket) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in one]
