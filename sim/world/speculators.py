"""The decode group when steps verify drafted tokens: members get different numbers of tokens from a step.

How many tokens each step will yield is known of a member when it joins (`physics/speculation.py`), so the steps at which it finishes and at
which it needs KV blocks are known as well: a heap of the former and a calendar of the latter, filled and emptied member by member, never
touched in between. Steps are priced by the tokens members hold at the expected pace, which keeps a stretch affine in time.
"""
from __future__ import annotations

from collections import defaultdict
from heapq import heappush
from typing import NamedTuple

import numpy as np

from sim.core.request import Request
from sim.physics.speculation import Acceptance
from sim.policy.kv.base import KvCache
from sim.world.decoders import Decoders, Reserved


def group(kv: KvCache, law: Acceptance | None) -> Decoders:
    """The decode group that suits a cache and a law of accepted drafts."""
    if law is not None:
        return Speculators(kv.block_size, law, kv.grows)
    return Decoders(kv.block_size) if kv.grows else Reserved(kv.block_size)


class Ahead(NamedTuple):
    """What is known of a member: tokens out after each of its steps, and the KV blocks it holds from each step on (one entry more)."""

    tokens: np.ndarray
    blocks: np.ndarray


class Speculators(Decoders):
    """Members of a group that verifies `law.k` drafted tokens a step; they hold blocks for all tokens that the step may compute.

    Unless they `grow`, all their blocks were taken when they were admitted.
    """

    __slots__ = ("_ahead", "_calendar", "_grow", "_law", "_owed")

    def __init__(self, block_size: int, law: Acceptance, grow: bool = True):
        super().__init__(block_size)
        self._law, self._grow = law, grow
        self.most = law.k // block_size + 2
        self._ahead: dict[int, Ahead] = {}
        self._calendar: defaultdict[int, int] = defaultdict(int)
        self._owed = 0.0

    @property
    def pace(self) -> float:
        return self.count * self._law.e

    def join(self, request: Request) -> None:
        request.joined = step = self.step
        tokens = self._law.trajectory(request.output - request.generated, request.id, request.preemptions)
        held = held_blocks(request.computed, tokens, self._law.k, self.block_size) if self._grow else np.zeros(len(tokens) + 1, dtype=int)
        ahead = self._ahead[request.order] = Ahead(tokens, held)
        for after, blocks in _steps(ahead.blocks):
            self._calendar[step + after] += blocks
        heappush(self.finish, (step + len(tokens), request.order, request))
        self.count += 1
        self.held += request.computed

    def leave(self, request: Request) -> None:
        """As in a plain group; blocks held for tokens that were not kept are `spare`."""
        steps, start, ahead = self.step - request.joined, request.computed, self._ahead.pop(request.order)
        made = int(ahead.tokens[steps - 1]) if steps else 0
        request.computed += made
        request.generated += made
        request.joined = -1
        self.count -= 1
        self.held = self.held - (start + self._law.e * steps) if self.count else 0
        if self._grow:
            self.spare += int(ahead.blocks[steps]) - -(-request.computed // self.block_size)
        if steps < len(ahead.tokens):
            # What finishes is settled with its last step; who is stopped short has another balance, which the next step's tokens carry.
            self._owed += made - self._law.e * steps
            for after, blocks in _steps(ahead.blocks):
                if after >= steps:
                    self._calendar[self.step + after - steps] -= blocks

    def out(self, request: Request, more: int) -> int:
        steps = self.step - request.joined + more
        return request.generated + (int(self._ahead[request.order].tokens[steps - 1]) if steps else 0)

    def advance(self, steps: int) -> float:
        calendar = self._calendar
        for step in range(self.step, self.step + steps):
            calendar.pop(step, None)
        tokens, self._owed = self.pace * steps + self._owed, 0.0
        self.step += steps
        self.held += self.pace * steps
        for joined, total in self._finishing():
            tokens += total - self._law.e * (self.step - joined)
        return tokens

    def blocks(self, steps: int) -> int:
        calendar = self._calendar
        return sum(calendar.get(step, 0) for step in range(self.step, self.step + steps))

    def fits(self, free: int, steps: int) -> int:
        calendar = self._calendar
        for step in range(self.step, self.step + steps):
            free -= calendar.get(step, 0)
            if free < 0:
                return step - self.step
        return steps

    def _finishing(self) -> list[tuple[int, int]]:
        """Of the members whose last step has just been made, when they joined and how many tokens they got."""
        finish, found, places = self.finish, [], [0]
        while places:
            place = places.pop()
            if place < len(finish) and finish[place][0] <= self.step:
                _, order, request = finish[place]
                if request.order == order:
                    found.append((request.joined, int(self._ahead[order].tokens[-1])))
                places += (2 * place + 1, 2 * place + 2)
        return found


def held_blocks(computed: int, tokens: np.ndarray, k: int, block_size: int) -> np.ndarray:
    """KV blocks of a member before its first step and from each of its steps on: a step may compute k + 1 tokens, none beyond its end.

    `computed` tokens are in the cache when it joins, `tokens` are out after each step.
    """
    known = np.concatenate(([-k - 1, 0], tokens[:-1])) + (computed + k + 1)
    return -(-np.minimum(known, computed + tokens[-1]) // block_size)


def _steps(blocks: np.ndarray) -> list[tuple[int, int]]:
    """(step from the first on, blocks it takes) for the steps that take any."""
    taken = np.diff(blocks)
    at = np.flatnonzero(taken)
    return list(zip(at.tolist(), taken[at].tolist(), strict=True))
