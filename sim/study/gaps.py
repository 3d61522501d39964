"""Gaps between the tokens of a request, from the stretches: what ITL is the distribution of. Preemption stalls are a table of their own.

A step gives each decoder a token (with speculation: several, which come together), so its length is a gap of each. An engine that sends
tokens on only n at a time (vLLM's stream_interval) has one gap where it would have n, as long as n of them. Where decoders paused for the
prompts of others, the gap of each is the paused steps and its next step; those that joined meanwhile waited for the later ones. So it is
where a trainer paused the engine: that is like a row without steps. Seconds.
"""
from __future__ import annotations

import numpy as np

from sim.study.facts import Stretches
from sim.study.states import Pauses

SUB_RUNS = 8
ALIKE = 1e-3
COLUMNS = ("replica", "seconds", "first_step", "steps", "decoders", "paused")


class Gaps:
    """Reads the stretches page by page, in their order. A page may end while decoders pause; the next one goes on from there."""

    def __init__(self, intervals: np.ndarray | None = None, stood: Pauses | None = None) -> None:
        """`intervals`: tokens sent at a time, by replica; None: each is sent at once. `stood`: pauses of engines."""
        self._open: dict[str, np.ndarray] = {}
        self._stood = _as_rows(stood) if stood is not None and stood.standing.any() else None
        self._intervals = intervals if intervals is not None and (intervals > 1).any() else None

    def of(self, page: Stretches) -> tuple[np.ndarray, np.ndarray]:
        """Gaps as (seconds, how many), run-length coded: a value per stretch, or up to `SUB_RUNS` where its steps differ by more than
        `ALIKE`, and more where some paused.

        Step lengths grow linearly within a stretch and sum to its seconds, so the weighted mean is exact.
        """
        rows = {name: page[name] for name in COLUMNS}
        if self._stood is not None:
            rows = self._with_pauses(rows, page["start"])
        if not self._open and not rows["paused"].any():
            values, weights, row = _runs(rows, np.zeros(len(rows["steps"]), dtype="i8"))
            return self._sent(values, weights, rows["replica"][row])
        if self._open:
            rows = {name: np.concatenate([self._open[name], rows[name]]) for name in COLUMNS}
        return self._after_pauses(rows)

    def _with_pauses(self, rows: dict[str, np.ndarray], start: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of a page and, before those of their replica that begin later, the pauses that have not been read yet."""
        stood = self._stood
        assert stood is not None
        latest = np.full(max(int(stood["replica"].max()), int(rows["replica"].max(initial=0))) + 1, -np.inf)
        np.maximum.at(latest, rows["replica"], start)
        now = stood["start"] < latest[stood["replica"]]
        self._stood = {name: values[~now] for name, values in stood.items()} if not now.all() else None
        order = np.argsort(np.concatenate([stood["start"][now], start]), kind="stable")
        return {name: np.concatenate([stood[name][now], rows[name]])[order] for name in COLUMNS}

    def _after_pauses(self, rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(rows["replica"], kind="stable")
        rows = {name: values[order] for name, values in rows.items()}
        replica, pausing = rows["replica"], (rows["paused"] > 0) & (rows["decoders"] == 0)
        at = np.arange(len(replica))
        # For each row the next one that does not pause, and whether it is of the same replica.
        following = np.minimum.accumulate(np.where(pausing, len(at), at)[::-1])[::-1]
        inside = following < len(at)
        inside[inside] = replica[following[inside]] == replica[inside]
        self._open = {name: values[pausing & ~inside] for name, values in rows.items()} if (pausing & ~inside).any() else {}
        here = np.flatnonzero(pausing & inside)
        ends = following[here]
        gone = np.concatenate([[0.0], np.cumsum(np.where(pausing, rows["seconds"], 0.0))])
        # Members that paused before this row have been counted with an earlier one; who is preempted leaves the newest gap.
        first = np.append(True, ends[1:] != ends[:-1]) if len(here) else np.zeros(0, dtype=bool)
        present = np.minimum(rows["paused"][here], rows["decoders"][ends])
        new = np.maximum(present - np.where(first, 0, np.roll(present, 1)), 0)
        waited = gone[ends] - gone[here] + rows["first_step"][ends]
        behind = np.zeros(len(at), dtype="i8")
        behind[ends[rows["decoders"][ends] > 0]] = 1
        values, weights, row = _runs(rows, behind)
        counted = np.bincount(ends, new, len(at)).astype("i8")
        heads = np.flatnonzero(behind)
        extra = rows["first_step"][heads], rows["decoders"][heads] - counted[heads]
        replicas = np.concatenate([replica[row], replica[here], replica[heads]])
        return self._sent(np.concatenate([values, waited, extra[0]]), np.concatenate([weights, new, extra[1]]), replicas)

    def _sent(self, values: np.ndarray, weights: np.ndarray, replica: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gaps between what is sent."""
        if self._intervals is None:
            return values, weights
        interval = self._intervals[replica]
        return values * interval, weights / interval


def _as_rows(stood: Pauses) -> dict[str, np.ndarray]:
    """Pauses in which somebody stood as rows of stretches, by time."""
    order = np.argsort(stood.start, kind="stable")
    order = order[stood.standing[order] > 0]
    seconds, none = (stood.end - stood.start)[order], np.zeros(len(order), dtype="i4")
    return {"replica": stood.replica[order], "seconds": seconds, "first_step": seconds, "steps": none, "decoders": none,
            "paused": stood.standing[order], "start": stood.start[order]}  # fmt: skip


def _runs(rows: dict[str, np.ndarray], behind: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gaps of all steps but the first `behind` (0 or 1) of each stretch, and of which row each is."""
    steps, first, decoders = rows["steps"].astype("i8"), rows["first_step"], rows["decoders"]
    slope = 2 * (rows["seconds"] - steps * first) / np.maximum(steps * (steps - 1), 1)
    first, steps = first + slope * behind, steps - behind
    spread = slope * (steps - 1) / np.maximum(first, 1e-300)
    runs = np.minimum(steps, np.clip(np.ceil(spread / ALIKE), 1, SUB_RUNS).astype("i8")) * (decoders > 0)
    row = np.repeat(np.arange(len(runs)), runs)
    part = np.arange(len(row)) - (np.cumsum(runs) - runs)[row]
    low, high = steps[row] * part // runs[row], steps[row] * (part + 1) // runs[row]
    return first[row] + slope[row] * (low + high - 1) / 2, decoders[row] * (high - low), row
