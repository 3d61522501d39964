"""Works of agents for the benchmark: sessions that all work at once, each in a sandbox, and the burst of an evaluation.

Their clusters grow with them, so that ten times the sessions are ten times the work and nothing else.
"""
from __future__ import annotations

from typing import Any

# Sessions of ten LLM calls with tools between them; a cluster of 64 replicas for ten thousand.
SESSIONS = {"agents": 1_000, "agents_3k": 3_000, "agents_10k": 10_000}
# Samples of an evaluation, each with one call, a sandbox and a command that grades it; a thousand CPU nodes for a hundred thousand.
SAMPLES = {"burst": 10_000, "burst_100k": 100_000}

TOOLS = {
    "bash": {"sandbox": True, "time": {"mixture": [{"p": 0.6, "median": "150ms", "sigma": 0.8}, {"p": 0.4, "median": "3s", "sigma": 1.0}]},
             "observation": {"median": 300, "sigma": 1.0}, "timeout": "2m"},
    "read": {"sandbox": True, "time": "100ms", "observation": {"median": 800, "sigma": 1.0}},
}  # fmt: skip
AGENT = {
    "system": 3000, "message": {"median": 400, "sigma": 1.0}, "calls": 10, "output": {"median": 120, "sigma": 0.8},
    "tools": {"bash": 0.6, "read": 0.4}, "sandbox": {"pool": "boxes"},
}  # fmt: skip
GRADER = {"test": {"sandbox": True, "time": {"median": "8s", "sigma": 1.0}, "observation": 10, "timeout": "5m"}}
BOXES = {
    "name": "boxes", "node": "general_64", "cores": 0.5, "boot": {"median": "2s", "sigma": 0.5}, "images": {"count": 300, "zipf": 1.0},
    "memory": {"base": "185MB", "burst": {"median": "800MB", "sigma": 0.5}, "burst_time": "1.5s"},
}  # fmt: skip


def _scenario(count: int, replicas: int, workload: dict[str, Any]) -> dict[str, Any]:
    pool = {"gpu": "h100_sxm", "replicas": replicas}
    cluster = {"pools": [pool], "router": {"kind": "session_affinity"}, "sandboxes": [BOXES | {"nodes": max(1, count // 100)}]}
    return {"name": "bench", "seed": 1, "model": "meta-llama/Llama-3.1-8B", "cluster": cluster, "workloads": [workload]}


def scenario(name: str) -> dict[str, Any]:
    """The scenario of a work of `SESSIONS` or `SAMPLES`."""
    if name in SESSIONS:
        count = SESSIONS[name]
        agents = {"kind": "agents", "concurrency": count, "num_sessions": count, "agents": {"main": AGENT}, "tools": TOOLS}
        return _scenario(count, max(1, count * 64 // 10_000), agents)
    count = SAMPLES[name]
    answers = {"kind": "fixed", "input": 1500, "output": 400}
    evals = {"kind": "evals", "tasks": count // 200, "samples": 200, "lengths": answers, "sandbox": {"pool": "boxes", "at": "start"},
             "tools": GRADER, "grade": {"tool": "test"}}  # fmt: skip
    return _scenario(count, max(1, count * 64 // 100_000), evals)
