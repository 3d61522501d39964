"""What callers with patience got: calls answered and given up, latency as they saw it, and the work that answered nobody.

A call is one caller's request with its retries and hedges (`world/attempts.py`). Its latency is from its first request to the answer,
time in the API server and pauses between attempts included. A call whose caller was between two attempts when the run ended counts as
given up.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.request import COMPLETED, FAILED
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def attempts(facts: Facts) -> dict[str, Any] | None:
    """The figures of all calls of workloads with `client` options; None where there are none."""
    if not len(facts.result.tables["attempts"]):
        return None
    calls = Calls(facts)
    classes = {}
    for code, name in enumerate(facts.result.tables["requests"].labels["workload"]):
        mine = calls.workload == code
        if mine.any():
            classes[name] = calls.figures(mine)
    return {
        **calls.figures(np.ones(len(calls.root), dtype=bool)),
        "attempts": calls.outcomes(),
        "attempts_per_call": len(calls.request) / len(calls.root),
        "wasted": calls.wasted(facts),
        "classes": classes if len(classes) > 1 else None,
    }


class Calls:
    """One entry per call: its first request `root`, its workload, when it was `sent` and `answered` (NaN: never), whether it is `open`."""

    def __init__(self, facts: Facts):
        table = facts.result.tables["attempts"]
        self._kinds, self._names = table.labels["kind"], table.labels["outcome"]
        self.request, self._kind, self._outcome = table["request"], table["kind"], table["outcome"]
        self.root, call = np.unique(table["root"], return_inverse=True)
        count = len(self.root)
        self.answered, self.open, self.sent = np.full(count, np.nan), np.zeros(count, dtype=bool), np.full(count, np.inf)
        np.minimum.at(self.sent, call, table["start"])
        done = self._outcome == self._names.index("answered")
        self.answered[call[done]] = table["end"][done]
        self.open[call[self._outcome == self._names.index("open")]] = True
        workload = np.full(facts.meta["arrived"], -1)
        for page in facts.requests():
            workload[page["request"]] = page["workload"]
        self.workload = workload[self.root]

    def figures(self, which: np.ndarray) -> dict[str, Any]:
        """Counts and the spread of latency of some calls."""
        answered = which & ~np.isnan(self.answered)
        lost = which & ~answered & ~self.open
        settled = int(answered.sum() + lost.sum())
        return {
            "calls": int(which.sum()), "answered": int(answered.sum()), "given_up": int(lost.sum()),
            "unfinished": int((which & self.open).sum()),
            "answered_share": float(answered.sum() / settled) if settled else None,
            "latency_s": distribution((self.answered - self.sent)[answered]),
        }  # fmt: skip

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Attempts by kind and by what came of them; what did not occur is left out."""
        found: dict[str, dict[str, int]] = {}
        for kind, name in enumerate(self._kinds):
            counts = np.bincount(self._outcome[self._kind == kind], minlength=len(self._names))
            if counts.any():
                found[name] = {self._names[code]: int(count) for code, count in enumerate(counts) if count}
        return found

    def wasted(self, facts: Facts) -> dict[str, Any]:
        """Tokens computed for requests that answered nobody, and their share of all tokens computed. What a preempted request that was then
        called off had computed of its prompt before counts only where it had a first token.
        """
        useless = np.zeros(facts.meta["arrived"], dtype=bool)
        names = [self._names.index(name) for name in ("answered", "open")]
        useless[self.request[~np.isin(self._outcome, names)]] = True
        inputs = outputs = decoded = 0
        for page in facts.requests():
            rows = np.flatnonzero(useless[page["request"]] & ((page["status"] == COMPLETED) | (page["status"] == FAILED)))
            if not len(rows):
                continue
            prompt, told = page["input_tokens"][rows].astype("i8"), ~np.isnan(page["first_token"][rows])
            failed = page["status"][rows] == FAILED
            prompt[failed & ~told] = facts.losses.computed(page["request"][rows][failed & ~told])
            inputs += int(np.maximum(prompt - page["cached_tokens"][rows], 0).sum())
            outputs += int(page["output_tokens"][rows].sum())
            # The first token of an answer is computed with its prompt.
            decoded += int((page["output_tokens"][rows] - told).sum())
        total = sum(float(page.tokens.sum()) for page in facts.stretches())
        return {"input_tokens": inputs, "output_tokens": outputs, "share": (inputs + decoded) / total if total else None}
