"""The loop that YAML declares: a user asks, the model answers and asks for tools or for other agents, until it has its final answer.

What a turn holds is drawn from the luck of that turn, and what a call does from that of the call: turns, lengths, tools and spawns are the
same whatever the cluster does.
"""
from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Generator, Mapping
from functools import cached_property
from itertools import accumulate
from typing import Any

from sim.core.rng import Luck
from sim.spec.law import Law
from workloads.programs.agent import Agent
from workloads.programs.base import Role
from workloads.programs.options import ONE, ZERO, Kind, Spawn, Tool

# Parts of a turn's luck beside those of its calls.
MESSAGE, AWAY, EDIT = 1_000_000, 1_000_001, 1_000_002


class Declared:
    """A kind of agent by its figures. `turns` and `think` are those of a session that begins with it: how many messages its user sends, and
    how long each but the first takes to come; without them, as for a sub-agent, there is one.
    """

    def __init__(self, name: str, kinds: Mapping[str, Kind], tools: Mapping[str, Tool], session: tuple[Law, Law] | None = None):
        self.kind = kind = kinds[name]
        self._kinds, self._tools = kinds, tools
        self._turns, self._think = (ONE, ZERO) if session is None else (kind.turns or session[0], session[1])
        task = kind.task or kind.message
        self.role = Role(
            name=name, system=kind.system, context=kind.context, budget=kind.budget, sandbox=kind.sandbox, retries=kind.retries,
            model=kind.model, task=task,
        )  # fmt: skip

    def run(self, agent: Agent) -> Generator[Any, Any, None]:
        kind = self.kind
        turns = max(1, self._turns.whole(agent.luck.next())) if agent.depth == 0 else 1
        for turn in range(turns):
            luck = agent.luck.part(turn)
            if turn:
                yield from agent.think(self._think.at(luck.part(AWAY).next()))
            # Of a session whose beginner has said what it is for, only the messages after that are drawn.
            if not agent.depth and (turn or not agent.turn):
                law = kind.message if turn and kind.message else self.role.task
                agent.told(law.whole(luck.part(MESSAGE).next()) if isinstance(law, Law) else 0)
            if turn and kind.context.edits and luck.part(EDIT).next() < kind.context.edits:
                agent.edited()
            yield from self._turn(agent, luck, self._think.average if turn + 1 < turns else math.nan)

    def _turn(self, agent: Agent, luck: Luck, pause: float) -> Generator[Any, Any, None]:
        """One message and what follows; `pause`: until the next one, s."""
        kind = self.kind
        calls = max(1, kind.calls.whole(luck.next()))
        for number in range(1, calls):
            own = luck.part(number)
            output = max(1, kind.output.whole(own.next()))
            spawn, count = self._spawned(agent, number, own)
            if spawn is not None:
                yield from agent.call(output, pause=self._away(spawn.agent))
                yield from agent.spawn(spawn.agent, count, None if spawn.join == "all" else spawn.join, spawn.task, spawn.result)
                continue
            tools = self._chosen(own)
            yield from agent.call(output, pause=max((self._takes[tool] for tool in tools), default=0.0))
            yield from agent.use_all(tools)
        yield from agent.call(max(1, (kind.final or kind.output).whole(luck.part(calls).next())), pause=pause)

    def _spawned(self, agent: Agent, number: int, luck: Luck) -> tuple[Spawn | None, int]:
        """The spawn of this call, the first that comes about, and how many sub-agents."""
        for spawn in self.kind.spawns:
            chance = luck.next()
            if number in spawn.calls if spawn.calls is not None else chance < (spawn.share or 0.0):
                count = agent.may_spawn(spawn.count.whole(luck.next()))
                if count:
                    return spawn, count
        return None, 0

    def _chosen(self, luck: Luck) -> list[str]:
        names, ends = self._mix
        if not names:
            return []
        count = max(1, self.kind.parallel_tools.whole(luck.next()))
        return [names[min(bisect_left(ends, luck.next()), len(names) - 1)] for _ in range(count)]

    @cached_property
    def _mix(self) -> tuple[list[str], list[float]]:
        """Names of the tools, and where their shares end."""
        shares = {name: share for name, share in self.kind.tools.items() if share > 0}
        total = math.fsum(shares.values())
        return list(shares), [end / total for end in accumulate(shares.values())]

    @cached_property
    def _takes(self) -> dict[str, float]:
        """Seconds that each tool takes on average."""
        return {name: self._tools[name].time.average for name in self.kind.tools}

    def _away(self, name: str) -> float:
        """Seconds that sub-agents of a kind are at their tools on average, the least that their join takes."""
        kind = self._kinds[name]
        total = math.fsum(kind.tools.values())
        each = math.fsum(share * self._tools[tool].time.average for tool, share in kind.tools.items()) / total if total else 0.0
        return max(0.0, kind.calls.average - 1.0) * each
