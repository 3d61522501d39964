"""A few runs whose figures are written down: what moves them must say so in the CHANGELOG. The invariants are tested beside them.

`python -m tests.golden.test_golden` writes them anew and prints the change as a table.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sim

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden.json")
TIGHT = {
    "name": "tight", "seed": 3, "model": "meta-llama/Llama-3.1-70B",
    "cluster": {"pools": [{"gpu": "h200_sxm", "replicas": 2, "parallel": {"tp": 4}, "precision": "fp8",
                           "engine": {"num_gpu_blocks_override": 4000}}],
                "router": {"kind": "power_of_two"}, "admission": {"kind": "max_queue", "limit": 100}},
    "workloads": [{"kind": "preset", "preset": "mooncake_conversation", "rate": 3, "num_requests": 400}],
}  # fmt: skip
MIXED = {
    "name": "mixed", "seed": 4, "model": "Qwen/Qwen3-30B-A3B",
    "cluster": {"pools": [{"name": "fast", "gpu": "b200", "precision": "fp8"}, {"name": "cheap", "gpu": "l40s", "parallel": {"tp": 4}}]},
    "workloads": [{"kind": "closed", "concurrency": 48, "num_requests": 400, "lengths": {"kind": "preset", "name": "azure_conv_2023"}}],
}  # fmt: skip
LEARNS = {
    "name": "learns", "seed": 5, "model": "Qwen/Qwen2.5-7B",
    "cluster": {"pools": [{"name": "rollouts", "gpu": "h100_sxm", "replicas": 4}],
                "trainers": [{"name": "learner", "gpu": "h100_sxm", "gpus": 4}]},
    "workloads": [{"kind": "rl", "mode": "async", "staleness": {"kind": "areal", "eta": 1}, "steps": 6, "prompts": 32, "samples": 8,
                   "prompt": {"median": 300, "sigma": 0.5}, "answers": {"mean": 1200, "sigma": 0.8, "cap": 8192}}],
}  # fmt: skip
STUDIES: dict[str, Any] = {"quickstart": ROOT / "configs" / "quickstart.yaml", "tight": TIGHT, "mixed": MIXED, "learns": LEARNS}
# What a run that learns has beside the others' figures.
ALSO = ("steps", "step_s", "breakdown", "rollout", "staleness", "lengths", "waste", "throughput", "syncs")
KEYS = ("requests", "ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s", "throughput", "gpu", "kv", "cost", "energy")


def figures(name: str) -> dict[str, float]:
    """The scalar figures of a study, by dotted name."""
    summary = sim.run(STUDIES[name]).summary
    assert all(check["ok"] for check in summary["audit"].values())
    found = {key: value for group in KEYS for key, value in scalars(group, summary[group])}
    runs = (summary["rl"] or {}).values()
    return found | {key: value for run in runs for group in ALSO for key, value in scalars(f"rl.{group}", run[group])}


def scalars(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers of a nested mapping, by dotted name."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from scalars(f"{name}.{key}", inner)
    elif value is not None and not isinstance(value, str):
        yield name, value


@pytest.mark.parametrize("name", STUDIES)
def test_figures_have_not_moved(name):
    golden = json.loads(GOLDEN.read_text())[name]
    # Sums may round differently between versions of numpy; ITL percentiles come from bins of 0.01 %.
    assert figures(name) == pytest.approx(golden, rel=3e-4)


def main() -> None:
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    new = {name: figures(name) for name in STUDIES}
    for name, values in new.items():
        for key, value in values.items():
            before = old.get(name, {}).get(key)
            if before is None or abs(value - before) > 3e-4 * abs(before):
                print(f"{name:12s} {key:40s} {'-' if before is None else f'{before:.6g}':>12s} -> {value:.6g}")
    GOLDEN.write_text(json.dumps(new, indent=1) + "\n")


if __name__ == "__main__":
    main()
