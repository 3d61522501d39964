"""Every placer and autoscaler in the registry keeps its contract. Dropping in a file subjects it to these."""
from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.registry import AUTOSCALERS, PLACERS
from sim.policy.place.base import Host, Wanted
from sim.policy.room import why
from sim.policy.scale.base import Seen

OPTIONS = {
    "hpa": {"target": {"concurrency": 6, "kv": 0.8, "busy": 0.9, "rate": 0.7}}, "slo": {"ttft": "500ms", "late": 0.05},
    "concurrency": {"target": 8}, "predictive": {"capacity": 0.8}, "scheduled": {"table": [{"at": "07:00", "replicas": 9}]},
}  # fmt: skip
EVERY = 15.0


def make(family, kind, **more):
    options, problems = family.check({"kind": kind, **OPTIONS.get(kind, {}), **more})
    assert not problems
    assert family.check(options) == (options, [])
    return family.make(options)


@st.composite
def fleets(draw):
    """Hosts of up to three kinds, partly taken; domains and leaves of several hosts."""
    hosts, wide = [], draw(st.sampled_from([1, 2, 4]))
    for gpu, node, region, gpus in draw(st.lists(st.sampled_from(
        [("h100", "hgx", "us", 8), ("h100", "hgx", "eu", 8), ("h100", "pcie", "us", 4), ("l4", "box", "us", 4)]
    ), max_size=3, unique=True)):  # fmt: skip
        for at in range(draw(st.integers(1, 9))):
            free = draw(st.one_of(st.just(tuple(range(gpus))), st.sets(st.integers(0, gpus - 1)).map(sorted).map(tuple)))
            number = len(hosts)
            hosts.append(Host(number, gpu, node, region, number - at % wide, 100 * len(hosts) + number // 5, gpus, free))
    return hosts


WANTED = st.builds(
    Wanted, st.integers(1, 4), st.sampled_from([1, 2, 3, 4, 8, 16, 20]), st.just("h100"), st.sampled_from(["", "hgx"]),
    st.sampled_from(["", "us"]),
)  # fmt: skip


def fits(wanted, hosts):
    """Whether there is room, counted another way than the placers do."""
    right = [h for h in hosts if h.gpu == wanted.gpu and wanted.node in ("", h.node) and wanted.region in ("", h.region)]
    for kind in sorted({(h.region, h.node, h.gpus) for h in right}):
        mine = [h for h in right if (h.region, h.node, h.gpus) == kind]
        need, domains = -(-wanted.size // kind[2]), Counter()
        for host in mine:
            domains[host.domain] += len(host.free) == host.gpus
        most = max(Counter(h.domain for h in mine).values()) * kind[2]
        if wanted.size <= kind[2]:
            room = sum(len(h.free) // wanted.size for h in mine)
        elif most >= wanted.size:
            room = sum(whole // need for whole in domains.values())
        else:
            room = sum(domains.values()) // need
        if room >= wanted.groups:
            return True
    return False


@pytest.mark.parametrize("kind", PLACERS.names())
class TestPlacers:
    @settings(max_examples=60, deadline=None)
    @given(hosts=fleets(), wanted=WANTED)
    def test_places_what_fits_on_free_gpus_of_the_right_hosts(self, kind, hosts, wanted):
        slots = make(PLACERS, kind).place(wanted, hosts)
        assert slots == make(PLACERS, kind).place(wanted, list(hosts))
        assert (slots is not None) == fits(wanted, hosts)
        assert (why(wanted, hosts) == "") == (slots is not None)
        if slots is None:
            return
        assert len(set(slots)) == len(slots) == wanted.gpus
        assert all(gpu in hosts[number].free for number, gpu in slots)
        used = [hosts[number] for number, _ in slots]
        assert len({(host.gpu, host.node, host.region, host.gpus) for host in used}) == 1
        assert used[0].gpu == wanted.gpu
        assert wanted.node in ("", used[0].node)
        assert wanted.region in ("", used[0].region)
        for begin in range(0, wanted.gpus, wanted.size):
            self.check_group(slots[begin:begin + wanted.size], hosts)

    def check_group(self, group, hosts):
        """Within a host; a larger one on whole hosts, in one NVLink domain where one is as large."""
        parts = Counter(number for number, _ in group)
        first = hosts[group[0][0]]
        if len(group) <= first.gpus:
            assert len(parts) == 1
            return
        assert len(parts) == -(-len(group) // first.gpus)
        assert all(len(hosts[number].free) == first.gpus for number in parts)
        kin = [h for h in hosts if (h.gpu, h.node, h.region, h.gpus) == (first.gpu, first.node, first.region, first.gpus)]
        if max(Counter(h.domain for h in kin).values()) * first.gpus >= len(group):
            assert len({hosts[number].domain for number in parts}) == 1

    def test_nothing_on_no_hosts(self, kind):
        assert make(PLACERS, kind).place(Wanted(1, 1, "h100"), []) is None


class Pool:
    """A pool whose replicas take eight requests at once and whose load never changes; a new one is ready after `cold` scrapes."""

    def __init__(self, load, cold):
        self.load, self.cold = load, cold
        self.ready, self.starting = 1, []

    def scrape(self, number):
        time = number * EVERY
        self.ready += sum(at <= number for at in self.starting)
        self.starting = [at for at in self.starting if at > number]
        n, arrivals = self.ready, round(self.load * EVERY / 10)
        if not n:
            return Seen(time, 0, len(self.starting), 0, 0, round(self.load), 0.0, 0.0, arrivals, 0, 0, math.nan, math.nan)
        full = self.load / (8 * n)
        ttft, queued = 0.1 / (1 - full) if full < 0.999 else 100.0, max(0.0, self.load - 8 * n)
        kv, late = min(1.0, self.load / (10 * n)), arrivals if ttft > 0.5 else 0
        return Seen(
            time, n, len(self.starting), round(self.load), round(queued), 0, kv, min(1.0, full), arrivals, arrivals, late, ttft, 0.02,
            (kv,) * n, (round(queued / n),) * n,
        )  # fmt: skip

    def change(self, number, wanted):
        more = wanted - self.ready - len(self.starting)
        if more > 0:
            self.starting += [number + self.cold] * more
        elif more < 0:
            called_off = min(-more, len(self.starting))
            self.starting = self.starting[:len(self.starting) - called_off]
            self.ready -= -more - called_off


@pytest.mark.parametrize("kind", AUTOSCALERS.names())
class TestAutoscalers:
    def answers(self, kind, load, cold, scrapes):
        policy, pool, answers = make(AUTOSCALERS, kind), Pool(load, cold), []
        for number in range(1, scrapes):
            answers.append(policy.want(pool.scrape(number)))
            pool.change(number, min(answers[-1], 500))
        return answers

    @settings(max_examples=12, deadline=None)
    @given(load=st.floats(1, 300), cold=st.integers(0, 20))
    def test_a_constant_load_ends_in_a_constant_answer(self, kind, load, cold):
        answers = self.answers(kind, load, cold, 2400)
        assert len(set(answers[-600:])) == 1
        assert kind == "scheduled" or answers[-1] * 8 >= load * 0.9

    def test_is_deterministic_and_answers_whole_numbers(self, kind):
        answers = self.answers(kind, 70.0, 4, 300)
        assert answers == self.answers(kind, 70.0, 4, 300)
        assert all(type(answer) is int and answer >= 0 for answer in answers)

    def test_without_traffic_it_asks_for_little_and_wakes_up_when_somebody_waits(self, kind):
        policy, idle = make(AUTOSCALERS, kind), {"kv": 0.0, "busy": 0.0, "ended": 0, "late": 0, "ttft": math.nan, "tpot": math.nan}
        ready = 3
        for number in range(1, 400):
            ready = policy.want(Seen(number * EVERY, ready, 0, 0, 0, 0, arrivals=0, **idle))
        if kind == "scheduled":
            assert ready == 9
            return
        assert ready <= 1
        assert policy.want(Seen(400 * EVERY, 0, 0, 0, 0, 5, arrivals=5, **idle)) >= 1

    def test_says_what_it_looks_at(self, kind):
        assert make(AUTOSCALERS, kind).sees in ("counts", "use", "replicas")

    def test_reads_nothing_but_what_it_says(self, kind):
        """What it does not see is NaN: a policy that read it would answer otherwise, or not at all."""
        if make(AUTOSCALERS, kind).sees == "counts":
            facts = {"ended": 9, "late": 1, "ttft": 0.3, "tpot": 0.03}
            blind, seeing = make(AUTOSCALERS, kind), make(AUTOSCALERS, kind)
            for number in range(1, 200):
                counts = (number * EVERY, 3, 0, 20 + number % 40, number % 7, 0)
                wanted = seeing.want(Seen(*counts, 0.5, 0.5, 9, *facts.values()))
                assert blind.want(Seen(*counts, math.nan, math.nan, 9, *facts.values())) == wanted
