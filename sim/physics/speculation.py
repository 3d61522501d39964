"""How many tokens a step of speculative decoding yields, and after which step each of a request's tokens is out.

A step verifies k drafted tokens and always adds one of the model's own: the correction of the first refused one, or the one after the last
accepted. With s(i) the share of drafts of which the first i tokens are accepted,

    P(exactly i accepted) = s(i) - s(i+1),  s(0) = 1, s(k+1) = 0
    tokens per step       e = 1 + s(1) + ... + s(k)

which for one chance a at every position is (1 - a^(k+1)) / (1 - a): Leviathan, Kalman and Matias, arXiv 2211.17192, equation 1.

A request's `trajectory` is known when it begins to decode. Expected: floor(e s) tokens after s steps. Sampled: each step draws how many of
its draft are accepted, steps independent of each other. Draws come from a stream of the request's own, so that no order of events moves
them. Steps are priced by the expected pace either way.
"""
from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from sim.core.rng import Keyed
from sim.spec.engine import Speculation


class Acceptance:
    """The law of one `speculative_config`: `k` drafted tokens, `e` tokens expected per step, `exactly[i]` the chance that i are accepted.

    Sampled tokens are drawn from streams of `seed`; with `sampling: expected` nothing is drawn.
    """

    def __init__(self, options: Speculation, seed: int = 0):
        self.k = options.num_speculative_tokens
        self.rates = options.rates
        self.e = 1.0 + math.fsum(self.rates)
        self.streams = Keyed(seed, "speculation") if options.sampling == "sampled" else None

    @cached_property
    def exactly(self) -> tuple[float, ...]:
        shares = (1.0, *self.rates, 0.0)
        return tuple(shares[i] - shares[i + 1] for i in range(self.k + 1))

    @cached_property
    def _ascending(self) -> np.ndarray:
        return np.array(self.rates[::-1])

    def trajectory(self, remaining: int, request: int = 0, turn: int = 0) -> np.ndarray:
        """Tokens that are out after each step, an ascending integer array that ends with `remaining` >= 1.

        `request` and `turn` (how often it was preempted) name the draws, where there are any.
        """
        if self.streams is None:
            # One step more than the quotient says, which may have been rounded down.
            tokens = np.floor(self.e * np.arange(1, math.ceil(remaining / self.e) + 2)).astype(np.int64)
        else:
            # A step yields at least one token, so that there are draws enough.
            draws = self.streams.at(request, turn, remaining)
            # A draft's first i tokens are accepted when its draw is below s(i).
            tokens = np.cumsum(self.k + 1 - np.searchsorted(self._ascending, draws, "right"))
        tokens = tokens[: int(np.searchsorted(tokens, remaining)) + 1]
        tokens[-1] = remaining
        return tokens
