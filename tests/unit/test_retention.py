"""What is kept for sessions, what it costs to bring keys and values back, and that both do what they are for."""
from __future__ import annotations

import math

import pytest

import sim
from sim.core.registry import RETENTIONS
from sim.core.request import Request
from sim.physics.base import Cost
from sim.physics.recovery import Recovery
from sim.policy.kv.tiers import Tiered
from sim.policy.retain._history import History
from sim.policy.retain.base import LET_GO, Fate, State
from sim.study.facts import Tables
from sim.study.result import Result
from sim.study.tiers import links
from tests.both_caches import content, request
from tests.unit.scenarios import good, problems_of, written
from tests.unit.test_radix import admit, finish, serve


class Linear:
    """A step of 1 ms, 10 us a token and 1 us a pair of 1000 tokens."""

    pace = 1.0

    def step(self, work):
        seconds = 1e-3 + sum(1e-5 * n + 1e-9 * n * (before + (n + 1) / 2) for n, before in work.chunks)
        return Cost(seconds, seconds, 0.0, 0.0, 0.0)


def decide(kind, pause=5.0, lifetime=10.0, recompute=1.0, reload=math.inf, history=None, **options):
    options, problems = RETENTIONS.check({"kind": kind, **options})
    assert not problems
    one = Request(1, 0.0, 100, 10)
    one.pause = pause
    return RETENTIONS.make(options).decide(one, State(7, lifetime, recompute, reload, history or History()))


@pytest.mark.parametrize("kind", RETENTIONS.names())
def test_a_decision_depends_on_the_state_alone(kind):
    assert decide(kind) == decide(kind)
    assert decide(kind).keep >= 0


def test_decisions():
    assert decide("lru") == LET_GO
    assert decide("keep") == Fate(math.inf)
    assert decide("ttl", seconds="3s") == Fate(3.0)
    assert decide("ttl", seconds="3s", firm=True) == Fate(3.0, firm=True)
    assert decide("offload", after=2) == Fate(2.0, True)
    assert decide("predictive") == Fate(10.0)
    assert decide("predictive", lifetime=4.0) == LET_GO
    assert decide("predictive", lifetime=4.0, reload=0.5) == Fate(0.0, True)


def test_continuum_keeps_for_the_pause_that_pays():
    """Of 10 pauses, 8 of 1 s and 2 of 60 s; worth 5 s: 0.8 x 5 - 1 > 0 and 1 x 5 - 60 < 0, so for 1 s. Before that, ln 5 s."""
    history = History()
    for pause in [1.0, 60.0, *[1.0] * 7, 60.0]:
        history.paused(pause)
    assert decide("ttl", recompute=5.0, history=history, min_samples=10) == Fate(1.001)
    assert decide("ttl", recompute=1.2, history=history, min_samples=10) == LET_GO
    assert decide("ttl", recompute=5.0, history=history).keep == pytest.approx(math.log(5))


def test_queueing_counts_as_far_as_calls_foretell_the_rest():
    """eta is 1 for sessions of one length, and falls when lengths vary: for 1 and 3 calls the pairs are (1,0), (1,2), (2,1), (3,0)."""
    history = History()
    history.finished(4)
    history.missed(2.0)
    history.missed(4.0)
    assert history.eta == pytest.approx(1.0)
    assert history.queueing == 3.0
    mixed = History()
    mixed.finished(1)
    mixed.finished(3)
    assert mixed.eta == pytest.approx(0.3125 / 0.6875)


def test_old_pauses_are_forgotten():
    history = History()
    for pause in range(1000):
        history.paused(float(pause))
    assert history.pauses == [float(pause) for pause in range(488, 1000)]


def test_computing_in_chunks_and_loading_in_closed_form():
    recovery = Recovery(Linear(), [(1e9, 0.5e-3)], 2e6, 100)
    each = sum(1e-3 + 1e-5 * n + 1e-9 * n * (before + (n + 1) / 2) for n, before in [(100, 40), (100, 140), (100, 240), (50, 340)])
    assert recovery.compute(40, 350) == pytest.approx(each)
    assert recovery.load(0, 10) == pytest.approx(0.5e-3 + 20e6 / 1e9)
    assert recovery.load(1, 10) == math.inf


@pytest.mark.parametrize(("bandwidth", "fetched"), [(1e9, 0), (1e12, 112)])
def test_what_is_faster_computed_is_computed(bandwidth, fetched):
    """7 of 8 blocks of 16 tokens lie in the tier: computing all takes 2.3 ms, loading them 14 ms or 14 us and the rest 1.2 ms."""
    kv = Tiered(9, 16, [20], True, Recovery(Linear(), [(bandwidth, 0.0)], 2e6, 1000))
    serve(kv, request(1, 128, 1, content((1, 128)), 9), request(2, 144, 1, content((2, 144)), 10))
    again = request(3, 128, 1, content((1, 128)))
    kv.find(again)
    assert again.fetch == fetched


