"""Reinforcement learning of language models: rollouts by engines of a pool, rewards, updates by a trainer, and new weights for the pool.

`mode` says who waits for whom:

    sync_colocated      trainer and engines take turns on the same GPUs; each round is trained on before the next begins
    sync_disaggregated  the same in turns, on GPUs of their own
    one_step_off        while the trainer works on one batch, the next is generated
    async               groups begin when the gate of `staleness` lets them, and the trainer takes what is ready

Parts are in `workloads/rollouts`: generation (groups on engines), rounds and gated (who begins when), learner (the trainer's side), publish
(new versions). A step is one version; its row in `rl_steps` says where its seconds went.
"""
from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sim.core.errors import BadInput, Problem
from sim.core.ledger import Ledger
from sim.core.registry import STALENESS, SYNCS, TAILS
from sim.spec.law import Amounts, Times
from workloads._checkpoint import Checkpoint
from workloads.base import Client, Count, Traffic
from workloads.programs.options import Kind, Quota, Tool
from workloads.rewards import graders
from workloads.rewards.graders import Graders, Reward
from workloads.rewards.rule import Rule
from workloads.rollouts import checks, presets
from workloads.rollouts.calls import Calls
from workloads.rollouts.colocated import Colocated
from workloads.rollouts.environment import Environment
from workloads.rollouts.gated import Gated
from workloads.rollouts.generation import Generation
from workloads.rollouts.learner import Learner
from workloads.rollouts.lends import Lends, Lent
from workloads.rollouts.lengths import AnswerLengths
from workloads.rollouts.options import BufferOptions, Interrupt, Switch, Taking, Updates, Validation
from workloads.rollouts.pieces import Pieces
from workloads.rollouts.prompts import Prompts, longest
from workloads.rollouts.publish import Publisher
from workloads.rollouts.record import Record
from workloads.rollouts.rounds import Rounds, Spent
from workloads.rollouts.runner import Runner
from workloads.rollouts.sampling import DynamicSampling
from workloads.rollouts.solve import Solving
from workloads.rollouts.team import Stepping, Team
from workloads.rollouts.turns import Told, Turns

Mode = Literal["sync_colocated", "sync_disaggregated", "one_step_off", "async"]
Samples = Annotated[int, Field(ge=1, le=4096)]
MOST_SAMPLES = 10**6


