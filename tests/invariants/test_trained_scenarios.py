"""Whole scenarios in which a trainer pauses pools, changes weights, puts replicas to sleep and calls requests off to send what is left of
them: the fast engine equals the oracle, and audits hold, with every feature of the engine on.
"""
from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sim
from sim.world.timer import Deadline
from tests.invariants.test_autoscaling import POOL as SCALED
from tests.invariants.test_autoscaling import TRAFFIC, same_scaling
from tests.invariants.test_cancel import CLIENT, MOVING, TURNS
from tests.invariants.test_modern_engine import BATCHERS, CACHES, MORE, SESSIONS, SHARING, engine
from tests.invariants.test_scenarios import POOL, ROUTER, WORKLOAD, equal
from tests.trained import run

SECONDS = st.sampled_from([0.0, 0.013, 0.2, 0.7])
ACTION = st.one_of(
    st.tuples(st.just("update"), SECONDS, st.sampled_from(["keep", "recompute"]), st.booleans()),
    st.tuples(st.just("pause"), SECONDS, st.sampled_from(["none", "calls"]), st.sampled_from(["keep", "recompute"])),
    st.tuples(st.just("sleep"), SECONDS, st.just(""), st.just(False)),
    st.tuples(st.just("abort"), SECONDS, st.integers(1, 3), st.booleans()),
)
ACTIONS = st.lists(st.tuples(st.floats(0.001, 1.0), st.integers(0, 1), ACTION), min_size=1, max_size=5)


def trainer(actions):
    """Does one thing after the other, each a while after the one before it."""

    def drive(world, controls):
        def wait(seconds):
            done = world.env.event()
            Deadline(world.env, world.env.now + seconds, None, lambda _: done.succeed())
            return done

        for gap, number, (what, seconds, how, also) in actions:
            yield wait(gap)
            control = controls[number % len(controls)]
            if what == "update":
                yield control.update(seconds, how, also)
                continue
            if what == "sleep" and control.prefills:
                continue
            yield control.pause(how if what == "pause" else "none")
            if what == "pause":
                yield control.update(seconds, also)
            elif what == "sleep":
                yield control.sleep()
                yield wait(seconds)
                control.wake()
            else:
                mine = [one for one in world.engines if world.pool_of[one.index] is world.lifecycles[number % len(controls)]]
                every = sorted((request for one in mine for request in one.running.values()), key=lambda request: request.id)[::how]
                control.abort(every)
                yield wait(seconds)
                for request in every if also else ():
                    world.door.submit(control.continued(request))
            yield wait(seconds)
            control.resume()

    return drive


def both(scenario, actions):
    """The result with the fast engine, and with the oracle."""

    def with_exact(exact):
        pools = [pool | {"engine": pool["engine"] | {"exact_steps": exact}} for pool in scenario["cluster"]["pools"]]
        return run(scenario | {"cluster": scenario["cluster"] | {"pools": pools}}, trainer(actions))

    try:
        return with_exact(False), with_exact(True)
    except sim.BadInput as error:
        # A horizon before the first arrival, not one request that fits the decode pool, or patience that cannot be; nothing else.
        known = "no request arrived", "fewer than the smallest request", "comes after timeout"
        assume(not any(text in str(error) for text in known))
        raise


