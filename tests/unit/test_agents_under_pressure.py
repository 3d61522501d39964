"""Agents whose contexts do not fit the KV cache together: what orders, retention and a gate do, by sign; and nothing without pressure.

Agents of a dozen calls reach some 25,000 tokens, and two replicas hold 144,000 each: a dozen agents find room. Under pressure each agent
that is let in costs the others their caches: computing them again is most of the work, and a gate saves it.
"""
from __future__ import annotations

import functools

import pytest

import sim

AGENT = {
    "system": 4000, "task": {"mean": 1500, "sigma": 0.5}, "calls": {"mean": 12, "p99": 30}, "output": {"mean": 300, "sigma": 0.8},
    "tools": {"short": 0.9, "long": 0.1},
}  # fmt: skip
READ = {"mean": 1500, "sigma": 1.0}
TOOLS = {
    "short": {"time": {"median": "500ms", "p99": "5s"}, "observation": READ},
    "long": {"time": {"median": "15s", "p99": "60s"}, "observation": READ},
}


@functools.cache
def figures(order="fcfs", gate=None, firm=None, rate=0.5, blocks=9000):
    """Mean time of an agent, s; share of prompts found in the cache; preemptions. `gate` is the weight of those whose tools run, `firm` the
    seconds for which caches are pinned; None: there is neither.
    """
    engine = {"max_num_seqs": 128, "max_num_batched_tokens": 4096, "num_gpu_blocks_override": blocks, "max_model_len": 65536}
    engine["batcher"] = {"kind": "vllm_v1", "order": {"kind": order}}
    if firm:
        engine["retention"] = {"kind": "ttl", "seconds": firm, "firm": True}
    cluster = {"pools": [{"gpu": "h100_sxm", "replicas": 2, "engine": engine}], "router": {"kind": "session_affinity"}}
    if gate is not None:
        cluster["gate"] = {"kind": "kv_capacity", "acting_token_weight": gate}
    load = {"kind": "agents", "rate": rate, "num_sessions": 100, "agents": {"main": AGENT}, "tools": TOOLS}
    result = sim.run({"model": "meta-llama/Llama-3.1-8B", "seed": 1, "cluster": cluster, "workloads": [load]})
    assert all(check["ok"] for check in result.summary["audit"].values())
    assert result.summary["requests"]["unfinished"] == 0
    found = result.requests
    agents = found[found.status == "completed"].groupby("session").agg(begin=("arrival", "min"), end=("last_token", "max"))
    return (agents.end - agents.begin).mean(), result.summary["kv"]["prefix_hit_rate"], result.summary["kv"]["preemptions"]


def test_a_gate_saves_what_would_be_computed_again():
    free, gated = figures(), figures(gate=1.0)
    assert gated[0] < 0.85 * free[0]
    assert gated[1] > free[1] + 0.2
    assert gated[2] < 0.5 * free[2]


def test_a_gate_that_lets_more_in_saves_less():
    """A weight of 0.1 fills the room of agents whose tools run: their caches are lost, which costs more here than the room is worth."""
    assert figures(gate=1.0)[1] > figures(gate=0.1)[1] > figures()[1]


def test_caches_that_are_pinned_pay_with_the_order_that_uses_them():
    """Continuum's point: in order of calls, those whose cache is pinned queue behind others that wait for the room it takes."""
    pinned, alone = figures("ttl_priority", firm=5.0), figures(firm=5.0)
    assert pinned[0] < 0.95 * figures()[0]
    assert pinned[1] > figures()[1] + 0.2
    assert alone[0] > figures()[0]


def test_programs_in_order_find_more_in_the_cache_than_calls_in_order():
    assert figures("program_fcfs")[1] > figures()[1] + 0.05


def test_least_attained_starves_long_agents_and_their_caches():
    """What an agent was given says little here of what it still needs, and whoever comes new takes the room of who has much of it."""
    assert figures("least_attained")[0] > 1.2 * figures()[0]


def test_where_all_fits_a_gate_and_an_order_change_nothing():
    free = figures(rate=0.1, blocks=24000)
    assert free[1] > 0.9
    assert figures(gate=1.0, rate=0.1, blocks=24000)[0] == pytest.approx(free[0], rel=1e-6)
    assert figures("program_fcfs", rate=0.1, blocks=24000)[0] == pytest.approx(free[0], rel=0.01)
