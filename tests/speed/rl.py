"""Works of reinforcement learning for the benchmark: 512 prompts of 16 samples up to 28k tokens, half of 64 GPUs for rollouts.

`rl` makes two versions, `rl_20` twenty; `rl_long` has every answer run to the limit, so that caches are full and requests are preempted.
"""
from __future__ import annotations

from typing import Any

STEPS = {"rl": 2, "rl_20": 20, "rl_sync_20": 20, "rl_long_20": 20}
ANSWERS = {"mean": 2500, "sigma": 0.8, "cap": 28_672}
LONGEST = {"value": 28_000, "cap": 28_672}


def scenario(name: str) -> dict[str, Any]:
    """The scenario of a work of `STEPS`."""
    engine = {"max_num_seqs": 256, "gpu_memory_utilization": 0.8, "max_model_len": 32_768}
    pool = {"name": "rollouts", "gpu": "h20", "replicas": 8, "parallel": {"tp": 4}, "engine": engine}
    gate = {"kind": "verl", "staleness_threshold": 0.5}
    mode = {"mode": "sync_disaggregated"} if "sync" in name else {"mode": "async", "staleness": gate}
    run = {
        "kind": "rl", **mode, "steps": STEPS[name], "prompts": 512, "samples": 16, "updates": {"trigger": 4},
        "prompt": {"median": 300, "sigma": 0.5}, "answers": LONGEST if "long" in name else ANSWERS,
    }  # fmt: skip
    cluster = {"pools": [pool], "trainers": [{"name": "learner", "gpu": "h20", "gpus": 32}]}
    return {"name": "bench", "seed": 1, "model": "Qwen/Qwen2.5-Math-7B", "cluster": cluster, "workloads": [run]}
