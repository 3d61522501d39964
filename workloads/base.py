"""What a workload is, and what it may touch: a generator of requests driving a world.

A workload is one dataclass; its public fields are its YAML keys. `prepare` reads files and checks them before the clock starts, so bad
input never leaves a half-written result. Open-loop traffic uses `submit`; whoever waits for answers uses `call`. Times are seconds.

`OpenLoop` holds what every kind of open-loop traffic shares, so that such a kind is one formula: when requests arrive, or, in a `Renewal`,
how long it is from one to the next. Random draws come in blocks of fixed size from streams named after their purpose: a longer run begins
with the same requests, a higher rate squeezes the same gaps, and a million requests never exist at once.
"""
from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import Field

from sim.core.content import Content
from sim.core.registry import LENGTHS
from sim.core.request import Request
from sim.core.transfer import Transfer
from sim.core.units import CENTURY, Seconds
from sim.spec.patience import Patience
from workloads._adapters import Adapters
from workloads._prefixes import NOTHING, Prefixes, beginnings, openings
from workloads.lengths.base import Lengths

BLOCK = 4096
Count = Annotated[int, Field(ge=1, le=10**9)]
Cached = Annotated[int, Field(ge=0, le=10**7)]
Clients = Annotated[int, Field(ge=1, le=10**6)]
Samples = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[float, Field(gt=0, le=1e9)]
Variation = Annotated[float, Field(ge=0.01, le=100)]
Positive = Annotated[float, Field(gt=0)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]
NonNegativeSeconds = Annotated[Seconds, Field(ge=0)]


class Client(Protocol):
    """The world as one workload sees it. Random streams are the workload's own: `rng("lengths")` of one never moves another's."""

    env: Any
    name: str
    pool: str  # the one it asks, empty where there are several

    @property
    def where(self) -> str:
        """The dotted key of this workload in the scenario, for what is wrong with it."""

    def rng(self, name: str) -> np.random.Generator: ...

    def keys(self, count: int) -> int:
        """The first of `count` integers in a row that name contents and that nobody else has."""

    def request(self, prompt: int, output: int, session: int = -1, content: Content | None = None, reply: int = 0) -> Request:
        """A request arriving now; `prompt` and `output` are token counts >= 1.

        `content` says what of the prompt others may share, by default the workload's `shared_prefix`; `reply` is the key of what follows.
        """

    def submit(self, request: Request) -> None:
        """Send it and go on."""

    def number(self) -> int:
        """A number for a session or an agent that nobody else in the run has; those of one workload count up."""

    def service(self, model: str) -> int:
        """The `service` of requests that ask for one of the workload's further `models`."""

    def cancel(self, request: Request, reason: str = "cancelled") -> None:
        """The request is not wanted any more; nothing happens when it has ended. With reason `cancelled` nobody misses its answer."""

    def note(self, table: str, row: tuple[Any, ...]) -> None:
        """Add a row to a table of facts (`sim/core/tables.py`)."""

    def label(self, table: str, column: str, text: str) -> int:
        """The code of a category in such a row."""

    def sandbox(self, pool: str, image: int = 0) -> Any:
        """Ask for a sandbox of a pool (`cluster.sandboxes`); `image` >= 0 numbers what it is for, such as a task or a repository.

        The SimPy event returned succeeds with a `Lease` when it is ready, or with a `Refusal` (`sim/world/sandboxes/lease.py`). It is
        `queued` as long as no node has room.
        """

    def closing(self, call: Callable[[], None]) -> None:
        """Have something done when the clock has stopped: what is unfinished is noted then."""

    def trainer(self, name: str) -> Any:
        """A trainer of the cluster (`sim/world/trainer.py`), the only one where the name is empty. Raises BadInput when there is none."""

    def control(self, pool: str) -> Any:
        """What a workload that `trains` may do to the replicas of a pool: a `Control` (`sim/world/control.py`)."""

    def hybrid(self, name: str) -> Any:
        """How GPUs change hands between a trainer that shares those of a pool and its engines: a `Hybrid` (`sim/world/colocated.py`)."""

    def sharing(self, pool: str) -> Any:
        """How a workload that `trains` lends the GPUs of a pool that shares them: a `Sharing` (`sim/world/sharing.py`)."""

    def ends(self, trainer: Any, pool: str) -> Any:
        """A trainer and the replicas of a pool, as ends of a weight sync (`sim/policy/sync/base.py`)."""

    def remark(self, text: str) -> None:
        """Something that the result says of the run, beside its figures."""

    @property
    def networked(self) -> bool:
        """Whether bytes that are moved take links of a network."""

    def transfer(self, order: Transfer) -> Any:
        """Have bytes moved; the SimPy event returned succeeds when all receivers have them."""

    def call(self, request: Request, avoid: Collection[int] = ()) -> Any:
        """Send it; the SimPy event returned succeeds when it has ended (also rejected or failed), with it, or with that of its copies
        which its client has got an answer to or sent last. It goes to none of the replicas `avoid` where another can have it.
        """


