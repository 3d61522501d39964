"""What the engines of a rollout pool did while steps were made: idle, paused, asleep, and how far from a full batch.

`idle_frac` is 1 - seconds in steps / seconds that replicas were there and not asleep: an engine with one sequence counts as busy. The
bubble weighs it by tokens: 1 - tokens generated / (peak tokens per second x the same seconds), where the peak is that of a full batch with
contexts as long as those there were on average, weighted by tokens (`sim.study.rl.setup`). Step time being affine in contexts, that is what
the same tokens would have taken at full batch. First tokens, which come with prompts, are not counted, and time spent on prompts is a part
of the bubble. Where caches hold more sequences than average contexts would let them, what engines made in their steps is the peak, so that
the bubble is never less than the idle share.

A pool that serves others too is taken as a whole: who asked for a step is not recorded.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.study.meanwhile import Union
from sim.study.metric import ratio
from sim.study.rl.run import Run
from sim.study.states import pauses

if TYPE_CHECKING:
    from sim.study.metrics import Facts


class Engines:
    """The replicas of a run's pool, over the time that counts: seconds in steps, tokens decoded, decoders and the tokens they held summed
    over steps. `rounds`: begins and ends, s, of rounds; `last` is when each replica (column) last did a step in each of them (row), -inf
    where it did none, and `in_rounds` seconds of steps in them.
    """

    def __init__(self, facts: Facts, run: Run, rounds: tuple[np.ndarray, np.ndarray]):
        self.facts, self.run = facts, run
        self.mine = np.array([name == run.one["pool"] for name in facts.pool_of_replica], dtype=bool)
        self.busy = self.crowd = self.tokens = self.places = self.held = self.in_rounds = 0.0
        self.prefilled = 0
        self._begins, self._ends = rounds
        self.last = np.full((len(self._begins), len(self.mine)), -np.inf)
        union = Union(*rounds)
        for page in facts.stretches():
            which = self.mine[page["replica"]]
            if which.any():
                self._add(page, which, union)
        self.last = self.last[:, self.mine]

    def _add(self, page: Any, which: np.ndarray, rounds: Union) -> None:
        start, end, replica = page["start"][which], page.end[which], page["replica"][which]
        inside = np.maximum(np.minimum(end, self.run.end) - np.maximum(start, self.run.begin), 0.0)
        share = inside / np.maximum(end - start, 1e-300)
        read = page.kv_read[which] / np.maximum(page.per_pool("kv_bytes_per_token")[which], 1e-300)
        self.busy += float(inside.sum())
        self.crowd += float((page["decoders"][which] * inside).sum())
        self.tokens += float((page.decoded[which] * share).sum())
        self.places += float((page["decoders"][which] * page["steps"][which] * share).sum())
        self.held += float((read * share).sum())
        self.prefilled += int(page["prefill_tokens"][which].sum(dtype="i8"))
        if not len(self._begins):
            return
        self.in_rounds += float(rounds.within(start, end).sum())
        at = np.searchsorted(self._begins, end, side="left") - 1
        inside = (at >= 0) & (start < self._ends[at])
        np.maximum.at(self.last, (at[inside], replica[inside]), np.minimum(end, self._ends[at])[inside])

    @property
    def replicas(self) -> int:
        """Replicas at a time, at most; where they come and go, or are lent, there are more rows of them."""
        return int(self.facts.pools[self.run.one["pool"]]["replicas"])

    @property
    def there(self) -> float:
        """Replica-seconds."""
        replicas = self.facts.replicas
        until = np.where(np.isnan(replicas["end"]), self.facts.end, replicas["end"])
        lives = np.minimum(until, self.run.end) - np.maximum(replicas["start"], self.run.begin)
        return float(np.maximum(lives, 0.0)[self.mine].sum())

    def paused(self) -> dict[str, float]:
        """Replica-seconds by why they were paused: update, sleep, drain."""
        found = pauses(self.facts)
        labels = self.facts.result.tables["pauses"].labels["why"]
        if found is None:
            return dict.fromkeys(labels, 0.0)
        inside = np.maximum(np.minimum(found.end, self.run.end) - np.maximum(found.start, self.run.begin), 0.0)
        spent = np.bincount(found.why, inside * self.mine[found.replica], len(labels))
        return {why: float(seconds) for why, seconds in zip(labels, spent, strict=True)}

    @functools.cached_property
    def asked(self) -> tuple[int, int]:
        """Prompt tokens to be computed of all requests that were admitted, over the whole run; requests that got their first token in the
        time that counts.
        """
        prompts = first = 0
        for page in self.facts.requests():
            here = (page["replica"] >= 0) & self.mine[page["replica"]]
            on, told = here & ~np.isnan(page["admitted"]), page["first_token"]
            prompts += int((page["input_tokens"] - page["cached_tokens"])[on].sum(dtype="i8"))
            first += int((here & (told > self.run.begin) & (told <= self.run.end)).sum())
        return prompts, first

    @property
    def recomputed(self) -> int:
        """Prompt tokens computed beyond the first time, over the whole run: after a preemption, or with new weights. Of who was called off
        and goes on as another request, what it had generated is a prompt, and not among them.
        """
        return max(self.prefilled - self.asked[0], 0)

    @property
    def _prefill_seconds(self) -> float:
        """Seconds that a replica spent on prompts over the whole run, the mean of all."""
        pool = list(self.facts.pools).index(self.run.one["pool"])
        return float(self.facts.work.draw.seconds[pool, 0] / max(self.run.one["gpus_rollout"], 1))

    def figures(self) -> dict[str, Any]:
        """Of `summary["rl"][name]["rollout"]`."""
        paused, there = self.paused(), self.there
        awake = there - paused["sleep"]
        context = ratio(self.held, self.places)
        limit = self.run.one["peak"]
        rate = 0.0 if context is None else float(np.interp(context, limit["context"], limit["tokens_per_s"]))
        peak = None if context is None else max(rate, self.tokens / self.busy)
        full = None if context is None else float(np.interp(context, limit["context"], limit["batch"]))
        full_rate = ratio(self.tokens, peak * awake) if peak else None
        recomputed, seconds = self.recomputed, self._prefill_seconds
        return {
            "replicas": self.replicas,
            "idle_frac": None if awake <= 0 else max(0.0, 1 - self.busy / awake),
            "paused_frac": {why: ratio(paused[why], awake) for why in paused if why != "sleep"},
            "asleep_frac": ratio(paused["sleep"], there),
            "bubble": None if full_rate is None else max(0.0, 1 - full_rate),
            "peak_tokens_per_s_per_replica": peak, "full_batch": full,
            "mean_batch": ratio(self.crowd, self.busy), "mean_context": context,
            "preemptions": int(self.facts.replicas["preemptions"][self.mine].sum()),
            "prefilled_tokens": self.prefilled, "recomputed_tokens": recomputed,
            "prefill_s": ratio(seconds, len(self.run.steps)),
            "recompute_s": ratio(seconds * recomputed, self.prefilled * len(self.run.steps)) if self.prefilled else 0.0,
        }  # fmt: skip
