"""What callers do when they have to wait or are turned away: how long they wait, whether they ask again, and whether they ask twice.

`timeout` is a client library's: an attempt that has no whole answer by then is called off, and may be made again. `first_token_timeout` is
the user's patience: it runs from the call on, whatever is asked again meanwhile, and who has seen no token by its end leaves. Defaults of
retries are judgements after client libraries (OpenAI's: two retries, from half a second on); those of budgets are Finagle's window of 10 s.
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sim.core.units import Seconds, parse
from sim.spec.frozen import Spec

WINDOW = 10.0
PERCENT_99 = NormalDist().inv_cdf(0.99)
Positive = Annotated[Seconds, Field(gt=0)]
Outcome = Literal["rejected", "timeout", "abandoned"]
Share = Annotated[float, Field(gt=0, le=10)]


class Wait(Spec):
    """A time that callers differ in: lognormal by median and 99th percentile, or exponential by its mean."""

    median: Positive | None = None
    p99: Positive | None = None
    mean: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> Wait:
        if (self.median is None) != (self.p99 is None) or (self.median is None) == (self.mean is None):
            raise ValueError("give a time such as 10s, {median: 10s, p99: 60s} (lognormal), or {mean: 10s} (exponential)")
        if self.median is not None and self.p99 is not None and self.p99 < self.median:
            raise ValueError(f"p99 ({self.p99:g} s) is below the median ({self.median:g} s)")
        return self

    @property
    def same(self) -> float | None:
        """The seconds of every caller, where callers do not differ."""
        return self.median if self.median == self.p99 else None

    def at(self, share: float) -> float:
        """The seconds that this share (0 to 1) of callers stay within.

        >>> round(Wait(median=10, p99=20).at(0.5)), round(Wait(median=10, p99=20).at(0.99)), round(Wait(mean=10).at(1 - math.exp(-2)))
        (10, 20, 20)
        """
        share = min(max(share, 1e-12), 1.0 - 1e-12)
        if self.mean is not None:
            return -self.mean * math.log1p(-share)
        assert self.median is not None
        assert self.p99 is not None
        return self.median * math.exp(math.log(self.p99 / self.median) / PERCENT_99 * NormalDist().inv_cdf(share))


def _plain(value: Any) -> Any:
    """A plain time is the same for all."""
    if isinstance(value, Mapping | Wait):
        return value
    seconds = parse(value, "duration")
    return {"median": seconds, "p99": seconds}


Waits = Annotated[Wait, BeforeValidator(_plain)]


class Backoff(Spec):
    """The n-th retry comes first x factor^(n - 1) seconds after what it answers, `most` at most, give or take a share `jitter` of that."""

    first: Annotated[Seconds, Field(ge=0)] = 0.5
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    most: Positive = 60.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> Backoff:
        if self.first > self.most:
            raise ValueError(f"first ({self.first:g} s) is above most ({self.most:g} s)")
        return self


class Retries(Spec):
    """Up to `max` further attempts of a call `on` these outcomes.

    With a `budget`, retries within a window are at most that share of the workload's calls in it (retry budgets of Finagle and gRPC).
    """

    max: Annotated[int, Field(ge=1, le=10_000)] = 2
    on: Annotated[tuple[Outcome, ...], Field(min_length=1)] | None = Field(None, description="default: rejected and timeout")
    backoff: Backoff = Backoff()
    budget: Share | None = Field(None, description="most retries, as a share of calls; default: no limit")
    window: Positive = WINDOW

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What is tried again."""
        return self.on or ("rejected", "timeout")


def _delay(value: Any) -> Any:
    if isinstance(value, str) and (found := re.fullmatch(r"p(\d+(?:\.\d+)?)", value)):
        if not 0 < float(found[1]) < 100:
            raise ValueError(f"found '{value}'; a percentile between p0 and p100 is wanted, such as p95")
        return value
    try:
        seconds = parse(value, "duration")
    except ValueError:
        raise ValueError(f"found {value!r}; a time such as 2s, or a percentile of times to first token such as p95, is wanted") from None
    if seconds <= 0:
        raise ValueError(f"found {value!r}; a time above 0 is wanted: at once, everything would be asked twice")
    return seconds


class Hedge(Spec):
    """A second copy is sent where there is no first token `after` a time, and a further one each time it has passed again, `max` at most;
    the copy with the first token goes on, the others are called off.

    Tied requests: Dean and Barroso, The Tail at Scale (CACM 2013), who wait for the 95th percentile to keep the extra load at 5 %. A
    percentile, such as p95, is that of the workload's own last times to first token.
    """

    after: Annotated[float | str, BeforeValidator(_delay)]
    max: Annotated[int, Field(ge=1, le=100)] = 1
    budget: Share | None = Field(None, description="most copies within a window, as a share of calls; default: no limit")
    window: Positive = WINDOW

    @property
    def percentile(self) -> float | None:
        """Percent, where `after` is a percentile."""
        return float(self.after[1:]) if isinstance(self.after, str) else None


class Patience(Spec):
    """What the callers of a workload do. `timeout`: of an attempt, for its whole answer; `first_token_timeout`: of the user."""

    timeout: Waits | None = None
    first_token_timeout: Waits | None = None
    retries: Retries | None = None
    hedge: Hedge | None = None

    @model_validator(mode="after")
    def _used(self) -> Patience:
        if not any((self.timeout, self.first_token_timeout, self.retries, self.hedge)):
            raise ValueError("nothing is said of the client; give it a timeout, a first_token_timeout, retries or a hedge, or leave it out")
        said = self.retries.on or () if self.retries is not None else ()
        for outcome, key, value in (("timeout", "timeout", self.timeout), ("abandoned", "first_token_timeout", self.first_token_timeout)):
            if outcome in said and value is None:
                raise ValueError(f"retries are made on '{outcome}', but no {key} is given, so nothing ends like that")
        for name, part in (("retries", self.retries), ("hedge", self.hedge)):
            if part is not None and part.window != WINDOW and part.budget is None:
                raise ValueError(f"{name}.window is given, but there is no {name}.budget to count in it")
        return self

    @model_validator(mode="after")
    def _in_time(self) -> Patience:
        # Without retries, and with all callers alike, what comes after the time-out of the first attempt never comes.
        end = self.timeout.same if self.timeout is not None and self.retries is None else None
        hedged = self.hedge.after if self.hedge is not None and isinstance(self.hedge.after, float) else None
        left = self.first_token_timeout.same if self.first_token_timeout is not None and self.hedge is None else None
        for key, late in (("hedge.after", hedged), ("first_token_timeout", left)):
            if end is not None and late is not None and late >= end:
                raise ValueError(f"{key} ({late:g} s) comes after timeout ({end:g} s), when the only attempt is called off")
        return self
