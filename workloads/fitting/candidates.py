"""The generators that a log is tried on: each takes its arrivals and gives the options of one kind of workload, or the reason why not.

`poisson`, `gamma`, `weibull`: independent gaps. `hawkes`: every request makes others likely. `mmpp`, `mmpp_4`, `mmpp_8`: a chain of 2, 4
or 8 states, burstiness on one, two or three scales of time. `swings`: a rate that drifts slowly, with gamma gaps. `diurnal`: the hours of
the day, and with two weeks of log the days of the week, with slow swings on top; it wants two days of log at least. Hours and days count
from the beginning of the log, since a log need not say what the clock showed.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workloads._days import DAY, HOUR, WEEKDAYS
from workloads.fitting import chains, scales
from workloads.fitting.figures import fano
from workloads.fitting.log import Log
from workloads.hawkes import Hawkes
from workloads.weibull import SHAPES, variation

FEW_DAYS, WEEKS = 2, 14
# One step of `diurnal` is 300 s at scale 1; swings want steps well below their memory.
STEP, STEPS = 300.0, 20.0
CV = (0.01, 100.0)


class Arrivals(NamedTuple):
    """What the estimators share: the log, its Fano curve, and the gaps, or None where the clock is too coarse to tell them."""

    log: Log
    curve: scales.Curve
    gaps: np.ndarray | None

    @property
    def rate(self) -> float:
        return _plain(self.curve.rate)


def arrivals(log: Log) -> Arrivals:
    """The curve and the gaps of a log."""
    least = max(2 * log.tick, 0.1 * log.span / len(log.times), 1e-3)
    return Arrivals(log, scales.curve(log.times, log.span, least), None if log.tick else np.diff(log.times))


def kinds() -> list[str]:
    """Every name, the simplest first."""
    return list(_FITS)


def fit(kind: str, of: Arrivals) -> dict[str, Any] | str:
    """The options of a workload, all but lengths and end; or why there are none."""
    return _FITS[kind](of)


def _poisson(of: Arrivals) -> dict[str, Any]:
    return {"kind": "poisson", "rate": of.rate}


def _gamma(of: Arrivals) -> dict[str, Any]:
    return {"kind": "gamma", "rate": of.rate, "cv": _plain(float(np.clip(_cv(of), *CV)))}


def _weibull(of: Arrivals) -> dict[str, Any] | str:
    cv, low, high = _cv(of), variation(SHAPES[1]), variation(SHAPES[0])
    if not low <= cv <= high:
        return f"the gaps have a cv of {cv:.3g}; a Weibull law has {low:.3g} to {high:.3g}"
    return {"kind": "weibull", "rate": of.rate, "cv": _plain(cv)}


def _cv(of: Arrivals) -> float:
    if of.gaps is not None:
        return float(of.gaps.std() / of.gaps.mean())
    # Of a coarse clock: for renewals, the limit of the Fano factor is cv^2.
    return math.sqrt(max(fano(of.log.times, of.log.tick, of.log.span), CV[0] ** 2))


def _hawkes(of: Arrivals) -> dict[str, Any] | str:
    from scipy.optimize import least_squares

    def law(at: np.ndarray) -> scales.Fano:
        process = Hawkes(rate=of.rate, branching=float(at[0]), decay=math.exp(at[1]), lengths=None, num_requests=1)
        return lambda windows: np.array([process.fano(window) for window in windows.tolist()])

    low, high = math.log(of.curve.windows[0] / 4), math.log(of.log.span / 4)
    starts = [[branching, low + share * (high - low)] for branching in (0.3, 0.8) for share in (0.25, 0.6)]
    done = [least_squares(lambda at: of.curve.misfit(law(at)), start, bounds=([0, low], [0.99, high])) for start in starts]
    best = min(done, key=lambda one: float(one.cost)).x
    if best[0] < 1e-3:
        return "no request makes others likely"
    return {"kind": "hawkes", "rate": of.rate, "branching": _plain(best[0]), "decay": _plain(math.exp(best[1]))}


def _chain(number: int) -> Callable[[Arrivals], dict[str, Any] | str]:
    def fit(of: Arrivals) -> dict[str, Any] | str:
        found = scales.fitted(of.curve, number)
        # What adds less than a per cent to the counts' variance would be a state for nothing.
        heard = [one for one in found if 2 * of.rate * one.variance * one.memory > 0.01]
        if len(heard) < number:
            return f"there are fewer than {number} scales of burstiness in it" if number > 1 else "the rate does not vary"
        return chains.options(of.rate, heard, chains.shaped(of.rate, heard, of.gaps))

    return fit


def _swings(of: Arrivals) -> dict[str, Any] | str:
    return _swung(of, {"kind": "diurnal", "rate": of.rate, "peak_to_mean": 1.0})


def _diurnal(of: Arrivals) -> dict[str, Any] | str:
    days = int(of.log.span // DAY)
    if days < FEW_DAYS:
        return f"a day's curve wants {FEW_DAYS} days of log; these are {of.log.span / DAY:.2g}"
    whole = of.log.times[of.log.times < days * DAY]
    hours = np.bincount((whole % DAY // HOUR).astype(int), minlength=24) / days
    options: dict[str, Any] = {"kind": "diurnal", "rate": of.rate, "curve": [_plain(one) for one in (hours / hours.mean()).tolist()]}
    expected = np.tile(hours, math.ceil(of.log.span / DAY))
    if days >= WEEKS:
        weeks = of.log.times[of.log.times < days // 7 * 7 * DAY]
        week = np.bincount((weeks % (7 * DAY) // DAY).astype(int), minlength=7)
        options["weekdays"] = [_plain(one) for one in (week / week.mean()).tolist()]
        expected = expected * np.repeat((week / week.mean())[np.arange(len(expected) // 24) % 7], 24)
    # On the clock of the expected arrivals the day is flat, and what is left are the swings.
    at = np.concatenate(([0.0], np.cumsum(expected)))
    told = np.interp(of.log.times, np.arange(len(at)) * HOUR, at) * (of.log.span / np.interp(of.log.span, np.arange(len(at)) * HOUR, at))
    flat = arrivals(of.log._replace(times=told))
    return _swung(flat._replace(gaps=None if of.gaps is None else np.diff(told)), options)


def _swung(of: Arrivals, options: dict[str, Any]) -> dict[str, Any]:
    """The options with slow swings and gaps that account for the Fano curve."""
    cv = 1.0 if of.gaps is None else local_cv(of.gaps)
    # Only windows of some requests: below, the factor is still on its way from 1 to cv^2.
    slow = of.curve.windows >= 10 / of.rate
    options = options | {"cv": _plain(cv)}
    if slow.sum() < 4:
        return options
    curve = of.curve._replace(windows=of.curve.windows[slow], values=of.curve.values[slow], errors=of.curve.errors[slow])
    sigma, memory = scales.fitted_lognormal(curve, cv * cv)
    if sigma < 0.01:
        return options
    if "peak_to_mean" in options:
        scale = float(np.clip(STEP * STEPS / memory, 1.0, 1e4))
        return options | {"scale": _plain(scale), "noise": {"sigma": _plain(sigma), "memory": _plain(memory * _plain(scale))}}
    return options | {"noise": {"sigma": _plain(sigma), "memory": _plain(memory)}}


def local_cv(gaps: np.ndarray) -> float:
    """The cv of gamma gaps, blind to slow changes of their mean: by how unlike neighbours are, |a - b| / (a + b).

    For gamma gaps of shape k, a / (a + b) has the law Beta(k, k), and the mean of |a - b| / (a + b) is 2 / (4^k k B(k, k)), between 1 and
    0 (a form of the LV of Shinomoto et al. 2003, Neural Computation 15); k is found by bisection.
    """
    from scipy.special import betaln

    both = gaps[1:] + gaps[:-1]
    unlike = float(np.mean(np.abs(np.diff(gaps))[both > 0] / both[both > 0]))
    low, high = 1e-4, 1e4
    for _ in range(80):
        k = math.sqrt(low * high)
        expected = math.exp(math.log(2) - k * math.log(4) - math.log(k) - betaln(k, k))
        low, high = (k, high) if expected > unlike else (low, k)
    return float(np.clip(1 / math.sqrt(low), *CV))


def shifted(options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The options of traffic that begins so much later in the log: only a day's curve knows the difference."""
    if options["kind"] != "diurnal" or "curve" not in options:
        return options
    day, rest = divmod(round(seconds / 60) * 60, DAY)
    return options | {"begin": f"{WEEKDAYS[int(day) % 7].capitalize()} {int(rest // HOUR):02}:{int(rest % HOUR // 60):02}"}


def _plain(value: float) -> float:
    return float(f"{value:.6g}")


_FITS: dict[str, Callable[[Arrivals], dict[str, Any] | str]] = {
    "poisson": _poisson, "gamma": _gamma, "weibull": _weibull, "hawkes": _hawkes, "mmpp": _chain(1), "mmpp_4": _chain(2),
    "mmpp_8": _chain(3), "swings": _swings, "diurnal": _diurnal,
}  # fmt: skip
