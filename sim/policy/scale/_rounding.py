"""Rounding up to whole replicas."""
from __future__ import annotations

import math


def whole(value: float) -> int:
    """The next whole number, but not for what rounding added.

    >>> whole(3.0000000001), whole(3.1), whole(0.0), whole(70 / (100 * 0.7))
    (3, 4, 0, 1)
    """
    return math.ceil(value - 1e-9 * max(1.0, abs(value)))
