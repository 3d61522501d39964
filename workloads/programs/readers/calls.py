"""Tables of agents' calls, one row a call: `session_id`, `arrival_s`, `input_tokens`, `output_tokens`, and what else there is.

* `agent_id` (or `sidechain`): which agent of the session made the call. The first to appear, or `main`, is the main one.
* `api_time_s` or `llm_latency_s`: seconds until the answer was there.
* `prefix_ref` with `prefix_blocks` (of 64 tokens) or `prefix_tokens`, or `hash_ids`: what the prompt begins with (`formats/_ids.py`).
  Without these a prompt is taken to begin with the prompt and the answer before it of its agent, as far as it is long enough.
* `trigger` (user, tool) or `input_types` (tool_result): what the call waited for; else a tool.
* `tools`, with `tool_latency_s`: the tools that the answer asked for, joined by `+`, and how long they took together.
* `session_start_unix`: when the session began. Without it sessions begin at their first `arrival_s`, if these differ.

Beside it there may be tables of agents (`duration_s`, `tool_tokens`, `system_tokens`), of tools (`step`, `tool`, `latency_s`) and of tasks
(`start_wall`: seconds since 1970). So are cc_weka, agentcgroup and LMCache's agent traces given as Parquet; CSV and JSON lines do as well.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workloads.formats._ids import LISTS, REFERENCES, identified
from workloads.formats._sheet import numbers, rows
from workloads.formats._source import Source
from workloads.formats._table import columns, read
from workloads.programs.readers._beside import Beside, beside, is_beside, optional, texts
from workloads.programs.readers._links import ASSUMED, assumed, told
from workloads.programs.readers._timed import Event, Thread, scripted
from workloads.programs.readers.base import Reading, each
from workloads.programs.script import TOOL, USER, Call, Recorded, Script, ToolUse

SESSION, AT, INPUT, OUTPUT = "session_id", "arrival_s", "input_tokens", "output_tokens"
AGENTS = ("agent_id", "sidechain")
LENGTHS = ("api_time_s", "llm_latency_s")
CAUSES = ("trigger", "input_types")
BEGUN = "session_start_unix"
TOOLS, TOOK = "tools", "tool_latency_s"
OPTIONAL = (*AGENTS, *LENGTHS, *CAUSES, *REFERENCES, *LISTS, BEGUN, TOOLS, TOOK)
MAIN = ("main", "false", "")


@dataclass
class Calls:
    def sniff(self, source: Source) -> bool:
        names = columns(source)
        return is_beside(names) or {SESSION, AT, INPUT, OUTPUT} <= names

    def read(self, sources: Sequence[Source], how: Reading) -> Recorded:
        tables = [source for source in sources if not is_beside(columns(source))]
        if not tables:
            sources[0].fail("there is no table of calls among the files, only what stands beside one")
        extra = beside([source for source in sources if source not in tables])
        return each(tables, how, lambda source: _Table(source, extra).recorded())


class _Table:
    """One table of calls: its columns as lists."""

    def __init__(self, source: Source, extra: Beside):
        self.source, self.extra = source, extra
        source.identity = True
        self.sheet = sheet = read(source, ((SESSION,), (AT,), (INPUT,), (OUTPUT,)), OPTIONAL)
        found = rows(sheet, numbers(sheet, AT), INPUT, OUTPUT, SESSION)
        assert found.arrival is not None
        self.session, self.at = found.session.tolist(), found.arrival.tolist()
        for row, number in enumerate(self.session):
            if number < 0:
                sheet.wrong(row, f"{SESSION} is empty; the session that the call belongs to is wanted")
        self.content = identified(sheet, found, SESSION).content
        name = sheet.first(LENGTHS)
        self.length = optional(sheet, name) if name else [math.nan] * len(self.at)
        source.findings.stop()
        self.prompt, self.output = found.prompt.tolist(), found.output.tolist()
        self.names, which = texts(sheet, SESSION), sheet.first(AGENTS)
        self.agents = texts(sheet, which) if which else [""] * len(self.at)

    def recorded(self) -> Recorded:
        """Its sessions in order of appearance."""
        groups: dict[int, list[int]] = {}
        for row, number in enumerate(self.session):
            groups.setdefault(number, []).append(row)
        events, starts = self._events(), self._starts(groups)
        sessions: list[Script] = []
        calls: list[Call] = []
        threads = [-1] * len(self.at)
        count = 0
        for members in groups.values():
            name = self.names[members[0]]
            parts = self._split(name, members, events)
            for agent, (_, thread) in enumerate(parts):
                for event in thread.events:
                    threads[event.row] = count + agent
            count += len(parts)
            made = scripted([thread for _, thread in parts], len(calls))
            system = tuple(self.extra.system.get((name, agent), 0) for agent, _ in parts)
            sessions.append(Script(name, starts[name], len(calls), len(made), ("main", *(agent for agent, _ in parts[1:])), system,
                                   tuple(thread.parent for _, thread in parts)))  # fmt: skip
            calls += made
        if self.content is None:
            shares = assumed(threads, self.at, self.prompt, self.output)
        else:
            shares = told(self.content)
        return Recorded(sessions, calls, shares, self._remarks())

    def _split(self, name: str, members: list[int], events: list[Event]) -> list[tuple[str, Thread]]:
        """(agent, thread) of a session, the main one first."""
        agents = list(dict.fromkeys(self.agents[row] for row in members))
        main = next((agent for agent in agents if agent.lower() in MAIN), agents[0])
        found = {agent: Thread([]) for agent in (main, *agents)}
        seen: list[Event] = []
        for row in members:
            agent = self.agents[row]
            thread = found[agent]
            if agent == main:
                seen.append(events[row])
            elif not thread.events:
                thread.parent, thread.behind, thread.ended = 0, len(seen), True
                thread.duration = self.extra.duration.get((name, agent), math.nan)
            thread.events.append(events[row])
        for thread in found.values():
            thread.events.sort(key=lambda event: event.at)
        return list(found.items())

    def _events(self) -> list[Event]:
        sheet, count = self.sheet, len(self.at)
        name = sheet.first(CAUSES)
        causes = [_cause(text) for text in texts(sheet, name)] if name else [TOOL] * count
        asked = texts(sheet, TOOLS) if TOOLS in sheet.columns else [""] * count
        took = optional(sheet, TOOK) if TOOLS in sheet.columns and TOOK in sheet.columns else [math.nan] * count
        steps: dict[int, int] = {}
        events = []
        for row, session in enumerate(self.session):
            step = steps[session] = steps.get(session, -1) + 1
            tools = tuple(self.extra.tools.get((self.names[row], step), ()))
            if not tools and asked[row] and took[row] == took[row]:
                tools = tuple(ToolUse(tool, 0.0, took[row]) for tool in asked[row].split("+"))
            events.append(Event(self.at[row], self.length[row], self.prompt[row], self.output[row], causes[row], row,
                                int(sheet.line[row]), tools))  # fmt: skip
        return events

    def _starts(self, groups: dict[int, list[int]]) -> dict[str, float]:
        """When each session began, NaN where nothing tells."""
        first = {self.names[members[0]]: min(self.at[row] for row in members) for members in groups.values()}
        if BEGUN in self.sheet.columns:
            begun = dict(zip(self.names, numbers(self.sheet, BEGUN).tolist(), strict=True))
        elif self.extra.start:
            begun = {name: self.extra.start.get(name, math.nan) for name in first}
        else:
            alike = len(first) > 1 and len(set(first.values())) == 1
            return {name: math.nan if alike else at for name, at in first.items()}
        least = min((at for at in begun.values() if at == at), default=0.0)
        return {name: at - least for name, at in begun.items()}

    def _remarks(self) -> list[str]:
        said, name = [], self.source.name
        untold = sum(length != length for length in self.length)
        if untold:
            share = f"{untold} of {len(self.length)} calls"
            said.append(f"{name}: of {share} it is not told how long the answer took; the wait after such a call holds that time too")
        if self.content is None:
            said.append(f"{name}: {ASSUMED}")
        return said


def _cause(text: str) -> str:
    """What a call waited for, by the column `trigger` or `input_types`."""
    return USER if text and "tool" not in text.lower() else TOOL
