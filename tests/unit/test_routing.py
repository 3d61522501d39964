"""Routers and admission that look at more than load: each decision on a few views, and a few clusters in which it must show."""
from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.core.content import Content
from sim.core.errors import BadInput
from sim.core.registry import ADMISSIONS, ROUTERS
from sim.core.request import Request
from sim.policy.route._index import Index, Sent, pieces
from sim.spec.load import load
from tests.contract.test_policies import Seen
from tests.unit.scenarios import good, problems_of, written

SMALL = "Qwen/Qwen2.5-0.5B"
LENGTHS = {"kind": "uniform", "input": [100, 400], "output": [20, 100]}


def router(kind, **options):
    checked, problems = ROUTERS.check({"kind": kind, **options})
    assert not problems
    return ROUTERS.make(checked)


def asked(prompt=1000, keys=(1, 2), ends=(400, 800), number=0, reply=0):
    request = Request(number, 0.0, prompt, 10)
    request.content, request.reply = Content(keys, ends), reply
    return request


def full(**view):
    """A view by index, in flight, queued and tokens cached."""
    return [Seen(i, load, queued=queue, held=held) for i, (load, queue, held) in enumerate(zip(*view.values(), strict=True))]


class TestIndex:
    def test_each_has_it_as_far_as_it_goes(self):
        index = Index()
        index.put([(1, 10), (2, 20), (3, 30)], 0)
        index.put([(1, 10), (2, 15)], 1)
        index.put([(1, 7)], 2)
        assert index.hits([(1, 10), (2, 20), (3, 25)]) == {0: 25, 1: 15, 2: 7}
        assert index.hits([(1, 5), (9, 20)]) == {0: 5, 1: 5, 2: 5}
        assert index.hits([(2, 10)]) == {}

    def test_a_key_means_the_same_only_behind_the_same(self):
        index = Index()
        index.put([(1, 10), (2, 20)], 0)
        assert index.hits([(1, 8), (2, 20)]) == {0: 8}
        assert index.hits([(7, 10), (2, 20)]) == {}

    def test_what_is_cut_is_gone_and_the_rest_stays(self):
        index = Index()
        long, branch = [(1, 10), (2, 20)], [(1, 5), (3, 8)]
        for names in (long, branch):
            index.put(names, 0)
        way = index.way(long)
        index.cut(way, 0, 15)
        assert index.hits(long) == {0: 15}
        index.cut(way, 0, 10)
        assert index.hits(long) == {0: 10}
        index.cut(index.way(branch), 0, 5)
        assert index.hits(branch) == {0: 5}
        assert index.hits(long) == {0: 10}
        index.cut(way, 0, 0)
        assert index.hits(long) == {}
        assert not index._root.children

    def test_a_record_of_what_was_sent_forgets_the_oldest_end_first(self):
        sent = Sent()
        sent.put(asked(), 0, 1200)
        assert sent.hits(asked()) == {0: 800}
        sent.put(asked(prompt=900, keys=(5,), ends=(900,)), 0, 1200)
        assert sent.hits(asked()) == {}
        sent = Sent()
        sent.put(asked(), 0, 1200)
        sent.put(asked(prompt=700, keys=(5,), ends=(900,)), 0, 1200)
        assert sent.hits(asked()) == {0: 400}
        assert sent.hits(asked(keys=(5,), ends=(900,))) == {0: 700}

    def test_pieces_end_with_the_prompt_and_its_reply_is_the_last(self):
        assert pieces(asked(prompt=600)) == [(1, 400), (2, 600)]
        assert pieces(asked(prompt=400)) == [(1, 400)]
        assert pieces(asked(reply=9)) == [(1, 400), (2, 800), (9, 1000)]


