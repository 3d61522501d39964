"""GPUs that two pools share: who has them when, what becomes of requests, and what is paid."""
from __future__ import annotations

import numpy as np
import pytest
from lent import MODEL, driven, poisson, scenario
from synthetic import edit

import sim
from sim.spec.lending import When
from sim.study.audit import audit


def sound(result):
    assert not {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
    assert result.summary["audit"]["lending"]["checked"] == len(result.tables["lendings"])
    return result


def to_and_fro(lend=1.0, back=3.0, again=12.0):
    """Lent, taken back, and lent once more when those of the owner are done."""
    def drive(world, controls):
        sharing = world.sharings[0]
        yield world.env.timeout(lend)
        yield sharing.lend()
        assert (sharing.lent, len(sharing.borrower.ready)) == (2, 2)
        yield world.env.timeout(back - lend)
        yield sharing.take_back()
        assert (sharing.lent, len(sharing.borrower.ready)) == (0, 0)
        yield world.env.timeout(again - world.env.now)
        yield sharing.lend()

    return drive


HOWS = [{"how": "drain", "grace": "0s"}, {"how": "drain", "grace": "300ms"}, {"how": "drain"}, {"how": "preempt"}, {"how": "abort"}]


# -- requests ------------------------------------------------------------
@pytest.mark.parametrize("how", HOWS, ids=["at_once", "grace", "drain", "preempt", "abort"])
def test_requests_are_neither_lost_nor_run_twice(how):
    result = sound(driven(scenario({"pool": "serve", "lend": how, "take_back": how}), to_and_fro()))
    table, counts = result.tables["lendings"], result.summary["requests"]
    assert (table["kind"].tolist(), np.isnan(table["served"]).any()) == ([0, 0, 1, 1, 0, 0], False)
    called_off, sent_on = int(table["called_off"].sum()), int(table["sent_on"].sum())
    assert (counts["arrived"], counts["completed"], counts["failed"]) == (200, 200 - called_off, called_off)
    waited = table["empty"] - table["start"]
    if how == {"how": "drain"}:
        assert (called_off, sent_on) == (0, 0)
        assert waited.max() > 1.0
    else:
        # Within the grace, and a step.
        assert waited.max() < (0.4 if how.get("grace") == "300ms" else 0.1)
        assert (called_off > 0) == (how["how"] == "abort")
        assert sent_on > 0 or how["how"] == "abort"
    assert "lent" in result.tables["requests"].labels["reason"] or not called_off


def test_tokens_that_were_out_stay_out_and_are_computed_again():
    """One request on each replica, and one of the two goes to the other in the middle of its answer: a stall, a prefill of all it has."""
    seen = {}

    def drive(world, controls):
        yield world.env.timeout(1.0)
        request = next(iter(world.engines[1].running.values()))
        seen.update(made=controls[0].progress(request), number=request.id)
        yield world.sharings[0].lend(1)

    base = scenario({"pool": "serve", "lend": {"how": "preempt"}}, (2, 2), (None, None))
    base["workloads"] = [poisson("serve", 1e4, 2, lengths={"kind": "fixed", "input": 200, "output": 300})]
    result = sound(driven(base, drive))
    again, stalls, requests = (result.tables[name] for name in ("requeues", "stalls", "requests"))
    assert (again["request"].tolist(), again["replica"].tolist()) == ([seen["number"]], [1])
    assert requests["replica"].tolist() == [0, 0]
    assert requests["output_tokens"].tolist() == [300, 300]
    assert result.tables["stretches"]["prefill_tokens"].sum() - 3 * 200 - seen["made"] in (0, 1)
    assert (stalls["request"].tolist(), stalls["replica"].tolist()) == ([seen["number"]], [0])
    assert 1.0 < stalls["start"][0] < stalls["end"][0] < 1.1
    assert again["time"][0] == pytest.approx(stalls["start"][0], abs=3e-9)


def test_with_nobody_left_requests_are_held_until_gpus_come_back():
    base = scenario({"pool": "serve", "lend": {"how": "preempt"}}, (2, 2))
    result = sound(driven(base, to_and_fro(again=30.0)))
    rows, held = result.tables["lendings"], result.tables["held"]
    served = rows["served"][rows["kind"] == 1].min()
    requests = result.requests
    waited = (requests["arrival"] > rows["start"].min()) & (requests["arrival"] < served) & (requests["workload"] == "to_serve")
    assert waited.sum() > 20
    assert set(result.tables["requeues"]["request"].tolist()) < set(held["request"].tolist())
    assert (requests["admitted"][waited] >= served).all()
    assert result.summary["requests"]["completed"] == 200


def test_who_is_called_off_while_it_is_held_again_is_gone():
    def drive(world, controls):
        yield world.env.timeout(1.0)
        sharing = world.sharings[0]
        yield sharing.lend()
        held = [item.request for item in sharing.owner.fleets[0].held if item.request.generated]
        world.door.cancel(held[0], "cancelled")
        yield sharing.take_back()

    result = sound(driven(scenario({"pool": "serve", "lend": {"how": "preempt"}}, (2, 2), ((30, 150), None)), drive))
    assert (result.summary["requests"]["completed"], result.summary["requests"]["failed"]) == (149, 1)


def test_a_shorter_answer_time_while_lent_to_a_pool_of_the_same_model():
    """Both pools serve the same workload: with the borrower awake beside replicas of its own, more is done in the same time."""
    def most(lends):
        base = scenario("idle", (2, 2), (None, None))
        pools = base["cluster"]["pools"]
        pools[0]["name"] = "idle"
        pools[1]["model"] = pools[0]["model"] = MODEL
        pools.append({"name": "own", "gpu": "h100_sxm", "replicas": 1, "engine": {"max_num_seqs": 16}})
        pools[0]["model"] = "mistralai/Mistral-7B-v0.1"
        base["workloads"] = [poisson(MODEL, 200, 150)]

        def drive(world, controls):
            yield world.env.timeout(0.0)
            if lends:
                yield world.sharings[0].lend()

        result = sound(driven(base, drive))
        return result.summary["throughput"]["output_tokens_per_s"]

    assert most(True) > 1.5 * most(False)


# -- who has the GPUs ------------------------------------------------------------
def test_who_drains_may_stay_after_all():
    def drive(world, controls):
        sharing = world.sharings[0]
        yield world.env.timeout(1.0)
        lent = sharing.lend()
        yield world.env.timeout(0.1)
        assert len(sharing.owner.draining) == 2
        yield sharing.take_back()
        assert lent.triggered
        assert len(sharing.owner.ready) == 3

    result = sound(driven(scenario(loads=((30, 150), None)), drive))
    rows = result.tables["lendings"]
    assert rows["taker"].tolist() == [-1, -1]
    assert np.isnan(rows["empty"]).all()
    assert len(result.tables["replicas"]) == 3


def test_a_part_of_them_those_with_least_to_do_first():
    def drive(world, controls):
        sharing = world.sharings[0]
        yield world.env.timeout(1.0)
        flight = [(life.engine.in_flight, -life.index) for life in sharing.owner.ready[:2]]
        yield sharing.lend(1)
        assert sharing.lent == 1
        assert [life.index for life in sharing.owner.ready] == sorted({0, 1, 2} - {-min(flight)[1]})
        yield sharing.lend()
        assert sharing.lent == 2
        yield sharing.take_back(1)
        assert (sharing.lent, len(sharing.owner.ready), len(sharing.borrower.ready)) == (1, 2, 1)

    sound(driven(scenario(), drive))


def test_a_paused_pool_can_lend():
    def drive(world, controls):
        sharing, control = world.sharings[0], controls[0]
        yield world.env.timeout(1.0)
        yield control.pause()
        yield sharing.lend()
        assert len(sharing.borrower.ready) == 2
        control.resume()
        yield world.env.timeout(1.0)
        paused, back = control.pause(), sharing.take_back()
        yield paused
        yield back
        yield control.update(0.1)
        control.resume()
        yield world.env.timeout(8.0)
        yield sharing.lend()

    how = {"how": "preempt"}
    result = sound(driven(scenario({"pool": "serve", "lend": how, "take_back": how}), drive))
    assert result.summary["requests"]["completed"] == 200


def test_by_night():
    when = {"between": ["1h", "2h"], "offset": "3598s"}
    base = scenario({"pool": "serve", "when": when, "lend": {"how": "preempt"}}, loads=((10, 100), (10, 100)))
    result = sound(sim.run(base))
    rows = result.tables["lendings"]
    assert (rows["start"].tolist(), rows["kind"].tolist()) == ([pytest.approx(2.0, abs=1e-8)] * 2, [0, 0])
    first = result.requests[result.requests["workload"] == "to_night"]["admitted"].min()
    assert first == pytest.approx(rows["served"][0], abs=0.1)
    # At one of the night's own hours the borrower has them from the beginning.
    base["cluster"]["pools"][1]["shares"]["when"]["offset"] = "1h"
    result = sound(sim.run(base))
    assert len(result.tables["lendings"]) == 0
    assert (result.tables["replicas"]["start"] == 0).all()
    assert result.summary["gpu"]["count"] == 3


def test_by_load():
    when = {"load_below": 4, "load_above": 8, "during": "2s", "every": "500ms"}
    base = scenario({"pool": "serve", "when": when}, loads=((2, 10), (10, 50)))
    base["workloads"].append(poisson("serve", 60, 300, name="burst", start="8s"))
    result = sound(sim.run(base))
    rows = result.tables["lendings"]
    kinds, starts = rows["kind"].tolist(), rows["start"]
    assert kinds[:4] == [0, 0, 1, 1]
    assert starts[0] == pytest.approx(2.5, abs=1e-6)
    assert 8.0 < starts[2] < 9.6
    assert result.summary["requests"]["completed"] == 360
    assert result.summary["lending"]["night"]["lend"]["served"] >= 2


def test_the_clock_of_a_night():
    night = When(between=("22h", "6h"), offset="1h")
    marks = [night.change(0.0)]
    for _ in range(3):
        marks.append(night.change(marks[-1]))
    assert marks == [5 * 3600.0, 21 * 3600.0, 29 * 3600.0, 45 * 3600.0]
    assert [night.lent(mark + 1.0) for mark in marks] == [False, True, False, True]
    assert [night.lent(mark - 1.0) for mark in marks] == [True, False, True, False]


# -- how long it takes, and what it costs ------------------------------------------------------------
def test_weights_go_out_and_others_come_in_over_pcie():
    result = driven(scenario(), to_and_fro())
    rows, starts = result.tables["lendings"], result.tables["starts"].to_pandas()
    pool = result.meta["pools"][0]
    each = pool["memory"]["weights"] / 55e9
    moved = starts[starts["stage"].isin(["offload", "weights"])]
    np.testing.assert_allclose(moved["bytes"], pool["memory"]["weights"])
    seconds = (moved["end"] - moved["start"]).to_numpy()
    assert len(set(np.round(seconds, 9))) == 1
    assert 0.5 * each < seconds[0] < 2 * each
    np.testing.assert_allclose(rows["served"] - rows["empty"], 2 * seconds[0], rtol=1e-9)
    how = {"lend": {"how": "preempt", "switch": "3s"}, "take_back": {"how": "preempt", "switch": 0}}
    stated = driven(scenario({"pool": "serve"} | how), to_and_fro(back=5.0)).tables["lendings"]
    np.testing.assert_allclose((stated["served"] - stated["empty"])[:4], [3, 3, 0, 0], rtol=1e-9)


def test_on_a_network_the_gpus_stay_the_same_and_bytes_go_over_pcie():
    network = {"fabric": {"kind": "flat"}, "hosts": [{"gpu": "h100_sxm", "count": 1}]}
    result = sound(driven(scenario(cluster={"network": network}), to_and_fro()))
    places, rows = result.tables["places"], result.tables["lendings"]
    at = dict(zip(places["replica"].tolist(), zip(places["host"].tolist(), places["gpu"].tolist(), strict=True), strict=True))
    assert all(at[giver] == at[taker] for giver, taker in zip(rows["giver"].tolist(), rows["taker"].tolist(), strict=True))
    assert len(set(at.values())) == 3
    flows = result.tables["flows"].to_pandas()
    assert sorted(flows["kind"].unique()) == ["offload", "weights"]
    assert len(flows) == 12


def test_gpus_that_are_shared_are_counted_paid_and_powered_once():
    result = driven(scenario(), to_and_fro())
    summary, end = result.summary, result.meta["sim_s"]
    begin = result.tables["requests"]["arrival"].min()
    assert summary["gpu"]["count"] == 3
    assert summary["gpu"]["mean"] == pytest.approx(3.0, rel=1e-9)
    price = result.meta["pools"][0]["price_per_hour"]
    assert result.meta["pools"][1]["price_per_hour"] == price
    assert summary["cost"]["usd_total"] == pytest.approx(3 * price * (end - begin) / 3600, rel=1e-9)
    assert summary["cost"]["usd_per_hour_peak"] == pytest.approx(3 * price, rel=1e-9)
    replicas = result.tables["replicas"]
    night = replicas["pool"] == replicas.labels["pool"].index("night")
    had = float((replicas["end"] - replicas["start"])[night].sum())
    assert summary["lending"]["night"]["gpu_hours"] == pytest.approx(had / 3600)
    assert summary["pools"]["night"]["usd_total"] == pytest.approx(price * had / 3600, rel=1e-6)


def test_reserved_gpus_are_paid_once_whoever_has_them():
    base = scenario() | {"prices": {"book": "neocloud", "commitment": {"serve": "reserved_1y"}, "reserved": {"serve": 2}}}
    result = driven(base, to_and_fro())
    pool, end, begin = result.meta["pools"][0], result.meta["sim_s"], result.tables["requests"]["arrival"].min()
    assert pool["price_per_hour"] < pool["beyond_price_per_hour"]
    hourly = 2 * pool["price_per_hour"] + pool["beyond_price_per_hour"]
    assert result.summary["cost"]["usd_total"] == pytest.approx(hourly * (end - begin) / 3600, rel=1e-9)
    assert result.summary["cost"]["usd_per_hour_peak"] == pytest.approx(hourly, rel=1e-9)
    assert 0 < result.summary["cost"]["usd_idle"] < result.summary["cost"]["usd_total"]


# -- the same whatever the engine ------------------------------------------------------------
TIGHT = {"num_gpu_blocks_override": 120, "max_model_len": 1200}


@pytest.mark.parametrize(("how", "more"), [
    *((how, {}) for how in HOWS), ({"how": "preempt"}, TIGHT), ({"how": "abort"}, TIGHT | {"preemption_mode": "swap"}),
    ({"how": "preempt"}, {"batcher": {"kind": "vllm_v1", "order": {"kind": "fair_share"}}}),
    ({"how": "preempt"}, {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "acceptance": [0.6, 0.4]}}),
], ids=["at_once", "grace", "drain", "preempt", "abort", "tight", "swap", "order", "drafts"])  # fmt: skip
def test_stretches_equal_steps(how, more):
    base = [scenario({"pool": "serve", "lend": how, "take_back": how}, loads=((30, 60), (10, 20)), exact_steps=exact, **more)
            for exact in (False, True)]  # fmt: skip
    fast, exact = (sound(driven(one, to_and_fro(0.7, 1.7))) for one in base)
    for name in ("requests", "lendings", "requeues", "replicas"):
        one, other = fast.tables[name], exact.tables[name]
        assert len(one) == len(other)
        for column in one.columns:
            if name == "replicas" and column.name.endswith("blocks"):
                continue
            np.testing.assert_allclose(one[column.name], other[column.name], rtol=1e-9, atol=1e-12, err_msg=f"{name}.{column.name}")


