"""What a trainer does to a pool: who waits, what is thrown away, what goes on, what is written down of it, and who may not."""
from __future__ import annotations

from unittest import mock

import pytest

import sim
from sim.core.errors import BadInput
from sim.core.request import Request
from sim.core.transfer import Transfer
from sim.study.facts import Tables
from sim.study.gaps import Gaps
from sim.study.states import pauses
from sim.world.cluster import World
from tests.trained import run
from workloads.poisson import Poisson


def scenario(replicas=2, count=120, rate=30, **engine):
    pool = {"gpu": "h100_sxm", "replicas": replicas, "engine": {"max_num_seqs": 64} | engine}
    lengths = {"kind": "uniform", "input": [50, 400], "output": [20, 300]}
    workload = {"kind": "poisson", "rate": rate, "num_requests": count, "lengths": lengths}
    return {"model": "meta-llama/Llama-3.1-8B", "seed": 3, "cluster": {"pools": [pool]}, "workloads": [workload]}


def sound(result):
    assert not {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
    return result


def test_calls_under_way_are_finished_and_others_held_at_the_door():
    seen = {}

    def drive(world, controls):
        yield world.env.timeout(1.0)
        seen["asked"] = world.env.now
        yield controls[0].pause("calls")
        seen["paused"] = world.env.now
        assert [engine.in_flight for engine in world.engines] == [0, 0]
        yield world.env.timeout(0.5)
        assert [engine.in_flight for engine in world.engines] == [0, 0]
        controls[0].resume()
        seen["resumed"] = world.env.now

    result = sound(run(scenario(), drive))
    requests, held = result.requests, result.tables["held"]
    between = (requests["arrival"] > seen["asked"]) & (requests["arrival"] < seen["resumed"])
    assert between.sum() == len(held) > 5
    assert (requests["admitted"][between] >= seen["resumed"]).all()
    assert (requests["last_token"][requests["arrival"] < seen["asked"]] <= seen["paused"]).all()
    states = result.summary["replica_states"]["serve"]
    assert states["update"] == pytest.approx(2 * 0.5, abs=1e-6)
    # One was there first, and waited for the other.
    ends = [requests["last_token"][(requests["replica"] == one) & (requests["arrival"] < seen["asked"])].max() for one in (0, 1)]
    assert states["drain"] == pytest.approx(abs(ends[0] - ends[1]), abs=1e-6)
    assert sum(states.values()) == pytest.approx(2 * result.meta["sim_s"], rel=1e-9)


@pytest.mark.parametrize("kv", ["keep", "recompute"])
def test_an_update_cuts_requests_into_segments_and_every_token_has_its_gap(kv):
    versions = []

    def drive(world, controls):
        for _ in range(3):
            yield world.env.timeout(0.6)
            yield controls[0].pause()
            open_ = {request.id: controls[0].progress(request) for engine in world.engines for request in engine.running.values()}
            yield controls[0].update(0.25, kv)
            versions.append(open_)
            controls[0].resume()

    result = sound(run(scenario(), drive))
    rows = result.tables["pauses"]
    assert (rows["forgotten"].sum() > 0) == (kv == "recompute")
    assert (rows["standing"].sum() > 0) == (kv == "keep")
    outputs = dict(zip(result.tables["requests"]["request"].tolist(), result.tables["requests"]["output_tokens"].tolist(), strict=True))
    assert all(0 <= made < outputs[number] for segments in versions for number, made in segments.items())
    # Gaps between tokens, weighted, are the time between first and last tokens.
    facts, total, weight = Tables(result), 0.0, 0
    reader = Gaps(None, pauses(facts))
    for page in facts.stretches():
        values, weights = reader.of(page)
        total, weight = total + float((values * weights).sum()), weight + int(weights.sum())
    stalls = [seconds for page in facts.stalls() for seconds in page]
    requests = result.requests
    assert weight + len(stalls) == requests["output_tokens"].sum() - len(requests)
    assert total + sum(stalls) == pytest.approx((requests["last_token"] - requests["first_token"]).sum(), rel=1e-9)


def test_asleep_no_memory_is_in_use_and_all_is_computed_again_later():
    def drive(world, controls):
        yield world.env.timeout(0.9)
        yield controls[0].sleep()
        assert all(engine.used == 0 and engine.in_flight for engine in world.engines)
        yield world.env.timeout(2.0)
        controls[0].wake()
        yield controls[0].update(0.3)
        controls[0].resume()

    one, two = (sound(run(scenario(), drive)) for _ in range(2))
    states = one.summary["replica_states"]["serve"]
    assert states["sleep"] == pytest.approx(4.0, abs=1e-6)
    assert states["update"] == pytest.approx(0.6, abs=1e-6)
    assert sum(states.values()) == pytest.approx(2 * one.meta["sim_s"], rel=1e-9)
    assert one.summary["audit"]["I5"]["detail"] == two.summary["audit"]["I5"]["detail"]


@pytest.mark.parametrize("kv", ["keep", "recompute"])
def test_what_is_left_of_a_request_goes_on_where_it_stopped(kv):
    found = []

    def drive(world, controls):
        control = controls[0]
        request = Request(-1, world.env.now, 200, 300)
        request.reply = world.keys(1)
        call = world.door.call(request)
        yield world.env.timeout(1.0)
        yield control.pause()
        made = control.progress(request)
        control.abort([request])
        assert (yield call).generated == made
        # Of nobody under way any more, so that it goes where such blocks are cleared.
        yield control.update(0.1, kv, clear_prefix=False)
        rest = control.continued(request)
        assert (rest.prompt, rest.output) == (200 + made, 300 - made)
        again = world.door.call(rest)
        control.resume()
        found.append((yield again))
        with pytest.raises(ValueError, match="all its tokens"):
            control.continued(rest)

    result = sound(run(scenario(replicas=1, count=1), drive))
    rest = found[0]
    assert rest.generated == rest.output
    # The newest token's keys and values were not there yet.
    assert rest.cached == ((rest.prompt - 1) // 16 * 16 if kv == "keep" else 0)
    assert result.summary["requests"]["failed"] == 1
    assert "aborted" in result.tables["requests"].labels["reason"]


def test_weights_come_over_the_network_while_nobody_steps():
    def drive(world, controls):
        yield world.env.timeout(0.5)
        yield controls[1].update(Transfer("weight_sync", "from", "to", 4e9), "recompute")

    pools = [{"name": name, "gpu": "h100_sxm", "replicas": 1, "engine": {"max_num_seqs": 64}} for name in ("from", "to")]
    network = {"fabric": {"kind": "flat"}, "hosts": [{"gpu": "h100_sxm", "count": 1}]}
    base = scenario(count=40) | {"cluster": {"pools": pools, "network": network}}
    base["workloads"][0]["model"] = "to"
    result = sound(run(base, drive))
    delivery = result.tables["deliveries"]
    assert delivery["bytes"].tolist() == [4e9]
    took = float(delivery["end"][0] - delivery["start"][0])
    states = result.summary["replica_states"]
    assert states["to"]["update"] == pytest.approx(took, abs=1e-6)
    assert states["from"]["update"] == 0.0


def test_who_may_pause_what():
    def asked(workloads, pool="serve", number=0, trains=True, **engine):
        with mock.patch.object(Poisson, "trains", trains):
            loaded = sim.spec.load.loads(scenario(**engine) | {"workloads": workloads})
            world = World(loaded)
            for one in range(number):
                world._clients[one].control(pool)
            return world._clients[number].control(pool)

    one = scenario()["workloads"]
    assert asked(one).paused is False
    with pytest.raises(BadInput, match="does not train"):
        asked(one, trains=False)
    with pytest.raises(BadInput, match="no pool is named 'serv'; did you mean serve"):
        asked(one, pool="serv")
    with pytest.raises(BadInput, match="trained by another workload already"):
        asked(one * 2, number=1)
    with pytest.raises(BadInput, match="static batches, which cannot be interrupted"):
        asked(one, batcher={"kind": "static"}, max_num_batched_tokens=131072)


def test_a_prefill_pool_cannot_sleep():
    def drive(world, controls):
        yield world.env.timeout(0.1)
        yield controls[0].sleep()

    pools = [{"name": role, "gpu": "h100_sxm", "role": role} for role in ("prefill", "decode")]
    with pytest.raises(BadInput, match="cannot be put to sleep"):
        run(scenario() | {"cluster": {"pools": pools}}, drive)


TIERS = [{"kind": "host", "capacity": "10GB"}]


@pytest.mark.parametrize("options", [
    {"retention": {"kind": "lru"}}, {"retention": {"kind": "keep"}}, {"retention": {"kind": "ttl", "seconds": 60, "firm": True}},
    {"kv_tiers": TIERS}, {"kv_tiers": TIERS, "retention": {"kind": "offload"}},
    {"kv_tiers": TIERS, "kv_offload": "on_evict", "retention": {"kind": "keep"}},
])  # fmt: skip
@pytest.mark.parametrize("clear", [False, True])
def test_what_sessions_left_is_cleared_wherever_it_is(options, clear):
    """Two turns of one session each, an update while they think: the second is found in the cache only where that was not cleared."""

    def drive(world, controls):
        yield world.env.timeout(3.0)
        yield controls[0].update(0.1, "keep", clear)
        engine = world.engines[0]
        if clear:
            assert not engine.kv._root.children
            assert engine.kv.free == engine.kv.blocks
            assert not options.get("kv_tiers") or all(tier.held == 0 for tier in engine.kv.tiers)

    pool = {"gpu": "h100_sxm", "engine": {"kv_reload": "always"} | options if "kv_tiers" in options else options}
    sessions = {
        "kind": "sessions", "num_sessions": 3, "rate": 10, "turns": 2, "turns_law": "fixed", "think_time": "10s", "think_sigma": 0,
        "lengths": {"kind": "fixed", "input": 160, "output": 33},
    }  # fmt: skip
    result = sound(run({"model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [sessions]}, drive))
    requests = result.requests.sort_values("arrival")
    second = requests["cached_tokens"].to_numpy()[3:]
    assert (second == (0 if clear else 192)).all()


@pytest.mark.parametrize("exact", [False, True])
def test_who_was_called_off_while_its_cache_comes_is_gone_when_that_is_forgotten(exact):
    """Swapped out, on its way back, called off, then paused and forgotten: it does not wait for what nobody wants."""
    seen = []

    def drive(world, controls):
        engine = world.engines[0]
        while not engine.loading:
            yield world.env.timeout(1e-4)
        request = engine.loading[0]
        world.door.cancel(request, "aborted")
        assert request in engine.loading
        flight, stopped = engine.in_flight, world.env.event()
        engine.pause(stopped.succeed)
        yield stopped
        assert request in engine.loading
        engine.forget(True)
        seen.append((request.id, engine.in_flight - flight, engine.kv.free - engine.kv.blocks, len(engine.loading)))
        yield world.env.timeout(1.0)
        engine.resume()

    engine = {"num_gpu_blocks_override": 60, "max_model_len": 900, "preemption_mode": "swap", "swap_space": "4GB",
              "enable_prefix_caching": False, "exact_steps": exact, "max_num_batched_tokens": 256}  # fmt: skip
    base = scenario(replicas=1, count=20, rate=100, **engine)
    # Slow enough for somebody to see it.
    with mock.patch("sim.world.replicas.host_bandwidth", return_value=1e9):
        result = run(base, drive)
    assert result.summary["requests"] | {"arrived": 20, "completed": 19, "failed": 1} == result.summary["requests"]
    (number, gone, held, loading), = seen
    assert (gone, held, loading) == (-1, 0, 0)
    table = result.tables["requests"]
    assert table["status"][table["request"] == number].tolist() == [2]