class TestRouters:
    def test_shortest_queue_before_fewest_in_flight(self):
        assert router("join_shortest_queue").pick(asked(), full(load=[2, 9, 8], queue=[1, 0, 0], held=[0, 0, 0])) == 2

    def test_weighted_by_turns_spreads_them(self):
        views = [Seen(0, weight=5.0), Seen(1, weight=1.0), Seen(2, weight=1.0)]
        policy = router("weighted", by="turns")
        assert [policy.pick(asked(), views) for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]

    def test_weighted_by_load_fills_in_proportion(self):
        views = [Seen(0, weight=3.0), Seen(1, weight=1.0)]
        policy = router("weighted")
        for _ in range(40):
            views[policy.pick(asked(), views)].in_flight += 1
        assert [view.in_flight for view in views] == [30, 10]

    def test_prefix_aware_adds_its_marks(self):
        """3 x 0.8 of the prompt held beats 2 marks of an empty queue; with queue: 3 it does not."""
        views = full(load=[0, 0], queue=[4, 0], held=[800, 0])
        assert router("prefix_aware", index="events").pick(asked(), views) == 0
        assert router("prefix_aware", index="events", queue=3).pick(asked(), views) == 1

    def test_prefix_aware_remembers_what_it_sent(self):
        policy, views = router("prefix_aware"), [Seen(i) for i in range(3)]
        first = policy.pick(asked(), views)
        views[first].in_flight = 5
        assert policy.pick(asked(number=1), views) == first
        assert policy.pick(asked(number=2, keys=(8,), ends=(800,)), views) != first

    def test_cache_aware_leaves_the_holder_when_loads_are_unequal(self):
        options = {"index": "events", "balance_abs": 10, "balance_rel": 1.5}
        policy = router("cache_aware", **options)
        assert policy.pick(asked(), full(load=[20, 12], queue=[0, 0], held=[800, 0])) == 0
        assert policy.pick(asked(), full(load=[20, 9], queue=[0, 0], held=[800, 0])) == 1
        assert policy.pick(asked(), full(load=[20, 12], queue=[0, 0], held=[400, 0])) == 1

    def test_kv_aware_adds_blocks_to_compute_and_in_use(self):
        views = full(load=[30, 0], queue=[0, 0], held=[800, 0])
        assert router("kv_aware", index="events").pick(asked(), views) == 0
        assert router("kv_aware", index="events", overlap_weight=0.2).pick(asked(), views) == 1

    def test_lmetric_multiplies(self):
        assert router("lmetric", index="events").pick(asked(), full(load=[3, 0], queue=[0, 0], held=[800, 0])) == 0
        assert router("lmetric", index="events").pick(asked(), full(load=[5, 0], queue=[0, 0], held=[800, 0])) == 1

    def test_spill_over_goes_to_the_nearest_with_room(self):
        policy = router("spill_over", threshold=2)
        near, mid, far = Seen(0, queued=2), Seen(1, away=0.05), Seen(2, away=0.02)
        assert policy.pick(asked(), [near, mid, far]) == 2
        far.queued = 2
        assert policy.pick(asked(), [near, mid, far]) == 1
        mid.queued = 9
        assert policy.pick(asked(), [near, mid, far]) == 0
        near.queued = 1
        assert policy.pick(asked(), [near, mid, far]) == 0

    def test_a_record_is_refused_where_there_is_none(self):
        _, problems = ROUTERS.check({"kind": "lmetric", "index": "events", "capacity": 10})
        assert "keeps no record" in problems[0].message


