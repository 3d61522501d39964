"""OpenTelemetry's spans of generative AI (semantic conventions, in development), as inference-perf's replay reads them.

A file holds `{trace_id, spans[]}`, a list of such, or one on each line. Spans whose operation is `chat` (also text_completion,
generate_content) are calls, `execute_tool` are tools, and `invoke_agent` (create_agent) is an agent, which makes all calls below it down to
the next such span. A trace is a session, or several of one `gen_ai.conversation.id`. Who waited for whom follows from the times; a prompt
is taken to begin with the one before it of its agent and its answer.
"""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from sim.core.errors import did_you_mean
from workloads.formats._records import records
from workloads.formats._source import Source
from workloads.programs.readers._links import ASSUMED, assumed
from workloads.programs.readers._timed import Event, Thread, scripted
from workloads.programs.readers.base import Reading, each
from workloads.programs.script import TOOL, Call, Recorded, Script, ToolUse, cycle

OPERATION = "gen_ai.operation.name"
CALLS = ("chat", "text_completion", "generate_content")
AGENTS = ("invoke_agent", "create_agent")
TOOLS = ("execute_tool",)
INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
CONVERSATION, AGENT, TOOL_NAME = "gen_ai.conversation.id", "gen_ai.agent.name", "gen_ai.tool.name"


class Span(NamedTuple):
    """`start` and `end` in seconds since 1970; `operation` by its attribute or by the first word of its name; `number` counts from 1."""

    id: str
    parent: str
    name: str
    operation: str
    start: float
    end: float
    attributes: dict[str, Any]
    number: int


@dataclass
class Otel:
    uses: ClassVar[tuple[str, ...]] = ("output",)

    def sniff(self, source: Source) -> bool:
        head = source.data[: 1 << 20].lstrip()
        return head.startswith((b"{", b"[")) and b'"spans"' in head and (b'"span_id"' in head or b"gen_ai." in head)

    def read(self, sources: Sequence[Source], how: Reading) -> Recorded:
        return each(sources, how, lambda source: _File(source, how).recorded())


