"""Where a ranking chooses, it is as if all replicas had been asked."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.policy.route.least_loaded import IN_FLIGHT
from sim.world import outlook
from sim.world.ranking import Ranking


class Counter:
    def __init__(self, index):
        self.index, self.in_flight, self.rankings = index, 0, []

    def change(self, by):
        self.in_flight = max(self.in_flight + by, 0)
        for ranking in self.rankings:
            ranking.note(self.index, self.in_flight)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([-1, 1, 1, 2, None])), max_size=300))
def test_the_first_is_the_least_loaded_of_those_that_are_there(moves):
    """None: the replica goes, or comes back."""
    ranking, engines, there = Ranking(), [Counter(index) for index in range(10)], {}
    for index, by in moves:
        engine = engines[index]
        if by is not None:
            engine.change(by)
        elif there.pop(index, None) is None:
            there[index] = engine
            ranking.add(engine)
        else:
            ranking.remove(engine)
        if there:
            assert ranking.first() == min((there[index] for index in sorted(there)), key=IN_FLIGHT).index


def scenario(replicas, autoscale, client):
    start = {"image": "300ms", "weights": "200ms", "init": "300ms", "capture": "100ms"}
    pool = {"gpu": "l40s", "replicas": replicas, "engine": {"max_num_seqs": 4, "num_gpu_blocks_override": 60, "max_model_len": 600}}
    if autoscale:
        policy = {"kind": "hpa", "target": {"concurrency": 2}, "scale_down": {"stabilization_window": 0}}
        pool |= {"start": start, "autoscale": {"min": 1, "max": 6, "every": "500ms", "policy": policy}}
    work = {"kind": "gamma", "rate": 20, "cv": 3, "num_requests": 150, "lengths": {"kind": "uniform", "input": [1, 700], "output": [1, 80]}}
    work |= {"client": {"timeout": "1s", "retries": {"max": 1}}} if client else {}
    # A second pool that only long requests fit in, so that some choices are among a part of the fleet.
    long = {"name": "long", "gpu": "l40s", "engine": {"max_model_len": 900}}
    return {"model": "Qwen/Qwen2.5-0.5B", "cluster": {"pools": [pool | {"name": "main"}, long]}, "workloads": [work]}


@settings(max_examples=6, deadline=None)
@given(replicas=st.integers(1, 6), autoscale=st.booleans(), client=st.booleans())
def test_a_ranked_fleet_serves_as_any_other(replicas, autoscale, client):
    plain = sim.run(scenario(replicas, autoscale, client)).tables
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlook, "LARGE", 0)
        ranked = sim.run(scenario(replicas, autoscale, client)).tables
    for name in plain:
        for column in plain[name].columns:
            assert np.array_equal(plain[name][column.name], ranked[name][column.name], equal_nan=column.dtype == "f8"), (name, column.name)
