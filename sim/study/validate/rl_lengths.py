"""How long the answers of a published run were: the mean that was published, one fitted to its synchronous twin, or a stated default.

All are lognormal with a spread of SIGMA in the logarithm, answers to one prompt correlate by RHO, and the limit cuts them. Where nothing is
published, one law serves a whole setup (source, model, limit, and GPUs, since runs of other sizes are other runs), and its mean is fitted
to nothing but the generation time of the synchronous colocated run: what the asynchronous ones take is predicted.
"""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

from sim.core.errors import BadInput

SIGMA, RHO = 0.8, 0.5
LIMIT = 16_384  # tokens, where a row does not say
USUAL, REASONING = 2500.0, 10_000.0
REASONS = re.compile(r"distill|\br1\b|-r1|qwq|thinking|reason", re.I)
PROMPT = {"mean": 150, "sigma": 0.5}
NORMAL = NormalDist()
# How near the fitted time has to come, as a fraction; how often it is tried; and between which means, tokens without a limit.
NEAR, TRIES = 0.01, 14
LEAST, MOST = 100.0, 60_000.0


class Length(NamedTuple):
    """`mean` tokens if there were no limit, and whence: `how` is published, fitted or default."""

    mean: float
    how: str
    source: str


def default(row: Mapping[str, Any]) -> Length:
    """What is taken where nothing is known. Usual are 2,200 to 2,500 tokens of a 7B that is trained on competition problems, 8 to 12
    thousand of models distilled from long chains of thought.
    """
    if REASONS.search(row["model"]):
        return Length(REASONING, "default", "judgement: models distilled from long chains of thought write 8 to 12 thousand tokens")
    return Length(USUAL, "default", "judgement: competition problems, 2.2 to 2.5 thousand tokens")


def published(mean: float, limit: float) -> Length:
    """The law whose mean with the limit in force is the one published. Raises BadInput when that is not below the limit."""
    from scipy import optimize

    if not mean < limit:
        raise BadInput(f"no law has a mean of {mean:g} tokens with a limit of {limit:g}")
    found = optimize.brentq(lambda log: limited(math.exp(log), limit) - mean, math.log(mean) - 1, math.log(mean) + 40)
    return Length(math.exp(found), "published", f"mean_response_tokens {mean:g}, of a lognormal that is cut at {limit:g}")


def limited(mean: float, limit: float) -> float:
    """Mean of min(X, limit) for X lognormal with this mean and SIGMA.

    >>> round(limited(1000, 1e9)), limited(1e12, 4096) > 4095
    (1000, True)
    """
    log, gap = math.log(mean) - SIGMA**2 / 2, math.log(limit)
    below, beyond = NORMAL.cdf((gap - log - SIGMA**2) / SIGMA), NORMAL.cdf((log - gap) / SIGMA)
    return mean * below + limit * beyond


def answers(length: Length, limit: int) -> dict[str, Any]:
    """`answers` of a scenario."""
    return {"mean": round(length.mean, 1), "sigma": SIGMA, "cap": limit, "group_rho": RHO}


def fitted(wanted: float, seconds: Callable[[float], float], start: float) -> tuple[float, float]:
    """The mean with which `seconds(mean)`, which rises with it, comes to what is wanted, by bisection of its logarithm from `start`; and
    what it comes to. Raises BadInput where no mean between LEAST and MOST does: the time is shorter or longer than any length explains.
    """
    low, high, middle = math.log(LEAST), math.log(MOST), math.log(start)
    for _ in range(TRIES):
        found = seconds(math.exp(middle))
        if abs(found / wanted - 1) <= NEAR:
            return math.exp(middle), found
        low, high = (middle, high) if found < wanted else (low, middle)
        # Times are steeper than lengths at first and flatter later: halve the interval, but begin near.
        step = math.log(wanted / found)
        middle = middle + step if low < middle + step < high and high - low > 1 else (low + high) / 2
    mean = math.exp(middle)
    if mean < LEAST * 1.05 or mean > MOST / 1.05:
        raise BadInput(f"no mean of {LEAST:g} to {MOST:g} tokens makes a round of {wanted:g} s; the nearest takes {found:.3g} s")
    return mean, found
