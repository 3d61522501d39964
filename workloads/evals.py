"""An evaluation: all samples of all tasks of a benchmark land at once, each with a sandbox where it needs one, and then there is nothing.

What is asked is the same for the samples of a task, and so is the image of their sandbox: they share the prompt's cache, and a node that
has pulled the image. The k-th sample is the same whatever the cluster does and however many run at a time.
"""
from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Annotated, Any

from sim.core.errors import did_you_mean
from sim.core.registry import LENGTHS
from sim.spec.frozen import Spec
from sim.spec.law import Law
from workloads._crew import Crew, needless
from workloads.base import Client, Clients, Count, NonNegativeSeconds, Samples, pairs, prepared
from workloads.programs import checks, presets
from workloads.programs.base import Program, Role
from workloads.programs.checks import Whole
from workloads.programs.declared import Declared
from workloads.programs.options import ONE, Home, Kind
from workloads.programs.sample import Once, Sample
from workloads.programs.shared import Shared

# A kind of agent by this name makes the single call that `lengths` are of.
SINGLE = "sample"
# What tasks are drawn from, beside the luck of sessions.
TASKS = 1 << 40


class Grade(Spec):
    """`tool` grades each sample when it is done; `clean_sandbox`: not in the sandbox that was worked in, but in a fresh one."""

    tool: str
    clean_sandbox: bool = False


@dataclass(kw_only=True)
class Evals(Crew):
    """`tasks` x `samples`, begun at `start` or evenly over `within`, those of a task one after the other, at most `concurrency` at a time.

    Each is an agent as in `kind: agents`, whose first message the samples of a task have in common; or one call of a model with `lengths`,
    whose further answers are drawn without regard to the prompt's, in a `sandbox` when it is graded there. A preset's `turns` and
    `think_time` are left out: nobody comes back.
    """

    tasks: Count
    samples: Samples = 1
    start: NonNegativeSeconds = 0.0
    within: NonNegativeSeconds = 0.0
    concurrency: Clients | None = None
    lengths: Annotated[Any, LENGTHS] = None
    sandbox: Home | None = None
    grade: Grade | None = None

    @classmethod
    def complete(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        found = super().complete(options)
        if isinstance(options.get("preset"), str):
            found = {key: value for key, value in found.items() if key in options or key not in ("turns", "think_time")}
            if "mix" not in options:
                found = presets.alone(found, options.get("agent"), options.get("agents") or ())
            said = options.get("agents") or {}
            found["agents"] = {name: presets.once(kind, said.get(name) or {}) for name, kind in found["agents"].items()}
        return found

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from needless(values)
        grade, tools = values["grade"], values["tools"]
        if values["tasks"] * values["samples"] > 10**8:
            yield "tasks", f"found {values['tasks']} tasks with {values['samples']} samples each; at most 100,000,000 in all are wanted"
        if grade is not None and grade.tool not in tools:
            near = did_you_mean(grade.tool, tools) + " Or define it" if tools else "define it"
            yield "grade.tool", f"tool '{grade.tool}' is defined nowhere; {near} under tools"
        elif grade is not None and grade.clean_sandbox and not tools[grade.tool].sandbox:
            yield "grade.clean_sandbox", f"not used here: tool {grade.tool} runs in no sandbox"
        if values["lengths"] is None:
            if not values["agents"]:
                yield "", "missing: say agents (or a preset of them), or lengths, when each sample is one call of a model"
                return
            if values["sandbox"] is not None:
                yield "sandbox", "not used here: agents have sandboxes of their own; write it in agents, or leave it out"
            first = values["agent"] if values["agent"] is not None else next(iter(values["agents"]))
            kinds = values["agents"]
            if first in kinds and kinds[first].turns is not None:
                yield f"agents.{first}.turns", "not used here: nobody comes back, so that a sample has one message"
        else:
            first, kinds = SINGLE, {**values["agents"], SINGLE: _single(values["sandbox"])}
            if values["agent"] is not None:
                yield "agent", "not used here: with lengths a sample is one call of a model"
            if SINGLE in values["agents"]:
                yield f"agents.{SINGLE}", "this name stands for the sample itself; give the agent another one"
        last = grade.tool if grade is not None else ""
        for path, message in checks.problems(Whole(first, kinds, tools, values["apis"], last)):
            yield path.removeprefix(f"agents.{SINGLE}.") if values["lengths"] is not None else path, message

    @property
    def closed_loop(self) -> bool:
        # All there is comes, and is done some time: only what comes little by little can come too fast.
        return not self.within or self.concurrency is not None

    @property
    def sandboxes(self) -> Mapping[str, str]:
        return {**super().sandboxes, **({"sandbox.pool": self.sandbox.pool} if self.sandbox is not None else {})}

    def prepare(self) -> list[str]:
        return prepared(self.lengths) if self.lengths is not None else []

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        env = world.env
        programs: dict[str, Program] = {name: Declared(name, self.agents, self.tools) for name in self.agents}
        shared = Shared(world, programs, self.tools, self.apis)
        samples = enumerate(self._calls(world) if self.lengths is not None else self._agents(world, shared, programs[self.first]))
        if self.start > env.now:
            yield env.timeout(self.start - env.now)
        if self.concurrency is not None:
            seats = min(self.concurrency, self.tasks * self.samples)
            yield env.all_of([env.process(self._seat(shared, samples)) for _ in range(seats)])
            return
        running: list[Any] = []
        for number, sample in samples:
            if self._due(number) > env.now:
                yield env.timeout(self._due(number) - env.now)
            running.append(shared.begin(number, sample, number // self.samples).process)
        yield env.all_of(running)

    def _seat(self, shared: Shared, samples: Iterator[tuple[int, Sample]]) -> Generator[Any, Any, None]:
        """One sample after the other."""
        env = shared.env
        for number, sample in samples:
            if self._due(number) > env.now:
                yield env.timeout(self._due(number) - env.now)
            yield shared.begin(number, sample, number // self.samples).process

    def _due(self, number: int) -> float:
        return self.start + self.within * number / (self.tasks * self.samples)

    def _agents(self, world: Client, shared: Shared, work: Program) -> Iterator[Sample]:
        law, first = work.role.task, world.keys(self.tasks)
        for task in range(self.tasks):
            tokens = max(1, law.whole(shared.luck(TASKS + task).next())) if isinstance(law, Law) else 1
            yield from repeat(self._sample(work, first + task, tokens), self.samples)

    def _calls(self, world: Client) -> Iterator[Sample]:
        role, first = Role(name=SINGLE, sandbox=self.sandbox), world.keys(self.tasks)
        asked, further = pairs(self.lengths, world.rng("lengths")), pairs(self.lengths, world.rng("samples"))
        for task in range(self.tasks):
            prompt, output = next(asked)
            for number in range(self.samples):
                answer = next(further)[1] if number else output
                yield self._sample(Once(role, answer), first + task, prompt)

    def _sample(self, work: Program, key: int, tokens: int) -> Sample:
        grade = self.grade
        return Sample(work, key, tokens, grade.tool if grade is not None else "", grade is not None and grade.clean_sandbox)


def _single(home: Home | None) -> Kind:
    """What the call of a sample is to the checks of agents."""
    return Kind(task=ONE, output=ONE, sandbox=home)
