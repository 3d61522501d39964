"""A workload's way through a cascade: asked, answered, judged, and accepted or asked again of the next service.

Every stage is a request of its own, and so is the verdict where a model gives it. Whether an answer goes on is drawn from a stream keyed by
the cascade, the workload and the number of the caller's request, so that what-ifs share their luck: with a larger share those escalated
before still are. When the next service, or the judge, turns the request away, the answer there is stands.

In a session the caller's next prompt counts every answer of the chain as the text that follows, whichever of them it got.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from simpy import Event

from sim.core.content import Content
from sim.core.request import Request
from sim.core.rng import Keyed
from sim.policy.escalate import chance
from sim.spec.cascade import Cascade

if TYPE_CHECKING:
    from sim.world.cluster import World

ANSWER, VERDICT = range(2)
ACCEPTED, ESCALATED, LAST, REFUSED, OPEN, JUDGED = range(6)


class Step(NamedTuple):
    """From one stage to the next: `following` and `judge` are services of the front door (None: no model judges)."""

    cascade: Cascade
    draws: Keyed
    following: int
    judge: int | None


class Asked:
    """What a caller asked for: its number, the event it waits for, the first request of the chain, and the last answer there is."""

    __slots__ = ("answer", "done", "number", "root")

    def __init__(self, number: int, done: Event | None):
        self.number, self.done = number, done
        self.root = -1
        self.answer: Request | None = None


class Chain:
    """The stages that requests of one workload, `name`, go through: one more than there are `steps`."""

    def __init__(self, world: World, name: str, steps: Sequence[Step]):
        self._name, self._steps = name, steps
        self._env, self._door, self._keys, self._table = world.env, world.door, world.keys, world.recorder.tables["stages"]
        stages = [steps[0].cascade.start, *(step.cascade.to for step in steps)]
        self._stages = [self._table.label("service", stage) for stage in stages]
        self._judges = [self._table.label("service", judge) if judge else -1 for judge in (step.cascade.verifier.model for step in steps)]
        self._count = 0
        self._open: dict[Request, tuple[Asked, int, int, float]] = {}

    @property
    def pending(self) -> int:
        """Callers whose answer is not settled."""
        return len(self._open)

    def submit(self, request: Request) -> None:
        """Take a request that arrives now."""
        self._begin(request, None)

    def call(self, request: Request) -> Event:
        """Submit; the event succeeds with the last answer when it is settled, or with a request that was turned away."""
        done = self._env.event()
        self._begin(request, done)
        return done

    def close(self) -> None:
        """The clock has stopped: note what is not settled."""
        for request, (asked, stage, part, start) in self._open.items():
            services = self._judges if part == VERDICT else self._stages
            self._table.append((request.id, asked.root, stage, part, services[stage], OPEN, start, float("nan")))

    def _begin(self, request: Request, done: Event | None) -> None:
        asked = Asked(self._count, done)
        self._count += 1
        self._send(asked, 0, ANSWER, request)

    def _send(self, asked: Asked, stage: int, part: int, request: Request) -> None:
        if part == ANSWER and stage < len(self._steps) and not request.reply and self._reads(self._steps[stage]):
            request.reply = self._keys(1)
        self._open[request] = asked, stage, part, self._env.now
        answer = self._door.call(request)
        if asked.root < 0:
            asked.root = request.id
        assert answer.callbacks is not None
        answer.callbacks.append(self._answered)

    @staticmethod
    def _reads(step: Step) -> bool:
        """Whether anybody is sent the answer itself."""
        return step.judge is not None or step.cascade.include_answer

    def _answered(self, event: Any) -> None:
        request: Request = event.value
        asked, stage, part, _ = self._open[request]
        refused = request.last != request.last
        if part == VERDICT:
            self._note(request, REFUSED if refused else JUDGED)
            assert asked.answer is not None
            if refused:
                self._settle(asked.answer)
            else:
                self._judged(asked.answer)
        elif refused:
            self._note(request, REFUSED)
            self._end(asked, asked.answer or request)
        else:
            asked.answer = request
            self._judge(request, asked, stage)

    def _judge(self, request: Request, asked: Asked, stage: int) -> None:
        step = self._steps[stage] if stage < len(self._steps) else None
        if step is None:
            self._settle(request, LAST)
        elif step.judge is not None:
            prompt = self._following(request, step.judge, True, step.cascade.verifier.output_tokens or 1)
            self._send(asked, stage, VERDICT, prompt)
        elif step.cascade.verifier.seconds:
            wait: Any = self._env.timeout(step.cascade.verifier.seconds, request)
            wait.callbacks.append(lambda event: self._judged(event.value))
        else:
            self._judged(request)

    def _judged(self, request: Request) -> None:
        asked, stage, _, _ = self._open[request]
        step = self._steps[stage]
        if step.draws.at(asked.number, 0, 1)[0] >= chance(step.cascade.escalate, request, self._name):
            self._settle(request)
            return
        self._note(request, ESCALATED)
        output = max(1, round(request.output * step.cascade.output_scale))
        self._send(asked, stage + 1, ANSWER, self._following(request, step.following, step.cascade.include_answer, output))

    def _following(self, request: Request, service: int, answer: bool, output: int) -> Request:
        """A request with the same prompt, perhaps followed by its answer, for another service: its model itself, no adapter of it."""
        prompt = request.prompt + (request.output if answer else 0)
        other = Request(-1, self._env.now, prompt, output, request.workload, request.session)
        other.service, other.priority, other.content, other.program = service, request.priority, request.content, request.program
        if not answer:
            other.reply = request.reply
        elif request.reply:
            content = request.content or Content((), ())
            other.content = Content((*content.keys, request.reply), (*content.ends, prompt), content.common)
        return other

    def _settle(self, request: Request, outcome: int = ACCEPTED) -> None:
        asked = self._open[request][0]
        self._note(request, outcome)
        self._end(asked, request)

    def _end(self, asked: Asked, answer: Request) -> None:
        if asked.done is not None:
            asked.done.succeed(answer)

    def _note(self, request: Request, outcome: int) -> None:
        asked, stage, part, start = self._open.pop(request)
        services = self._judges if part == VERDICT else self._stages
        self._table.append((request.id, asked.root, stage, part, services[stage], outcome, start, self._env.now))