class TestAdmissions:
    LIMITS = ({"priority": 0, "queue": 2, "kv": 0.5}, {"priority": 5, "queue": 6})

    def shed(self, *limits):
        checked, problems = ADMISSIONS.check({"kind": "shed", "limits": limits or self.LIMITS})
        assert not problems
        return ADMISSIONS.make(checked)

    def admits(self, policy, priority, views):
        request = asked()
        request.priority = priority
        return policy.admit(request, views, 0.0)

    @pytest.mark.parametrize(("queues", "low", "high"), [((1, 2), True, True), ((2, 2), False, True), ((12, 0), False, False)])
    def test_low_classes_go_first(self, queues, low, high):
        views = [Seen(i, queued=queue) for i, queue in enumerate(queues)]
        assert [self.admits(self.shed(), priority, views) for priority in (-1, 0, 4)] == [low] * 3
        assert [self.admits(self.shed(), priority, views) for priority in (5, 9)] == [high] * 2

    def test_by_kv_and_in_flight(self):
        assert not self.admits(self.shed(), 0, [Seen(0, in_flight=240)])
        assert self.admits(self.shed(), 5, [Seen(0, in_flight=240)])
        assert not self.admits(self.shed({"priority": 0, "in_flight": 4}), 0, [Seen(0, 3), Seen(1, 5)])

    def test_nobody_is_turned_away_for_replicas_that_are_not_there(self):
        assert self.admits(self.shed(), 0, [])

    def test_limits_that_contradict_are_refused(self):
        for limits, what in ((({"priority": 0, "queue": 5}, {"priority": 1, "queue": 2}), "cannot be turned away first"),
                             (({"priority": 0, "queue": 5}, {"priority": 0, "queue": 2}), "has a limit already")):  # fmt: skip
            _, problems = ADMISSIONS.check({"kind": "shed", "limits": limits})
            assert what in problems[0].message

    def test_a_bucket_for_each_class(self):
        checked, _ = ADMISSIONS.check({"kind": "token_bucket", "rate": 1, "burst": 2, "per": "priority"})
        policy = ADMISSIONS.make(checked)
        assert [self.admits(policy, 0, []) for _ in range(3)] == [True, True, False]
        assert self.admits(policy, 1, [])


def cluster(pools, router, workloads, **rest):
    return {"seed": 3, "model": SMALL, "cluster": {"pools": pools, "router": router, **rest}, "workloads": workloads}


def poisson(rate, count, **rest):
    return {"kind": "poisson", "rate": rate, "num_requests": count, "lengths": LENGTHS, **rest}


class TestClusters:
    def test_shares_follow_the_weights(self):
        pools = [{"name": name, "gpu": "l4", "replicas": n, "weight": w} for name, n, w in (("a", 2, 3), ("b", 1, 1))]
        found = sim.run(cluster(pools, {"kind": "weighted", "by": "turns"}, [poisson(20, 700)])).requests
        assert np.bincount(found["replica"]).tolist() == [300, 300, 100]

    def test_weights_from_speed_shorten_the_tail_of_unequal_pools(self):
        pools = [{"name": name, "gpu": gpu} for name, gpu in (("a", "h100_sxm"), ("b", "a100_sxm_80gb"))]
        lengths = {"kind": "uniform", "input": [500, 1500], "output": [50, 300]}

        def p99(router):
            scenario = cluster(pools, router, [poisson(20, 600, lengths=lengths)]) | {"model": "meta-llama/Llama-3.1-8B"}
            return sim.run(scenario).summary["e2e_s"]["p99"]

        assert p99({"kind": "weighted", "by": "turns"}) < 0.5 * p99({"kind": "round_robin"})
        assert p99({"kind": "weighted"}) < 0.85 * p99({"kind": "least_loaded"})

    def test_low_priority_is_shed_before_high(self):
        pools = [{"gpu": "l4", "engine": {"max_num_seqs": 4}}]
        limits = [{"priority": 0, "queue": 2}, {"priority": 1, "queue": 12}]
        workloads = [poisson(12, 200, name="low"), poisson(4, 70, name="high", priority=1)]
        found = sim.run(cluster(pools, {"kind": "least_loaded"}, workloads, admission={"kind": "shed", "limits": limits})).requests
        lost = (found["status"] == "rejected").groupby(found["workload"], observed=True).mean()
        assert lost["low"] > 0.3
        assert lost["high"] < 0.1 * lost["low"]
        assert set(found[found["status"] == "rejected"]["reason"]) == {"shed"}


POOLS = [{"name": "a", "gpu": "l4", "region": "x", "engine": {"max_num_seqs": 4}}, {"name": "b", "gpu": "l4", "region": "y"}]
WAYS = [{"between": ["x", "y"], "latency": "40ms"}]
SPILL = {"kind": "spill_over", "threshold": 2}