def test_what_is_kept_goes_last_and_only_until_it_is_let_go():
    kv = Tiered(8, 16, [1])
    first, second = request(1, 48, 1, content((1, 48)), 7), request(2, 48, 1, content((2, 48)), 8)
    admit(kv, first)
    first.generated = 1
    leaf = kv.retain(first)
    serve(kv, second)
    assert (kv.free, kv.kept) == (8, 3)
    serve(kv, request(3, 80, 1, content((3, 80)), 9))
    assert (kv.holds(first.content), kv.holds(second.content), kv.kept) == (48, 0, 3)
    serve(kv, request(4, 112, 1, content((4, 112)), 10))
    assert (kv.holds(first.content), kv.kept) == (16, 1)
    kv.let_go(leaf)
    assert kv.kept == 0
    serve(kv, request(5, 128, 1, content((5, 128)), 11))
    assert kv.holds(first.content) == 0


def test_offloading_frees_what_nobody_else_needs():
    kv = Tiered(20, 16, [20], False)
    one, other = request(1, 64, 1, content((9, 32), (1, 64)), 7), request(2, 64, 1, content((9, 32), (2, 64)), 8)
    admit(kv, one)
    admit(kv, other, 2)
    one.generated = 1
    leaf = kv.retain(one)
    kv.let_go(leaf)
    kv.offload(leaf)
    assert kv.tiers[0].held == 2
    assert kv.holds(one.content) == 32
    finish(kv, other)
    assert kv.find(request(3, 65, 1, one.content)) == 64


WHERE = "      engine:\n        max_num_seqs: 128\n"


@pytest.mark.parametrize(("options", "says"), [
    ("kv_tiers: [{kind: host, capacity: 10GB, bandwidth: 0GB/s}]", "a value above 0"),
    ("kv_tiers: [{kind: host, capacity: 0GB}]", "a value above 0"),
    ("kv_tiers: [{kind: ssd, capacity: 1TB}]", "ssd has no bandwidth"),
    ("kv_tiers: [{kind: host, capacity: 1GB}, {kind: host, capacity: 1GB}]", "two kv_tiers"),
    ("kv_tiers: [{kind: ssd, capacity: 1GB, bandwidth: 1GB/s}, {kind: host, capacity: 1GB}]", "host has to come first"),
    ("kv_tiers: [{kind: host, capacity: 1GB}]\n        enable_prefix_caching: false", "needs enable_prefix_caching"),
    ("retention: {kind: offload}", "needs a tier of kind host"),
    ("retention: {kind: ttl, seconds: 0s}", "a value above 0"),
    ("kv_reload: always", "no kv_tiers"),
])  # fmt: skip
def test_bad_input_names_the_place(tmp_path, options, says):
    path = written(tmp_path, good(WHERE, WHERE + f"        {options}\n"))
    problem = problems_of(path)[0]
    assert says in problem.message
    assert problem.file == str(path)
    assert problem.line


def test_a_tier_without_room_for_a_block_is_bad_input():
    with pytest.raises(sim.BadInput, match="at least one has to fit"):
        run({"kv_tiers": [{"kind": "host", "capacity": "1MB"}]})


def scenario(engine):
    """One GPU with room for a third of what 40 pausing users have said."""
    pool = {"gpu": "h100_sxm", "engine": {"num_gpu_blocks_override": 2000, **engine}}
    sessions = {
        "kind": "sessions", "turns": 5, "turns_law": "fixed", "think_time": "20s", "think_sigma": 0.5, "concurrency": 40,
        "num_sessions": 60, "lengths": {"kind": "uniform", "input": [400, 1200], "output": [20, 100]},
    }  # fmt: skip
    return {"model": "meta-llama/Llama-3.1-8B", "seed": 3, "cluster": {"pools": [pool]}, "workloads": [sessions]}


def run(engine):
    return sim.run(scenario(engine))


def later_ttft(result):
    """Mean TTFT of prompts of three turns and more."""
    rows = result.requests
    return (rows["first_token"] - rows["arrival"])[rows["input_tokens"] > 2400].mean()


HOST = {"kv_tiers": [{"kind": "host", "capacity": "100GB"}]}


def test_with_long_pauses_a_host_tier_halves_the_time_to_first_token():
    gone, brought, late = run({}), run(HOST), run(HOST | {"kv_offload": "on_evict"})
    assert later_ttft(brought) < 0.6 * later_ttft(gone)
    assert later_ttft(late) < 0.6 * later_ttft(gone)
    tiers = brought.summary["kv"]["tiers"]
    assert tiers["found_tokens"]["host"] > tiers["found_tokens"]["gpu"] > 0
    assert sum(tiers["found_tokens"].values()) == brought.requests["cached_tokens"].sum()
    assert tiers["reloaded_bytes"]["host"] > tiers["offloaded_bytes"]["host"] > 0
    assert brought.summary["audit"]["I7"]["ok"]
    assert brought.summary["audit"]["I7"]["checked"] == len(brought.tables["transfers"])
    assert run(HOST | {"retention": {"kind": "offload"}}).requests["cached_tokens"].sum() > 3 * gone.requests["cached_tokens"].sum()


