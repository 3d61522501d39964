"""Flows on shared links: times in closed form, order, calling off, what is recorded, and the plain network's times."""
import math
import random

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.tables import tables
from sim.physics.topology import Link, Path
from sim.world.clock import Clock
from sim.world.network import Cargo, Network
from sim.world.usage import BINS
from tests.reference_network import Asked, completions

NS = 2e-9


class Bench:
    """A network of given capacities, and what happened: `ended` is (number of the flow, time) in the order of the calls."""

    def __init__(self, *capacities, env=None):
        self.env, self.tables, self.ended = env or Clock(), tables(), []
        links = [Link(f"l{number}", "nic", capacity, 0.0) for number, capacity in enumerate(capacities)]
        self.network = Network(self.env, links, self.tables)

    def send(self, links, size, at=0.0, latency=0.0, shares=None, **more):
        """A flow that is asked for at `at`; numbers follow the order of asking."""
        cargo = Cargo("kv", "a", "b", size, **more)
        path = Path(tuple(links), tuple(shares or [1.0] * len(links)), latency)
        box = []

        def ask(_=None):
            box.append(self.network.send(cargo, path, lambda: self.ended.append((box[0], self.env.now))))

        if at:
            self.at(at, ask)
        else:
            ask()
        return box

    def at(self, time, call):
        event = self.env.timeout(time - self.env.now)
        event.callbacks.append(lambda _: call())

    def run(self, until=None):
        self.env.run(until)
        self.network.close(self.env.now)
        return [time for _, time in sorted(self.ended)]

    def table(self, name):
        return self.tables[name].to_pandas()


def test_one_flow_takes_latency_and_bytes_over_bandwidth():
    bench = Bench(100.0, 50.0)
    bench.send([0, 1], 200.0, latency=0.25)
    assert bench.run() == pytest.approx([4.25], abs=NS)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_flows_on_one_link_share_it(count):
    bench = Bench(10.0)
    for _ in range(count):
        bench.send([0], 10.0)
    assert bench.run() == pytest.approx([count] * count, abs=NS)


def test_processor_sharing_in_closed_form():
    """Sizes 1, 2, 3 at rate 1: 3, 5, 6 s."""
    bench = Bench(1.0)
    for size in (1.0, 2.0, 3.0):
        bench.send([0], size)
    assert bench.run() == pytest.approx([3, 5, 6], abs=4 * NS)


def test_a_flow_that_comes_later_slows_the_first_from_then_on():
    bench = Bench(1.0)
    bench.send([0], 4.0)
    bench.send([0], 1.0, at=1.0)
    assert bench.run() == pytest.approx([5, 3], abs=4 * NS)


def test_weights_and_limits():
    bench = Bench(12.0)
    bench.send([0], 4.0, weight=2.0)
    bench.send([0], 2.0, limit=2.0)
    bench.send([0], 10.0)
    # 20/3, 2, 10/3: the first ends at 0.6; then 2 and 10.
    assert bench.run() == pytest.approx([0.6, 1.0, 0.6 + 4.0 / 10 + 4.0 / 12], abs=4 * NS)
    assert bench.table("flows")["bound"].tolist() == ["l0", "", "l0"]


def test_a_higher_priority_stops_the_others():
    bench = Bench(10.0)
    bench.send([0], 10.0)
    bench.send([0], 10.0, at=0.5, priority=3)
    assert bench.run() == pytest.approx([2.0, 1.5], abs=4 * NS)
    link = bench.table("links").iloc[0]
    assert (link["bytes"], link["busy"], link["full"]) == pytest.approx((20.0, 2.0, 2.0), abs=1e-7)


def test_parking_lot():
    """A long flow and one on each of three links, all of ten bytes at rate ten: each gets half, so all end together."""
    bench = Bench(10.0, 10.0, 10.0)
    bench.send([0, 1, 2], 10.0)
    for link in range(3):
        bench.send([link], 10.0)
    assert bench.run() == pytest.approx([2.0] * 4, abs=NS)


def test_dumbbell():
    """Three pairs with fast links of their own and a slow one between them."""
    bench = Bench(6.0, *[100.0] * 6)
    for pair in range(3):
        bench.send([1 + pair, 0, 4 + pair], 6.0)
    assert bench.run() == pytest.approx([3.0] * 3, abs=NS)
    assert bench.table("links")["full"].tolist() == pytest.approx([3.0] + [0.0] * 6, abs=NS)


def fat_tree(pods=4, hosts=4):
    """Hosts out and in at 10, pods up and down at hosts * 10: nothing is oversubscribed."""
    ends = pods * hosts
    capacities = [10.0] * (2 * ends) + [10.0 * hosts] * (2 * pods)

    def way(source, target):
        up, down = 2 * ends + source // hosts, 2 * ends + pods + target // hosts
        return [source, ends + target] if source // hosts == target // hosts else [source, up, down, ends + target]

    return capacities, way


