"""Fit a form's parameters to measured times, and say how far it is off on points it has not seen.

Least squares on log t with a soft loss, over log parameters within bounds, optionally held near a prior (kernels of one generation have
nearly the same coefficients, so fifty points and a prior are worth several hundred). Whole shapes are held out, never single rows:
rows of one shape predict each other, and would flatter.
"""
from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from sim.spec.fit import Errors

HOLD_OUT = 4  # one shape in so many is held out
SOFT = 0.1  # residuals beyond 10 % count less than their square: tables hold a few outliers
TOLERANCE, TRIES = 1e-4, 80  # far below what data can tell apart, and seconds in place of minutes
PRIOR_WEIGHT = 0.3  # of one natural-log unit away from the prior, against one point's residual


class Parameter(NamedTuple):
    """One positive parameter of a form: where a fit starts and the limits it stays within."""

    name: str
    start: float
    low: float
    high: float


Form = Callable[[Mapping[str, float]], np.ndarray]


def fit(form: Form, seconds: np.ndarray, parameters: Sequence[Parameter], prior: Mapping[str, float] | None = None) -> dict[str, float]:
    """Parameters that bring `form` closest to `seconds`. `prior` is also where the fit starts."""
    names = [p.name for p in parameters]
    low, high = np.log([p.low for p in parameters]), np.log([p.high for p in parameters])
    start = np.clip(np.log([prior[p.name] if prior else p.start for p in parameters]), low + 1e-6, high - 1e-6)
    target = np.log(seconds)

    def residuals(x: np.ndarray) -> np.ndarray:
        apart = np.log(form(dict(zip(names, np.exp(x), strict=True)))) - target
        return np.concatenate([apart, PRIOR_WEIGHT * (x - start)]) if prior else apart

    effort = {"ftol": TOLERANCE, "xtol": TOLERANCE, "max_nfev": TRIES}
    found = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=SOFT, **effort)
    return dict(zip(names, (float(value) for value in np.exp(found.x)), strict=True))


def held_out(shapes: Sequence[str] | np.ndarray) -> np.ndarray:
    """Which rows no fit may see (bool, one per row): a shape falls on one side by its checksum, so every rerun agrees."""
    return np.array([zlib.crc32(str(shape).encode()) % HOLD_OUT == 0 for shape in shapes])


def errors(predicted: np.ndarray, seconds: np.ndarray) -> Errors:
    """Absolute percentage errors, as fractions."""
    apart = np.abs(predicted / seconds - 1.0)
    return Errors(len(apart), float(np.median(apart)), float(np.quantile(apart, 0.95)), float(apart.mean()))
