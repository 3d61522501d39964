"""What is said of agents and tools that can never come about: counts that are always 0, tools of an agent that never asks for one,
contexts and budgets that not even a first call fits into. Nothing of it would show in a result, but as numbers that surprise.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.spec.law import Law
from workloads.programs.options import CallRetries, Kind, Tool

Wrong = Iterator[tuple[str, str]]
COUNTS = ("turns", "calls", "output", "final", "parallel_tools")


def problems(kinds: Mapping[str, Kind], tools: Mapping[str, Tool], begun: tuple[str, ...]) -> Wrong:
    """(path, message) of each; sessions begin with the kinds in `begun`."""
    for name, kind in kinds.items():
        here = f"agents.{name}"
        for key in COUNTS:
            yield from count(f"{here}.{key}", vars(kind)[key])
        yield from count(f"{here}.context.summary", kind.context.summary)
        yield from _turn(here, kind)
        yield from _first_call(here, kind, name in begun)
        if not kind.retries.max and kind.retries.backoff != CallRetries().backoff:
            yield f"{here}.retries.backoff", "not used here: max is 0"
        if name in begun and not kind.spawns and not any(tool in tools and tools[tool].model is not None for tool in kind.tools):
            for key in ("depth", "agents"):
                if vars(kind.budget)[key] is not None:
                    yield f"{here}.budget.{key}", "not used here: the agent has no spawns"
        if name not in begun and kind.message is not None and kind.task is not None:
            yield f"{here}.message", "not used here: a sub-agent gets one message, its task"
    for name, tool in tools.items():
        yield from _tool(f"tools.{name}", tool, kinds)


def count(where: str, law: Law | None) -> Wrong:
    """(path, message) of a number of things that are never there, or not whole."""
    if law is None:
        return
    if law.whole(1.0) < 1:
        yield where, f"found {law.at(1.0):g}; at least 1 is wanted"
    elif not law.varies and law.at(0.5) != law.whole(0.5):
        value = law.at(0.5)
        yield where, f"found {value:g}; a whole number is wanted, or a law with this mean, such as {{dist: geometric, mean: {value:g}}}"


def _turn(here: str, kind: Kind) -> Wrong:
    """Calls of a turn but the last ask for tools, or spawn."""
    most = kind.calls.whole(1.0)
    if most == 1:
        if any(kind.tools.values()):
            yield f"{here}.tools", "not used here: with one call in a turn no tool is asked for; give more calls, or shares of 0"
        if kind.spawns:
            yield f"{here}.spawns", "not used here: with one call in a turn nobody is begun; give more calls"
        return
    for number, spawn in enumerate(kind.spawns):
        where = f"{here}.spawns.{number}"
        yield from count(f"{where}.count", spawn.count)
        late = [call for call in spawn.calls or () if call >= most]
        if late and most > 1:
            yield f"{where}.calls", f"found {late[0]}; a turn has at most {most} calls, of which the last spawns nothing"


def _first_call(here: str, kind: Kind, begun: bool) -> Wrong:
    told = (kind.task or kind.message) if begun else None
    output = min(law.whole(0.0) for law in (kind.output, kind.final) if law is not None)
    least = kind.system + (told.whole(0.0) if told is not None else 0) + max(1, output)
    if kind.budget.tokens is not None and least > kind.budget.tokens:
        yield f"{here}.budget.tokens", f"found {kind.budget.tokens}; a first call takes at least {least} tokens of prompt and answer"
    limit = kind.context
    if limit.max is not None and kind.system < limit.max * (limit.compact_at or 1.0) and least > limit.max:
        yield f"{here}.context.max", f"found {limit.max}; a first call takes at least {least} tokens of prompt and answer"
    if limit.max is not None and limit.compact_at is not None and limit.summary is not None and limit.kept is not None:
        left, most = kind.system + limit.summary.at(0.5) + limit.kept.at(0.5), limit.max * limit.compact_at
        if left >= most > kind.system + limit.summary.at(0.5):
            yield f"{here}.context.kept", f"with system prompt and summary it is {left:g} tokens, not below {most:g}: compacted without end"


def _tool(here: str, tool: Tool, kinds: Mapping[str, Kind]) -> Wrong:
    if tool.model is None:
        if tool.timeout is not None and tool.time.at(0.0) > tool.timeout:
            yield f"{here}.time", f"it takes at least {tool.time.at(0.0):g} s, so that every try ends at the timeout ({tool.timeout:g} s)"
        return
    other = kinds.get(tool.model.agent)
    if other is not None and tool.model.task is None and other.task is None and other.message is None:
        yield f"{here}.model.task", f"missing: what agent {tool.model.agent} is told, as it has neither task nor message itself"
