"""Laws: what is drawn has the figures written, in order of the share; what no law can be is refused with what would be right."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sim.core.rng import Luck
from sim.spec.law import Amounts, Law, Sizes, Times

AMOUNTS, TIMES, SIZES = TypeAdapter(Amounts), TypeAdapter(Times), TypeAdapter(Sizes)


@pytest.mark.parametrize(
    ("written", "mean", "deviation"),
    [
        (7, 7.0, 0.0),
        ({"median": 10, "sigma": 0.5}, 10 * math.exp(0.125), 10 * math.exp(0.125) * math.sqrt(math.exp(0.25) - 1)),
        ({"mean": 100, "cv": 0.6}, 100.0, 60.0),
        ({"mean": 3}, 3.0, 3.0),
        ({"median": 3, "dist": "exponential"}, 3 / math.log(2), 3 / math.log(2)),
        ({"dist": "uniform", "min": 1, "max": 4}, 2.5, 3 / math.sqrt(12)),
        ({"dist": "normal", "mean": 50, "sd": 5}, 50.0, 5.0),
        ({"dist": "geometric", "mean": 4}, 4.0, math.sqrt(12)),
        ({"dist": "negbinom", "mean": 25, "cv": 0.6}, 25.0, 15.0),
        ({"mixture": [{"p": 1, "mean": 1}, {"p": 3, "dist": "fixed", "value": 5}]}, 4.0, math.sqrt(0.25 * 2 + 0.75 * 25 - 16)),
    ],
)
def test_what_is_drawn_has_the_figures_written(written: Any, mean: float, deviation: float) -> None:
    law = AMOUNTS.validate_python(written)
    drawn = np.array([law.at((k + 0.5) / 200_000) for k in range(200_000)])
    assert drawn.mean() == pytest.approx(mean, rel=2e-3)
    assert drawn.std() == pytest.approx(deviation, rel=0.02, abs=1e-9)
    assert law.average == pytest.approx(mean, rel=2e-3)


def test_quantiles_are_those_given() -> None:
    law = AMOUNTS.validate_python({"points": [[0, 1], [0.5, 10], [0.9, 10], [1, 1000]]})
    assert [law.at(share) for share in (0.0, 0.5, 0.7, 1.0)] == pytest.approx([1, 10, 10, 1000])
    assert law.at(0.95) == pytest.approx(100)
    assert AMOUNTS.validate_python({"mean": 100, "p99": 500}).at(0.99) == pytest.approx(500)


def test_units_are_read_wherever_a_quantity_is() -> None:
    assert TIMES.validate_python("500ms").at(0.3) == 0.5
    assert TIMES.validate_python({"median": "2m", "sigma": 1, "max": "1h"}).max == 3600.0
    assert TIMES.validate_python({"mixture": [{"p": 1, "mean": "2m"}]}).mixture[0].mean == 120.0
    assert SIZES.validate_python({"points": [[0, "1GB"], [1, "3GB"]]}).at(1.0) == 3e9


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (-1, "nothing here is below 0"),
        ({"median": 3}, "found median; say of which law, such as dist: lognormal or exponential"),
        ({"min": 1, "max": 3}, "say of which law, such as dist: uniform"),
        ({"mean": 3, "sd": 1}, "such as dist: normal or negbinom"),
        ({"mixture": []}, "found no figure; a number or a distribution is wanted"),
        (1e300, "at most 1e+15 is simulated"),
        ({"median": 3, "sigma": 9}, "at most 1e+15 is simulated: write a max"),
        ({"mean": 1, "sigma": 1, "cv": 2}, "found sigma and cv"),
        ({"dist": "geometric", "mean": 0.5}, "a geometric count begins at 1"),
        ({"dist": "negbinom", "mean": 25, "cv": 0.1}, "varies more than sd 5"),
        ({"dist": "exponential", "mean": 3, "sigma": 1}, "exponential has no sigma"),
        ({"mean": 1, "p99": 100}, "no lognormal has a quantile beyond"),
        ({"median": 5, "p99": 2}, "the quantile is below the centre"),
        ({"points": [[0, 1]]}, "from share 0 to share 1"),
        ({"points": [[0, 5], [1, 1]]}, "in ascending order"),
        ({"dist": "uniform", "min": 3, "max": 1}, "min (3) is above max (1)"),
        ({"mean": 3, "min": -1}, "min is -1"),
        ({"mean": 3, "mixture": [{"p": 1, "mean": 1}]}, "each part has its own"),
        ({"mixture": [{"p": 0, "mean": 1}]}, "greater than 0"),
        ({"dist": "weibull", "mean": 3}, "Input should be"),
        ("soon", "a number or a distribution is wanted"),
    ],
)
def test_what_no_law_can_be_is_refused(written: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AMOUNTS.validate_python(written)
    assert said in str(caught.value)


LAWS = st.one_of(
    st.builds(lambda m, s: {"median": m, "sigma": s}, st.floats(0.01, 1e4), st.floats(0, 3)),
    st.builds(lambda m, c: {"dist": "negbinom", "mean": m, "sd": math.sqrt(m) * c}, st.floats(0.5, 200), st.floats(1.1, 5)),
    st.builds(lambda m: {"dist": "geometric", "mean": m}, st.floats(1, 500)),
    st.builds(lambda a, b: {"points": [[0, min(a, b)], [1, max(a, b)]]}, st.floats(0, 1e6), st.floats(0, 1e6)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 5), LAWS), min_size=1, max_size=3), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_a_larger_share_is_never_a_smaller_value_and_what_is_written_out_is_read_again(parts: Any, shares: list[float]) -> None:
    law = AMOUNTS.validate_python(parts[0][1] if len(parts) == 1 else {"mixture": [{"p": p, **one} for p, one in parts]})
    low, high = sorted(shares)
    if len(parts) == 1:
        assert law.at(low) <= law.at(high)
    assert law.at(low) >= 0
    again = AMOUNTS.validate_python(law.model_dump())
    assert isinstance(again, Law)
    assert again.at(high) == law.at(high)


def test_the_luck_of_a_part_is_its_own() -> None:
    whole, other = Luck(5), Luck(5)
    first = [whole.next() for _ in range(3)]
    assert other.part(7).next() == whole.part(7).next()
    assert [other.next() for _ in range(3)] == first
    numbers = np.array([Luck(k).part(1).next() for k in range(20_000)])
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.03
