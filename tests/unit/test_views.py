"""Views with an age: reports hold what was true when they were made, and the index of blocks what the caches hold."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.policy.route.prefix_aware import PrefixAware
from sim.spec.load import loads
from sim.spec.views import Views
from sim.world.cluster import World
from sim.world.engine import Engine
from sim.world.reports import OldView, Reports, Rhythm

SMALL = "Qwen/Qwen2.5-0.5B"


@dataclass
class Replica:
    """One whose blocks in use grow by one every 0.3 s since `start`, which is no change."""

    in_flight: int = 0
    base: int = 0
    start: float = 0.0
    index: int = 0
    room: int = 1000
    block_size: int = 1
    weight: float = 1.0
    kv: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(blocks=1000))

    @property
    def queued(self):
        return self.in_flight // 2

    def used_by(self, at):
        return self.base + max(math.floor((at - self.start) / 0.3), 0)


def truth(history, at):
    """What was so just before `at`: in flight, queued, and blocks in use."""
    before = Replica()
    for when, state in history:
        if when < at:
            before = state
    return before.in_flight, before.queued, before.used_by(at)


GAP = st.floats(0.01, 3.0).map(lambda gap: gap * math.sqrt(2))


@settings(max_examples=200, deadline=None)
@given(
    moves=st.lists(st.tuples(GAP, st.booleans(), st.integers(0, 50)), min_size=1, max_size=25),
    period=st.sampled_from([0.1, 0.5, 2.0]), delay=st.sampled_from([0.0, 0.05, 0.5, 3.1]), own=st.booleans(),
)  # fmt: skip
def test_a_view_is_what_was_true_at_the_last_report(moves, period, delay, own):
    env = SimpleNamespace(now=0.0)
    reports = Reports(Rhythm(env, Views(period=period, delay=delay)))
    replica, history = Replica(), [(-1.0, Replica())]
    view = OldView(replica, reports, own)
    for gap, change, number in moves:
        env.now += gap
        if change:
            reports.before(replica)
            replica.base, replica.start, replica.in_flight = replica.used_by(env.now), env.now, number
            history.append((env.now, Replica(number, replica.base, env.now)))
            continue
        made = math.floor((env.now - delay) / period) * period
        expected = truth(history, made) if env.now >= delay else (0, 0, 0)
        assert (view.queued, round(view.kv_used * 1000)) == expected[1:]
        assert view.in_flight == (replica.in_flight if own else expected[0])


def scenario(router, views=None, exact=False, rate=30):
    engine = {"num_gpu_blocks_override": 150, "max_num_seqs": 16, "max_model_len": 1000, "exact_steps": exact}
    cluster = {"pools": [{"gpu": "l4", "replicas": 3, "engine": engine}], "router": router} | ({"views": views} if views else {})
    lengths = {"kind": "uniform", "input": [200, 400], "output": [20, 120]}
    prefixes = {"tokens": 180, "count": 12, "zipf": 0.7}
    workload = {"kind": "poisson", "rate": rate, "num_requests": 200, "lengths": lengths, "prefixes": prefixes}
    return {"seed": 2, "model": SMALL, "cluster": cluster, "workloads": [workload]}


EVENTS = {"kind": "prefix_aware", "index": "events"}


@pytest.mark.parametrize("exact", [False, True])
def test_the_index_of_events_has_what_caches_hold(monkeypatch, exact):
    looked, found = [], PrefixAware.pick

    def pick(self, request, views):
        for view in views:
            cached = view.cached(request)
            looked.append(cached)
            assert cached == view.kv.find(request)
        return found(self, request, views)

    monkeypatch.setattr(PrefixAware, "pick", pick)
    result = sim.run(scenario(EVENTS, exact=exact))
    assert sum(tokens > 0 for tokens in looked) > 200
    assert len(result.requests) == 200


@pytest.mark.parametrize("router", [EVENTS, {"kind": "kv_aware"}, {"kind": "join_shortest_queue"}])
def test_very_young_views_are_as_good_as_live_ones(router):
    live, young = sim.run(scenario(router)), sim.run(scenario(router, {"period": 1e-6, "own_count": False}))
    assert np.array_equal(live.tables["requests"]["replica"], young.tables["requests"]["replica"])
    np.testing.assert_allclose(live.tables["requests"]["last_token"], young.tables["requests"]["last_token"], rtol=1e-9)


def test_before_the_first_report_replicas_look_empty():
    """Whoever counts what it sent itself still spreads requests; whoever does not sends all to the first."""
    for own, replicas in ((True, {0, 1, 2}), (False, {0})):
        views = {"period": "1h", "delay": "1h", "own_count": own}
        assert set(sim.run(scenario({"kind": "least_loaded"}, views)).requests["replica"]) == replicas


def test_the_older_the_views_the_more_requests_herd():
    tails = []
    for period in (None, "1s", "4s"):
        views = {"period": period, "own_count": False} if period else None
        tails.append(sim.run(scenario({"kind": "least_loaded"}, views, rate=25)).summary["ttft_s"]["p99"])
    assert tails[0] < 0.5 * tails[1] < tails[1] < tails[2]


def test_who_looks_at_load_alone_has_plain_engines():
    world = World(loads(scenario({"kind": "least_loaded"})))
    assert {type(engine) for engine in world.engines} == {Engine}
