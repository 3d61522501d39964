"""How long a step of an engine takes, and why: the contract every step model keeps.

Bound to one model on one GPU layout, a step's length depends on the number of decoders and the tokens they hold, and on the prompt chunks.
For decoders alone it is affine in the tokens held, piece by piece; that is what lets an engine advance a whole stretch in closed form.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sim.core.request import Request


class Work(NamedTuple):
    """One step: `chunks` are (new tokens, tokens before) per prompt piece; `decoders` get their next tokens and hold `held` before."""

    chunks: tuple[tuple[int, int], ...]
    decoders: int
    held: int


class Cost(NamedTuple):
    """Seconds of a step, the sum of parts split by what binds each: arithmetic, memory traffic, network, or host and launches."""

    seconds: float
    compute: float
    memory: float
    network: float
    host: float


class StepModel(Protocol):
    pace: float  # tokens that a decoder gets from a step on average: 1, or more with speculation

    def step(self, work: Work) -> Cost:
        """The cost of one step, from first principles: plain, slow, explained."""

    def line(self, decoders: int, held: int) -> tuple[float, float, int]:
        """The fast form for `decoders` >= 1 alone: (seconds, slope, steps). Step j from here, from 0, lasts seconds + slope * j; this holds
        for the next `steps` >= 1 steps, in each of which every decoder comes to hold `pace` tokens more.
        """

    def mixed(self, decoders: int, held: int, chunks: Sequence[tuple[Request, int]]) -> float:
        """The fast form with prompt chunks, (request, new tokens) pairs: seconds. The tokens before are `request.computed`."""
