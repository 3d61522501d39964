"""A session that is over leaves rows in tables and nothing else: five times as many leave no object more, and none is in a cycle."""
from __future__ import annotations

import gc
import math
from collections import Counter

from sim.spec.load import loads
from sim.world.cluster import World

KINDS = {"main": {"system": 200, "message": 50, "calls": 3, "output": 5, "tools": {"bash": 0.6, "ask": 0.4}, "sandbox": {"pool": "boxes"},
                  "budget": {"time": "1s"}, "spawns": [{"agent": "judge", "share": 0.2, "count": 2, "join": 1}]},
         "judge": {"task": 10, "output": 3}}  # fmt: skip
TOOLS = {"bash": {"sandbox": True, "time": {"mean": "100ms"}, "observation": 10, "timeout": "500ms", "hang": 0.05, "api": "web"},
         "ask": {"model": {"agent": "judge"}}}  # fmt: skip
BOXES = {"name": "boxes", "nodes": 1, "node": {"cores": 8, "memory": "16GB", "disk": "100GB"}, "memory": "1GB", "boot": "100ms", "warm": 2,
         "images": {"count": 3, "size": "1GB", "bandwidth": "10GB/s"}, "crash": 500, "idle_timeout": "10s"}  # fmt: skip


def world(sessions: int) -> World:
    """Ready to run so many sessions."""
    engine = {"num_gpu_blocks_override": 600, "max_model_len": 2000}
    work = {"kind": "agents", "concurrency": 20, "num_sessions": sessions, "agents": KINDS, "tools": TOOLS,
            "apis": {"web": {"concurrency": 8}}}  # fmt: skip
    cluster = {"pools": [{"gpu": "l4", "engine": engine}], "router": {"kind": "session_affinity"}, "sandboxes": [BOXES]}
    made = World(loads({"model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": [work]}))
    made.start()
    return made


def left(sessions: int) -> Counter[str]:
    """Objects of the simulator, by type, after so many sessions."""
    run = world(sessions)
    run.env.advance(math.inf)
    assert run.door.arrived > 3 * sessions
    gc.collect()
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__name__}" for thing in gc.get_objects())
    return Counter({kind: count for kind, count in kinds.items() if kind.startswith(("sim.", "workloads.", "simpy."))})


def test_sessions_that_have_ended_leave_no_objects():
    left(20)
    few, many = left(150), left(750)
    # Pieces of the cache, of which there are as many as fit; and warm sandboxes that happen to be on their way.
    grown = {kind: count for kind, count in (many - few).items() if kind != "sim.policy.kv.node.Node" and count > 20}
    assert grown == {}
    assert many["sim.policy.kv.node.Node"] <= 600
    assert few.total() > 100


def test_what_is_over_is_freed_at_once():
    run = world(150)
    gc.collect()
    gc.disable()
    try:
        run.env.advance(math.inf)
        # A cycle per session would leave thousands; collecting them cost a fifth of a burst.
        assert gc.collect() < 50
    finally:
        gc.enable()