def test_a_permutation_gets_full_rate_through_a_fat_tree():
    capacities, way = fat_tree()
    bench, targets = Bench(*capacities), list(range(16))
    random.Random(3).shuffle(targets)
    for source, target in enumerate(targets):
        bench.send(way(source, target), 10.0)
    assert bench.run() == pytest.approx([1.0] * 16, abs=NS)


def test_all_to_one_divides_its_last_link():
    capacities, way = fat_tree()
    bench = Bench(*capacities)
    for source in range(1, 16):
        bench.send(way(source, 0), 10.0)
    assert bench.run() == pytest.approx([15.0] * 15, abs=NS)
    assert set(bench.table("flows")["bound"]) == {"l16"}


def test_a_broadcast_from_one_host_and_as_a_tree():
    """To 15 others at once: 15 rounds of its link; as a binomial tree: log2(16) rounds."""
    capacities, way = fat_tree()
    flat = Bench(*capacities)
    for target in range(1, 16):
        flat.send(way(0, target), 10.0)
    assert flat.run() == pytest.approx([15.0] * 15, abs=NS)
    tree = Bench(*capacities)

    def pass_on(host, step):
        while step:
            step //= 2
            to = host + step
            if step:
                tree.network.send(Cargo("sync", "", "", 10.0), Path(tuple(way(host, to)), (1.0,) * len(way(host, to)), 0.0),
                                  lambda to=to, step=step, host=host: (pass_on(to, step), pass_on(host, step)))  # fmt: skip
                return

    pass_on(0, 16)
    tree.env.run()
    assert tree.env.now == pytest.approx(4.0, abs=4 * NS)
    assert len(tree.tables["flows"]) == 15


def test_nothing_to_move_takes_the_latency():
    bench = Bench(10.0)
    bench.send([0], 0.0, latency=0.5)
    bench.send([], 1e9, latency=0.25)
    assert bench.run() == pytest.approx([0.5, 0.25], abs=NS)
    assert bench.table("flows")["moved"].tolist() == [1e9, 0.0]


def test_ends_fall_on_whole_nanoseconds_in_the_order_of_sending():
    bench = Bench(3.0, 3.0, 3.0)
    for link in (2, 0, 1):
        bench.send([link], 1.0)
    bench.run()
    assert [number for number, _ in bench.ended] == [0, 1, 2]
    assert {time for _, time in bench.ended} == {(round(1 / 3 / 1e-9) + 1) * 1e-9}


def test_a_flow_called_off_gives_its_share_back_and_tells_nobody():
    bench = Bench(10.0)
    first, _ = bench.send([0], 100.0), bench.send([0], 20.0)
    bench.at(2.0, lambda: bench.network.call_off(first[0]))
    bench.run()
    assert bench.ended == [(1, pytest.approx(3.0, abs=NS))]
    rows = bench.table("flows")
    assert math.isnan(rows["end"][0])
    assert rows["moved"].tolist() == pytest.approx([10.0, 20.0])


def test_called_off_before_its_first_byte_and_after_its_end():
    bench = Bench(10.0)
    waiting, short = bench.send([0], 10.0, latency=1.0), bench.send([0], 5.0)
    bench.at(0.5, lambda: bench.network.call_off(waiting[0]))
    bench.at(2.0, lambda: bench.network.call_off(short[0]))
    assert bench.run() == pytest.approx([0.5], abs=NS)
    assert bench.table("flows")["moved"].tolist() == [0.0, 5.0]


def test_the_end_of_a_run_cuts_flows_off():
    bench = Bench(10.0)
    bench.send([0], 100.0)
    bench.send([0], 10.0, latency=50.0)
    bench.run(until=4.0)
    rows = bench.table("flows")
    assert rows["moved"].tolist() == pytest.approx([40.0, 0.0])
    assert rows["end"].isna().all()
    assert bench.table("usage")["bytes"].sum() == pytest.approx(40.0)


def test_those_who_watch_links_hear_of_their_load():
    bench, heard = Bench(10.0, 10.0), []
    bench.network.watch([0, 1], lambda share: heard.append((bench.env.now, share)))
    bench.send([0], 5.0, limit=2.5)
    bench.send([1], 5.0, at=1.0, limit=5.0)
    bench.send([1], 4.0, at=1.5)
    bench.run()
    # Link 0 carries 2.5 until 2; link 1 carries 5 from 1, 10 of two flows from 1.5, of which a third would get a third, 10 of one from 2.
    assert [share for _, share in heard] == pytest.approx([0.25, 0.5, 2 / 3, 0.5, 0.0])
    assert [time for time, _ in heard] == pytest.approx([0.0, 1.0, 1.5, 2.0, 2.15], abs=1e-8)


