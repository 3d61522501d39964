"""Experts: routing agrees with drawing it, and a layer's time respects the datasheet, never falls with load and shows what it should."""
from __future__ import annotations

from math import comb

import numpy as np
import pytest

from sim.physics.experts import Experts, Load, moe, moe_table, price, roofline
from sim.physics.routing import Spread, busiest_expert, chances, reached, spread
from sim.spec.dtype import DTYPES
from sim.spec.fit import PARAMETERS
from sim.spec.hardware import gpu

H100, A100, B200 = gpu("h100_sxm"), gpu("a100_sxm_80gb"), gpu("b200")
FIT = {
    "t0": 27e-6, "t_e": 0.14e-6, "move": 2.0, "away": 0.8, "e_c": 0.9, "a_tile": 20.0, "q": 0.6, "e_m": 0.92, "b_sm": 72e9, "p": 1.6,
    "l2cap": 0.6, "hit": 5.0,
}  # fmt: skip
MIXTRAL, DEEPSEEK = Experts(4096, 14336, 8, 2), Experts(7168, 2048, 256, 8)
TOKENS = np.unique(np.geomspace(1, 16384, 300).round())
LAYOUTS = [(1, 1, 0.0), (8, 1, 0.0), (1, 8, 0.0), (2, 4, 0.0), (1, 8, 0.7), (1, 4, 1.2)]
BF16 = DTYPES["bf16"]


