"""The decode group against a list of its members, and the KV cache's arithmetic."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.core.request import Request
from sim.policy.kv.paged import Paged
from sim.world.decoders import Decoders


def blocks(tokens: int, size: int) -> int:
    return -(-tokens // size)


@given(
    size=st.sampled_from([1, 2, 16]),
    members=st.lists(st.tuples(st.integers(1, 70), st.integers(2, 40), st.integers(0, 9)), min_size=1, max_size=12),
    ahead=st.integers(1, 50),
    free=st.integers(0, 60),
)
def test_group_counts_as_its_members_would(size, members, ahead, free):
    group, alone = Decoders(size), []
    for order, (computed, output, pause) in enumerate(members, start=1):
        group.step += pause if not alone else 0
        request = Request(order, 0.0, computed, output)
        request.computed, request.generated, request.order = computed, 1, order
        group.join(request)
        alone.append(computed)
    needs = [sum(blocks(c + k, size) - blocks(c, size) for c in alone) for k in range(ahead + 1)]
    assert group.held == sum(alone)
    assert group.blocks(ahead) == needs[ahead]
    assert group.fits(free, ahead) == max(k for k in range(ahead + 1) if needs[k] <= free)
    assert group.until_finish() == min(output for _, output, _ in members) - 1


def test_members_leave_up_to_date_and_stale_entries_are_skipped():
    group = Decoders(16)
    requests = []
    for order, output in enumerate((5, 9, 3), start=1):
        request = Request(order, 0.0, 20, output)
        request.computed, request.generated, request.order = 20, 1, order
        group.join(request)
        requests.append(request)
    group.preempt(requests[2])
    requests[2].order = -1
    assert group.until_finish() == 4
    group.step += 4
    group.held += 4 * 2
    assert group.finished() == [requests[0]]
    assert (requests[0].computed, requests[0].generated) == (24, 5)
    assert (group.count, group.held) == (1, 24)
    group.step += 4
    group.held += 4
    assert group.finished() == [requests[1]]
    assert (group.count, group.held, sum(group.phases)) == (0, 0, 0)


def test_paged_takes_all_or_nothing():
    kv, request = Paged(4, 16), Request(0, 0.0, 100, 1)
    assert kv.grow(request, 33)
    assert (kv.free, kv.peak) == (1, 3)
    request.computed, request.order = 33, 1
    assert not kv.grow(request, 40)
    assert kv.free == 1
    assert kv.need(request, 15) == 0
    assert kv.grow(request, 15)
    assert kv.take(1)
    assert not kv.take(1)
    kv.drop(request)
    assert (kv.free, kv.taken, kv.returned, kv.peak) == (3, 4, 3, 4)


def test_what_a_request_brings_along_takes_blocks():
    """Not computed, but held: a request takes blocks for what it brings when it is admitted, and gives all of them back."""
    kv, request = Paged(8, 16), Request(0, 0.0, 100, 1)
    request.brought = 64
    request.computed = kv.find(request)
    assert (request.computed, request.fetch) == (64, 64)
    assert kv.need(request, 36) == 7
    assert kv.grow(request, 36)
    request.computed, request.order = 100, 1
    kv.drop(request)
    assert (kv.free, kv.taken, kv.returned) == (8, 7, 7)
