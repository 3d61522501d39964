"""What is wrong with agents, tools and services as a whole: names without a definition, circles without an end, limits nothing can meet."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sim.core.errors import did_you_mean
from workloads.programs import never
from workloads.programs.options import Kind, Quota, Tool

Wrong = Iterator[tuple[str, str]]


class Whole(NamedTuple):
    """All that a workload declares; `first` is the kind of agent that sessions begin with (empty: a program in Python), `last` a tool it
    uses when it is done, and `mixed` are further kinds that sessions begin with.
    """

    first: str
    kinds: Mapping[str, Kind]
    tools: Mapping[str, Tool]
    apis: Mapping[str, Quota]
    last: str = ""
    mixed: tuple[str, ...] = ()

    @property
    def begun(self) -> tuple[str, ...]:
        """The kinds that sessions begin with."""
        return (self.first, *self.mixed)

    def has(self, name: str) -> list[str]:
        """Tools of a kind of agent that are defined."""
        own = [*self.kinds[name].tools, *([self.last] if name == self.first else [])]
        return [tool for tool in own if tool in self.tools]


def problems(whole: Whole) -> Wrong:
    """(path, message) of each."""
    yield from _names(whole)
    yield from never.problems(whole.kinds, whole.tools, whole.begun)
    for name, kind in whole.kinds.items():
        yield from _kind(whole, name, kind)
    for name, tool in whole.tools.items():
        yield from _tool(name, tool)
    for name, quota in whole.apis.items():
        yield from _quota(name, quota)
    yield from _circles(whole)
    yield from _homes(whole)
    yield from _unused(whole)


def _names(whole: Whole) -> Wrong:
    if whole.first and whole.first not in whole.kinds:
        yield "agent", f"there is no agent '{whole.first}'; {did_you_mean(whole.first, whole.kinds)}"
    for name, kind in whole.kinds.items():
        for tool in kind.tools:
            if tool not in whole.tools:
                message = f"tool '{tool}' is defined nowhere; {_define(tool, whole.tools)} under tools"
                yield f"agents.{name}.tools.{tool}", message
        for number, spawn in enumerate(kind.spawns):
            if spawn.agent not in whole.kinds:
                near = did_you_mean(spawn.agent, whole.kinds)
                yield f"agents.{name}.spawns.{number}.agent", f"there is no agent '{spawn.agent}'; {near}"
    for name, tool_ in whole.tools.items():
        if tool_.api and tool_.api not in whole.apis:
            message = f"service '{tool_.api}' is defined nowhere; {_define(tool_.api, whole.apis)} under apis"
            yield f"tools.{name}.api", message
        if tool_.model is not None and tool_.model.agent not in whole.kinds:
            near = did_you_mean(tool_.model.agent, whole.kinds)
            yield f"tools.{name}.model.agent", f"there is no agent '{tool_.model.agent}'; {near}"


def _define(name: str, known: Mapping[str, object]) -> str:
    if not known:
        return "define it"
    near = did_you_mean(name, known)
    return f"{near} Or define it" if near.endswith("?") else f"{near}; or define it"


def _kind(whole: Whole, name: str, kind: Kind) -> Wrong:
    here = f"agents.{name}"
    if name in whole.begun and kind.task is None and kind.message is None:
        yield here, "missing message (or task): tokens of what a user sends"
    if kind.tools and not any(kind.tools.values()) and kind.calls.whole(1.0) > 1:
        yield f"{here}.tools", "all shares are 0; one above 0 is wanted"
    if not kind.tools and not kind.spawns and (kind.calls.varies or kind.calls.at(0.5) > 1.5):
        yield f"{here}.calls", "several calls per turn, but nothing happens between them; give the agent tools or spawns, or one call"
    if not kind.tools and kind.parallel_tools.varies:
        yield f"{here}.parallel_tools", "not used here: the agent has no tools"
    for number, spawn in enumerate(kind.spawns):
        where = f"{here}.spawns.{number}"
        if (spawn.share is None) == (spawn.calls is None):
            yield where, "say either share, the chance of each call, or calls, after which of them"
        most_of = spawn.count.whole(1.0)
        if isinstance(spawn.join, int) and spawn.join > most_of > 0:
            there = f"at most {most_of}" if spawn.count.varies else f"{most_of}"
            yield f"{where}.join", f"found {spawn.join}, but there are {there}; join: all waits for all"
        other = whole.kinds.get(spawn.agent)
        if other is not None and spawn.task is None and other.task is None and other.message is None:
            yield f"{where}.task", f"missing: what agent {spawn.agent} is told, as it has neither task nor message itself"
    limit = kind.context
    if limit.max is None and (limit.compact_at is not None or limit.summary is not None):
        yield f"{here}.context.max", "missing: tokens of the longest context, of which compact_at is a share"
    if (limit.compact_at is None) != (limit.summary is None):
        given, lacking = ("summary", "compact_at") if limit.compact_at is None else ("compact_at", "summary")
        yield f"{here}.context.{lacking}", f"missing: with {given}, a context is compacted, which takes both compact_at and summary"
    most = None if limit.max is None else limit.max * (limit.compact_at or 1.0)
    if most is not None and kind.system >= most:
        yield f"{here}.system", f"found {kind.system}; no room for it in a context of {limit.max} tokens, used up to {most:g}"
    elif most is not None and limit.summary is not None and kind.system + limit.summary.at(0.5) >= most:
        yield f"{here}.context.summary", f"with the system prompt it is {kind.system + limit.summary.at(0.5):g} tokens, not below {most:g}"
    if limit.kept is not None and limit.summary is None:
        yield f"{here}.context.kept", "not used here: without compact_at and summary, a context is never compacted"
    if kind.turns is not None and name not in whole.begun:
        yield f"{here}.turns", "not used here: sub-agents get one message"
    if limit.edits and name not in whole.begun:
        yield f"{here}.context.edits", "not used here: sub-agents get one message, and only later ones come with a history"


def _tool(name: str, tool: Tool) -> Wrong:
    here = f"tools.{name}"
    if tool.hang and tool.timeout is None:
        yield f"{here}.timeout", "missing: without it a tool that hangs would never end"
    if tool.model is not None:
        for key, used in (("time", tool.time.varies or tool.time.at(0.5) > 0), ("sandbox", tool.sandbox), ("timeout", tool.timeout),
                          ("hang", tool.hang), ("fail", tool.fail)):  # fmt: skip
            if used:
                yield f"{here}.{key}", "not used here: the tool is another agent, which takes its own time and has its own budget"
    elif tool.observation is None:
        yield f"{here}.observation", "missing: tokens that it answers with"
    if tool.retries and not (tool.fail or tool.hang or tool.timeout or tool.api or tool.model):
        yield f"{here}.retries", "not used here: nothing fails; give fail, hang or timeout, or leave it out"
    if tool.cores != 1.0 and not tool.sandbox:
        yield f"{here}.cores", "not used here: it does not run in a sandbox"


def _quota(name: str, quota: Quota) -> Wrong:
    if quota.rate is None and quota.concurrency is None:
        yield f"apis.{name}", "says neither rate nor concurrency, so that nobody ever waits; give one, or leave it out"
    if quota.rate is None and quota.burst != 1:
        yield f"apis.{name}.burst", "not used here: there is no rate"


def _below(whole: Whole, name: str) -> list[str]:
    """The kinds that agents of one kind begin, each once."""
    kind = whole.kinds[name]
    found = [spawn.agent for spawn in kind.spawns if spawn.share != 0]
    used = [whole.tools[tool] for tool in whole.has(name) if kind.tools.get(tool) != 0]
    found += [tool.model.agent for tool in used if tool.model is not None]
    return [one for one in dict.fromkeys(found) if one in whole.kinds]


def _circles(whole: Whole) -> Wrong:
    """Kinds that end up beginning their own kind, with nothing to stop them."""
    said: set[frozenset[str]] = set()
    for name in whole.kinds:
        circle = _circle(whole, name, (name,))
        if circle and frozenset(circle) not in said:
            said.add(frozenset(circle))
            way = " -> ".join((*circle, circle[0]))
            message = f"{way}: agents begin agents without end; give one of them budget: {{depth: 3}} or {{agents: 100}}"
            yield f"agents.{name}", message
    for name in whole.kinds:
        asked = [one for tool in whole.has(name) for one in [whole.tools[tool].model] if one is not None]
        if any(_reaches(whole, one.agent, name) for one in asked if one.agent in whole.kinds):
            yield f"agents.{name}.tools", f"a tool asks an agent that ends up asking agent {name} again; only spawns heed a budget of depth"


def _circle(whole: Whole, name: str, way: tuple[str, ...]) -> tuple[str, ...]:
    budget = whole.kinds[name].budget
    if budget.depth is not None or budget.agents is not None:
        return ()
    for other in _below(whole, name):
        if other == way[0]:
            return way
        if other not in way:
            found = _circle(whole, other, (*way, other))
            if found:
                return found
    return ()


def _reaches(whole: Whole, start: str, goal: str) -> bool:
    seen, open_ = {start}, [start]
    while open_:
        name = open_.pop()
        if name == goal:
            return True
        for other in _below(whole, name):
            if other not in seen:
                seen.add(other)
                open_.append(other)
    return False


def _homes(whole: Whole) -> Wrong:
    """Tools that run in a sandbox, of agents that may be without one."""
    if whole.first not in whole.kinds:
        return
    open_, seen = [one for one in whole.begun if one in whole.kinds], set(whole.begun)
    while open_:
        name = open_.pop()
        kind = whole.kinds[name]
        if kind.sandbox is not None:
            continue
        needy = [tool for tool in whole.has(name) if whole.tools[tool].sandbox]
        if needy:
            message = f"tool {needy[0]} runs in a sandbox, but the agent has none; write sandbox: {{pool: NAME of cluster.sandboxes}}"
            yield f"agents.{name}.sandbox", message
        for other in _below(whole, name):
            if other not in seen:
                seen.add(other)
                open_.append(other)


def _unused(whole: Whole) -> Wrong:
    if whole.first not in whole.kinds:
        return
    for name, kind in whole.kinds.items():
        if not any(_reaches(whole, one, name) for one in whole.begun if one in whole.kinds):
            yield f"agents.{name}", f"nobody begins an agent of this kind; sessions begin with {' or '.join(whole.begun)}"
        elif kind.sandbox is not None and not _works_inside(whole, name):
            yield f"agents.{name}.sandbox", "no tool of the agent, or of those it begins, runs in a sandbox; give a tool sandbox: true"
    used = {tool for name in whole.kinds for tool in whole.has(name)}
    for name in whole.tools:
        if name not in used:
            yield f"tools.{name}", "no agent has this tool"
    services = {tool.api for tool in whole.tools.values()}
    for name in whole.apis:
        if name not in services:
            yield f"apis.{name}", "no tool goes through this service"


def _works_inside(whole: Whole, name: str) -> bool:
    return any(
        whole.tools[tool].sandbox for other in whole.kinds if _reaches(whole, name, other) for tool in whole.has(other)
    )  # fmt: skip
