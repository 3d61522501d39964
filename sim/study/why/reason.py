"""One reason for what took long: its cause, its share of a whole that its text names, and a sentence with the evidence."""
from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """`share` of what its `text` says, 0 to 1."""

    cause: str
    share: float
    text: str


def lasting(seconds: float) -> str:
    """A time as sentences say it.

    >>> lasting(0.0421), lasting(12.345), lasting(600)
    ('42.1 ms', '12.3 s', '10 min')
    """
    for size, unit, least in ((3600.0, "h", 2), (60.0, "min", 5), (1.0, "s", 1)):
        if seconds >= least * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e3:.3g} ms"
