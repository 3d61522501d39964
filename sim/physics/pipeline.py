"""What a pipeline of stages costs over one GPU: the time in which it fills and drains.

With p stages and m micro-batches, of which each takes a stage t (forward and backward), 1F1B needs (m + p - 1) t: (p - 1) / (m + p - 1) of
it is bubble. With v parts of the layers on each stage, interleaved, the bubble is a v-th (Narayanan et al., SC 2021).
"""
from __future__ import annotations


def bubble(stages: int, parts: int, seconds: float) -> float:
    """Seconds of filling and draining, where one micro-batch takes a stage so many `seconds`.

    >>> bubble(4, 1, 2.0), bubble(4, 3, 2.0)
    (6.0, 2.0)
    """
    return (stages - 1) * seconds / parts


def bubble_share(stages: int, micro_batches: int, parts: int = 1) -> float:
    """The share of a step that is bubble, its micro-batches being alike.

    >>> bubble_share(4, 9), bubble_share(1, 9)
    (0.25, 0.0)
    """
    idle = (stages - 1) / parts
    return idle / (micro_batches + idle)


def in_flight(stages: int, parts: int, micro_batches: int) -> float:
    """Micro-batches whose activations the first stage holds at once under 1F1B; interleaving adds (p - 1) / (p v) of them.

    >>> in_flight(4, 1, 8), in_flight(4, 1, 2), in_flight(4, 3, 8)
    (4.0, 2.0, 5.0)
    """
    held = float(stages) * (1.0 + (stages - 1) / (stages * parts) if parts > 1 else 1.0)
    return min(held, float(micro_batches))