class Workload(Protocol):
    """`closed_loop`: the load waits for answers, so it bends to the cluster and cannot overload it. `sends`: it sends requests.

    `programs`: it calls requests off. `trains`: it pauses replicas and changes their weights. `shared_prefix`: tokens at the front of every
    prompt that all its requests have in common, such as a system prompt. `adapters`: which low-rank adapters they ask for.
    """

    name: str
    closed_loop: ClassVar[bool]
    sends: ClassVar[bool]
    programs: ClassVar[bool]
    trains: ClassVar[bool]
    shared_prefix: int
    model: str
    priority: int
    adapters: Adapters | None
    region: str
    client: Patience | None

    @property
    def models(self) -> Mapping[str, str]:
        """What it asks for beside `model`: names of pools or models, by the key that says so (such as `agents.judge.model`)."""

    @property
    def sandboxes(self) -> Mapping[str, str]:
        """Pools of sandboxes that it asks for, by the key that says so."""

    def prepare(self) -> list[str]:
        """Read and check inputs, once, before `expected` and `drive`. Returns remarks for the result (such as rows left out).

        Raises BadInput.
        """

    def expected(self) -> int | None:
        """Requests it will send, when known: for the progress bar. Only after `prepare`."""

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        """A SimPy process: sleeps with `yield world.env.timeout(seconds)`, submits requests, ends when the traffic ends."""


@dataclass(kw_only=True)
class Traffic:
    """What every kind of traffic may say of its requests.

    `shared_prefix`: tokens at the front of all prompts that are the same in each (a system prompt); `prefixes`: after it, one of several
    beginnings. `model` or pool they ask for, where there are several. A higher `priority` goes first where the batcher heeds it.
    `adapters`: the low-rank adapters they ask for. `region`: where they come from, where pools have regions.
    `client`: how long callers wait, and whether they ask again.
    """

    sends: ClassVar[bool] = True
    programs: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    name: str = ""
    shared_prefix: Cached = 0
    prefixes: Prefixes | None = None
    model: str = ""
    priority: int = 0
    adapters: Adapters | None = None
    region: str = ""
    client: Patience | None = None

    @property
    def models(self) -> Mapping[str, str]:
        """What it asks for beside `model`, by the key that says so, relative to the workload."""
        return {}

    @property
    def sandboxes(self) -> Mapping[str, str]:
        """Pools of sandboxes that it asks for, by the key that says so."""
        return {}


