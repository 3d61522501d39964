"""Weibull arrivals: bunched like gamma arrivals, with a heavier tail of long pauses.

A Weibull law of shape k and scale s has mean s G(1 + 1/k) and cv^2 = G(1 + 2/k) / G(1 + 1/k)^2 - 1, G being the gamma function.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from workloads.base import BLOCK, Rate, Renewal, needs_an_end

SHAPES = (0.1, 100.0)


@dataclass(kw_only=True)
class Weibull(Renewal):
    """`rate`: mean requests per second. Either `shape` or `cv`, the standard deviation of the gaps over their mean."""

    rate: Rate
    shape: Annotated[float, Field(ge=SHAPES[0], le=SHAPES[1])] | None = None
    cv: Annotated[float, Field(gt=0)] | None = None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from needs_an_end(values)
        if (values["shape"] is None) == (values["cv"] is None):
            found = "neither" if values["cv"] is None else "both"
            yield "", f"found {found} of shape and cv; exactly one of them is wanted"
        elif values["cv"] is not None:
            low, high = variation(SHAPES[1]), variation(SHAPES[0])
            if not low <= values["cv"] <= high:
                yield "cv", f"found {values['cv']}; a Weibull law is offered for {low:.3g} to {high:.3g}"

    def gaps(self, rng: np.random.Generator) -> np.ndarray:
        k = self.shape if self.cv is None else shape_of(self.cv)
        assert k is not None
        return rng.weibull(k, BLOCK) / (math.gamma(1 + 1 / k) * self.rate)


def variation(shape: float) -> float:
    """The coefficient of variation of a Weibull law.

    >>> round(variation(1.0), 12)
    1.0
    """
    return math.sqrt(math.expm1(math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape)))


def shape_of(cv: float) -> float:
    """The shape whose coefficient of variation is `cv`, by bisection; the cv falls as the shape grows.

    >>> round(shape_of(1.0), 9)
    1.0
    """
    low, high = SHAPES
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if variation(middle) > cv else (low, middle)
    return math.sqrt(low * high)
