"""Adapters in a running cluster: slots and their order, who is passed over, what a load delays, what never matches, and bad input."""
from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.core.content import Content
from sim.core.request import Request
from sim.core.rng import Keyed
from sim.core.tables import tables
from sim.policy.batch.base import Limits
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.spec.lora import Lora
from sim.world.adapters import HOST, SLOT, STORAGE, Adapters, Wanted
from workloads._adapters import Adapters as Asked

MODEL = "meta-llama/Llama-3.1-8B"
FIXED = {"kind": "fixed", "input": 100, "output": 20}


class Priced:
    """1 s to the GPU, 10 s from storage; a step costs a millisecond a token and ten an adapter."""

    load, read = 1.0, 10.0

    def seconds(self, tokens, adapters):
        return 0.001 * tokens + 0.01 * adapters


def slots(max_loras=2, kept=3):
    table = tables()["adapters"]
    return Adapters(Lora(max_loras=max_loras, max_cpu_loras=kept), Priced(), 1, (0, table)), table


def asking(number, adapter, prompt=10, output=5):
    request = Request(number, 0.0, prompt, output)
    request.adapter = adapter
    return request


def scenario(lora=None, adapters=None, **workload):
    engine = {"lora": lora} if lora is not None else {}
    traffic = {"kind": "poisson", "name": "w", "rate": 20, "num_requests": 200, "lengths": FIXED} | workload
    if adapters is not None:
        traffic["adapters"] = adapters
    return {"seed": 1, "model": MODEL, "cluster": {"pools": [{"gpu": "h100_sxm", "engine": engine}]}, "workloads": [traffic]}


def test_the_least_recently_used_adapter_gives_way():
    """Two slots, three in the host's memory: 0, 1, 2 push 0 out of its slot, and 3 pushes 0 out of the host."""
    adapters, table = slots()
    waits = []
    for number, adapter in enumerate((0, 1, 2, 0, 3, 2, 0)):
        request = asking(number, adapter)
        waits.append(adapters.enter(request, float(number)))
        adapters.leave(request)
    # After 0 1 2: slots 1 2. 0 comes from the host: slots 2 0. 3 from storage: slots 0 3, host 2 0 3. 2 from the host. 0 from the host.
    assert waits == [11.0, 11.0, 11.0, 1.0, 11.0, 1.0, 1.0]
    assert table["source"].tolist() == [STORAGE, STORAGE, STORAGE, HOST, STORAGE, HOST, HOST]
    assert adapters.running == 0
    assert not adapters.active


def test_an_adapter_in_use_keeps_its_slot():
    adapters, table = slots()
    first = asking(0, 0)
    adapters.enter(first, 0.0)
    for number in range(1, 6):
        other = asking(number, number)
        adapters.enter(other, 0.0)
        adapters.leave(other)
    assert adapters.enter(asking(9, 0), 0.0) == 0.0
    assert table["source"][-1] == SLOT
    assert adapters.room(0, ())
    assert adapters.room(7, ())
    assert adapters.room(-1, (5,))
    assert not adapters.room(7, (5,))
    assert adapters.room(7, (7,))


def test_the_quick_price_of_a_step_is_the_plain_one():
    adapters, _ = slots(max_loras=4, kept=4)
    requests = [asking(number, adapter) for number, adapter in enumerate((0, 0, 1, -1, 2, 3))]
    for order, request in enumerate(requests, 1):
        request.order = order
        adapters.enter(request, 0.0)
    decoding, prompts = requests[:4], requests[4:]
    for chunks in ([], [(prompts[0], 7)], [(prompts[0], 7), (prompts[1], 2)]):
        assert adapters.seconds(chunks, prompts, True) == pytest.approx(adapters.plainly(chunks, decoding))
        assert adapters.seconds(chunks, prompts, False) == pytest.approx(adapters.plainly(chunks, []))
    assert adapters.seconds([], prompts, True) == pytest.approx(0.003 + 0.02)


class State:
    """An engine's state as a batcher reads it."""

    def __init__(self, adapters, waiting):
        self.adapters, self.waiting = adapters, waiting
        self.ready, self.prefilling, self.running = [], [], {}
        self.decoders, self.admit = 0, True

    def next_blocks(self):
        return 0


def test_who_would_be_one_adapter_too_many_is_passed_over():
    """vLLM V1: those behind may go before it."""
    adapters, _ = slots(max_loras=2)
    queue = [asking(number, adapter) for number, adapter in enumerate((0, 1, 2, 1, -1, 3, 0))]
    limits = Limits(16, 1000, True, 0, max_loras=2)
    plan = VllmV1().plan(State(adapters, queue), Paged(100, 16), limits, 0.0)
    assert [request.id for request, _ in plan.chunks] == [0, 1, 3, 4, 6]
    freely = VllmV1().plan(State(None, queue), Paged(100, 16), Limits(16, 1000, True, 0), 0.0)
    assert len(freely.chunks) == 7


def test_popularity_follows_zipf():
    chances = Asked(count=4, zipf=1.0).chances(4)
    np.testing.assert_allclose(np.diff(chances, prepend=0.0), np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12))
    np.testing.assert_allclose(np.diff(Asked(count=4, zipf=0.0, share=0.5).chances(4), prepend=0.0), 0.125)
    frame = sim.run(scenario({"max_loras": 3}, {"names": ["a", "b", "c"], "zipf": 1.0}, num_requests=2000, rate=100)).tables["adapters"]
    shares = frame.to_pandas().drop_duplicates("request")["adapter"].value_counts(normalize=True)
    assert shares["a"] == pytest.approx(6 / 11, abs=0.04)
    assert shares["c"] == pytest.approx(2 / 11, abs=0.04)


