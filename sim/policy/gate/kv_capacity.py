"""As many programs at a time as the KV cache has room for, counted with those that run tools and will come back for theirs.

After ThunderAgent: programs, not calls, are paused and resumed every few seconds, so that what is let in fits. A program that acts, its
tools running, counts with `acting_token_weight` (1 guards its cache, 0.1 fills the room it leaves), or with a weight that halves every
`half_life` of acting. Where more than `fill` of a replica's cache is spoken for, programs that act are paused, those with the fewest tokens
first as they are computed again soonest, then those with a call under way, which ends first. Who is paused goes on best fit decreasing: the
most tokens first, at the replica that they leave the least room of; without `migrate`, only where they were.

Whom to pause first is our choice. So is that a program which acted longer than `forget` counts no more: it may be over, as clients do not
say that they will not come back.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from sim.core.units import Seconds
from sim.policy.gate.base import Changes, Program, Room

Interval = Annotated[Seconds, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(gt=0, le=100)]


@dataclasses.dataclass
class KvCapacity:
    """Seconds; `fill` is a share of each replica's KV cache, above 1 where programs are known to share much of their contexts."""

    every: Interval = 5.0
    fill: Share = 1.0
    acting_token_weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    half_life: Interval | None = None
    migrate: bool = True
    forget: Interval = 600.0
    _left: dict[int, float] = dataclasses.field(default_factory=dict, init=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if not values["acting_token_weight"] and values["half_life"] is not None:
            yield "half_life", "not used here: acting_token_weight is 0"

    def look(self, now: float, rooms: Sequence[Room], programs: Sequence[Program]) -> Changes:
        here: dict[int, list[Program]] = {room.replica: [] for room in rooms}
        for program in programs:
            if program.replica in here:
                here[program.replica].append(program)
        changes = Changes([], [])
        self._left = {room.replica: self._fitted(now, room, here[room.replica], changes.pause) for room in rooms}
        asking = [program for program in programs if program.asking and not program.running]
        for program in sorted(asking, key=lambda program: (-program.tokens, program.number)):
            replica = self._best(program)
            if replica is not None:
                self._left[replica] -= program.tokens
                changes.resume.append((program, replica))
        self._alone(rooms, asking, changes.resume)
        return changes

    def enter(self, program: Program) -> bool:
        # Where there is room elsewhere only, it has to be sent there, which is for a look to do.
        if program.replica in self._left:
            return self._left[program.replica] >= program.tokens
        return self._best(program) is not None

    def entered(self, program: Program) -> None:
        if program.replica in self._left:
            self._left[program.replica] -= program.tokens

    def left(self, program: Program, tokens: int) -> None:
        if program.replica in self._left:
            self._left[program.replica] += tokens

    def _fitted(self, now: float, room: Room, programs: list[Program], pause: list[Program]) -> float:
        """Room left at a replica, in tokens, after those that do not fit there have been added to `pause`."""
        limit = self.fill * room.tokens
        active = [program for program in programs if not program.paused]
        acting = [(program, self._weight(program, now) * program.tokens) for program in active if not program.running]
        running = [program for program in active if program.running]
        claimed = sum(tokens for _, tokens in acting)
        wanted = claimed + sum(program.tokens for program in running)
        for program, tokens in sorted(acting, key=lambda pair: (pair[0].tokens, pair[0].number)):
            if wanted <= limit:
                break
            pause.append(program)
            wanted, claimed = wanted - tokens, claimed - tokens
        for program in sorted(running, key=lambda program: (program.tokens, program.number))[:-1]:
            if wanted <= limit:
                break
            pause.append(program)
            wanted -= program.tokens
        # Calls of paused programs that are still under way take room too; and answers, as they grow.
        under_way = sum(program.tokens for program in programs if program.running)
        return limit - claimed - max(under_way, room.used)

    def _alone(self, rooms: Sequence[Room], asking: list[Program], resume: list[tuple[Program, int]]) -> None:
        """Who fits nowhere goes to a replica that is empty, those that came first before others, or it would wait for ever."""
        going = [program.number for program, _ in resume]
        left = [program for program in asking if program.number not in going]
        for room in rooms:
            if self._left[room.replica] > self.fill * room.tokens - 1.0:
                alone = next((program for program in left if room.replica in self._allowed(program)), None)
                if alone is not None:
                    left.remove(alone)
                    self._left[room.replica] -= alone.tokens
                    resume.append((alone, room.replica))

    def _weight(self, program: Program, now: float) -> float:
        acted = now - program.since
        if acted > self.forget:
            return 0.0
        return self.acting_token_weight * (2.0 ** (-acted / self.half_life) if self.half_life is not None else 1.0)

    def _best(self, program: Program) -> int | None:
        """The replica with the least room that it fits, of equals the first."""
        fitting = [replica for replica in self._allowed(program) if self._left[replica] >= program.tokens]
        return min(fitting, key=lambda replica: (self._left[replica], replica), default=None)

    def _allowed(self, program: Program) -> Iterable[int]:
        if self.migrate or program.replica not in self._left:
            return self._left
        return (program.replica,)
