"""A training run: one update after the other on a trainer of the cluster, as in pre-training, fine-tuning or distillation.

A loader makes batches ready, up to `prefetch` of them ahead of the trainer, and one at a time; the trainer stands still when none is. Of
distillation, a batch is ready when the teacher has said what it thinks of each token: every sample is a prompt to a pool, which answers
with one token (the log-probabilities of a prompt come with its prefill), or it takes a stated time. A checkpoint stops the trainer while
it is copied out of the GPUs; what then goes to a store goes over the network, with the trainer waiting for it or not.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from sim.core.registry import LENGTHS
from sim.spec.frozen import Spec
from sim.spec.law import Times
from sim.spec.patience import Patience
from workloads._adapters import Adapters
from workloads._checkpoint import Checkpoint, written
from workloads.base import Client, Count, NonNegativeSeconds, pairs, prepared

MOST_SAMPLES = 10**6


class Teacher(Spec):
    """Whose log-probabilities the samples are trained on: the pool or model of this name, or a law of the `time` that a batch takes."""

    model: str = ""
    time: Times | None = None

    @model_validator(mode="after")
    def _one(self) -> Teacher:
        if bool(self.model) == (self.time is not None):
            raise ValueError("a teacher is told by model, a pool or what it serves, or by time, what a batch takes; give one of them")
        return self


@dataclass(kw_only=True)
class Train:
    """`steps` updates of `trainer` (where there is one alone it need not be named), each on `batch` samples of input and output `lengths`
    together, cut off at `max_tokens`. `data`: what a batch takes to be loaded.
    """

    closed_loop: ClassVar[bool] = True
    programs: ClassVar[bool] = False
    shared_prefix: ClassVar[int] = 0
    adapters: ClassVar[Adapters | None] = None
    region: ClassVar[str] = ""
    client: ClassVar[Patience | None] = None
    models: ClassVar[Mapping[str, str]] = {}
    sandboxes: ClassVar[Mapping[str, str]] = {}
    name: str = ""
    trainer: str = ""
    steps: Count
    batch: Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
    lengths: Annotated[Any, LENGTHS]
    max_tokens: Count | None = None
    start: NonNegativeSeconds = 0.0
    data: Times | None = None
    prefetch: Annotated[int, Field(ge=0, le=1000)] = 1
    teacher: Teacher | None = None
    checkpoint: Checkpoint | None = None
    priority: int = 0

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["prefetch"] != 1 and values["data"] is None and values["teacher"] is None:
            yield "prefetch", "not used here: without data and teacher a batch is ready at once"
        if values["priority"] and not (values["teacher"] is not None and values["teacher"].model):
            yield "priority", "not used here: it is that of requests to a teacher, and no pool is asked"

    @property
    def sends(self) -> bool:
        return bool(self.teacher is not None and self.teacher.model)

    @property
    def model(self) -> str:
        """Who is asked for log-probabilities."""
        return self.teacher.model if self.teacher is not None else ""

    def prepare(self) -> list[str]:
        return prepared(self.lengths)

    def expected(self) -> int | None:
        return self.steps * self.batch if self.sends else 0

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        env, trainer, saved = world.env, world.trainer(self.trainer), None
        if self.start > env.now:
            yield env.timeout(self.start - env.now)
        batches = Batches(world, self)
        for step in range(1, self.steps + 1):
            trainer.enter("data")
            lengths = yield from batches.take()
            yield from trainer.update(lengths)
            if self.checkpoint is not None and step % self.checkpoint.every == 0:
                saved = yield from written(world, trainer, self.checkpoint, saved)
            trainer.enter("wait")
        if saved is not None and not saved.processed:
            trainer.enter("checkpoint")
            yield saved
            trainer.enter("wait")

    def samples(self, rng: np.random.Generator) -> Iterator[list[int]]:
        """Token counts of the samples of each batch, without end."""
        drawn = pairs(self.lengths, rng)
        most = self.max_tokens or 2**62
        while True:
            yield [min(sum(next(drawn)), most) for _ in range(self.batch)]


class Batches:
    """The loader of a run, and what it has ready."""

    def __init__(self, world: Client, run: Train):
        self._world, self._run = world, run
        self._ready: deque[list[int]] = deque()
        self._came: Any = None
        self._wanted: Any = None
        self._taken = 0
        self._rng = world.rng("data")
        self._drawn = run.samples(world.rng("lengths"))
        world.env.process(self._load())

    def take(self) -> Generator[Any, Any, list[int]]:
        """The next batch, once it is ready."""
        self._taken += 1
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted.succeed()
        if not self._ready:
            self._came = self._world.env.event()
            yield self._came
        return self._ready.popleft()

    def _load(self) -> Generator[Any, Any, None]:
        env, run = self._world.env, self._run
        for number in range(run.steps):
            while number >= self._taken + run.prefetch:
                self._wanted = env.event()
                yield self._wanted
            lengths = next(self._drawn)
            seconds = run.data.at(self._rng.random()) if run.data is not None else 0.0
            if seconds:
                yield env.timeout(seconds)
            if run.teacher is not None:
                yield from self._ask(run.teacher, lengths)
            self._ready.append(lengths)
            if self._came is not None:
                came, self._came = self._came, None
                came.succeed()

    def _ask(self, teacher: Teacher, lengths: list[int]) -> Generator[Any, Any, None]:
        """Have the teacher look at a batch."""
        world = self._world
        if teacher.time is not None:
            yield world.env.timeout(teacher.time.at(self._rng.random()))
            return
        yield world.env.all_of([world.call(world.request(tokens, 1)) for tokens in lengths])