def drawn(experts: int, active: int, tokens: int, ep: int, skew: float, times: int = 150) -> dict[str, float]:
    """Means over draws of the real thing: each token takes the `active` best of Gumbel-perturbed log weights (Plackett-Luce)."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(times):
        weights = -skew * np.log(rng.permutation(experts) + 1.0)
        scores = weights + rng.gumbel(size=(tokens, experts))
        loads = np.bincount(np.argpartition(-scores, active - 1, axis=1)[:, :active].ravel(), minlength=experts)
        groups = loads.reshape(ep, -1)
        busiest = groups[groups.sum(1).argmax()]
        found.append(((loads > 0).sum(), loads.max(), busiest.sum(), (busiest > 0).sum()))
    return dict(zip(("reached", "most", "rows", "on_it"), np.mean(found, 0), strict=True))


@pytest.mark.parametrize(("experts", "active", "ep"), [(8, 2, 4), (64, 6, 8), (256, 8, 16)])
@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tokens", [1, 24, 400])
def test_routing_agrees_with_drawing_it(experts: int, active: int, ep: int, skew: float, tokens: int) -> None:
    seen = drawn(experts, active, tokens, ep, skew, 60)
    found = spread(experts, active, tokens, ep, skew)
    assert reached(experts, active, tokens, skew) == pytest.approx(seen["reached"], rel=0.05)
    assert busiest_expert(experts, active, tokens, skew) == pytest.approx(seen["most"], rel=0.05 if skew == 0.0 else 0.17)
    assert found.rows == pytest.approx(seen["rows"], rel=0.15)
    assert found.reached == pytest.approx(seen["on_it"], rel=0.17)


def test_uniform_routing_has_its_closed_form() -> None:
    assert reached(128, 8, 10) == pytest.approx(128 * (1 - (1 - 8 / 128) ** 10))
    assert reached(8, 2, 1) == pytest.approx(2.0)
    assert reached(8, 8, 1, skew=2.0) == pytest.approx(8.0)
    assert chances(64, 6, 1.3).sum() == pytest.approx(6.0)
    assert (np.diff(chances(64, 6, 1.3)) < 0).all()


def test_the_busiest_of_two_is_the_folded_normal() -> None:
    # One of two experts per token: the busiest gets n/2 + E|X - n/2| rows, X binomial.
    n = 1000
    apart = sum(comb(n, k) * abs(k - n / 2) for k in range(n + 1)) / 2**n
    assert busiest_expert(2, 1, n) == pytest.approx(n / 2 + apart, rel=0.01)


@pytest.mark.parametrize(("experts", "active", "ep"), [(8, 2, 8), (256, 8, 32), (128, 1, 4)])
@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_routing_stays_within_what_there_is(experts: int, active: int, ep: int, skew: float) -> None:
    found = spread(experts, active, TOKENS, ep, skew)
    assert (found.rows >= TOKENS * active / ep - 1e-9).all()
    assert (found.rows <= np.maximum(TOKENS * min(active, experts / ep), 1.0) + 1e-9).all()
    assert (found.reached <= experts / ep + 1e-9).all()
    assert (found.reached <= found.rows + 1e-9).all()
    assert (np.diff(found.rows) >= -1e-9).all()


def test_skew_reaches_fewer_experts_and_loads_the_busiest_gpu() -> None:
    even, skewed = spread(256, 8, 512, 8), spread(256, 8, 512, 8, 1.0)
    assert reached(256, 8, 64, 1.0) < 0.8 * reached(256, 8, 64)
    assert skewed.rows > 1.3 * even.rows


@pytest.mark.parametrize("shape", [MIXTRAL, DEEPSEEK, Experts(2688, 1856, 128, 6, gated=False)])
@pytest.mark.parametrize("dtype", ["bf16", "fp8", "int4", "nvfp4"])
@pytest.mark.parametrize(("tp", "ep", "skew"), LAYOUTS)
def test_time_never_falls_with_tokens_nor_below_the_roofline(shape: Experts, dtype: str, tp: int, ep: int, skew: float) -> None:
    cost = moe_table(B200, FIT, DTYPES[dtype], shape, TOKENS, tp, ep, skew)
    busiest = spread(shape.experts, shape.active, TOKENS, ep, skew)
    assert (np.diff(cost.seconds) >= 0).all()
    assert (cost.seconds >= roofline(B200, DTYPES[dtype], shape.gemms(tp), busiest)).all()
    np.testing.assert_allclose(cost.compute + cost.memory + cost.network + cost.host, cost.seconds)
    # The running maximum mends rounding and little else.
    np.testing.assert_allclose(cost.seconds, moe(B200, FIT, DTYPES[dtype], shape, TOKENS, tp, ep, skew).seconds, rtol=0.01)


def test_a_fit_that_promises_too_much_is_held_to_the_roofline() -> None:
    eager = FIT | {"t0": 1e-9, "t_e": 1e-12, "move": 1e-3, "e_c": 5.0, "e_m": 5.0, "b_sm": 5e12, "a_tile": 0.01, "q": 0.01}
    cost = moe(H100, eager, BF16, MIXTRAL, TOKENS)
    np.testing.assert_allclose(cost.seconds, roofline(H100, BF16, MIXTRAL.gemms(1), spread(8, 2, TOKENS)))
    assert (moe(H100, FIT, BF16, MIXTRAL, TOKENS).seconds > cost.seconds).all()


def test_small_batches_read_the_experts_they_reach_and_large_ones_compute() -> None:
    cost = moe(H100, FIT, BF16, MIXTRAL, [1, 8, 16384])
    weights = 3 * 4096 * 14336 * 2 / H100.bandwidth
    assert 1.0 < cost.seconds[0] / (2 * weights / 0.92) < 1.25
    assert cost.seconds[1] / cost.seconds[0] == pytest.approx(float(reached(8, 2, 8)) / 2, rel=0.15)
    assert cost.memory[0] > 0
    assert cost.compute[0] == 0
    assert cost.compute[2] > 0.8 * cost.seconds[2]


def test_spreading_experts_helps_and_skew_takes_some_back() -> None:
    one, eight = (moe(H100, FIT, BF16, DEEPSEEK, 4096, 1, ep).seconds for ep in (1, 8))
    skewed = moe(H100, FIT, BF16, DEEPSEEK, 4096, 1, 8, 1.0).seconds
    assert one / 8 < eight < one / 2
    assert skewed > 1.1 * eight
    # A few tokens that agree on experts read fewer of them.
    assert moe(H100, FIT, BF16, DEEPSEEK, 64, 1, 1, 1.0).seconds < 0.8 * moe(H100, FIT, BF16, DEEPSEEK, 64).seconds


def test_narrow_weights_read_faster_and_wide_chips_fall_back_to_sixteen_bits() -> None:
    bf16, fp8, int4 = (moe(H100, FIT, DTYPES[name], MIXTRAL, 8).seconds for name in ("bf16", "fp8", "int4"))
    assert int4 < fp8 < bf16
    large = [moe(A100, FIT, DTYPES[name], MIXTRAL, 16384) for name in ("bf16", "fp8")]
    assert large[0].compute == pytest.approx(large[1].compute, rel=0.01)


def test_a_benchmark_finds_few_experts_in_the_cache() -> None:
    shape = Experts(2048, 512, 128, 8)
    load = [Load(np.array([m]), np.array([m * 8.0]), Spread(np.array([r]), np.array([m * 8.0]))) for m, r in ((1.0, 4.0), (512.0, 128.0))]
    few, many = ([price(H100, FIT, BF16, shape.gemms(1), some, warm).seconds for warm in (False, True)] for some in load)
    assert few[1] < 0.9 * few[0]
    assert many[1] == pytest.approx(many[0], rel=0.01)


def test_the_form_has_the_parameters_a_profile_is_checked_for() -> None:
    assert set(FIT) == set(PARAMETERS["moe"])
