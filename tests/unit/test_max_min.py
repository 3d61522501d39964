"""Max-min fair rates: closed forms, and the kept rates equal to the textbook's after any coming and going."""
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.physics.max_min import Flow
from sim.physics.priority_shares import PriorityShares
from tests.reference_network import Asked, rates


class Kept:
    """Flows added to and taken from `PriorityShares`, and their rates."""

    def __init__(self, capacities):
        self.shares = PriorityShares(capacities)
        self.flows = {}

    def add(self, number, asked):
        rank = self.shares.rank(asked.priority)
        links, uses = asked.links, tuple(asked.weight * share for share in asked.shares)
        if asked.limit < math.inf:
            links, uses = (*links, rank.own(asked.limit)), (*uses, asked.weight)
        self.flows[number] = rank, Flow(number, links, uses, asked.weight)
        self.shares.add(self.flows[number][1], rank)

    def remove(self, number):
        rank, flow = self.flows.pop(number)
        rank.remove(flow)

    def rates(self):
        self.shares.settle()
        return {number: rank.level[flow.bound] * flow.weight for number, (rank, flow) in self.flows.items()}


def of(capacities, *flows):
    kept = Kept(capacities)
    for number, asked in enumerate(flows):
        kept.add(number, asked)
    return list(kept.rates().values())


def flow(*links, **more):
    return Asked(0.0, 1.0, links, (1.0,) * len(links), **more)


def test_equal_flows_share_a_link_equally():
    assert of([12.0], *[flow(0)] * 4) == [3.0] * 4


def test_weights_divide_a_link():
    assert of([12.0], flow(0, weight=1.0), flow(0, weight=2.0), flow(0, weight=3.0)) == [2.0, 4.0, 6.0]


def test_a_limit_leaves_the_rest_to_the_others():
    assert of([12.0], flow(0, limit=2.0), flow(0), flow(0)) == [2.0, 5.0, 5.0]


def test_shares_take_part_of_a_flow():
    """Half of the first flow crosses link 0: it moves 8 with 4 of the link."""
    assert of([8.0, 100.0], Asked(0.0, 1.0, (0, 1), (0.5, 0.5)), flow(0)) == pytest.approx([16 / 3, 16 / 3])
    assert of([8.0, 4.0], Asked(0.0, 1.0, (0, 1), (0.5, 0.5))) == [8.0]


@pytest.mark.parametrize("hops", [2, 3, 8])
def test_parking_lot(hops):
    """One flow over all links, one over each: all get half."""
    assert of([10.0] * hops, flow(*range(hops)), *[flow(hop) for hop in range(hops)]) == [5.0] * (hops + 1)


def test_a_bottleneck_elsewhere_leaves_room():
    """Flow 0 gets 1 of link 1, which it shares with 9 others; what it leaves of link 0 goes to flow 1."""
    assert of([10.0, 10.0], flow(0, 1), flow(0), *[flow(1)] * 9) == [1.0, 9.0] + [1.0] * 9


def test_higher_priority_comes_first_and_the_rest_is_shared():
    assert of([10.0], flow(0, priority=1, limit=4.0), flow(0), flow(0)) == [4.0, 3.0, 3.0]
    assert of([10.0], flow(0, priority=1), flow(0)) == [10.0, 0.0]


def test_a_link_that_is_offered_less_slows_its_flows():
    kept = Kept([10.0, 10.0])
    for number, asked in enumerate([flow(0), flow(0, 1), flow(1)]):
        kept.add(number, asked)
    assert list(kept.rates().values()) == [5.0, 5.0, 5.0]
    kept.shares.rank(0).offer(0, 4.0)
    assert list(kept.rates().values()) == [2.0, 2.0, 8.0]


@st.composite
def stories(draw):
    """Capacities, and what comes and goes, a few at a time. Drawn by a seed: shrinking thousands of numbers finds nothing."""
    seed, plain, ranks = draw(st.integers(0, 2**32)), draw(st.booleans()), draw(st.sampled_from([1, 1, 2, 3]))
    rng = random.Random(seed)
    capacities = [rng.choice([1.0, 2.0, 5.0, rng.uniform(0.1, 10.0)]) for _ in range(rng.randint(1, 10))]
    story, here, number = [], [], 0
    for _ in range(rng.randint(1, 25)):
        changes = []
        for _ in range(rng.randint(1, 3)):
            if here and rng.random() < 0.45:
                changes.append((here.pop(rng.randrange(len(here))), None))
                continue
            links = tuple(rng.sample(range(len(capacities)), rng.randint(1, min(len(capacities), 4))))
            asked = Asked(0.0, 1.0, links, tuple(1.0 if plain else rng.choice([1.0, 0.5, 2.0, 0.125]) for _ in links),
                          1.0 if plain else rng.choice([1.0, 2.0, rng.uniform(0.1, 5.0)]), rng.randrange(ranks),
                          math.inf if plain or rng.random() < 0.6 else rng.uniform(0.01, 5.0))  # fmt: skip
            changes.append((number, asked))
            here.append(number)
            number += 1
        story.append(changes)
    return capacities, story


@settings(max_examples=60, deadline=None)
@given(stories())
def test_kept_rates_are_those_of_the_textbook(told):
    """After every change, of every flow, to 1e-9: weights, shares, limits and priorities."""
    capacities, story = told
    kept, here = Kept(capacities), {}
    for changes in story:
        for number, asked in changes:
            if asked is None:
                kept.remove(number)
                del here[number]
            else:
                kept.add(number, asked)
                here[number] = asked
        assert kept.rates() == pytest.approx(rates(here, capacities), rel=1e-9, abs=1e-9)