def test_who_watches_no_more_hears_no_more():
    bench, heard = Bench(10.0), {"one": [], "two": []}
    first = bench.network.watch([0], heard["one"].append)
    bench.network.watch([0], heard["two"].append)
    bench.send([0], 5.0, limit=5.0)
    bench.at(0.5, lambda: bench.network.unwatch(first))
    bench.send([0], 5.0, at=2.0, limit=2.5)
    bench.run()
    assert heard == {"one": [0.5], "two": [0.5, 0.0, 0.25, 0.0]}


def test_usage_adds_up_however_long_the_run():
    bench = Bench(10.0, 10.0, 10.0)
    for number in range(40):
        bench.send([0, 1] if number % 2 else [0], 30.0, at=number * 60.0)
    bench.run()
    usage, links = bench.table("usage"), bench.table("links")
    assert set(usage["link"]) == {0, 1}
    assert usage.groupby("link")["bytes"].sum().tolist() == pytest.approx([1200.0, 600.0])
    assert links["bytes"].tolist() == pytest.approx([1200.0, 600.0, 0.0])
    assert links["busy"].tolist() == pytest.approx([120.0, 60.0, 0.0], abs=1e-6)
    assert links["full"].tolist() == pytest.approx([120.0, 60.0, 0.0], abs=1e-6)
    assert (usage["bytes"] <= 10.0 * usage["seconds"] * (1 + 1e-9)).all()
    assert usage["start"].max() / usage["seconds"].max() < BINS


def test_any_environment_will_do():
    bench = Bench(10.0, env=simpy.Environment())
    bench.send([0], 10.0, latency=1.0)
    assert bench.run() == pytest.approx([2.0], abs=NS)


@st.composite
def traffic(draw):
    """Capacities and flows, drawn by a seed."""
    rng, plain = random.Random(draw(st.integers(0, 2**32))), draw(st.booleans())
    capacities = [rng.choice([1.0, 2.0, rng.uniform(0.5, 5.0)]) for _ in range(rng.randint(1, 6))]
    flows = {}
    for number in range(rng.randint(1, 14)):
        links = tuple(rng.sample(range(len(capacities)), rng.randint(1, min(3, len(capacities)))))
        begin = rng.choice([0.25 * rng.randint(1, 8), rng.uniform(0.1, 4.0)])
        flows[number] = Asked(begin, rng.uniform(0.1, 5.0), links, tuple(1.0 if plain else rng.choice([1.0, 0.5, 2.0]) for _ in links),
                              1.0 if plain else rng.choice([1.0, 2.0, rng.uniform(0.2, 3.0)]), 0 if plain else rng.randrange(3),
                              rng.uniform(0.1, 3.0) if not plain and rng.random() < 0.4 else math.inf,
                              begin + rng.uniform(0.0, 2.0) if rng.random() < 0.2 else math.inf)  # fmt: skip
    return capacities, flows


@settings(max_examples=40, deadline=None)
@given(traffic())
def test_times_and_bytes_are_those_of_the_plain_network(told):
    capacities, flows = told
    expected, bench = completions(flows, capacities), Bench(*capacities)
    boxes = {}
    for number, flow in sorted(flows.items(), key=lambda item: item[1].begin):
        boxes[number] = bench.send(flow.links, flow.size, flow.begin, 0.0, flow.shares, weight=flow.weight, priority=flow.priority,
                                   limit=flow.limit)  # fmt: skip
        if flow.off < math.inf:
            bench.at(flow.off, lambda box=boxes[number]: bench.network.call_off(box[0]))
    bench.run()
    ended, rows, numbers = dict(bench.ended), bench.table("flows"), {box[0]: number for number, box in boxes.items()}
    found = {numbers[flow]: time for flow, time in ended.items()}
    # Ends are up to 1.5 ns late; by rank, that many times as late again.
    for number, (end, _) in expected.items():
        assert found.get(number, math.nan) == pytest.approx(end, abs=1e-7, nan_ok=True)
    moved = sum(moved for _, moved in expected.values())
    assert rows["moved"].sum() == pytest.approx(moved, rel=1e-6)
    assert (rows["moved"] <= rows["bytes"]).all()
    usage = bench.table("usage")
    assert usage["bytes"].sum() == pytest.approx(bench.table("links")["bytes"].sum())
    assert (usage["bytes"] <= np.array(capacities)[usage["link"]] * (usage["seconds"] * (1 + 1e-9) + 1e-8)).all()
