"""Random traffic over a large fabric, with flows called off and the run cut short: the audit of flows holds, finds what is broken, and the
same traffic leaves the same tables.
"""
from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.tables import tables
from sim.study.metrics import METRICS, Facts
from sim.study.network import flows
from sim.world.clock import Clock
from sim.world.network import Network
from tests.speed.flows import Load, links, traffic
from tests.unit.synthetic import edit, serve

LOADS = {
    "rails": Load("rails", 25_000, 300), "spine": Load("spine", 60_000, 300), "hot": Load("spine", 20_000, 300, hot=0.5),
    "wide": Load("spine", 40_000, 60, wide=True),
}  # fmt: skip


def carried(load, seed, until=None):
    """A result whose network tables are those of the traffic, with weights, priorities, limits and some flows called off."""
    rng, env, facts = random.Random(seed), Clock(), tables()
    network = Network(env, links(), facts)

    def ask(cargo, way):
        weight, priority, limit = rng.choice([1.0, 1.0, 2.5]), rng.choice([0, 0, 0, 1]), rng.choice([np.inf, np.inf, 7e9])
        number = network.send(cargo._replace(weight=weight, priority=priority, limit=limit), way, lambda: None)
        if rng.random() < 0.1:
            env.timeout(rng.uniform(0.0, 0.05)).callbacks.append(lambda _: network.call_off(number))

    for at, cargo, way in traffic(load, seed):
        env.timeout(at).callbacks.append(lambda _, cargo=cargo, way=way: ask(cargo, way))
    env.run(until)
    network.close(env.now)
    plain = serve(np.empty(0), np.empty(0, dtype=int))
    return dataclasses.replace(plain, tables=plain.tables | {name: facts[name] for name in ("flows", "links", "usage")},
                               meta=plain.meta | {"sim_s": env.now})  # fmt: skip


@pytest.mark.parametrize("name", LOADS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32), until=st.sampled_from([None, 0.01]))
def test_the_audit_of_flows_holds(name, seed, until):
    result = carried(LOADS[name], seed, until)
    checked, faults = flows(Facts(result))
    assert faults == []
    assert checked > len(result.tables["flows"])
    moved, crossed = result.tables["flows"]["moved"].sum(), result.tables["links"]["bytes"].sum()
    # Every flow crosses two cards (or eight of each, with an eighth of its bytes), and at most two links of the spine.
    assert 2 * moved <= crossed * (1 + 1e-9)
    assert crossed <= 4 * moved * (1 + 1e-9)


def test_the_same_traffic_leaves_the_same_tables():
    one, two = (carried(LOADS["hot"], 7) for _ in range(2))
    for name in ("flows", "links", "usage"):
        for column in one.tables[name].columns:
            assert one.tables[name][column.name].tobytes() == two.tables[name][column.name].tobytes()


def test_the_figures_of_a_network():
    result = carried(LOADS["hot"], 3)
    found = METRICS["network"].of(Facts(result))
    sent = result.tables["flows"]
    assert found["transfers"]["kv"]["count"] == 300
    assert found["transfers"]["kv"]["bytes"] == pytest.approx(sent["moved"].sum())
    assert found["transfers"]["kv"]["cut_off"] == np.isnan(sent["end"]).sum() > 0
    top = found["busiest"][0]
    assert 0 < top["mean"] <= top["peak"] <= 1 + 1e-9
    assert top["full_s"] <= top["busy_s"]
    assert sum(row["count"] for row in found["binding"]) <= 300
    assert METRICS["network"].of(Facts(serve(np.empty(0), np.empty(0, dtype=int)))) is None


BREAKS = [
    ("flows", "moved", 2.0, "moved more than its bytes"), ("flows", "moved", 0.5, "arrived without all of its bytes"),
    ("flows", "end", 0.0, "ended before it began"), ("usage", "bytes", 1e6, "carried more than it can"),
    ("links", "bytes", 0.5, "is not the sum of its bins"), ("links", "busy", 0.1, "is more than it can carry while busy"),
    ("links", "full", 50.0, "is less than it carries while full"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "column", "factor", "what"), BREAKS)
def test_the_audit_of_flows_finds_what_is_broken(table, column, factor, what):
    result = carried(LOADS["hot"], 5)
    rows = result.tables[table]
    broken = next(at for at in range(len(rows)) if rows[column][at] > 0)
    edit(rows, column, broken, rows[column][broken] * factor)
    assert any(what in fault for fault in flows(Facts(result))[1])
