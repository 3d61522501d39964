"""The fewest replicas that can do, and what no number of them can: from the step model, without a run.

What is asked for is taken from the requests of one run (`Demand`): open-loop traffic sends the same whatever serves it. A step takes at
least as long as with its prompts alone, with its decoders alone, or as all its tokens take to go through the layers, so that a replica's
time is at least the largest of the three:

    prompts:  sum of prompt tokens / the best rate of prompts alone
    answers:  sum of answer tokens / the best rate of decoders alone, as many as the KV cache and the batch hold
    tokens:   all tokens / the best rate of the layers without attention

Lengths are means, which flatters attention, and rates are the best of all batches: the bounds err to the side of too few replicas. Work
may be left over when the last request arrives: a twentieth of the window, as the verdict allows (`study/verdict.py`), and what the longest
limit lets wait. Where callers wait for answers, or prompts find their beginnings in a cache, less is asked for, and nothing is claimed.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sim.physics.base import Work
from sim.physics.step import EngineStep
from sim.spec.limits import percentile_limits
from sim.spec.scenario import Scenario, Slo
from sim.study.plan.layouts import Layout
from sim.study.result import Result
from sim.study.verdict import LONG_WAIT, SHARE

SAFE = 0.97  # of a bound, for what rounding and the luck of lengths may do


class Demand(NamedTuple):
    """What a workload asks for: requests of so many mean tokens over `window` seconds, and prompts and answers by percentile."""

    requests: int
    prompt: float
    answer: float
    window: float
    prompts: dict[int, float]
    answers: dict[int, float]


def demand(result: Result) -> Demand | None:
    """That of a run; None where it depends on who serves it."""
    scenario = result.scenario
    plain = sole(scenario) and all(one.get("client") is None for one in scenario.workloads)
    if result.meta["closed_loop"] or not plain or any(one["kind"] in ("agents", "sessions", "evals") for one in scenario.workloads):
        return None
    pages = list(result.tables["requests"].pages())
    if sum(int(page["cached_tokens"].sum()) for page in pages):
        return None
    prompts = np.concatenate([page["input_tokens"] for page in pages])
    answers = np.concatenate([page["wanted_tokens"] for page in pages])
    arrivals = np.concatenate([page["arrival"] for page in pages])
    at = [{percentile: float(np.percentile(tokens, percentile, method="lower")) for percentile in (50, 90, 95, 99)}
          for tokens in (prompts, answers)]  # fmt: skip
    return Demand(len(prompts), float(prompts.mean()), float(answers.mean()), float(arrivals.max() - arrivals.min()), *at)


def sole(scenario: Scenario) -> bool:
    """Whether one pool does everything, so that what holds for its step holds for every request."""
    cluster = scenario.cluster
    return len(cluster.pools) == 1 and not cluster.trainers and not cluster.cascades and cluster.pools[0].role == "both"


def fewest(layout: Layout, asked: Demand) -> int:
    """Replicas below which the arrivals outrun service; nothing is claimed where others serve too, or not all are let in."""
    if not asked.window or not sole(layout.whole) or layout.whole.cluster.admission["kind"] != "always":
        return 1
    slack = max([LONG_WAIT, *percentile_limits(layout.whole.slo).values()])
    return max(1, math.ceil(SAFE * each(layout, asked) * asked.requests / ((1 + SHARE) * asked.window + slack)))


def each(layout: Layout, asked: Demand) -> float:
    """Seconds that a request takes of a replica at the least: one over the rate that it cannot exceed."""
    pool, step = layout.mine, layout.step
    most = pool.engine.max_num_seqs * step.lanes
    context = asked.prompt + asked.answer / 2
    batch = max(1, min(most, int(layout.room / context)))
    return max(
        asked.prompt * _prompts(step, asked.prompt, pool.engine.max_num_batched_tokens),
        asked.answer * _decoders(step, batch, context) / step.pace,
        (asked.prompt + asked.answer) * _tokens(step, pool.engine.max_num_batched_tokens),
    )


class Floor(NamedTuple):
    """What a limit is reached in at the least, over the limit, and the words for it."""

    over: float
    said: str


def impossible(layout: Layout, asked: Demand | None) -> str:
    """Why no number of replicas meets a limit, or nothing."""
    return next((floor.said for floor in floors(layout, asked) if floor.over > 1.0), "")


def floors(layout: Layout, asked: Demand | None) -> Iterator[Floor]:
    """Of the limits that have one: a step of a single request, a prompt or an answer alone.

    Of what is not known to be `asked` for, a step alone is looked at, with nothing in its context.
    """
    if not sole(layout.whole):
        return
    step, budget = layout.step, layout.mine.engine.max_num_batched_tokens
    alone = step.step(Work((), 1, int(min(asked.prompts.values())) if asked is not None else 1)).seconds / step.pace
    for name, percentile, limit in _limits(layout.whole.slo):
        if name == "tpot":
            said = f"a step of one request alone takes {1e3 * alone:.3g} ms, the limit is {1e3 * limit:.3g} ms"
            yield Floor(alone / limit, f"TPOT p{percentile}: {said}")
        if name == "e2e" and asked is not None and percentile in asked.answers:
            took = (asked.answers[percentile] - 1) * alone
            said = f"an answer of {asked.answers[percentile]:,.0f} tokens alone takes {took:.3g} s"
            yield Floor(SAFE * took / limit, f"E2E p{percentile}: {said}, the limit is {limit:.3g} s")
        if name == "ttft" and asked is not None and percentile in asked.prompts:
            tokens = int(asked.prompts[percentile])
            starts = range(0, tokens, budget)
            took = step.frontend + sum(step.step(Work(((min(budget, tokens - at), at),), 0, 0)).seconds for at in starts)
            said = f"a prompt of {tokens:,} tokens alone takes {took:.3g} s"
            yield Floor(SAFE * took / limit, f"TTFT p{percentile}: {said}, the limit is {limit:.3g} s")


def _limits(slo: Slo) -> list[tuple[str, int, float]]:
    return [(name, percentile, limit) for (name, percentile), limit in percentile_limits(slo).items()]


def _prompts(step: EngineStep, prompt: float, budget: int) -> float:
    """Seconds per prompt token, the best over what each lane has in a step: some prompts, or as much as its budget holds."""
    length = max(1, int(prompt))
    fits, rest = divmod(budget, length)
    loads = [((length, 0),) * size for size in (1, 2, 4, fits // 2) if 0 < size < fits]
    loads += [((length, 0),) * fits] if fits else []
    loads += [((length, 0),) * fits + ((rest, 0),)] if rest else []
    return min(step.step(Work(load * step.lanes, 0, 0)).seconds / (step.lanes * sum(tokens for tokens, _ in load)) for load in loads)


def _decoders(step: EngineStep, batch: int, context: float) -> float:
    """Seconds per token of an answer, the best over batches of a replica, whose lanes share them."""
    captured = (size * step.lanes for size in step.target.sizes.captured if size * step.lanes <= batch)
    sizes = sorted({batch, *(2**power for power in range(batch.bit_length())), *captured})
    return min(step.step(Work((), size, int(size * context))).seconds / size for size in sizes)


def _tokens(step: EngineStep, budget: int) -> float:
    """Seconds per token in the layers, without attention, the best over numbers of tokens; of a replica, whose lanes share them."""
    sizes = [size for size in range(1, budget + 1) if size & (size - 1) == 0 or size == budget or size in step.target.sizes.captured]
    layers = min(step.target.linear[size] / size for size in sizes)
    return layers * step.stages / step.lanes
