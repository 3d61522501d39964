"""What a figure of `summary.json` is: a name, a unit, a meaning and the function that computes it.

Groups of figures (`study/slo.py`, `study/money.py`, `study/energy.py`) are tuples of these, which `study/metrics.py` puts in their order.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One figure: `of(facts)` gives a number, a dict of numbers, a list or None."""

    name: str
    unit: str
    doc: str
    of: Callable[[Any], Any]


def ratio(top: float, bottom: float) -> float | None:
    """`top / bottom`; None where there is nothing to divide by."""
    return float(top) / float(bottom) if bottom > 0 else None