def agree(fast, exact):
    equal(fast, exact)
    for name, by in (("pauses", ("start", "replica")), ("losses", ("request",)), ("attempts", ("request",))):
        a, b = fast.tables[name], exact.tables[name]
        i, j = (np.lexsort([np.round(table[column].astype(float), 7) for column in reversed(by)]) for table in (a, b))
        for column in a.columns:
            one, two = a[column.name][i], b[column.name][j]
            if column.dtype == "f8":
                np.testing.assert_allclose(one, two, rtol=1e-9, atol=2e-9, err_msg=column.name)
            else:
                assert np.array_equal(one, two), column.name
    for result in (fast, exact):
        failed = {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
        assert not failed


@settings(max_examples=30, deadline=None)
@given(
    pools=st.lists(POOL, min_size=1, max_size=2), workloads=st.lists(st.one_of(WORKLOAD, SESSIONS, SHARING), min_size=1, max_size=3),
    batcher=st.sampled_from([batcher for batcher in BATCHERS if batcher["kind"] != "static"]), cache=CACHES, more=MORE, router=ROUTER,
    split=st.sampled_from([None, None, 0, 100]), seed=st.integers(0, 99), duration=st.sampled_from([None, None, 0.7, 3.0]), actions=ACTIONS,
)  # fmt: skip
def test_random_scenarios(pools, workloads, batcher, cache, more, router, split, seed, duration, actions):
    pools = [pool | {"name": f"pool{i}", "engine": engine(pool["engine"], batcher, cache, more)} for i, pool in enumerate(pools)]
    if more[3]:
        workloads = [workload | {"adapters": {"count": 4, "share": 0.7}} for workload in workloads]
    cluster = {"router": router}
    if split is not None:
        pools = [pools[0] | {"role": "prefill"}, pools[-1] | {"name": "decode", "role": "decode", "model": pools[0]["model"]}]
        cluster |= {"disaggregation": {"short_prompt": split, "bandwidth": "1GB/s", "latency": "1ms"}}
    scenario = {"model": pools[0]["model"], "seed": seed, "cluster": cluster | {"pools": pools}, "workloads": workloads}
    agree(*both(scenario | ({"duration": duration} if duration else {}), actions))


@settings(max_examples=25, deadline=None)
@given(
    options=st.fixed_dictionaries({
        "max_num_seqs": st.integers(2, 12), "max_num_batched_tokens": st.integers(24, 300), "num_gpu_blocks_override": st.integers(42, 70),
        "max_model_len": st.just(640), "async_scheduling": st.booleans(),
    }),
    moving=MOVING, workload=TURNS, client=CLIENT, split=st.sampled_from([None, "100MB/s", "1GB/s"]), seed=st.integers(0, 99),
    replicas=st.integers(1, 2), actions=ACTIONS,
)  # fmt: skip
def test_while_caches_are_full_and_on_the_move(options, moving, workload, client, split, seed, replicas, actions):
    pools = [{"name": "a", "gpu": "h100_sxm", "replicas": replicas, "engine": options | moving}]
    cluster = {"pools": pools, "router": {"kind": "round_robin"}}
    if split is not None:
        cluster["pools"] = [pools[0] | {"role": "prefill"}, pools[0] | {"name": "b", "role": "decode"}]
        cluster["disaggregation"] = {"bandwidth": split}
    if client:
        workload = workload | {"client": client}
        actions = [action for action in actions if action[2][0] != "abort"]
    scenario = {"model": "meta-llama/Llama-3.1-8B", "seed": seed, "cluster": cluster, "workloads": [workload]}
    agree(*both(scenario, actions))


@settings(max_examples=12, deadline=None)
@given(
    router=st.sampled_from([
        {"kind": "least_loaded"}, {"kind": "prefix_aware", "index": "events"}, {"kind": "kv_aware", "index": "events"},
    ]),
    views=st.sampled_from([{}, {"views": {"period": "50ms", "delay": "330ms", "own_count": False}}, {"views": {"period": "300ms"}}]),
    workload=st.one_of(WORKLOAD, TURNS), seed=st.integers(0, 99), actions=ACTIONS,
)  # fmt: skip
def test_with_routers_that_look_at_caches_from_other_regions(router, views, workload, seed, actions):
    options = {"max_num_seqs": 6, "max_num_batched_tokens": 200, "num_gpu_blocks_override": 80, "max_model_len": 1000}
    pools = [{"name": name, "gpu": "l4", "replicas": 2, "engine": options, "region": name} for name in ("x", "y")]
    cluster = {"pools": pools, "router": router, "regions": [{"between": ["x", "y"], "latency": "37ms"}]} | views
    workloads = [workload | {"name": name, "region": name} for name in ("x", "y")]
    agree(*both({"model": "Qwen/Qwen2.5-0.5B", "seed": seed, "cluster": cluster, "workloads": workloads}, actions))


@settings(max_examples=8, deadline=None)
@given(pool=SCALED, traffic=TRAFFIC, seed=st.integers(0, 99), split=st.booleans(), actions=ACTIONS)
def test_while_replicas_come_and_go(pool, traffic, seed, split, actions):
    if not pool["engine"]["enable_prefix_caching"]:
        pool = pool | {"engine": pool["engine"] | {"retention": {"kind": "lru"}}}
    pools = [pool | {"name": role, "role": role} for role in ("prefill", "decode")] if split else [pool]
    workload = traffic | {"lengths": {"kind": "uniform", "input": [1, 400], "output": [1, 80]}}
    scenario = {"model": "Qwen/Qwen2.5-0.5B", "seed": seed, "duration": 60, "cluster": {"pools": pools}, "workloads": [workload]}
    fast, exact = both(scenario, actions)
    agree(fast, exact)
    same_scaling(fast, exact)