class _File:
    def __init__(self, source: Source, how: Reading):
        self.source, self.how = source, how
        source.unit = "row"
        self.events: list[Event] = []
        self.threads: list[int] = []
        self.count = self.spans = 0

    def recorded(self) -> Recorded:
        """A script for each trace or conversation."""
        groups: dict[str, list[Span]] = {}
        for number, trace in enumerate(self._traces()):
            spans = [span for one in trace["spans"] for span in [self._span(one)] if span is not None]
            self._tree(str(trace.get("trace_id", number)), spans)
            name = next((str(span.attributes[CONVERSATION]) for span in spans if CONVERSATION in span.attributes), "")
            groups.setdefault(name or str(trace.get("trace_id", number)), []).extend(spans)
        self.source.findings.stop()
        sessions: list[Script] = []
        calls: list[Call] = []
        for name, spans in groups.items():
            kinds, threads = self._agents(spans)
            if not threads:
                self.source.findings.add(f"trace {name} has no span of a call ({', '.join(CALLS)})")
                continue
            start = min(thread.events[0].at for thread in threads)
            made = scripted(threads, len(calls))
            sessions.append(Script(name, start, len(calls), len(made), kinds, (0,) * len(kinds),
                                   tuple(thread.parent for thread in threads)))  # fmt: skip
            calls += made
        self.source.findings.stop()
        origin = min(script.start for script in sessions)
        sessions = [script._replace(start=script.start - origin) for script in sessions]
        shares = assumed(self.threads, [event.at for event in self.events], [event.prompt for event in self.events],
                         [event.output for event in self.events])  # fmt: skip
        return Recorded(sessions, calls, shares, [f"{self.source.name}: {ASSUMED}"])

    def _traces(self) -> list[dict[str, Any]]:
        try:
            whole = json.loads(self.source.data)
        except ValueError:
            whole = records(self.source)[0]
        found = whole if isinstance(whole, list) else [whole]
        if not found or not all(isinstance(one, dict) and isinstance(one.get("spans"), list) and one["spans"] for one in found):
            self.source.fail("a trace, or a list of traces, is wanted; each is a JSON object with a list `spans` of at least one")
        return found

    def _span(self, one: Any) -> Span | None:
        self.spans += 1
        where = f"span {self.spans}"
        if not isinstance(one, dict) or not one.get("span_id"):
            self.source.findings.add(f"{where} has no span_id")
            return None
        attributes = one.get("attributes") or {}
        start, end = (_time(one.get(key)) for key in ("start_time", "end_time"))
        for key, value in (("start_time", start), ("end_time", end)):
            if value != value:
                self.source.findings.add(f"{where}: {key} is {one.get(key)!r:.60}; a time such as 2026-02-25T10:00:00.5 is wanted")
        if end < start:
            self.source.findings.add(f"{where} ends {start - end:g} s before it begins")
        name = str(one.get("name", ""))
        operation = str(attributes.get(OPERATION) or name.split(" ")[0])
        return Span(str(one["span_id"]), str(one.get("parent_span_id") or ""), name, operation, start, end, attributes, self.spans)

    def _tree(self, trace: str, spans: Sequence[Span]) -> None:
        """Find parents that are missing, and spans above themselves."""
        place = {span.id: at for at, span in enumerate(spans)}
        for span in spans:
            if span.parent and span.parent not in place:
                near = did_you_mean(span.parent, place)
                self.source.findings.add(f"span {span.number} ({span.id}) of trace {trace}: its parent {span.parent} is missing; {near}")
        ring = cycle([[place[span.parent]] if span.parent in place else [] for span in spans])
        if ring:
            names = " -> ".join(spans[at].id for at in (*ring, ring[0]))
            self.source.findings.add(f"spans of trace {trace} are each other's parents: {names}")

    def _agents(self, spans: Sequence[Span]) -> tuple[tuple[str, ...], list[Thread]]:
        """Kinds and threads of the agents that made calls, the main one first."""
        known = {span.id: span for span in spans}
        by_agent: dict[str, list[Span]] = {}
        for span in sorted(spans, key=lambda span: span.start):
            if span.operation in (*CALLS, *TOOLS):
                by_agent.setdefault(_agent(span, known), []).append(span)
        makers = [agent for agent, made in by_agent.items() if any(span.operation in CALLS for span in made)]
        # Whoever is above others comes first.
        makers.sort(key=lambda agent: len(_above(agent, known)))
        threads: list[Thread] = []
        for agent in makers:
            above = next((one for one in _above(agent, known) if one in makers), None)
            parent = -1 if not threads else makers.index(above) if above is not None else 0
            calls = [span for span in by_agent[agent] if span.operation in CALLS]
            tools = [span for span in by_agent[agent] if span.operation in TOOLS]
            thread = Thread(self._events(calls, tools), parent)
            if parent >= 0:
                begin = thread.events[0].at
                thread.behind = sum(event.end <= begin for event in threads[parent].events)
            threads.append(thread)
            self.threads += [self.count] * len(calls)
            self.count += 1
        return ("main", *(_kind(agent, known) for agent in makers[1:])), threads

    def _events(self, calls: Sequence[Span], tools: Sequence[Span]) -> list[Event]:
        events = []
        for span in calls:
            asked = [tool for tool in tools if _before(tool, calls) is span]
            uses = tuple(ToolUse(_tool(tool), max(0.0, tool.start - span.end), tool.end - tool.start) for tool in asked)
            prompt, output = self._usage(span, INPUT, None), self._usage(span, OUTPUT, self.how.output)
            event = Event(span.start, span.end - span.start, prompt, output, TOOL, len(self.events), span.number, uses)
            events.append(event)
            self.events.append(event)
        return events

    def _usage(self, span: Span, names: Sequence[str], default: int | None) -> int:
        value = next((span.attributes[name] for name in names if span.attributes.get(name) is not None), default)
        if type(value) is not int or value < 0:
            found = "missing" if value is None else f"{value!r:.60}"
            self.source.findings.add(f"span {span.number} ({span.name}): {names[0]} is {found}; a whole number of tokens is wanted")
            return 1
        return value


def _time(value: Any) -> float:
    """Seconds since 1970 of a date and time in text (UTC without a zone) or of nanoseconds; NaN for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**15:
        return value / 1e9
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _above(span: str, known: dict[str, Span]) -> list[str]:
    """The agents above a span (or agent), the nearest first, and last the one above all, which is ''."""
    found = []
    while span:
        span = known[span].parent
        if not span or known[span].operation in AGENTS:
            found.append(span)
    return found


def _agent(span: Span, known: dict[str, Span]) -> str:
    return _above(span.id, known)[0]


def _before(tool: Span, calls: Sequence[Span]) -> Span:
    """The call that asked for a tool: the last to end before it began, else the first."""
    return max((call for call in calls if call.end <= tool.start), key=lambda call: call.end, default=calls[0])


def _kind(agent: str, known: dict[str, Span]) -> str:
    span = known[agent]
    return str(span.attributes.get(AGENT) or span.name.partition(" ")[2] or span.name)


def _tool(span: Span) -> str:
    return str(span.attributes.get(TOOL_NAME) or span.name.partition(" ")[2] or span.name)
