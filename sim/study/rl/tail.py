"""The long tail of rounds: how many samples are done when, and what engines do that have none left.

A synchronous round begins when the trainer has its prompts and ends with the last answer that is wanted, or, where groups are filtered,
when enough have passed. One step off, a round is from the first to the last of the answers that a step trained on. All samples that end in
a round count, wanted or not. Asynchronous generation has no rounds. Seer (OSDI 2026) reports such tails as the share of a round that its
last 10 % of samples take, the share that an instance stands idle, and the gap between the first and the last instance to finish, as a share
of the round.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.study.rl.engines import Engines
from sim.study.rl.run import Run

SHARES = np.linspace(0.0, 1.0, 11)
MOMENTS = (0.25, 0.5, 0.75, 0.9)


def rounds(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Begins and ends, s, of the rounds of the steps that count; none where generation does not go in rounds."""
    if run.one["mode"] == "one_step_off":
        return _batches(run)
    long = run.column("generate")
    known = long > 0
    begin = (run.column("start") + run.column("data"))[known]
    return begin, begin + long[known]


def _batches(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """From the first group begun to the last one done of each version."""
    versions = run.column("version")
    trained = run.groups["trained"] + 1
    size = max(int(versions.max(initial=0)), int(trained.max(initial=0))) + 1
    begin, end = np.full(size, np.inf), np.full(size, -np.inf)
    used = trained > 0
    np.minimum.at(begin, trained[used], run.groups["begun"][used])
    np.maximum.at(end, trained[used], run.groups["done"][used])
    known = versions[end[versions] > begin[versions]]
    return begin[known], end[known]


def tail(run: Run, engines: Engines, spans: tuple[np.ndarray, np.ndarray]) -> dict[str, Any] | None:
    """Means over rounds; None where there are none.

    `curve`: [share of the samples done, share of the round until then]; `running_at`: share of the samples that run at that share of it.
    """
    times = np.sort(run.samples["done"][~np.isnan(run.samples["done"])])
    curves, running, count = [], [], 0
    for begin, end in zip(*(edge.tolist() for edge in spans), strict=True):
        inside = times[np.searchsorted(times, begin, side="right") : np.searchsorted(times, end, side="right")]
        if not len(inside):
            continue
        at = (inside - begin) / (end - begin)
        curves.append(np.quantile(at, SHARES))
        running.append([float((at > moment).mean()) for moment in MOMENTS])
        count += 1
    if not count:
        return None
    curve, still = np.mean(curves, axis=0), np.mean(running, axis=0)
    long = float((spans[1] - spans[0]).sum())
    return {
        "rounds": count, "round_s": long / len(spans[0]),
        "curve": [[float(share), float(time)] for share, time in zip(SHARES, curve, strict=True)],
        "last_10_percent": 1 - float(curve[-2]),
        "running_at": {f"{moment:g}": float(share) for moment, share in zip(MOMENTS, still, strict=True)},
        "idle_frac": 1 - engines.in_rounds / (engines.replicas * long),
        "first_to_last": _gap(engines.last, spans),
    }  # fmt: skip


def _gap(last: np.ndarray, spans: tuple[np.ndarray, np.ndarray]) -> float | None:
    """Between the first and the last replica to finish, as a share of the round."""
    worked = np.isfinite(last)
    some = worked.sum(axis=1) > 1
    if not some.any():
        return None
    first = np.where(worked, last, np.inf).min(axis=1)[some]
    gaps = (last.max(axis=1)[some] - first) / (spans[1] - spans[0])[some]
    return float(gaps.mean())
