"""Tables of a run of reinforcement learning, made by hand: a plain loop in which every token takes as long as any other.

Each version trains on `groups` groups, whichever were scored first. New ones begin when a version is out, as many as a bound of `eta`
versions allows (0: rounds), all of them at once. Replicas stand still while weights come in.
"""
from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from synthetic import pool, put, scenario

from sim.core.rollout import STATES
from sim.core.tables import tables
from sim.study.result import Result

TOKEN, GRADE, LOGPROB, UPDATE, SYNC = 0.02, 0.4, 3.0, 12.0, 1.5
PROMPT = 200
PARTS = ("wait", "reward", "data", "logprob", "reference", "update", "sync", "switch", "checkpoint", "validation")


def made(eta: int = 0, steps: int = 8, groups: int = 16, samples: int = 4, replicas: int = 4, mean: float = 800.0) -> Result:
    """A result with all tables of reinforcement learning. Every eighth group is rejected: all of its answers are right."""
    rng, facts = np.random.Generator(np.random.PCG64(eta)), tables()
    for name in ("rl_steps", "rl_groups", "rl_samples", "rl_waste", "rl_syncs", "rl_grades", "requests"):
        facts[name].label("workload", "grpo")
    trainer = facts["train_states"].label("trainer", "train")
    state = {name: facts["train_states"].label("state", name) for name in ("wait", "logprob", "update", "publish")}
    begun: list[tuple[float, int, np.ndarray]] = []  # of each group: when, under which version, tokens of its samples
    ready: list[tuple[float, int]] = []
    pauses: list[tuple[float, float]] = []
    fates: dict[int, tuple[int, float, int]] = {}
    now = before = 0.0
    for version in range(steps):
        while sum(number % 8 != 7 for number in range(len(begun))) < (eta + version + 1) * groups:
            lengths = np.minimum(rng.lognormal(math.log(mean), 0.8, samples), 10 * mean).astype(int) + 1
            done = now + TOKEN * float(lengths.max())
            number = len(begun)
            begun.append((now, version, lengths))
            if number % 8 == 7:
                fates[number] = (STATES.index("rejected"), done + GRADE, -1)
            else:
                ready.append((done, number))
        ready.sort()
        mine, ready = ready[:groups], ready[groups:]
        answers = max(before, mine[-1][0])
        scored = max(before, mine[-1][0] + GRADE)
        logprob = LOGPROB if not eta else 0.0
        trained = scored + logprob + UPDATE
        now = trained + SYNC
        pauses.append((trained, now))
        for name, start, end in (("wait", before, scored), ("logprob", scored, scored + logprob), ("update", scored + logprob, trained),
                                 ("publish", trained, now)):  # fmt: skip
            if end > start:
                put(facts["train_states"], (trainer, state[name], start, end))
        tokens = sum(int(begun[number][2].sum()) for _, number in mine)
        parts = {"wait": answers - before, "reward": scored - answers, "logprob": logprob, "update": UPDATE, "sync": SYNC}
        put(facts["rl_steps"], (
            0, version + 1, before, now, *(parts.get(part, 0.0) for part in PARTS), math.nan if eta else answers - before, groups,
            groups * samples, tokens, tokens + PROMPT * groups * samples, tokens, groups, sum(done <= now for done, _ in ready),
        ))  # fmt: skip
        put(facts["rl_syncs"], (0, version + 1, trained, trained + 0.5, trained + 0.5, now - 0.2, now, now, 15e9, 10, 0))
        fates |= {number: (STATES.index("trained"), scored, version) for _, number in mine}
        before = now
    _write(facts, begun, fates, [end for _, end in pauses])
    _engines(facts, begun, pauses, now, replicas)
    meta = {
        "version": "0", "seed": 1, "digest": "d" * 64, "sim_s": now, "cpu_s": 0.1, "events": 3, "closed_loop": True, "arrivals_end": now,
        "remarks": [], "pools": [pool("rollouts", replicas=replicas)], "trainers": [_trainer()],
        "rl": [{"name": "grpo", "pool": "rollouts", "trainer": "train", "mode": "async" if eta else "sync_disaggregated",
                "gpus_rollout": replicas, "gpus_train": 4, "colocated": False, "steps": steps,
                "prompts": groups, "samples": samples,
                "gate": {"kind": "areal", "eta": eta} if eta else None, "graders": {"rule": 8}, "filtered": True, "alone": True,
                "sandboxes": [], "peak": {"context": [100.0, 10_000.0], "batch": [32.0, 32.0], "tokens_per_s": [1600.0, 1600.0]}}],
    }  # fmt: skip
    return Result(scenario(name="made", cluster={"pools": [{"name": "rollouts", "gpu": "h100_sxm", "replicas": replicas}]}), facts, meta)


