"""What a picture of traffic shows, as plain arrays: the rate at two scales, the Fano curve, the gaps, the lengths. Drawn in sim/report."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from workloads.fitting import scales
from workloads.fitting.figures import counts

BINS, FINE_BINS = 120, 60
LEAST_BINS = 12
# The stretch seen closely: a part of the whole, around its busiest moment.
CLOSE = 1 / 30
POINTS = 200


class View(NamedTuple):
    """`coarse` and `fine`: (edges in seconds, requests per second between them). `fano`: (windows, factors). The others are (values,
    share): of gaps the share that is longer, of tokens the share at or below.
    """

    name: str
    coarse: tuple[np.ndarray, np.ndarray]
    fine: tuple[np.ndarray, np.ndarray]
    fano: tuple[np.ndarray, np.ndarray]
    gaps: tuple[np.ndarray, np.ndarray]
    input: tuple[np.ndarray, np.ndarray]
    output: tuple[np.ndarray, np.ndarray]


def view(
    name: str, traffic: Any, span: float, tick: float = 0.0, within: tuple[float, float] | None = None,
    close: tuple[float, float] | None = None,
) -> View:  # fmt: skip
    """The view of requests (`times` ascending, `prompt`, `output`) in [0, span), drawn `within` (where it begins, length of the whole).

    `close`: the stretch of `fine`, whose edges count from its own beginning; by default the busiest thirtieth.
    """
    begin, whole = within or (0.0, span)
    times = traffic.times
    coarse = np.linspace(0, span, max(LEAST_BINS, round(BINS * span / whole)) + 1)
    low, high = busiest(times, span, span * CLOSE) if close is None else close
    fine = np.linspace(low, high, FINE_BINS + 1)
    least = max(2 * tick, 0.1 * span / max(len(times), 1), 1e-3)
    found = scales.curve(times, span, least) if len(times) > 1 else None
    gaps = np.sort(np.diff(times))
    return View(
        name, (begin + coarse, np.histogram(times, coarse)[0] / np.diff(coarse)),
        (fine - low, np.histogram(times, fine)[0] / np.diff(fine)),
        (np.empty(0), np.empty(0)) if found is None else (found.windows, found.values),
        _longer(gaps[gaps > 0]), _below(traffic.prompt), _below(traffic.output),
    )  # fmt: skip


def busiest(times: np.ndarray, span: float, width: float) -> tuple[float, float]:
    """The stretch of `width` seconds, out of those that follow each other from 0 on, in which most requests arrive."""
    number = int(np.argmax(counts(times, width, span)))
    return number * width, (number + 1) * width


def _longer(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(gaps):
        return gaps, gaps
    # Dense where gaps are long: the tail is what bursts differ in.
    share = np.unique(np.concatenate([np.linspace(0, 1, POINTS), 1 - np.geomspace(1 / len(gaps), 1, POINTS)]))
    return np.quantile(gaps, share), 1 - share


def _below(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(tokens):
        return np.empty(0), np.empty(0)
    share = np.linspace(0, 1, POINTS)
    return np.quantile(tokens, share), share
