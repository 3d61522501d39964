"""Small problems for plans, and what looking at everything finds."""
from __future__ import annotations

import copy

import sim
from sim.study.plan.layouts import Layouts
from sim.study.plan.plan import written
from sim.study.plan.trial import trial

LENGTHS = {"kind": "lognormal", "input": {"mean": 900, "p99": 4000}, "output": {"mean": 150, "p99": 600}}
BASE = {
    "name": "small", "seed": 1, "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [{"gpu": "h100_sxm"}]},
    "workloads": [{"kind": "poisson", "rate": 60, "num_requests": 400, "lengths": {"kind": "fixed", "input": 800, "output": 100}}],
    "slo": {"ttft_p95": "500ms", "tpot_p95": "40ms"},
    "plan": {
        "gpu": ["a100_sxm_80gb", "h100_sxm", "l40s"], "parallel": [{"tp": 1}, {"tp": 2}], "replicas": {"range": {"min": 1, "max": 16}},
        "replications": 1,
    },
}  # fmt: skip


def problem(plan=None, work=None, **words):
    """The base with keys of its plan and its workload changed, and others replaced."""
    made = copy.deepcopy(BASE) | words
    made["plan"] |= plan or {}
    made["workloads"][0] |= work or {}
    if made["workloads"][0]["kind"] == "closed":
        del made["workloads"][0]["rate"]
    return made


TEN = {
    "fixed": problem(),
    "lognormal": problem(seed=2, work={"rate": 150, "num_requests": 800, "lengths": LENGTHS}),
    "fast": problem(slo={"tpot_p95": "12ms", "ttft_p95": "1s"}),
    "busy": problem(work={"rate": 300, "num_requests": 1500}),
    "bursty": problem(seed=3, work={"kind": "gamma", "cv": 3, "rate": 80}),
    "small GPUs": problem({"gpu": ["l4", "l40s", "rtx4090", "h100_sxm"], "parallel": [{"tp": 1}],
                           "engine": {"max_num_batched_tokens": [1024, 4096]}}, {"rate": 20}),
    "large model": problem({"parallel": [{"tp": 1}, {"tp": 2}, {"tp": 4}]}, {"rate": 20}, model="Qwen/Qwen2.5-32B"),
    "number formats": problem({"precision": ["bf16", "fp8"], "gpu": ["h100_sxm", "h200_sxm", "b200"]},
                              {"rate": 200, "num_requests": 800, "lengths": LENGTHS}),
    "whole answers": problem(slo={"e2e_p95": "4s"}, work={"rate": 120}),
    "waiting clients": problem(seed=7, work={"kind": "closed", "concurrency": 256, "num_requests": 768},
                               slo={"tpot_p95": "15ms", "ttft_p95": "1s"}),
}  # fmt: skip


def exhaustive(scenario):
    """Dollars, name and replicas of the cheapest that holds, of every layout in every number that is not dearer than one found."""
    best = None
    for layout in Layouts(scenario, scenario.plan, written(scenario)):
        for count in () if layout.refused else scenario.plan.counts:
            found = layout.hourly(count), layout.words, count
            if best is not None and found[0] >= best[0]:
                break
            if trial(layout.sized(count)).met:
                best = found
                break
    return best


def layouts(made):
    """The layouts of a mapping."""
    scenario = sim.loads(made)
    return Layouts(scenario, scenario.plan, written(made))