def test_a_link_that_carried_more_than_it_can_is_found():
    result = run({"kv_tiers": [{"kind": "host", "capacity": "100GB", "bandwidth": "20GB/s"}]})
    assert links(Tables(result)) == (len(result.tables["transfers"]), [])
    slower = sim.loads(scenario({"kv_tiers": [{"kind": "host", "capacity": "100GB", "bandwidth": "19GB/s"}]}))
    assert "faster than 1.9e+10 B/s" in links(Tables(Result(slower, result.tables, result.meta)))[1][0]


def test_keeping_costs_nobody_a_block():
    result = run({"retention": {"kind": "keep"}})
    replicas = result.tables["replicas"]
    assert 0 < replicas["kept_peak_blocks"][0] <= 2000
    assert replicas["left_blocks"][0] == 0
    assert result.summary["requests"]["completed"] == 300


@pytest.mark.parametrize(("retention", "loses"), [({"kind": "keep"}, "a"), ({"kind": "ttl", "seconds": "1h", "firm": True}, "b")])
def test_who_loses_what_was_kept_when_room_is_short(retention, loses):
    """Sessions a and b leave 600 tokens each in a cache of 1600, and a request of 900 comes. Of what is kept softly, the first to have been
    kept is used up; of what is kept firmly, the program that came last is let go, as nothing runs that would make room.
    """
    def session(name, start, tokens, turns):
        lengths = {"kind": "fixed", "input": tokens, "output": 100}
        turns = {"kind": "sessions", "rate": 1000, "num_sessions": 1, "turns": turns, "turns_law": "fixed", "think_time": "10s"}
        return turns | {"name": name, "start": start, "lengths": lengths}

    engine = {"num_gpu_blocks_override": 100, "max_model_len": 1600, "retention": retention}
    load = [session("a", 0, 500, 2), session("b", 2, 500, 2), session("c", 5, 800, 1)]
    cluster = {"pools": [{"gpu": "l4", "engine": engine}]}
    result = sim.run({"model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": load})
    found = result.requests[result.requests.input_tokens > 1000].set_index("workload").cached_tokens
    kept = "b" if loses == "a" else "a"
    assert found[kept] > found[loses] + 150
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_who_needs_room_that_is_pinned_waits_while_others_run():
    """What b pins is not given to c as long as a runs; it is when a has ended, or when its time is over."""
    def admitted(firm):
        lengths = {"kind": "fixed", "input": 100, "output": 1400}
        long = {"kind": "poisson", "rate": 1000, "num_requests": 1, "lengths": lengths, "name": "a"}
        short = {"kind": "sessions", "rate": 1000, "num_sessions": 1, "turns": 2, "turns_law": "fixed", "think_time": "1h", "name": "b"}
        late = {"kind": "poisson", "rate": 1000, "num_requests": 1, "start": 2, "name": "c"}
        late |= {"lengths": {"kind": "fixed", "input": 900, "output": 5}}
        load = [long, short | {"lengths": {"kind": "fixed", "input": 300, "output": 10}}, late]
        engine = {"num_gpu_blocks_override": 100, "max_model_len": 1600, "retention": {"kind": "ttl", "seconds": "1h", "firm": firm}}
        cluster = {"pools": [{"gpu": "l4", "engine": engine}]}
        found = sim.run({"model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": load}).requests.groupby("workload").first()
        return found.admitted["c"] - found.arrival["c"], found.last_token["a"] - found.arrival["c"]

    waited, _ = admitted(False)
    assert waited < 0.1
    waited, ended = admitted(True)
    assert 0.1 < waited <= ended + 0.1


def test_what_is_kept_firmly_counts_as_kept():
    """A user who pauses for a minute twice: the cache stands there for two minutes, softly or firmly."""
    def replica(retention):
        workload = {"kind": "sessions", "concurrency": 1, "num_sessions": 1, "turns": 3, "turns_law": "fixed", "think_time": 60,
                    "lengths": {"kind": "fixed", "input": 160, "output": 17}}  # fmt: skip
        pool = {"gpu": "l4", "engine": {"num_gpu_blocks_override": 100, "max_model_len": 1600, "retention": retention}}
        result = sim.run({"model": "Qwen/Qwen2.5-0.5B", "cluster": {"pools": [pool]}, "workloads": [workload]})
        assert all(check["ok"] for check in result.summary["audit"].values())
        return result.tables["replicas"]

    soft, firm = replica({"kind": "keep"}), replica({"kind": "ttl", "seconds": "1h", "firm": True})
    # 176 tokens, then 353: all but the last answer's newest token.
    assert soft["kept_block_seconds"][0] == pytest.approx(60 * (11 + 22), rel=1e-3)
    assert firm["kept_block_seconds"][0] == pytest.approx(soft["kept_block_seconds"][0], rel=1e-3)
    assert firm["kept_peak_blocks"][0] == soft["kept_peak_blocks"][0] == 22