@dataclass(kw_only=True)
class OpenLoop(Traffic, abc.ABC):
    """Traffic that does not wait for answers. It ends after `num_requests` or `duration`, whichever comes first; one of them is needed.

    `start`: when the traffic begins; `duration`: arrivals fall in [start, start + duration). `prefixes`: after the shared prefix, a prompt
    has one of several beginnings; both are part of its length. `samples`: each of the `num_requests` prompts is sent so many times at once,
    as for the best of n or a group of RL; lengths of the further answers are drawn without regard to the prompt's.
    """

    closed_loop: ClassVar[bool] = False
    lengths: Annotated[Any, LENGTHS]
    start: NonNegativeSeconds = 0.0
    num_requests: Count | None = None
    duration: PositiveSeconds | None = None
    samples: Samples = 1

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return needs_an_end(values)

    def prepare(self) -> list[str]:
        return prepared(self.lengths)

    def expected(self) -> int | None:
        return self.num_requests * self.samples if self.num_requests is not None and self.duration is None else None

    @abc.abstractmethod
    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Arrival times after `start`, ascending, BLOCK at a time, without end or up to `duration`."""

    def sent(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Blocks of `arrivals` and of who sends each: numbers to which `sizes` may give a meaning, or None."""
        return ((times, None) for times in self.arrivals(rng))

    def sizes(self, rng: np.random.Generator, senders: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output lengths in tokens, int64, of one block of arrivals."""
        drawn: tuple[np.ndarray, np.ndarray] = self.lengths.draw(rng, BLOCK)
        return drawn

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        lengths, left = world.rng("lengths"), self.num_requests
        further = world.rng("samples") if self.samples > 1 else None
        alike = further is None and self.prefixes is None
        starts = repeat(NOTHING) if alike else beginnings(world, self.shared_prefix, self.prefixes)
        for times, senders in self.sent(world.rng("arrivals")):
            prompts, outputs = self.sizes(lengths, senders)
            count = len(times) if left is None else min(left, len(times))
            if self.duration is not None:
                count = min(count, int(np.searchsorted(times, self.duration)))
            at, prompts, outputs = self.start + times[:count], prompts[:count], outputs[:count]
            contents = None if alike else openings(world, starts, prompts.tolist(), self.samples)
            if further is not None:
                more = (self.sizes(further, senders)[1][:count] for _ in range(self.samples - 1))
                at, prompts = np.repeat(at, self.samples), np.repeat(prompts, self.samples)
                outputs = np.stack([outputs, *more], axis=1).ravel()
            yield from send(world, at, prompts, outputs, contents=contents)
            left = None if left is None else left - count
            if count < len(times) or left == 0:
                return


@dataclass(kw_only=True)
class Renewal(OpenLoop):
    """Open-loop traffic whose gaps between arrivals are independent draws from one law; the first arrival comes one gap after `start`."""

    @abc.abstractmethod
    def gaps(self, rng: np.random.Generator) -> np.ndarray:
        """BLOCK times between one arrival and the next. Every kind has its own."""

    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        now = 0.0
        while True:
            times = now + np.cumsum(self.gaps(rng))
            yield times
            now = times[-1]


def needs_an_end(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The problem of open-loop traffic that would never stop, or not in a lifetime."""
    if values["num_requests"] is None and values["duration"] is None:
        yield "", "neither num_requests nor duration is given, so this traffic would never end; give one of them (or both)"
    elif values["duration"] is None and values.get("rate") and values["num_requests"] / values["rate"] > CENTURY:
        yield "rate", f"found {values['rate']:g}; at that rate {values['num_requests']} requests take more than 100 years"


def prepared(lengths: Lengths) -> list[str]:
    """Prepare the lengths of a workload, problems addressed from the workload."""
    from sim.core.errors import BadInput

    try:
        return lengths.prepare()
    except BadInput as error:
        raise BadInput([problem._replace(path=f"lengths.{problem.path}".rstrip(".")) for problem in error.problems]) from None


def send(
    world: Client, times: np.ndarray, prompts: np.ndarray, outputs: np.ndarray, sessions: np.ndarray | None = None,
    contents: Iterator[tuple[Content | None, int]] | None = None,
) -> Generator[Any, Any, None]:  # fmt: skip
    """Submit a request at each of `times` (absolute, ascending); equal times go out together, without a wait between them.

    `prompts` and `outputs` are token counts, at least as many as times; `sessions` numbers the session of each request, and `contents` says
    (content, reply) of each, asked for when it is sent.
    """
    env, timeout, request, submit = world.env, world.env.timeout, world.request, world.submit
    # The last time asked for, not env.now: rounding of a wait must not split arrivals of one instant.
    clock = env.now
    if sessions is None and contents is None:
        for at, prompt, output in zip(times.tolist(), prompts.tolist(), outputs.tolist(), strict=False):
            if at > clock:
                yield timeout(at - env.now)
                clock = at
            submit(request(prompt, output))
        return
    numbers: Iterable[int] = repeat(-1) if sessions is None else sessions.tolist()
    said: Iterable[tuple[Content | None, int]] = repeat((None, 0)) if contents is None else contents
    for at, prompt, output, session, (content, reply) in zip(
        times.tolist(), prompts.tolist(), outputs.tolist(), numbers, said, strict=False
    ):
        if at > clock:
            yield timeout(at - env.now)
            clock = at
        submit(request(prompt, output, session, content, reply))


def pairs(lengths: Lengths, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """(prompt, output) token counts one at a time, drawn in blocks, without end."""
    while True:
        prompts, outputs = lengths.draw(rng, BLOCK)
        yield from zip(prompts.tolist(), outputs.tolist(), strict=True)