@dataclass(kw_only=True)
class Rl(Traffic):
    """`steps` versions, each of `prompts` groups of `samples`. `rollout` is the pool that generates and `trainer` who learns, where there
    are several. Prompts have `prompt` tokens, by default those of the agent's task; `data_prompts` of them are the data, met in order,
    again and again.

    What comes of a prompt is an answer of one turn (`answers`: how long) or the work of an `agent`; `solving` says how often it is right.
    With `stepping: batch` agents go on turn by turn, all of them together (`workloads/rollouts/stepping.py`).
    `redundant` more samples than needed begin in each group, of which the first to end count. `times` states seconds of the trainer.
    """

    closed_loop: ClassVar[bool] = True
    programs: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    foresees: ClassVar[bool] = False
    preset: str | None = None
    mode: Mode
    steps: Count
    prompts: Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
    samples: Samples
    rollout: str = ""
    trainer: str = ""
    prompt: Amounts | None = None
    answers: AnswerLengths | None = None
    solving: Solving = field(default_factory=partial(Solving, solve_rate=0.5))
    data_prompts: Annotated[int, Field(ge=1, le=10**9)] = 10**6
    agent: str | None = None
    agents: dict[str, Kind] = field(default_factory=dict)
    tools: dict[str, Tool] = field(default_factory=dict)
    apis: dict[str, Quota] = field(default_factory=dict)
    agents_preset: str | None = None
    environment: Environment | None = None
    stepping: Stepping = "trajectory"
    staleness: Annotated[Any, STALENESS] = None
    tail: Annotated[Any, TAILS] = None
    dynamic_sampling: DynamicSampling | None = None
    buffer: BufferOptions = field(default_factory=BufferOptions)
    redundant: Annotated[int, Field(ge=0, le=4096)] = 0
    interrupt: Interrupt = field(default_factory=Interrupt)
    updates: Updates = field(default_factory=Updates)
    times: Taking = field(default_factory=Taking)
    old_logprob: bool = True
    reference: bool = False
    rewards: Annotated[tuple[Reward, ...], Field(min_length=1)] = (Rule(kind="rule"),)
    reward_at: Literal["trajectory", "batch"] = "trajectory"
    sync: Annotated[Any, SYNCS] = None
    switch: Switch = field(default_factory=Switch)
    lends: Lends | None = None
    checkpoint: Checkpoint | None = None
    validation: Validation | None = None
    data: Times | None = None

    @classmethod
    def complete(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with those of the preset below them, and what the mode leaves no choice of. Raises BadInput for an unknown preset."""
        return presets.complete(options)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return checks.problems(values)

    @property
    def rounds(self) -> bool:
        """Whether it goes in rounds."""
        return self.mode.startswith("sync")

    @property
    def take(self) -> int:
        """Groups of a local update."""
        return self.prompts // self.updates.trigger

    @property
    def gate(self) -> Any:
        """Who says what may begin, where there are no rounds; a new one each time."""
        return copy.deepcopy(self.staleness) if self.staleness is not None else STALENESS.make({"kind": "one_step_off"})

    @property
    def models(self) -> Mapping[str, str]:
        return {**self.team().models, **graders.models(self.rewards)}

    @property
    def sandboxes(self) -> Mapping[str, str]:
        return {**self.team().sandboxes, **graders.sandboxes(self.rewards)}

    def __post_init__(self) -> None:
        self.model = self.rollout

    def prepare(self) -> list[str]:
        return []

    def expected(self) -> int | None:
        return None

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        loop, generation = self._built(world)
        world.closing(generation.close)
        try:
            yield from loop.run()
        except Spent as why:
            if not generation.ledger.version:
                raise BadInput([Problem(str(why), world.where)]) from None
            world.remark(str(why))
        generation.end()

    def _built(self, world: Client) -> tuple[Rounds | Gated, Generation]:
        """Its parts, put together."""
        trainer, pool = world.trainer(self.trainer), self.rollout or world.pool
        control = world.control(pool)
        ends = world.ends(trainer, pool)
        self._fits(world, control)
        try:
            self.sync.plan(ends)
        except BadInput as error:
            raise BadInput([problem._replace(path=f"{world.where}.{problem.path}") for problem in error.problems]) from None
        ledger = Ledger(self.prompts, self.samples, ends.replicas)
        prompts = Prompts(world, self)
        generation = Generation(world.env, self, ledger, prompts, Record(world))
        generation.graders = Graders(world, self.rewards, prompts.key)
        generation.runner = self._runner(world, control, generation)
        learner = Learner(world, self, trainer, generation)
        if self.mode == "sync_colocated":
            return Rounds(self, learner, generation, Colocated(self, learner, generation, world.hybrid(self.trainer), ends)), generation
        publisher = Publisher(world, self, learner, generation, (pool, ends))
        if self.rounds:
            lent = Lent(self, learner, ledger, publisher, (world.sharing(pool), pool)) if self.lends is not None else publisher
            return Rounds(self, learner, generation, lent), generation
        return Gated(world, self, learner, publisher), generation

    def _fits(self, world: Client, control: Any) -> None:
        """Raises BadInput where the longest answer to the longest prompt of the run finds no room in a replica; remarks on agents that may
        find none.
        """
        room, why = control.longest
        for name, kind in self.agents.items():
            most = kind.context.max
            if most is not None and most > room and kind.model in ("", self.rollout):
                held = f"a replica holds {room:,} of a request ({why})"
                world.remark(f"agent {name} may use {most:,} tokens of context, but {held}: who reaches that is cut, and wrong")
        if self.answers is None or self.prompt is None:
            return
        prompt = longest(self.prompt, min(self.steps * self.prompts, self.data_prompts))
        answer = min(self.answers.longest(self.steps), self.tail.limit(10**9) if self.tail is not None else 10**9)
        if prompt + answer > room:
            what = f"prompts of up to {prompt:,} tokens and answers of up to {answer:,} are more than the {room:,} that a replica of pool"
            pool = self.rollout or world.pool
            wanted = f"{what} {pool} holds of a request ({why}): give it more room, lower cap, or limit prompts by a max"
            raise BadInput([Problem(wanted, f"{world.where}.answers")])

    def _runner(self, world: Client, control: Any, generation: Generation) -> Runner:
        tail, content = self.tail, generation.prompts.content
        if self.agents:
            told = Told(generation.ended, generation.turned, generation.late)
            return Turns(world, control, self.team(self.rollout or world.pool), content, told)
        heard = generation.ended, generation.late
        if tail is not None and (tail.sends_home or tail.every):
            return Pieces(world, control, content, tail, heard)
        sampling = self.dynamic_sampling
        stops = (sampling is not None and sampling.rest == "resume") or (self.staleness is not None and self.staleness.resumes)
        keeps = stops or self.interrupt.abort == "resume" or (tail is not None and tail.fate() == "resume")
        return Calls(world, control, content, keeps, heard)

    def team(self, rollout: str = "") -> Team:
        """The agents whose work samples are."""
        resets = self.prompts * (self.samples + self.redundant)
        environment = self.environment.among(resets) if self.environment is not None else None
        return Team(self.agents, self.agent, self.tools, self.apis, environment, rollout, self.stepping)