class TestRegions:
    def test_a_request_served_elsewhere_is_later_by_both_ways(self):
        workloads = [poisson(1, 5, region="x", model="b"), poisson(1, 5, region="y", model="b")]
        for workload in workloads:
            workload["lengths"] = {"kind": "fixed", "input": 100, "output": 10}
        found = sim.run(cluster(POOLS, SPILL, workloads, regions=WAYS))
        frame = found.requests
        far, near = (frame[frame["workload"] == name] for name in ("poisson", "poisson1"))
        assert (far["admitted"] - far["arrival"]).min() > 0.04
        assert far["ttft"].min() - near["ttft"].min() == pytest.approx(0.08, abs=1e-6)
        assert far["e2e"].min() - near["e2e"].min() == pytest.approx(0.08, abs=1e-6)
        assert found.summary["regions"]["x"]["served"] == {"y": 5}
        assert found.summary["regions"]["x"]["spilled"] == 1.0
        assert all(check["ok"] for check in found.summary["audit"].values())

    def test_what_does_not_fit_at_home_spills(self):
        workloads = [poisson(40, 300, region="x", name="busy"), poisson(1, 8, region="y", name="calm")]
        found = sim.run(cluster(POOLS, SPILL, workloads, regions=WAYS))
        busy = found.summary["regions"]["x"]
        assert busy["requests"] == 300
        assert busy["served"]["x"] > 50
        assert 0.3 < busy["spilled"] < 0.9
        assert found.summary["regions"]["y"]["spilled"] == 0.0
        assert all(check["ok"] for check in found.summary["audit"].values())

    def test_those_on_their_way_at_the_end_are_unfinished(self):
        found = sim.run(cluster(POOLS, SPILL, [poisson(200, 200, region="x", model="b")], regions=WAYS) | {"duration": 0.5})
        frame = found.requests
        travelling = frame[(frame["status"] == "unfinished") & (frame["arrival"] > 0.46)]
        assert len(travelling)
        assert travelling["admitted"].isna().all()
        assert found.summary["audit"]["I1"]["ok"]

    def test_without_regions_there_are_no_figures(self):
        assert sim.run(cluster([{"gpu": "l4"}], {"kind": "round_robin"}, [poisson(5, 5)])).summary["regions"] is None

    @pytest.mark.parametrize(
        ("pool", "origin", "ways", "what", "path"),
        [
            ("x", "z", "", "no pool is in region 'z'", "workloads.0.region"),
            ("eu-west", "eu-wst", "", "did you mean eu-west?", "workloads.0.region"),
            ("x", "", "", "no region is given", "workloads.0"),
            ("", "x", "[{between: [x, y], latency: 40ms}]", "pool serve has no region", "cluster.pools.0"),
            ("x", "y", "[{between: [y, z], latency: 40ms}]", "no latency is known between y and x", "workloads.0.region"),
            ("", "", "[{between: [y, z], latency: 40ms}]", "it has no effect", "cluster.regions"),
            ("x", "x", "[{between: [x, z], latency: 1s}, {between: [z, x], latency: 2s}]", "is given twice", "cluster.regions.1.between"),
        ],
    )
    def test_bad_regions_are_said_with_their_place(self, tmp_path, pool, origin, ways, what, path):
        text = good("  router:", (f"  regions: {ways}\n" if ways else "") + "  router:")
        text = text.replace("gpu_memory: 80GB", f"gpu_memory: 80GB\n      region: '{pool}'") if pool else text
        text = text.replace("rate: 4", f"rate: 4\n    region: {origin}") if origin else text
        with pytest.raises(BadInput) as error:
            sim.run(load(written(tmp_path, text)))
        problem = next(problem for problem in error.value.problems if what in problem.message)
        assert problem.path == path
        assert problem.line > 1
        assert problem.file.endswith("x.yaml")


def test_weights_are_for_all_pools_or_none(tmp_path):
    text = good("gpu_memory: 80GB", "gpu_memory: 80GB\n      weight: 2").replace("  router:", "    - {name: b, gpu: l4}\n  router:")
    assert "some pools have a weight and b none" in problems_of(written(tmp_path, text))[0].message


def test_views_need_a_period(tmp_path):
    for value, what in (("{delay: 1s}", "period: missing"), ("{period: 0s}", "above 0 is wanted"), ("{period: 1s, age: 2s}", "age: ")):
        found = problems_of(written(tmp_path, good("  router:", f"  views: {value}\n  router:")))
        assert any(what in str(problem) for problem in found)