def test_equal_prompts_of_different_adapters_never_match():
    wanted = Wanted([1.0], [0], Keyed(1, "x")), Wanted([1.0], [1], Keyed(1, "x")), Wanted([0.0], [0], Keyed(1, "x"))
    firsts = []
    for one in wanted:
        request = Request(0, 0.0, 100, 5)
        request.content, request.reply = Content((7, 8), (50, 90), 50), 9
        one.put_on(request)
        firsts.append(request.content.keys[0])
        assert request.content.keys[1:] == (8,)
        assert request.content.ends == (50, 90)
        assert request.reply == 9
    assert len(set(firsts)) == 3
    assert firsts[2] == 7


def test_a_session_keeps_its_adapter_and_finds_its_own_past():
    workload = {"kind": "sessions", "rate": 5, "num_sessions": 40, "turns": 4, "think_time": 1, "shared_prefix": 64, "lengths": FIXED}
    lora = {"max_loras": 8, "max_cpu_loras": 8}
    raw = scenario(lora, {"count": 8, "zipf": 0})
    base = raw | {"workloads": [workload]}
    own = raw | {"workloads": [workload | {"adapters": {"count": 8, "zipf": 0}}]}
    result = sim.run(own)
    rows = result.tables["adapters"].to_pandas().merge(result.requests[["request", "session", "cached_tokens"]], on="request")
    assert (rows.groupby("session")["adapter"].nunique() == 1).all()
    cached, without = rows["cached_tokens"].sum(), sim.run(base).requests["cached_tokens"].sum()
    assert 0.9 * without < cached < without
    # Of the system prompt alone, the first session of each adapter finds nothing.
    assert (rows.sort_values("request").groupby("adapter").first()["cached_tokens"] == 0).all()


def test_a_load_delays_the_step_that_needs_it():
    """One request alone: its first token comes later by storage, PCIe and the adapter's share of the step; the next one finds it there."""
    traffic = {"kind": "constant", "rate": 0.1, "num_requests": 2}
    plain = sim.run(scenario({}, None, **traffic)).requests["ttft"]
    loaded = sim.run(scenario({"load_time": 2.0}, {"names": ["a"]}, **traffic)).requests["ttft"]
    pcie, step = 2 * 41_943_040 / 64e9, loaded[1] - plain[1]
    assert 0 < step < 0.005
    assert loaded[0] - plain[0] == pytest.approx(2.0 + pcie + step)


def test_nothing_changes_where_no_request_asks_for_an_adapter():
    plain, slotted = sim.run(scenario()), sim.run(scenario({"max_loras": 2}))
    for column in ("first_token", "last_token", "admitted"):
        np.testing.assert_array_equal(plain.tables["requests"][column], slotted.tables["requests"][column])
    assert slotted.summary["adapters"] is None


def test_the_summary_counts_starts_and_loads():
    result = sim.run(scenario({"max_loras": 2, "max_cpu_loras": 3}, {"count": 4}))
    found, table = result.summary["adapters"], result.tables["adapters"]
    assert found["starts"] == len(table) >= 200
    assert found["asked_for"] == 4
    assert found["loaded_from_storage"] >= 4
    assert found["slot_hit_rate"] + (found["loaded_from_host"] + found["loaded_from_storage"]) / found["starts"] == pytest.approx(1.0)
    assert found["engines_waited_s"] == pytest.approx(table["seconds"].sum())
    assert all(check["ok"] for check in result.summary["audit"].values())


@pytest.mark.parametrize(
    ("raw", "path", "fragment"),
    [
        (scenario({"max_loras": 4, "max_cpu_loras": 2}), "cluster.pools.0.engine.lora", "max_cpu_loras (2) is below max_loras (4)"),
        (scenario({"load_time": 1, "disk_bandwidth": 1e9}), "cluster.pools.0.engine.lora", "both given"),
        (scenario({"disk_bandwidth": 0}), "cluster.pools.0.engine.lora.disk_bandwidth", "above 0"),
        (scenario({"rank": 0}), "cluster.pools.0.engine.lora.rank", "at least 1"),
        (scenario({"target": "mlp"}), "cluster.pools.0.engine.lora.target", "all-linear"),
        (scenario({}, {"count": 3, "names": ["a"]}), "workloads.0.adapters", "either count or names"),
        (scenario({}, {"names": ["a", "a"]}), "workloads.0.adapters", "differ"),
        (scenario({}, {"count": 3, "popularity": 1}), "workloads.0.adapters.popularity", "unknown key"),
        (scenario(None, {"count": 3}), "workloads.0.adapters", "pool serve serves no adapters"),
    ],
)
def test_bad_input(raw, path, fragment):
    with pytest.raises(sim.BadInput) as caught:
        sim.run(raw)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert fragment in problem.message


def test_static_batches_have_no_adapters():
    raw = scenario({"max_loras": 2})
    raw["cluster"]["pools"][0]["engine"]["batcher"] = {"kind": "static"}
    with pytest.raises(sim.BadInput, match="its kernels know one model"):
        sim.run(raw)
