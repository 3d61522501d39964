"""Weight syncs: what their plans are made of, against arithmetic by hand."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.errors import BadInput
from sim.core.registry import SYNCS
from sim.physics import weight_sync as physics
from sim.physics.trainer import TrainStep
from sim.policy.ends import ends, registered
from sim.policy.sync.base import Ends
from sim.spec.layout import Precision
from sim.spec.llm import llm
from sim.spec.scenario import Pool
from sim.spec.trainer import Trainer, TrainLayout

APART = Ends(16e9, 16e9, 339, 0.0, 8, 1, 4, 2, 1, 50e9, 64e9, 450e9, False)
CARD = 0.72 * 50e9


def plan(kind, at=APART, **options):
    checked, problems = SYNCS.check({"kind": kind, **options})
    assert not problems
    return SYNCS.make(checked).plan(at)


def trained(model="qwen2.5-7b", **options):
    return TrainStep(llm(model), Trainer(**{"gpu": "h100_sxm", "gpus": 8, "mfu": 0.3, "micro_batch": 4096} | options))


# -- tensors ------------------------------------------------------------------
def test_tensors_are_those_of_a_checkpoint():
    # 28 layers of q, k, v with biases, o, gate, up, down and two norms; embedding, last norm and head.
    assert physics.tensors(llm("qwen2.5-7b")) == 28 * 12 + 3
    # 94 layers of 128 experts with three each, router, q, k, v, o, two norms.
    assert physics.tensors(llm("qwen3-235b-a22b")) == 94 * (128 * 3 + 7) + 3


def test_scales_are_tensors_of_their_own():
    model = llm("qwen2.5-7b")
    plain = physics.tensors(model)
    assert physics.tensors(model, Precision.model_validate("bf16")) == plain
    assert physics.tensors(model, Precision.model_validate("fp8")) == plain + 28 * 7
    assert physics.tensors(model, Precision.model_validate({"mlp": "fp8"})) == plain + 28 * 3
    assert physics.tensors(model, Precision.model_validate({"mlp": "fp8", "edges": {"first": 1, "last": 1}})) == plain + 26 * 3


# -- formulas -----------------------------------------------------------------
@given(stages=st.lists(st.floats(0, 100), min_size=1, max_size=4), pieces=st.integers(1, 1000))
def test_a_pipeline_is_between_its_slowest_stage_and_all_of_them(stages, pieces):
    found = physics.pipelined(stages, pieces)
    assert max(stages) * (1 - 1e-9) <= found <= sum(stages) * (1 + 1e-9)
    assert physics.pipelined(stages, pieces + 1) <= found * (1 + 1e-9)


def test_a_pipeline_equals_pieces_going_through_one_by_one():
    stages, pieces = [2.0, 5.0, 3.0], 7
    free = [0.0] * 3
    for _ in range(pieces):
        ready = 0.0
        for number, seconds in enumerate(stages):
            ready = free[number] = max(ready, free[number]) + seconds / pieces
    assert physics.pipelined(stages, pieces) == pytest.approx(free[-1])


def test_who_gathers():
    assert physics.gather_seconds(trained(gpus=1, model="qwen2.5-0.5b")) == 0.0
    step = trained()
    assert physics.gather_seconds(step) == pytest.approx(step.gather_seconds() + 339 * physics.GATHERED)
    whole = trained(backend="megatron")
    assert physics.gather_seconds(whole) == 0.0
    divided = trained(backend="megatron", parallel=TrainLayout(tp=2))
    assert physics.gather_seconds(divided) == pytest.approx(whole.weight_bytes() / (0.75 * 450e9) + 339 * physics.GATHERED)
    across = trained(backend="megatron", gpus=32, parallel=TrainLayout(pp=4))
    assert physics.gather_seconds(across) == pytest.approx(whole.weight_bytes() / (0.72 * 50e9 * 8) + 339 * physics.GATHERED)


# -- kinds --------------------------------------------------------------------
def test_calls_rule_where_tensors_are_many():
    few, many = plan("per_tensor"), plan("per_tensor", APART._replace(tensors=37_000))
    assert few.move == many.move == pytest.approx(16e9 / CARD)
    assert few.fixed == pytest.approx(0.5 + 339 * (2e-3 + 20e-6))
    assert many.seconds > 10 * plan("bucketed", APART._replace(tensors=37_000)).seconds


def test_buckets_hide_gathering_behind_the_wire():
    hidden = plan("bucketed", APART._replace(gather=0.1))
    assert hidden.gather == pytest.approx(0.1 / 4)
    shown = plan("bucketed", APART._replace(gather=10.0))
    assert shown.gather + shown.move == pytest.approx(10.0 + 16e9 / CARD / 4)
    assert plan("bucketed", bucket="1GB").fixed > plan("bucketed", bucket="16GB").fixed


def test_receivers_hardly_matter_to_a_broadcast():
    near, far = (APART._replace(replicas=n, receiver_nodes=n // 4) for n in (4, 256))
    for kind in ("per_tensor", "bucketed", "checkpoint_engine"):
        assert plan(kind, far).seconds < 1.1 * plan(kind, near).seconds
    assert plan("rdma_p2p", far).move == pytest.approx(64 * plan("rdma_p2p", near).move)


def test_more_cards_carry_a_broadcast_until_nvlink_does():
    at = APART._replace(receiver_nodes=2, replicas=8)
    assert plan("checkpoint_engine", at).move < plan("bucketed", at).move / 4
    slow = plan("checkpoint_engine", at._replace(nvlink=100e9))
    assert slow.move == pytest.approx(16e9 / 75e9, rel=0.1)


def test_p2p_is_bound_by_the_cards_of_either_end():
    assert plan("rdma_p2p", APART._replace(senders=64)).move == pytest.approx(8e9 / CARD)
    assert plan("rdma_p2p", APART._replace(senders=2)).move == pytest.approx(4 * 8e9 / CARD)
    assert plan("rdma_p2p").load == 0.0


def test_a_store_is_asked_twice_or_piece_by_piece():
    into = 8e9 / (0.8 * 64e9)
    assert plan("object_store", up="1GB/s", down="2GB/s").move == pytest.approx(16 + 8 + into)
    assert plan("object_store", up="1GB/s", down="2GB/s", piece="1GB").move == pytest.approx(16 + 8 / 16 + into)
    assert plan("object_store").order is None
    assert plan("object_store", store="bucket").order == ("direct", None, 16e9)


def test_a_delta_is_small_and_gathers_nothing():
    found = plan("delta", APART._replace(gather=9.0), share=0.01, store="bucket", encode="10GB/s")
    assert found.gather == pytest.approx(16e9 / 8 / 10e9)
    assert found.order == ("direct", None, 0.16e9)
    assert found.load == pytest.approx(8e9 / 10e9 + 339 * physics.LOAD)


def test_who_pulls_lets_the_trainer_go():
    waits, goes = (plan("checkpoint_engine", APART._replace(gather=1.0), blocking=how) for how in ("in_flight", "pull"))
    assert goes.gather - waits.gather == pytest.approx(16e9 / physics.HANDOVER)
    assert goes.move == waits.move
    assert plan("bucketed", APART._replace(gather=1.0), blocking="pull").gather == pytest.approx(1.0 + 16e9 / physics.HANDOVER)


def test_what_cannot_be_done_is_said():
    for kind in ("per_tensor", "bucketed"):
        with pytest.raises(BadInput, match="kind ipc is for such"):
            plan(kind, APART._replace(colocated=True))
        with pytest.raises(BadInput, match="no network cards"):
            plan(kind, APART._replace(nic=0.0))
        assert plan(kind, APART._replace(nic=0.0, same_node=True)).move == pytest.approx(16e9 / (0.75 * 450e9))
    with pytest.raises(BadInput, match="kind bucketed is for such"):
        plan("ipc")
    _, problems = SYNCS.check({"kind": "object_store", "store": "bucket", "up": "1GB/s", "piece": "1GB"})
    assert [problem.path for problem in problems] == ["up", "piece"]
    _, problems = SYNCS.check({"kind": "rdma_p2p", "blocking": "in_flight"})
    assert problems


# -- ends ---------------------------------------------------------------------
def test_ends_are_read_from_the_scenario():
    step, pool = trained(gpus=16, gpu="h20"), Pool(gpu="h100_sxm", replicas=3, parallel={"tp": 4}, precision="fp8")
    found = ends(step, pool, 6)
    assert (found.senders, found.sender_nodes, found.replicas, found.gpus, found.receiver_nodes) == (16, 2, 6, 4, 3)
    assert found.weights == 2.0 * step.llm.params
    assert found.served == step.llm.weight_bytes(pool.precision) < found.weights
    assert found.gather == physics.gather_seconds(step)
    assert found.tensors == physics.tensors(step.llm, pool.precision)
    assert (found.nic, found.pcie, found.nvlink) == (50e9, 64e9, 450e9)
    assert not found.colocated
    assert not found.same_node


def test_one_node_may_hold_both():
    step, pool = trained(gpus=4), Pool(gpu="h100_sxm")
    assert ends(step, pool, 4).same_node
    assert not ends(step, pool, 5).same_node
    assert not ends(step, pool, 4, colocated=True).same_node


def test_registered_weights_lie_beside_every_gpu():
    found = registered(llm("qwen2.5-7b"), Pool(gpu="h800", replicas=2, parallel={"tp": 8}))
    assert found.colocated
    assert (found.senders, found.sender_nodes, found.receiver_nodes, found.gather) == (16, 2, 2, 0.0)
    assert found.nvlink == 200e9
