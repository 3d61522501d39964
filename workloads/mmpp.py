"""Markov-modulated Poisson arrivals: the service is in one of a few states, each with its rate, and changes between them at random.

Two states, one of them busy, are the usual model of traffic that comes and goes. Closed forms of the mean and of the counts' variance are
those of Fischer and Meier-Hellstern 1993 (Performance Evaluation 18), written here with the deviation matrix D = (1 pi - Q)^-1 - 1 pi of
the generator Q with stationary law pi: for rates r and their mean m,

    Var N(t) = m t + 2 pi R (t D - D^2 (I - exp(Q t))) r,   R = diag(r).
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from workloads._rate import Gaps, Pieces, in_blocks, points, until, warped
from workloads.base import BLOCK, OpenLoop, PositiveSeconds, Rate, needs_an_end

Chance = Annotated[float, Field(ge=0, le=1)]
Chances = Annotated[list[Annotated[list[Chance], Field(min_length=2)]], Field(min_length=2)]


@dataclass(frozen=True, kw_only=True)
class State:
    """`rate`: requests per second in this state. `mean_stay`: how long it lasts on average; stays are exponential."""

    rate: Annotated[float, Field(ge=0, le=1e9)]
    mean_stay: PositiveSeconds


@dataclass(kw_only=True)
class Mmpp(OpenLoop):
    """`states`: two or more. `transitions`: row i holds the chances of the states that follow state i, by default all others alike.

    `rate`: the mean, to which the rates of the states are then scaled. The traffic begins in equilibrium.
    """

    states: Annotated[list[State], Field(min_length=2, max_length=100)]
    transitions: Chances | None = None
    rate: Rate | None = None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from needs_an_end(values)
        states, rows = values["states"], values["transitions"]
        if not any(state.rate for state in states):
            yield "states", "the rates of all states are zero; at least one above zero is wanted"
            return
        if rows is None:
            return
        if len(rows) != len(states) or any(len(row) != len(states) for row in rows):
            yield "transitions", f"{len(states)} rows of {len(states)} chances each are wanted, one for every state"
            return
        wrong = False
        for number, row in enumerate(rows):
            if abs(sum(row) - 1) > 1e-6:
                yield f"transitions.{number}", f"the chances add up to {sum(row):g}; 1 is wanted"
                wrong = True
            if row[number]:
                yield f"transitions.{number}.{number}", f"found {row[number]:g}; a state is not followed by itself, so 0 is wanted"
                wrong = True
        if not wrong and not _connected(np.array(rows)):
            yield "transitions", "not every state can be reached from every other, so there is no mean over time"

    def chances(self) -> np.ndarray:
        """The chances of the states to follow each other, rows add up to 1."""
        count = len(self.states)
        if self.transitions is None:
            return (1 - np.eye(count)) / (count - 1)
        rows = np.array(self.transitions)
        return np.asarray(rows / rows.sum(axis=1, keepdims=True))

    def generator(self) -> np.ndarray:
        """Q, 1/s: rates of change from state to state; rows add up to 0."""
        stays = np.array([state.mean_stay for state in self.states])
        return np.asarray((self.chances() - np.eye(len(stays))) / stays[:, None])

    def equilibrium(self) -> np.ndarray:
        """The share of time in each state."""
        q = self.generator()
        return np.asarray(np.linalg.lstsq(np.vstack([q.T, np.ones(len(q))]), np.append(np.zeros(len(q)), 1.0), rcond=None)[0])

    def rates(self) -> np.ndarray:
        """The rate of each state, 1/s, scaled to `rate` where that is given."""
        rates = np.array([state.rate for state in self.states])
        return rates if self.rate is None else rates * (self.rate / (self.equilibrium() @ rates))

    def mean_rate(self) -> float:
        """Requests per second over a long time."""
        return float(self.equilibrium() @ self.rates())

    def fano(self, window: float) -> float:
        """Variance over mean of the number of arrivals in a window of so many seconds (infinite: the limit)."""
        from scipy.linalg import expm

        q, share, rates = self.generator(), self.equilibrium(), self.rates()
        always = np.outer(np.ones(len(q)), share)
        deviation = np.linalg.inv(always - q) - always
        gone = 0.0 if np.isinf(window) else deviation @ deviation @ (np.eye(len(q)) - expm(q * window)) / window
        return float(1 + 2 * (share * rates) @ (deviation - gone) @ rates / (share @ rates))

    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        for_points, for_states = rng.spawn(2)
        process = points(for_points, Gaps("gamma", 1.0))
        return in_blocks(warped(process, until(self.pieces(for_states), self.duration)))

    def pieces(self, rng: np.random.Generator) -> Pieces:
        """Stays in one state after the other, without end."""
        rates, stays = self.rates(), np.array([state.mean_stay for state in self.states])
        ladders = [row.tolist() for row in np.cumsum(self.chances(), axis=1)]
        last = len(stays) - 1
        state = min(bisect_right(np.cumsum(self.equilibrium()).tolist(), rng.random()), last)
        while True:
            path = []
            for draw in rng.random(BLOCK).tolist():
                path.append(state)
                # Rounding must not leave a draw without a state.
                state = min(bisect_right(ladders[state], draw), last)
            yield stays[path] * rng.standard_exponential(BLOCK), rates[path]


def _connected(chances: np.ndarray) -> bool:
    """Whether every state can be reached from every other."""
    reached = chances > 0
    for _ in range(len(chances).bit_length()):
        reached = reached | (reached.astype(int) @ reached.astype(int) > 0)
    return bool(reached.all())
