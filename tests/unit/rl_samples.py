"""A run of reinforcement learning without a simulator: tables of steps of ten seconds that agree with each other, and with its requests.

Each version trains on two groups of two samples. All begin with the step on two replicas, which serve one request at a time; a grade takes
half a second from the end of a sample, log-probabilities take one second, an update two, and new weights the rest of the step.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from synthetic import edit, put, serve

from sim.core.rollout import STATES, TRAINED
from sim.study.result import Result

STEP, GROUPS, SAMPLES = 10.0, 2, 2
GRADE, LOGPROB, UPDATE = 0.5, 1.0, 2.0
OUTPUTS = (100, 200, 300, 50)
PEAK, TRAINERS, PRICE = 1e15, 2, 7.2
NAME = "poisson"


def rl_run(
    steps: int = 3, mode: str = "sync_disaggregated", lag: int = 0, asked: tuple[int, ...] = OUTPUTS, **changes: Any
) -> Result:  # fmt: skip
    """So many steps, each on groups that were submitted `lag` versions before where there were as many; `asked` are tokens of
    its samples, `changes` of the entry in `meta["rl"]`.
    """
    outputs = np.array(asked * steps)
    arrivals = np.repeat(STEP * np.arange(steps), len(asked))
    result = serve(arrivals, outputs, replicas=2)
    end = STEP * steps
    result.meta |= {
        "sim_s": end, "arrived": len(outputs), "rl": [entry(mode) | changes],
        "trainers": [{
            "name": "train", "gpus": TRAINERS, "price_per_hour": PRICE, "peak_flops": PEAK * TRAINERS, "idle_watts": 70.0, "tdp": 700.0,
            "host_watts": 300.0, "extrapolated": [], "provenance": [], "shares": None,
        }],
    }  # fmt: skip
    for replica in range(2):
        edit(result.tables["replicas"], "end", replica, end)
    done = result.tables["requests"]["last_token"].reshape(steps, len(asked))
    for table in ("rl_steps", "rl_groups", "rl_samples", "rl_waste", "rl_syncs", "rl_grades"):
        result.tables[table].label("workload", NAME)
    for step in range(steps):
        _step(result, (step, max(step - lag, 0)), done[step], asked, mode)
    return result


def entry(mode: str) -> dict[str, Any]:
    """What `meta["rl"]` says of it: replicas that would make 200 tokens/s each at full batch, whatever the context."""
    gate = {"kind": "areal", "eta": 1, "max_concurrent": None} if mode == "async" else None
    return {
        "name": NAME, "pool": "serve", "trainer": "train", "mode": mode, "colocated": False, "gpus_rollout": 2, "gpus_train": TRAINERS,
        "steps": 1,
        "prompts": GROUPS, "samples": SAMPLES, "gate": gate, "graders": {"rule": 2}, "filtered": False, "alone": True, "sandboxes": [],
        "peak": {"context": [1.0, 1e6], "batch": [2.0, 2.0], "tokens_per_s": [200.0, 200.0]},
    }  # fmt: skip


def _step(result: Result, versions: tuple[int, int], done: np.ndarray, asked: tuple[int, ...], mode: str) -> None:
    step, submitted = versions
    tables, start, long = result.tables, STEP * step, float(done.max()) - STEP * step
    taken = start + long + GRADE
    rewards = (1.0, 0.0, 1.0, 1.0)
    for group in range(GROUPS):
        mine = range(group * SAMPLES, (group + 1) * SAMPLES)
        number, last, tokens = step * GROUPS + group, float(done[list(mine)].max()), sum(asked[one] for one in mine)
        put(tables["rl_groups"], (
            0, number, number, 0, STATES.index(STATES[TRAINED]), 0, 1, SAMPLES, SAMPLES, start, last, last + GRADE, taken, submitted,
            step, step, tokens, 0, sum(rewards[one] for one in mine) / SAMPLES,
        ))  # fmt: skip
        for one in mine:
            lag = float(step - submitted)
            put(tables["rl_samples"], (
                0, number, one % SAMPLES, start, float(done[one]), float(done[one]) + GRADE, asked[one], asked[one] + 100, 1, 1,
                submitted, submitted, 1, 0, 0, int(rewards[one]), rewards[one], lag, lag, lag,
            ))  # fmt: skip
            rule = tables["rl_grades"].label("grader", "rule")
            put(tables["rl_grades"], (0, rule, number, one % SAMPLES, float(done[one]), 0.1, float(done[one]) + GRADE, 0, rewards[one]))
    moments = np.cumsum([start, long, GRADE, LOGPROB, UPDATE]).tolist()
    sync = start + STEP - moments[-1]
    generate = math.nan if mode in ("async", "one_step_off") else long
    put(tables["rl_steps"], (
        0, step + 1, start, start + STEP, long, GRADE, 0.0, LOGPROB, 0.0, UPDATE, sync, 0.0, 0.0, 0.0, generate, GROUPS, GROUPS * SAMPLES,
        sum(asked), sum(asked) + 100 * len(asked), asked[0] + asked[1], GROUPS, 0,
    ))  # fmt: skip
    put(tables["rl_syncs"], (
        0, step + 1, moments[-1], moments[-1] + 0.25, moments[-1] + 0.25, moments[-1] + 1.25, start + STEP, start + STEP, 2e9, 0, 0, 0,
    ))  # fmt: skip
    states = tables["train_states"]
    for state, since, until in zip(("wait", "reward", "logprob", "update", "publish"), moments, [*moments[1:], start + STEP], strict=True):
        put(states, (states.label("trainer", "train"), states.label("state", state), since, until))
    train = tables["train_steps"]
    codes = train.label("trainer", "train"), train.label("workload", NAME)
    flops = 0.4 * PEAK * TRAINERS * UPDATE
    put(train, (*codes, step, moments[3], moments[4], 4, 1050, 1, flops, 1.25 * flops, flops, UPDATE))
