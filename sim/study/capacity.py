"""The most traffic that a cluster bears: up to which load it meets its service levels (the knee), and up to which service keeps up at all.

A load is a factor of the traffic written, or of one key of it. That a higher load never does better is taken for granted. The knee is
bracketed in growing steps and then halved, first with a quarter of the requests, then with half, at last with all of them: short runs say
where to look, long ones what is true, for a queue takes time to grow. One seed gives one answer; how sure it is, several seeds say, at
loads around it. An overloaded run has not met anything, whatever its percentiles.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sim.core.errors import BadInput, Problem
from sim.spec.keys import Keys
from sim.spec.load import dump, load, loads, located, plain
from sim.spec.scenario import Scenario
from sim.study.interval import share
from sim.study.replicate import given, seeded
from sim.study.shelf import put
from sim.study.smallest import limited
from sim.study.traffic import busier, scales, shorter
from sim.study.trial import Trial, binding, trial, trials

LENGTHS = ((0.25, 0.1), (0.5, 0.05), (1.0, 0.02))  # share of the requests, and how narrow the bracket is to be then
SAVED = "capacity.json"
WIDE = 1.5  # the largest step of a search
FAR = 1024.0  # times the traffic written, and one over it: beyond, nothing is looked for
AROUND = (0.7, 0.85, 0.95, 1.0, 1.05, 1.15, 1.3)  # loads of the curve, over that of the knee
FIGURES = {
    "ttft_p50": "ttft_s.p50", "ttft_p99": "ttft_s.p99", "tpot_p50": "tpot_s.p50", "tpot_p99": "tpot_s.p99", "e2e_p99": "e2e_s.p99",
    "attainment": "slo.attainment", "requests_per_s": "throughput.requests_per_s",
    "output_tokens_per_s": "throughput.output_tokens_per_s", "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens",
    "busy": "gpu.busy_fraction",
}  # fmt: skip
Progress = Callable[..., None]


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


def capacity(
    scenario: Scenario | Mapping[str, Any] | str | Path, key: str | None = None, *, replications: int = 5, jobs: int = 1,
    progress: Progress | None = None,
) -> Capacity:  # fmt: skip
    """Find knee and saturation of a scenario, for all its traffic or for one `key` such as workloads.0.rate.

    Raises BadInput without an SLO, for a key that is no positive number, and where there is no rate to be raised.
    """
    scenario = given(scenario)
    try:
        limited(scenario)
    except BadInput as error:
        raise BadInput(located(error.problems, scenario)) from None
    at, unit = _loaded(scenario, key)
    done = 0

    def run(load: float, length: float) -> Trial:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, None, f"runs, load {load:.3g}")
        return trial(shorter(at(load), length))

    known: dict[tuple[float, float], Trial] = {}

    def once(load: float, length: float) -> Trial:
        if (load, length) not in known:
            known[load, length] = run(load, length)
        return known[load, length]

    knee = Bracket(0.0, math.inf)
    for length, within in LENGTHS:
        knee = bracket(lambda load, length=length: once(load, length).met, within, knee)  # type: ignore[misc]
    if not knee.low:
        first = once(min(load for load, length in known if length == 1.0), 1.0)
        return Capacity(scenario, key, unit, knee, knee, [], binding(first), list(first.why), list(first.limits), replications, done)
    saturation = bracket(lambda load: once(load, 1.0).verdict != "overloaded", LENGTHS[0][1], knee)
    beyond = [once(knee.high, 1.0)] if math.isfinite(knee.high) else []
    loads_ = sorted({knee.low, *([knee.high] if beyond else []), *(knee.low * around for around in AROUND)})
    every = [seeded(at(load), number) for load in loads_ for number in range(replications)]
    found = trials(every, jobs, lambda: progress(done, None, "runs, around the knee") if progress is not None else None)
    rows = [_row(load, unit, found[place * replications : (place + 1) * replications]) for place, load in enumerate(loads_)]
    binds, why = (binding(beyond[0]), list(beyond[0].why)) if beyond else ("", [])
    return Capacity(scenario, key, unit, knee, saturation, rows, binds, why, [], replications, done + len(every))


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
    put(folder, texts | {SAVED: json.dumps(said(found), indent=2) + "\n"})


def read(folder: Path) -> Capacity:
    """A saved capacity. Raises BadInput when the folder holds none."""
    try:
        known = json.loads((folder / SAVED).read_text("utf-8"))
        ends = {name: Bracket(*(math.inf if end is None else end for end in known[name])) for name in ("knee", "saturation")}
        return Capacity(**known | ends | {"scenario": load(folder / "scenario.yaml", lookup=False)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"holds no capacity of this version: {error}; find it again with --force"
        raise BadInput([Problem(message, file=str(folder / SAVED))]) from error


def _finite(one: Bracket) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in one]
