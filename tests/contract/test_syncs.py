"""Every kind of weight sync in the registry keeps its contract. Dropping in a file subjects it to these."""
from __future__ import annotations

import math

import pytest

from sim.core.errors import BadInput
from sim.core.registry import SYNCS
from sim.policy.sync.base import Ends
from sim.world.broadcast import ALGORITHMS

APART = Ends(16e9, 16e9, 339, 0.2, 8, 1, 4, 2, 1, 50e9, 64e9, 450e9, False)
ENDS = {
    "apart": APART,
    "colocated": APART._replace(senders=8, colocated=True),
    "one node": APART._replace(senders=4, replicas=2, same_node=True),
    "large": Ends(2e12, 1e12, 140_000, 12.0, 256, 32, 16, 16, 32, 50e9, 64e9, 450e9, False),
    "cards in slots": APART._replace(nvlink=0.0, gpus=1),
}


def make(kind, **options):
    checked, problems = SYNCS.check({"kind": kind, **options})
    assert not problems
    return SYNCS.make(checked)


def plans(kind, ends):
    """The plan, or None where the kind says that it is not for such ends."""
    try:
        return make(kind).plan(ends)
    except BadInput as error:
        if [problem.path for problem in error.problems] != ["sync.kind"]:
            raise
        return None


@pytest.mark.parametrize("kind", SYNCS.names())
class TestSyncs:
    @pytest.mark.parametrize("name", ENDS)
    def test_a_plan_is_of_seconds_and_of_flows_that_the_network_knows(self, kind, name):
        ends = ENDS[name]
        plan = plans(kind, ends)
        if plan is None:
            return
        for seconds in (plan.gather, plan.move, plan.load, plan.fixed):
            assert math.isfinite(seconds)
            assert seconds >= 0
        assert plan.seconds > 0
        assert plan == make(kind).plan(ends)
        if plan.order is not None:
            assert plan.order.algorithm in ALGORITHMS
            assert 0 < plan.order.size <= ends.served
            assert plan.order.chunk is None or 0 < plan.order.chunk <= plan.order.size

    def test_some_ends_can_do_it(self, kind):
        assert any(plans(kind, ends) is not None for ends in (ENDS["apart"], ENDS["colocated"]))

    def test_more_to_send_never_takes_less(self, kind):
        for ends in ENDS.values():
            one = plans(kind, ends)
            if one is None:
                continue
            sync = make(kind)
            for more in (
                {"weights": 2 * ends.weights, "served": 2 * ends.served}, {"tensors": 2 * ends.tensors}, {"gather": 2 * ends.gather},
                {"nic": ends.nic / 2}, {"pcie": ends.pcie / 2},
            ):  # fmt: skip
                assert sync.plan(ends._replace(**more)).seconds >= one.seconds * (1 - 1e-9), more

    def test_says_who_waits_and_where_it_goes(self, kind):
        sync = make(kind)
        assert sync.blocking in ("blocking", "in_flight", "pull")
        assert isinstance(sync.store, str)

    def test_nothing_is_kept_between_plans(self, kind):
        sync = make(kind)
        before = repr(sync)
        for ends in ENDS.values():
            try:
                sync.plan(ends)
            except BadInput:
                continue
        assert repr(sync) == before
