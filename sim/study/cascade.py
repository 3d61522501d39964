"""What a caller of a cascade gets: latency from its request to the answer it is given, by whom it was answered, and what that cost.

A chain is one caller's request with all its stages and verdicts; its latency ends when the answer is settled, verification included. Money:
the price of each pool over the span is shared by tokens computed there (prompts without what was cached, and answers, verdicts too).
Quality is what the user says of each stage, averaged over the answers given, and only where every stage that answered has one.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.request import STATUSES
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def cascade(facts: Facts) -> dict[str, Any] | None:
    """The figures of all chains; None where there are none."""
    if not len(facts.result.tables["stages"]):
        return None
    chains = Chains(facts)
    answered = np.bincount(chains.service[chains.service >= 0], minlength=len(chains.services))
    shares = {name: float(count / answered.sum()) for name, count in zip(chains.services, answered, strict=True) if count}
    money, workload = _money(facts), chains.workload[chains.root]
    classes = {}
    for code, name in enumerate(facts.result.tables["requests"].labels["workload"]):
        mine = workload == code
        if mine.any():
            settled = int((mine & (chains.service >= 0)).sum())
            classes[name] = chains.figures(mine) | {"usd": money[code], "usd_per_request": money[code] / settled if settled else None}
    return {
        **chains.figures(np.ones(len(chains.root), dtype=bool)),
        "answered_by": shares,
        "classes": classes,
        "verifier": chains.verifier(),
        "quality": _quality(facts.result.scenario.cluster.quality, shares),
    }


class Chains:
    """One entry per caller's request: its first request `root`, whether an answer was sent on (`escalated`), when it was sent and when it
    was settled (NaN: never), and the `service` that answered (-1: none).
    """

    def __init__(self, facts: Facts):
        table = facts.result.tables["stages"]
        parts, outcomes = table.labels["part"], table.labels["outcome"]
        self.services = table.labels["service"]
        self._request, stage, outcome = table["request"], table["stage"], table["outcome"]
        self._answer = table["part"] == parts.index("answer")
        self._end, self._start = table["end"], table["start"]
        self.root, chain = np.unique(table["root"], return_inverse=True)
        count = len(self.root)
        self.sent, self.settled, self.escalated = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count, dtype=bool)
        self.service = np.full(count, -1)
        self.lost = np.zeros(count, dtype=bool)
        first = self._answer & (stage == 0)
        self.sent[chain[first]] = self._start[first]
        onward = self._answer & (outcome == outcomes.index("escalated"))
        self.escalated[chain[onward]] = True
        accepted = self._answer & (outcome == outcomes.index("accepted"))
        given = accepted | (outcome == outcomes.index("last"))
        self.settled[chain[given]], self.service[chain[given]] = self._end[given], table["service"][given]
        refused = self._answer & (outcome == outcomes.index("refused"))
        self.lost[chain[refused & first]] = True
        # Who was turned away further on keeps the answer of the stage before.
        late = refused & ~first
        self.settled[chain[late]] = self._end[late]
        before = {(c, s): code for c, s, code in zip(chain[onward], stage[onward], table["service"][onward], strict=True)}
        self.service[chain[late]] = [before[c, s - 1] for c, s in zip(chain[late], stage[late], strict=True)]
        self._judged = accepted | onward
        self.workload, self._told = _requests(facts)

    def figures(self, which: np.ndarray) -> dict[str, Any]:
        """Counts, the share sent on and the spread of latency of some chains."""
        answered = which & (self.service >= 0)
        return {
            "requests": int(which.sum()), "answered": int(answered.sum()), "turned_away": int((which & self.lost).sum()),
            "unfinished": int((which & ~answered & ~self.lost).sum()),
            "escalated_share": float(self.escalated[answered].mean()) if answered.any() else None,
            "e2e_s": distribution((self.settled - self.sent)[answered]),
        }  # fmt: skip

    def verifier(self) -> dict[str, Any]:
        """Verdicts that a model gave, and the mean time from an answer to what became of it, over those that were judged."""
        waits = (self._end - self._told[self._request])[self._judged]
        waits = waits[waits > 0]
        return {"model_requests": int((~self._answer).sum()), "mean_s": float(waits.mean()) if len(waits) else None}


def _requests(facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """Workload and time of the answer, outside the engine, of each request by its number."""
    workload, told = np.full(facts.meta["arrived"], -1), np.full(facts.meta["arrived"], np.nan)
    for page in facts.requests():
        workload[page["request"]] = page["workload"]
        told[page["request"]] = page["last_token"] + page["overhead"]
    return workload, told


def _money(facts: Facts) -> np.ndarray:
    """Dollars of each workload."""
    names = list(facts.pools)
    pool = np.array([*(names.index(name) for name in facts.pool_of_replica), len(names)])
    workloads = len(facts.result.tables["requests"].labels["workload"])
    tokens = np.zeros((len(names) + 1) * workloads)
    for page in facts.requests():
        computed = page["input_tokens"] - page["cached_tokens"] + page["output_tokens"]
        computed = np.where(page["status"] == STATUSES.index("rejected"), 0, computed)
        tokens += np.bincount(pool[page["replica"]] * workloads + page["workload"], computed, len(tokens))
    shared = tokens.reshape(-1, workloads)[:-1]
    usd = np.bincount(pool[:-1], facts.per_replica("price_per_hour") * facts.gpus * facts.lifetimes / 3600, len(names))
    return np.asarray((shared / np.maximum(shared.sum(axis=1, keepdims=True), 1.0) * usd[:, None]).sum(axis=0))


def _quality(given: dict[str, float], shares: dict[str, float]) -> dict[str, Any] | None:
    """The qualities as given, and their mean over the answers: None where one that answered has none."""
    if not given:
        return None
    known = all(name in given for name in shares)
    return {"as_given": given, "mean_of_answers": sum(share * given[name] for name, share in shares.items()) if known and shares else None}
