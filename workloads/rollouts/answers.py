"""What answers to prompts are like, by place: how long, whether right, whether cut; and what that comes to, in closed form.

An answer belongs to a prompt, to the time it was asked (its `visit`: an epoch, or another attempt), and to its number among the samples.
So it is the same whoever asks for it and when, and two what-ifs share their luck: with another gate, tail policy or split of GPUs the
same prompts are hard and the same samples long. Only what begins again from nothing is drawn anew, as a model that samples would.

An answer is right with its prompt's chance p if it ends by itself; what is cut has no result and is wrong. Of independent standard normals
for a prompt (ease, own) and a sample, the share of a group's samples that end below x tokens is F(x | z) = (1 - p_cap (1 - p))
Phi((y(x) - sqrt(rho) z) / sqrt(1 - rho)) for z the prompt's effect and y(x) where the law has x. Means over prompts are sums over a grid.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sim.core.errors import BadInput
from sim.core.rng import Luck, mix
from sim.spec.law import NORMAL
from workloads.rollouts.lengths import AnswerLengths
from workloads.rollouts.solve import Solving, normal_grid

TINY = 2.0**-54


class Nature(NamedTuple):
    """What a prompt is: how easy, and how long its answers; both standard normals over the prompts."""

    ease: float
    effect: float


class Answer(NamedTuple):
    """One answer: `tokens` in all, `right`, and whether it was `cut` at the cap."""

    tokens: int
    right: bool
    cut: bool


@dataclass(frozen=True)
class Answers:
    """Answers of a run; `key` is its luck. Everything is in tokens, shares and versions (which count from 0)."""

    lengths: AnswerLengths
    solving: Solving
    key: int

    def nature(self, prompt: int) -> Nature:
        """Of a prompt of the data set, in every epoch the same."""
        luck = Luck(mix(self.key, prompt))
        ease = _normal(luck)
        return Nature(ease, self.lengths.effect(ease, _normal(luck)))

    def rate(self, nature: Nature, version: int) -> float:
        """The chance that an answer is right if it ends."""
        return float(self.solving.rate(nature.ease, version))

    def group(self, prompt: int, visit: int, samples: int, version: int) -> list[Answer]:
        """The first so many answers to a prompt that is asked under a version; more of them begin with the same."""
        nature = self.nature(prompt)
        rate = self.rate(nature, version)
        luck = Luck(mix(self.key, prompt)).part(visit)
        return [self._answer(nature.effect, rate, luck.part(number), version) for number in range(samples)]

    def _answer(self, effect: float, rate: float, luck: Luck, version: int) -> Answer:
        ends, lengths = _normal(luck), self.lengths
        solved, loops = luck.next() < rate, luck.next() < lengths.p_cap
        tokens = lengths.unlimited(effect, ends, version)
        if tokens > lengths.cap or (loops and not solved):
            return Answer(lengths.cap, False, True)
        return Answer(max(int(tokens + 0.5), 1), solved, False)

    def mean(self, version: int = 0) -> float:
        """Tokens of an answer."""
        return self.longest(1, 1, version)

    def matching(self, mean: float) -> Answers:
        """Answers with the same law but for its scale, whose mean at version 0 is this one, as measured with the cap in force.

        Raises BadInput where that is out of reach: below what runs to the cap anyway, or not below the cap.
        """
        from scipy import optimize

        lengths, reach = self.lengths, math.log(1e6)
        if not self._scaled(-reach).mean() < mean < min(self._scaled(reach).mean(), lengths.cap - 0.5):
            limits = f"a cap of {lengths.cap:,} and p_cap {lengths.p_cap:g}"
            raise BadInput(f"no scale of the law gives a mean of {mean:g} tokens with {limits}")
        return self._scaled(optimize.brentq(lambda power: self._scaled(power).mean() - mean, -reach, reach, xtol=1e-9))

    def _scaled(self, power: float) -> Answers:
        return replace(self, lengths=self.lengths.model_copy(update={"scale": math.exp(power)}))

    def longest(self, samples: int, groups: int = 1, version: int = 0) -> float:
        """Mean tokens of the longest answer of so many groups of so many samples."""
        return self.ranked(samples, samples, groups, groups, version)

    def ranked(self, kept: int, samples: int, groups: int = 1, of: int = 1, version: int = 0) -> float:
        """Mean tokens of the longest answer kept, where of each group the `kept` shortest of `samples` are, and then the `groups` of `of`
        groups whose longest is shortest: what over-sampling leaves.
        """
        from scipy import special

        grid, tokens = self.lengths.curve(version)
        below = np.minimum(tokens, self.lengths.cap) < self.lengths.cap
        group = self._kept_below(grid[below], kept, samples, version)
        share = special.bdtrc(groups - 1, of, np.minimum(group, 1.0)) if of > 1 else group
        points = np.append(tokens[below], self.lengths.cap)
        middles = np.append(points[0], (points[1:] + points[:-1]) / 2)
        # What is beyond the last point of the curve is at the cap, but for what would end within the step to it.
        end = self._kept_below(np.array([min(self.lengths.ends(version), 40.0)]), kept, samples, version)[0]
        last = special.bdtrc(groups - 1, of, min(end, 1.0)) if of > 1 else end
        shares = np.diff(np.concatenate([[0.0], share, [last]]))
        return float(middles @ shares + self.lengths.cap * (1.0 - last))

    def share_cut(self, version: int = 0) -> float:
        """The share of answers that run to the cap."""
        return float(1.0 - self._kept_below(np.array([min(self.lengths.ends(version), 40.0)]), 1, 1, version)[0])

    def right(self, version: int = 0) -> float:
        """The share of answers that are right."""
        weights, rate, ends = self._prompts(version)
        return float(np.sum(weights * rate * ends))

    def valid(self, samples: int, version: int = 0) -> float:
        """The share of groups of so many samples that are neither all right nor all wrong, those cut being wrong."""
        weights, rate, ends = self._prompts(version)
        right = rate * ends
        return float(np.sum(weights * (1.0 - right**samples - (1.0 - right) ** samples)))

    def _prompts(self, version: int, step: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Over a grid of prompts by effect (rows) and, with a step, what else makes up their ease: weights, p, and the share that the law
        lets end.
        """
        from scipy import special

        lengths = self.lengths
        effect, first = normal_grid(0.1)
        other, second = normal_grid(step)
        # Ease and effect are normals that correlate by -difficulty: given one, the other is again normal.
        ease = -lengths.difficulty * effect[:, None] + math.sqrt(1.0 - lengths.difficulty**2) * other[None, :]
        ends = special.ndtr((lengths.ends(version) - math.sqrt(lengths.group_rho) * effect) / math.sqrt(1.0 - lengths.group_rho))
        return first[:, None] * second[None, :], self.solving.rate(ease, version), ends[:, None]

    def _kept_below(self, y: np.ndarray, kept: int, samples: int, version: int) -> np.ndarray:
        """The chance that at least `kept` of a group's samples end below the tokens that the law has at y, for y increasing."""
        from scipy import special

        lengths = self.lengths
        effect, weights = normal_grid(0.1)
        law = special.ndtr((y[:, None] - math.sqrt(lengths.group_rho) * effect[None, :]) / math.sqrt(1.0 - lengths.group_rho))
        if not lengths.p_cap:
            return np.asarray((law**samples if kept == samples else special.bdtrc(kept - 1, samples, law)) @ weights)
        # Sums of powers are cheap, sums of binomials are not: the coarser grid is off by 1e-6, or 1e-3 where p is nearly always 0 or 1.
        joint, rate, _ = self._prompts(version, 0.2 if kept == samples else 0.5)
        stays = 1.0 - lengths.p_cap * (1.0 - rate)
        if kept == samples:
            return np.asarray(law**samples @ np.sum(joint * stays**samples, axis=1))
        total = np.zeros(len(y))
        for column in range(stays.shape[1]):
            total += special.bdtrc(kept - 1, samples, law * stays[None, :, column]) @ joint[:, column]
        return total


def _normal(luck: Luck) -> float:
    return NORMAL.inv_cdf(luck.next() + TINY)
