"""Who computes what in the next step: one token budget, shared by everybody.

Decoders are implicit: each gets its tokens of the budget in every step, unless the plan pauses them. A batcher decides the prompt chunks
beside them, whom to admit, and whom to preempt when the KV cache is full. It takes the blocks of what it decides, so that a request sees
the prefixes of those planned before it; everything else the engine carries out. After a preemption it is asked again, with `admit` off:
as in vLLM V1, a step that preempted admits nobody.
"""
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from sim.core.request import Request
from sim.policy.kv.base import KvCache

if TYPE_CHECKING:
    from sim.policy.order.base import Order


class Limits(NamedTuple):
    """An engine's limits, by vLLM's names; `long_prefill_token_threshold` 0 means none.

    `lookahead`: a step's batch is chosen when the step before it starts (asynchronous scheduling), so that who comes in between joins one
    step later. `tokens_per_decoder`: budget a decoder takes in a step, more than one when it verifies drafted tokens. `longest`: tokens of
    the longest request. `max_loras`: most different adapters among the running requests, 0 where there are none.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    enable_chunked_prefill: bool
    long_prefill_token_threshold: int
    lookahead: bool = False
    tokens_per_decoder: int = 1
    longest: int = 0
    max_loras: int = 0


class Waiting(Protocol):
    """The queue of an engine, in the order in which requests are to be served. A deque is one."""

    def append(self, request: Request, /) -> None: ...

    def appendleft(self, request: Request, /) -> None:
        """Put back one that was preempted."""

    def popleft(self) -> Request: ...

    def remove(self, request: Request, /) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Request]: ...

    def __getitem__(self, place: int, /) -> Request:
        """Asked for place 0 only: who is next."""


class InUse(Protocol):
    """Adapters of the running requests."""

    def room(self, adapter: int, beside: Collection[int]) -> bool:
        """Whether a request of this adapter (-1: none) may run with those running, and with the adapters `beside`."""


class Queue(Protocol):
    """The engine's state as a batcher reads it. `prefilling` and `running` are in order of admission. `ready` hold blocks without running,
    as what they hold was fetched from elsewhere; they go before `waiting`.
    `adapters` is there where `max_loras` is above 0.
    """

    waiting: Waiting
    ready: list[Request]
    prefilling: list[Request]
    running: dict[int, Request]
    decoders: int
    admit: bool
    adapters: InUse | None

    def next_blocks(self) -> int:
        """Blocks the decoders take in the next step."""


class Plan(NamedTuple):
    """`chunks`: (request, tokens) pairs whose blocks are taken, those of `prefilling` first, then the newly admitted; with 0 tokens a
    request is not admitted yet: its blocks are taken, and what it has elsewhere is fetched. `preempt`: who gives up its cache, first; then
    nothing has been taken. `decode`: whether the decoders get their tokens in this step.
    """

    chunks: list[tuple[Request, int]]
    preempt: list[Request]
    decode: bool = True


class Batcher(Protocol):
    """`overtakes`: an arrival may be admitted although others wait, so it always ends the stretch under way. `order` says who is next and
    who is preempted, and may want to be told of service. `pads`: it changes the lengths of requests and notes what was `asked`. Engine
    options it `refuses`, and those it `needs`, each with the reason: where the user is silent they are off, or on.
    """

    pads: ClassVar[bool]
    refuses: ClassVar[Mapping[str, str]]
    needs: ClassVar[Mapping[str, str]]

    @property
    def overtakes(self) -> bool: ...

    @property
    def order(self) -> Order: ...

    def queue(self) -> Waiting:
        """An empty queue of the kind this batcher serves from."""

    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan: ...