def _trainer() -> dict[str, Any]:
    return {"name": "train", "model": "tiny", "gpu": "h100_sxm", "gpus": 4, "backend": "fsdp", "dp": 4, "price_per_hour": 3.6, "tdp": 700.0,
            "idle_watts": 70.0, "host_watts": 300.0, "peak_flops": 4e15, "shares": None,
            "memory": {"budget": 7e10, "weights": 2e10, "host": 0.0}, "extrapolated": [], "provenance": []}  # fmt: skip


def _write(facts: Any, begun: Any, fates: Any, published: list[float]) -> None:
    """The groups, their samples, grades, requests, and what was in vain."""
    grader, request = facts["rl_grades"].label("grader", "rule"), 0
    reason = facts["rl_groups"].label("reason", "zero_variance")
    for number, (start, submitted, lengths) in enumerate(begun):
        fate, ended, version = fates.get(number, (STATES.index("scored"), math.nan, -1))
        done, rejected = start + TOKEN * float(lengths.max()), fate == STATES.index("rejected")
        total = int(lengths.sum())
        put(facts["rl_groups"], (
            0, number, number, 0, fate, reason if rejected else 0, 1, len(lengths), len(lengths), start, done, done + GRADE, ended,
            submitted, -1, version, 0 if rejected else total, total if rejected else 0, 1.0 if rejected else 0.5,
        ))  # fmt: skip
        if rejected:
            put(facts["rl_waste"], (0, number, facts["rl_waste"].label("reason", "zero_variance"), total))
        for place, length in enumerate(lengths.tolist()):
            end = start + TOKEN * length
            cuts = [start, *(time for time in published if start < time < end), end]
            oldest, newest = submitted, submitted + len(cuts) - 2
            mean = sum((oldest + at) * (b - a) for at, (a, b) in enumerate(pairwise(cuts))) / (end - start)
            lags = (version - submitted, version - oldest, version - mean) if version >= 0 else (math.nan,) * 3
            right = int(rejected or place % 2)
            put(facts["rl_samples"], (0, number, place, start, end, end + GRADE, length, length + PROMPT, 1, len(cuts) - 1, oldest, newest,
                                      1, 0, 0, right, float(right), *lags))  # fmt: skip
            put(facts["rl_grades"], (0, grader, number, place, end, 0.1, end + GRADE, 0, float(right)))
            put(facts["requests"], (request, 0, -1, request % 4, start, start, start + TOKEN, end, PROMPT, length, length))
            request += 1


def _engines(facts: Any, begun: Any, pauses: Any, end: float, replicas: int) -> None:
    """Stretches between two changes of a replica's batch; its samples are dealt in turn."""
    spans: list[list[tuple[float, float]]] = [[] for _ in range(replicas)]
    dealt = [(start, start + TOKEN * length) for start, _, lengths in begun for length in lengths.tolist()]
    for turn, span in enumerate(dealt):
        spans[turn % replicas].append(span)
    for replica, mine in enumerate(spans):
        code = facts["replicas"].label("pool", "rollouts"), facts["replicas"].label("gpu", "h100_sxm")
        put(facts["replicas"], (*code, 1, 0.0, 0.0, end, 1000, 16, 500, 500, 500))
        for start, stop in pauses:
            put(facts["pauses"], (replica, start, stop, facts["pauses"].label("why", "update"), 0, 0))
        times = sorted({time for span in [*mine, *pauses] for time in span if time < end} | {end})
        for start, stop in pairwise(times):
            running = sum(a <= start and stop <= b for a, b in mine)
            if running and stop - start > TOKEN and not any(a <= start < b for a, b in pauses):
                count = round((stop - start) / TOKEN)
                row = start, stop - start, TOKEN, replica, count, running, 100, 0, 0, 0.0, 0, 100, 0, float(running * count)
                put(facts["stretches"], row)
