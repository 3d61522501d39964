"""What reinforcement learning took: the step and its parts, who waited for whom, how stale, how long the tail, tokens in vain, money.

Steps are versions, as `rl_steps` has them; `sim.study.rl.run` says which of them count. The trainer's seconds are divided by what it did or
waited for. Of rollouts both shares are given, idle (no step) and the bubble (tokens not generated, `sim.study.rl.engines`). Tokens per
second and GPU are of three kinds: generated, trained on, and useful, which were trained on in a group with rewards that differ. Money is
that of the whole scenario, GPUs of all pools and trainers and CPU nodes, at its mean rate. `verl` has the same under verl's names, and
`sandboxes` names the pools of sandboxes asked, whose figures are their own.

Seconds, tokens, dollars; shares are of time unless said otherwise.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.study.metric import ratio
from sim.study.money import usd
from sim.study.rl.engines import Engines
from sim.study.rl.grades import grades
from sim.study.rl.run import Run, runs
from sim.study.rl.staleness import staleness
from sim.study.rl.syncs import syncs
from sim.study.rl.tail import rounds, tail
from sim.study.rl.verl import verl
from sim.study.rl.waste import waste
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts

HOUR = 3600.0
# States of a trainer in which it waits for others.
IDLE = ("wait", "reward", "data")


def rl(facts: Facts) -> dict[str, dict[str, Any] | None] | None:
    """{run: figures}, None for a run that made no step; None without runs of reinforcement learning."""
    return {run.name: _figures(facts, run) if run.count else None for run in runs(facts)} or None


def _figures(facts: Facts, run: Run) -> dict[str, Any]:
    spans = rounds(run)
    engines = Engines(facts, run, spans)
    spent = _states(facts, run)
    parts = {name: float(seconds.mean()) for name, seconds in run.parts.items()}
    took = float(run.took.mean())
    figures: dict[str, Any] = {
        **{key: run.one[key] for key in ("mode", "pool", "trainer", "colocated", "sandboxes")},
        "gpus": {"rollout": run.one["gpus_rollout"], "train": run.one["gpus_train"], "all": run.gpus},
        "steps": {"made": len(run.steps), "skipped": run.skipped, "counted": run.count, "begin": run.begin, "end": run.end},
        "step_s": distribution(run.took.copy()),
        "breakdown": {"seconds": parts, "share": {name: ratio(seconds, took) for name, seconds in parts.items()}},
        "generate_s": float((spans[1] - spans[0]).mean()) if len(spans[0]) else None,
        "exposed_gen_s": parts["generate"], "exposed_reward_s": parts["reward"], "exposed_sync_s": parts["sync"],
        "trainer_idle_frac": ratio(sum(spent.get(state, 0.0) for state in IDLE), run.seconds),
        "trainer_states": {state: ratio(seconds, run.seconds) for state, seconds in spent.items()},
        "mfu": _mfu(facts, run),
        "rollout": engines.figures(),
        "staleness": staleness(run),
        "lengths": _lengths(run),
        "latency": _latency(run),
        "tail": tail(run, engines, spans),
        "waste": waste(run, engines),
        "throughput": _throughput(run, engines),
        "groups": _groups(run),
        "rewards": grades(run),
        "syncs": syncs(run, engines.replicas),
        "money": _money(facts, run),
    }  # fmt: skip
    return figures | {"verl": verl(run, figures)}


def _states(facts: Facts, run: Run) -> dict[str, float]:
    """Seconds of the time that counts by what the trainer did."""
    table = facts.result.tables["train_states"]
    known = table.labels["trainer"]
    mine = table["trainer"] == (known.index(run.one["trainer"]) if run.one["trainer"] in known else -1)
    inside = np.maximum(np.minimum(table["end"], run.end) - np.maximum(table["start"], run.begin), 0.0)[mine]
    spent = np.bincount(table["state"][mine], inside, len(table.labels["state"]))
    return {state: float(seconds) for state, seconds in zip(table.labels["state"], spent, strict=True) if seconds}


def _mfu(facts: Facts, run: Run) -> dict[str, float | None]:
    """FLOP of the model over peak FLOP/s times time: that of updates, attention counted causally or in full, or all of it."""
    table, name = facts.result.tables["train_steps"], run.one["trainer"]
    known = table.labels["trainer"]
    mine = table["trainer"] == (known.index(name) if name in known else -1)
    mine &= (table["end"] > run.begin) & (table["end"] <= run.end)
    flops, full = float(table["flops"][mine].sum()), float(table["flops_full"][mine].sum())
    spent = float((table["end"] - table["start"])[mine].sum())
    peak = next((one["peak_flops"] for one in facts.meta.get("trainers", []) if one["name"] == name), 0.0)
    return {"update": ratio(flops, peak * spent), "update_full_attention": ratio(full, peak * spent),
            "of_time": ratio(flops, peak * run.seconds)}  # fmt: skip


def _lengths(run: Run) -> dict[str, Any]:
    """Tokens generated of samples that came to an end, and of those trained on; a mean of the latter below that of the former is the bias
    towards short answers of asynchronous and over-sampled rollouts. `cut`: share that ran into the limit.
    """
    tokens, cut = run.samples["tokens"].astype(float), run.samples["cut"]
    made, used = run.generated, run.trained
    generated, trained = distribution(tokens[made]), distribution(tokens[used])
    return {
        "generated": generated, "trained": trained,
        "trained_over_generated": ratio(trained["mean"], generated["mean"]) if generated and trained else None,
        "generated_cut": ratio(int(cut[made].sum()), int(made.sum())), "trained_cut": ratio(int(cut[used].sum()), int(used.sum())),
        "turns": ratio(int(run.samples["turns"][used].sum()), int(used.sum())),
    }  # fmt: skip


def _latency(run: Run) -> dict[str, Any]:
    """Of samples trained on, and of their groups, which wait for the slowest: from begin to end, s."""
    trained = run.trained
    samples = (run.samples["done"] - run.samples["begun"])[trained]
    first = int(run.column("version")[0]) - 1
    mine = run.groups["trained"] >= first
    groups = (run.groups["done"] - run.groups["begun"])[mine]
    waited = (run.groups["ended"] - run.groups["scored"])[mine]
    return {"sample_s": distribution(samples), "group_s": distribution(groups), "buffer_s": distribution(waited[~np.isnan(waited)]),
            "longest_sample_tokens_per_s": _longest(run)}  # fmt: skip


def _longest(run: Run) -> float | None:
    """Tokens per second of the longest sample of each step, the mean over steps (slime logs it): what no further GPU can raise."""
    trained = run.trained
    version, tokens = run.version[trained], run.samples["tokens"][trained]
    took = (run.samples["done"] - run.samples["begun"])[trained]
    order = np.lexsort((tokens, version))
    last = order[np.append(version[order][1:] != version[order][:-1], True)[: len(order)]]
    last = last[took[last] > 0]
    return float((tokens[last] / took[last]).mean()) if len(last) else None


def _throughput(run: Run, engines: Engines) -> dict[str, float | None]:
    """Per second; `_per_gpu` of both roles together where not said otherwise."""
    made = engines.tokens + engines.asked[1]
    trained, useful = float(run.column("tokens").sum()), float(run.column("useful").sum())
    time, gpus = run.seconds, run.gpus
    good = run.trained & run.differs
    return {
        "generated_tokens_per_s_per_rollout_gpu": ratio(made, time * run.one["gpus_rollout"]),
        "generated_tokens_per_s_per_gpu": ratio(made, time * gpus), "trained_tokens_per_s_per_gpu": ratio(trained, time * gpus),
        "useful_tokens_per_s_per_gpu": ratio(useful, time * gpus), "useful_share": ratio(useful, trained),
        "samples_per_s": ratio(int(run.generated.sum()), time), "trained_samples_per_s": ratio(int(run.column("samples").sum()), time),
        "goodput_samples_per_s": ratio(int(good.sum()), time),
    }  # fmt: skip


def _groups(run: Run) -> dict[str, Any]:
    """Of the whole run: what became of groups; of the steps that count, how many were begun and ready per step, and their reward."""
    labels = run.groups.labels["state"]
    states = np.bincount(run.groups["state"], minlength=len(labels)).tolist()
    reasons = run.groups.labels["reason"]
    why = np.bincount(run.groups["reason"], minlength=len(reasons)).tolist()
    rewards = run.groups["reward"][run.groups["trained"] >= int(run.column("version")[0]) - 1]
    known = rewards[~np.isnan(rewards)]
    return {
        "begun": len(run.groups), "states": {name: count for name, count in zip(labels, states, strict=True) if count},
        "reasons": {name: count for name, count in zip(reasons, why, strict=True) if count and name},
        "trained_per_step": float(run.column("groups").mean()), "begun_per_step": float(run.column("launched").mean()),
        "ready_at_end_of_step": float(run.column("queued").mean()), "mean_reward": float(known.mean()) if len(known) else None,
    }  # fmt: skip


def _money(facts: Facts, run: Run) -> dict[str, float | None]:
    """Of the whole scenario, at its mean rate; GPU-hours are those of the run."""
    rate = usd(facts) / facts.span if facts.span > 0 else 0.0
    spent = rate * run.seconds
    samples, useful = int(run.column("samples").sum()), float(run.column("useful").sum())
    return {
        "usd_per_step": ratio(spent, run.count), "usd_per_trained_sample": ratio(spent, samples),
        "usd_per_million_useful_tokens": ratio(spent * 1e6, useful),
        "gpu_hours": run.gpus * run.seconds / HOUR, "gpu_hours_per_step": ratio(run.gpus * run.seconds / HOUR, run.count),
    }  # fmt: skip
