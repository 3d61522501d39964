"""A model that judges answers: a language model that writes a verdict, or a reward model that says one number.

It is a pool of the cluster that is asked over the front door as by anybody else, so that it has batches, a cache and a queue of its own,
and two runs that name the same pool share it. Its prompt is the rubric, which all cases have in common, then the question, which the
samples of a prompt have in common, and the answer. Or it is somebody's serverless service, of which only times and a price are known.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from sim.core.content import Content
from sim.core.units import Seconds
from sim.spec.law import Amounts, Law, Times
from workloads.rewards.base import FAILED, OK, Case, Chance, Desk, Grade, Grader, Kind, Limit, Most, Retries, Verdict
from workloads.rewards.slots import Instances, Life, Line, Slots

if TYPE_CHECKING:
    from sim.core.request import Request

OF_A_MODEL = ("rubric", "output")
OF_A_SERVICE = ("cold_start", "keep", "price_per_hour")


class Judge(Kind):
    """`model`: a pool or what it serves, asked with `rubric` tokens before the question and the answer, for `output` tokens (1: a reward
    model). Or, serverless, `time`: what a verdict takes on an instance, which starts in `cold_start` when wanted, goes when idle for
    `keep`, and costs `price_per_hour` of busy time, in dollars.

    `concurrency`: cases that are judged at a time, so that it is also how many instances there are; the others wait. A try is given up
    after `timeout`, and made again `retries` times. `agreement`: the chance that the verdict is what is so.
    """

    kind: Literal["judge"] = "judge"
    model: str = ""
    rubric: Annotated[int, Field(ge=0, le=10**7)] = 0
    output: Amounts = Law(value=1)
    time: Times | None = None
    cold_start: Times = Law(value=0.0)
    keep: Annotated[Seconds, Field(ge=0)] = 0.0
    price_per_hour: Annotated[float, Field(ge=0, le=1e6)] | None = None
    concurrency: Most | None = None
    timeout: Limit | None = None
    retries: Retries = 0
    agreement: Chance = 1.0

    @model_validator(mode="after")
    def _one(self) -> Judge:
        if bool(self.model) == (self.time is not None):
            raise ValueError("a judge is told by model, a pool or what it serves, or by time, if it is serverless; give one of them")
        needless = [key for key in (OF_A_SERVICE if self.model else OF_A_MODEL) if key in self.model_fields_set]
        needless = [key for key in needless if vars(self)[key] != type(self).model_fields[key].default]
        if needless:
            what = "a judge with a model runs on a pool's replicas" if self.model else "a judge with time is asked nothing"
            raise ValueError(f"{' and '.join(needless)}: not used here: {what}")
        return self

    def opened(self, desk: Desk) -> Grader:
        return Asked(self, desk) if self.model else Rented(self, desk)


class Asked:
    """A judge on a pool of the cluster."""

    def __init__(self, spec: Judge, desk: Desk):
        self.spec, self.desk = spec, desk
        self.line: Line = Slots(spec.concurrency)
        self._service = desk.client.service(spec.model)
        self._rubric = desk.client.keys(1)

    def grade(self, case: Case, done: Callable[[Verdict], None]) -> Opinion:
        opinion = Opinion(self, case, done)
        self.line.enter(opinion, case.luck)
        return opinion

    def begin(self, case: Case, output: float) -> tuple[Any, Request]:
        """Ask; the event succeeds when there is an answer."""
        client, spec = self.desk.client, self.spec
        prompt = spec.rubric + case.asked + case.tokens
        request = client.request(prompt, max(spec.output.whole(output), 1), -1, self._content(case, prompt), 0)
        request.service, request.adapter = self._service, -1
        return client.call(request), request

    def stop(self, request: Request, reason: str) -> None:
        """It is not wanted any more."""
        self.desk.client.cancel(request, reason)

    def _content(self, case: Case, prompt: int) -> Content | None:
        """What of a judge's prompt is known: the same tokens after the rubric as in the case, and the answer where it has a name."""
        rubric = self.spec.rubric
        keys, ends = ((self._rubric,), (rubric,)) if rubric else ((), ())
        if case.content is not None:
            keys, ends = (*keys, *case.content.keys), (*ends, *(rubric + end for end in case.content.ends))
            if case.reply and prompt > (ends[-1] if ends else 0):
                keys, ends = (*keys, case.reply), (*ends, prompt)
        return Content(keys, ends, rubric) if keys else None


class Rented:
    """A serverless judge."""

    def __init__(self, spec: Judge, desk: Desk):
        assert spec.time is not None
        self.spec, self.desk, self._time = spec, desk, spec.time
        self.line: Line = Instances(desk.env, Life(spec.concurrency, spec.cold_start, spec.keep))

    def grade(self, case: Case, done: Callable[[Verdict], None]) -> Opinion:
        opinion = Opinion(self, case, done)
        self.line.enter(opinion, case.luck)
        return opinion

    def begin(self, case: Case, output: float) -> tuple[Any, Request | None]:
        """Begin; the event succeeds when the verdict is there."""
        return self.desk.env.timeout(self._time.at(output)), None

    def stop(self, request: None, reason: str) -> None:
        """Nobody need be told: what comes of it is not looked at."""


class Opinion(Grade):
    """A case before a judge. It keeps its place while it is tried again."""

    __slots__ = ("_call", "_judge", "_request", "_tries", "served")

    def __init__(self, judge: Asked | Rented, case: Case, done: Callable[[Verdict], None]):
        super().__init__(judge.desk, case, done)
        self._judge, self.served, self._tries = judge, False, 0
        self._call: Any = None
        self._request: Any = None

    def begin(self) -> None:
        """It is its turn."""
        self.stand()
        self._again()

    def leave(self) -> None:
        self._stop("cancelled")
        self._judge.line.leave(self)

    def _again(self) -> None:
        self._tries += 1
        spec, case = self._judge.spec, self.case
        self._call, self._request = self._judge.begin(case, case.luck.part(self._tries).next())
        self._call.callbacks.append(self._answered)
        if spec.timeout is not None:
            self._desk.env.timeout(spec.timeout, self._call).callbacks.append(self._late)

    def _stop(self, reason: str) -> None:
        if self._call is not None:
            request, self._call, self._request = self._request, None, None
            self._judge.stop(request, reason)

    def _answered(self, event: Any) -> None:
        if event is not self._call:
            return
        self._call = None
        if event.value is not None and event.value.reason:
            self._tried()
            return
        case = self.case
        self.end(OK, case.right == (case.luck.part(0).next() < self._judge.spec.agreement))

    def _late(self, event: Any) -> None:
        if event.value is self._call:
            self._stop("timeout")
            self._tried()

    def _tried(self) -> None:
        """A try without a verdict."""
        if self._tries <= self._judge.spec.retries:
            self._again()
        else:
            self.end(FAILED)
