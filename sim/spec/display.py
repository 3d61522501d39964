"""A scenario as a notebook shows it: what runs on what, under which traffic, with which promises. From what was written alone: nothing is
looked up in a catalogue and no file is read, so that one with a file that has moved is shown too.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sim.core import display
from sim.spec.limits import worded

if TYPE_CHECKING:
    from sim.spec.scenario import Pool, Scenario

TIMES = ("start", "duration")  # settings of workloads that are seconds
SOME = 5  # settings named of one workload
STUDIES = {"ladder": "a ladder of {} steps", "curve": "a curve of loads", "plan": "a plan", "sweep": "a sweep"}


def html(scenario: Scenario) -> str:
    """A heading, the description, and a row for each part."""
    about = display.said(scenario.description, soft=True)
    return display.shown("scenario", scenario.name, about, display.table(("", ""), list(_rows(scenario))))


def _rows(scenario: Scenario) -> Iterator[tuple[str, str]]:
    cluster = scenario.cluster
    yield "model", scenario.model
    for pool in cluster.pools:
        yield f"pool {pool.name}", _pool(pool)
    for one in cluster.trainers:
        yield f"trainer {one.name}", f"on the GPUs of {one.shares}, in turn" if one.shares else f"{one.gpus:,} × {one.gpu}"
    for boxes in cluster.sandboxes:
        yield f"sandboxes {boxes.name}", "on nodes that come and go" if boxes.nodes is None else f"on {boxes.nodes:,} nodes"
    for workload in scenario.workloads:
        yield "traffic", _workload(workload)
    limits = [f"{worded(name)} ≤ {_seconds(value)}" for name, value in scenario.slo if value is not None and name != "attainment"]
    if limits:
        share = scenario.slo.attainment
        yield "SLO", ", ".join(limits) + (f", by {100 * share:g}% of the requests" if share is not None else "")
    if scenario.duration is not None:
        yield "duration", _seconds(scenario.duration)
    for name, words in STUDIES.items():
        found = vars(scenario)[name]
        if found:
            yield "study", words.format(len(scenario.ladder))
    yield "seed", f"{scenario.seed}"


def _pool(pool: Pool) -> str:
    layout = ", ".join(f"{name} {value}" for name, value in pool.parallel if value > 1)
    each, bounds = pool.parallel.gpus, pool.autoscale
    count = pool.replicas * each
    if pool.shares is not None:
        gpus = f"on the GPUs of {pool.shares.pool}, in turn"
    elif bounds is not None:
        gpus = f"{bounds.min:,} to {bounds.max:,} replicas of {each} × {pool.gpu}"
    else:
        gpus = f"{count:,} × {pool.gpu}" + (f" ({pool.replicas:,} replica{'s' * (pool.replicas != 1)} of {each})" if each > 1 else "")
    role = "" if pool.role == "both" else pool.role
    kinds = dict.fromkeys((pool.precision.attention, pool.precision.mlp))
    return "; ".join(filter(None, (gpus, layout, " and ".join(kinds), pool.model or "", role, pool.region)))


def _workload(options: Mapping[str, Any]) -> str:
    """Its kind and the first of what is set to a plain value; what is 0, 1 or empty mostly says nothing."""
    plain = {key: value for key, value in options.items() if isinstance(value, str | int | float) and not isinstance(value, bool)}
    told = [f"{key} {_plain(key, value)}" for key, value in plain.items() if key != "kind" and value not in ("", 0, 1)]
    kind = str(options.get("kind", ""))
    # A preset says its name by itself.
    return ", ".join([kind] * (kind not in plain) + told[:SOME])


def _plain(key: str, value: str | int | float) -> str:
    if key in TIMES and not isinstance(value, str):
        return _seconds(value)
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _seconds(value: float) -> str:
    return f"{1000 * value:g} ms" if value < 1 else f"{value:g} s"
