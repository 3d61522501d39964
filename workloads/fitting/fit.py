"""A log turned into a generator: the first part of it fits, the later part judges, and both are compared with what is generated.

Every generator is drawn several times over as long a time as the later part, and its figures are averaged; what one draw differs from the
next is chance, which no fit can remove. The one nearest to the later part in burstiness is kept (they share rate and lengths), and fitted
once more to the whole log. Where a figure misses, the comparison of the first part with the later one says how far the log itself moved.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.core.errors import BadInput, Problem
from sim.core.registry import WORKLOADS
from workloads.fitting import candidates
from workloads.fitting.figures import Quantity, distance, figures, off, quantities
from workloads.fitting.lengths import lengths
from workloads.fitting.log import LEAST, Log, clock, clocked
from workloads.fitting.traffic import sent

SEEDS = 20
LEAST_PART = 50
MOST_ARRIVALS = 4_000_000
SCORED = ("gap_cv", "fano", "peak")
# The part of the draws between these is called chance.
CHANCE = (0.05, 0.95)
Progress = Callable[..., None]


class Candidate(NamedTuple):
    """A generator: its `options` without lengths and end, or `why` there are none; mean `figures` of its draws, and all `draws`."""

    kind: str
    options: dict[str, Any]
    why: str
    score: float
    figures: dict[str, float]
    draws: list[dict[str, float]]


class Row(NamedTuple):
    """One figure. `error` of generated against later, `drift` of later against first, `own` of as long a draw against the first part.

    `low` and `high`: nine of ten draws lie between. `verdict`: met, chance (the later figure is one such as draws have), drift (draws have
    the figure of the first part, so the log moved), or model.
    """

    quantity: Quantity
    first: float
    later: float
    generated: float
    low: float
    high: float
    error: float
    drift: float
    own: float
    verdict: str


class Fit(NamedTuple):
    """`cut`: seconds of the log at which the later part begins. `best` of the `candidates`; `workload`: complete, of the whole log."""

    log: Log
    cut: float
    candidates: list[Candidate]
    best: Candidate
    rows: list[Row]
    workload: dict[str, Any]
    example: Log
    remarks: list[str]


def fit(log: Log, train: float = 0.7, kind: str = "auto", seeds: int = SEEDS, progress: Progress = lambda *done: None) -> Fit:
    """The best of the generators, or that of `kind`, of a log whose first part `train` fits. Raises BadInput when there is too little."""
    wanted = [name for name in candidates.kinds() if kind in ("auto", name, name.partition("_")[0])]
    cut = train * log.span
    first, later = log.part(0.0, cut), log.part(cut, log.span)
    for words, part in (("first", first), ("later", later)):
        if len(part.times) < LEAST_PART:
            message = f"the {words} part, of {part.span:,.0f} s, holds {len(part.times)} requests; at least {LEAST_PART} are wanted in each"
            raise BadInput([Problem(f"{message}; another --train would split it elsewhere", file=log.name)])
    seeds = max(3, min(seeds, MOST_ARRIVALS // len(later.times) // len(wanted)))
    real, past = _figures(later), _figures(first)
    arrivals, sizes = candidates.arrivals(first), lengths(first.prompt, first.output)
    tried = []
    for number, name in enumerate(wanted):
        progress(number, len(wanted), name)
        options = candidates.fit(name, arrivals)
        if isinstance(options, str):
            tried.append(Candidate(name, {}, options, math.inf, {}, []))
            continue
        draws = [_figures(draw(candidates.shifted(options, cut), sizes, later, seed)) for seed in range(seeds)]
        mean = {key: _mean([one[key] for one in draws]) for key in real}
        tried.append(Candidate(name, options, "", distance(mean, real, [key for key in real if key.startswith(SCORED)]), mean, draws))
    usable = [one for one in tried if one.options]
    if not usable:
        raise BadInput([Problem(f"no generator of kind {kind}: {tried[0].why}", file=log.name)])
    progress(len(wanted), len(wanted), "whole log")
    best = min(usable, key=lambda one: one.score)
    again = candidates.fit(best.kind, candidates.arrivals(log))
    options = best.options if isinstance(again, str) else again
    workload = options | {"lengths": lengths(log.prompt, log.output), "duration": round(log.span, 3)}
    example = draw(candidates.shifted(best.options, cut), sizes, later, 0)
    # Over the time of the first part: a Fano factor depends on how long one looks, and so must what it is compared with.
    again_first = [_figures(draw(best.options, sizes, first, seed)) for seed in range(seeds)]
    own = {key: _mean([one[key] for one in again_first]) for key in real}
    rows = [_row(quantity, past, real, own, best) for quantity in quantities() if not math.isnan(real[quantity.name])]
    return Fit(log, cut, tried, best, rows, workload, example, [*log.remarks, *_remarks(log, later, best)])


def draw(options: Mapping[str, Any], sizes: Mapping[str, Any], like: Log, seed: int) -> Log:
    """One draw of a generator, over the time of a log and told by its clock."""
    found = sent(_checked({**options, "lengths": sizes, "duration": like.span}), like.span, seed)
    return like._replace(times=clocked(found.times, like.tick), prompt=found.prompt, output=found.output)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    checked, problems = WORKLOADS.check(options)
    assert not problems, problems
    return checked


def _figures(log: Log) -> dict[str, float]:
    return figures(log.times, log.prompt, log.output, log.span, log.tick)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _row(
    quantity: Quantity, past: Mapping[str, float], real: Mapping[str, float], own: Mapping[str, float], best: Candidate
) -> Row:
    name = quantity.name
    values = np.array([one[name] for one in best.draws])
    low, high = np.nanquantile(values, CHANCE).tolist() if not np.isnan(values).all() else (math.nan, math.nan)
    generated = best.figures[name]
    error, drift, fault = (
        off(quantity, one, other) for one, other in ((generated, real[name]), (real[name], past[name]), (own[name], past[name]))
    )
    if abs(error) <= quantity.within:
        verdict = "met"
    elif low <= real[name] <= high:
        verdict = "chance"
    else:
        verdict = "drift" if abs(fault) <= quantity.within else "model"
    return Row(quantity, past[name], real[name], generated, low, high, error, drift, fault, verdict)


def _remarks(log: Log, later: Log, best: Candidate) -> list[str]:
    remarks = []
    if log.shared:
        remarks.append(f"{100 * log.shared:.0f} % of its prompt tokens stood in an earlier prompt; the generator does not share prompts: "
                       "`prefixes` or `shared_prefix` of the workload do")  # fmt: skip
    spread = float(np.std([one["rate"] for one in best.draws]) / best.figures["rate"])
    if spread > 0.05:
        longer = later.span * (spread / 0.05) ** 2
        remarks.append(f"the mean rate of traffic so bursty varies by {100 * spread:.0f} % from one stretch of {clock(later.span)} to the "
                       f"next; to be known to 5 % it takes a log of {clock(longer)}")  # fmt: skip
    if len(log.times) < 5 * LEAST:
        remarks.append(f"{len(log.times):,} requests are few; tails and Fano factors are uncertain")
    return remarks