def test_the_same_again():
    how = {"how": "preempt"}
    one, two = (driven(scenario({"pool": "serve", "lend": how, "take_back": how}), to_and_fro()) for _ in range(2))
    for name in ("requests", "lendings", "requeues", "replicas", "stretches"):
        for column in one.tables[name].columns:
            assert one.tables[name][column.name].tobytes() == two.tables[name][column.name].tobytes()


def test_a_pool_that_nobody_lends_is_as_good_as_none():
    quiet = driven(scenario(loads=((30, 150), None)), lambda world, controls: (world.env.timeout(0) for _ in range(1)))
    base = scenario(loads=((30, 150), None))
    del base["cluster"]["pools"][1]
    alone = sim.run(base)
    for column in ("admitted", "first_token", "last_token"):
        assert quiet.tables["requests"][column].tobytes() == alone.tables["requests"][column].tobytes()


# -- audit ------------------------------------------------------------
@pytest.mark.parametrize(("table", "column", "value", "says"), [
    ("replicas", "start", 0.0, "had the GPUs of another one at one time"),
    ("stretches", "start", 0.5, "steps of two replicas that share GPUs at one time"),
    ("lendings", "empty", 0.1, "steps of a replica that had no request left"),
    ("lendings", "served", 0.1, "times are not in order"),
    ("lendings", "giver", 4, "from one replica twice"),
    ("lendings", "sent_on", 99, "hand-overs count"),
])  # fmt: skip
def test_the_audit_sees(table, column, value, says):
    how = {"how": "preempt"}
    result = driven(scenario({"pool": "serve", "lend": how, "take_back": how}), to_and_fro())
    assert audit(result)["lending"]["ok"]
    rows = result.tables[table]
    taker = int(result.tables["lendings"]["taker"][0])
    at = {"replicas": taker, "lendings": 0}.get(table)
    edit(rows, column, int(np.flatnonzero(rows["replica"] == taker)[0]) if at is None else at, value)
    assert not audit(result)["lending"]["ok"]
    assert says in audit(result)["lending"]["detail"]
