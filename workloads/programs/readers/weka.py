"""Sessions of coding agents as kv-cache-tester records them (also semianalysisai/cc-traces-weka): one JSON object per session.

A file holds one session, a list of them, or one on each line; a folder of such files is a recording too. `requests` have `t` (s from the
session's start), `in`, `out`, `hash_ids` and `api_time` (s). An entry of `type: subagent` has `requests` of its own, whose times count from
the session's start or, when the first of them is before its own `t`, from there. What a sub-agent's time means is told in `_timed.py`.
"""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.formats._ids import IDS, WEKA, hashed
from workloads.formats._records import records
from workloads.formats._sheet import Sheet
from workloads.formats._source import Source
from workloads.programs.readers._links import ASSUMED, assumed, told
from workloads.programs.readers._timed import Event, Thread, scripted
from workloads.programs.readers.base import Reading, each
from workloads.programs.script import TOOL, USER, Call, Recorded, Script

SUB = "subagent"


@dataclass
class Weka:
    def sniff(self, source: Source) -> bool:
        head = source.data[: 1 << 20].lstrip()
        return head.startswith((b"{", b"[")) and b'"requests"' in head and (b'"hash_id_scope"' in head or b'"api_time"' in head)

    def read(self, sources: Sequence[Source], how: Reading) -> Recorded:
        return each(sources, how, lambda source: _File(source).recorded())


class _File:
    """One file; `ids` are the ids of each request or None, `threads` and `times` the agent and the time of each."""

    def __init__(self, source: Source):
        self.source = source
        source.unit = "row"
        self.ids: list[Any] = []
        self.scopes: list[int] = []
        self.events: list[Event] = []
        self.threads: list[int] = []
        self.count = 0

    def recorded(self) -> Recorded:
        found, sessions, calls = self._sessions(), list[Script](), list[Call]()
        for number, session in enumerate(found):
            name = str(session.get("id", number))
            parts: list[tuple[str, Thread, int]] = []
            self._agent("main", session, (parts, -1, 0, 0.0), number)
            empty = [kind for kind, thread, _ in parts if not thread.events]
            if empty:
                self.source.findings.add(f"session {name}: agent {empty[0]} has no request of its own")
                continue
            made = scripted([thread for _, thread, _ in parts], len(calls))
            sessions.append(Script(name, math.nan, len(calls), len(made), tuple(kind for kind, _, _ in parts),
                                   tuple(system for _, _, system in parts), tuple(thread.parent for _, thread, _ in parts)))  # fmt: skip
            calls += made
        self.source.findings.stop()
        counts = [event.prompt for event in self.events], [event.output for event in self.events]
        if any(ids is not None for ids in self.ids):
            sheet = Sheet(self.source, [IDS], {IDS: self.ids}, np.arange(1, len(self.ids) + 1))
            scope = None if {session.get("hash_id_scope") for session in found} == {"global"} else np.array(self.scopes, dtype=np.int64)
            blocks = hashed(sheet, np.array(counts[0], dtype=np.int64), self._size(found), all_blocks=False, scope=scope)
            self.source.findings.stop()
            assert blocks is not None
            return Recorded(sessions, calls, told(blocks), [])
        shares = assumed(self.threads, [event.at for event in self.events], *counts)
        return Recorded(sessions, calls, shares, [f"{self.source.name}: {ASSUMED}"])

    def _sessions(self) -> list[dict[str, Any]]:
        try:
            whole = json.loads(self.source.data)
        except ValueError:
            return records(self.source)[0]
        found = whole if isinstance(whole, list) else [whole]
        if not found or not all(isinstance(session, dict) for session in found):
            self.source.fail("a session, or a list of sessions, is wanted; each is a JSON object with a list `requests`")
        return found

    def _agent(
        self, kind: str, entry: dict[str, Any], place: tuple[list[tuple[str, Thread, int]], int, int, float], scope: int
    ) -> None:
        """Add an agent and those that work for it; `place` is where to, its parent, how many calls of that came before it, its origin."""
        parts, parent, behind, origin = place
        requests = entry.get("requests")
        if not isinstance(requests, list) or not all(isinstance(one, dict) for one in requests):
            self.source.fail(f"{kind} of session {scope + 1} has no list `requests` of JSON objects")
        own = len(parts)
        if kind == "main" or requests:
            thread = Thread([], parent, behind, ended=True)
            parts.append((kind, thread, sum(_tokens(entry.get(key)) for key in ("tool_tokens", "system_tokens"))))
            self.count += 1
            row = self.count - 1
        if isinstance(entry.get("duration_ms"), int | float):
            thread.duration = entry["duration_ms"] / 1000
        for one in requests:
            if one.get("type") != SUB:
                thread.events.append(self._event(one, origin, scope, row))
                continue
            inner = one.get("requests")
            first = inner[0].get("t") if isinstance(inner, list) and inner and isinstance(inner[0], dict) else None
            time = self._time(one, "t")
            relative = isinstance(first, int | float) and first < time
            name = str(one.get("subagent_type") or one.get("agent_id") or SUB)
            self._agent(name, one, (parts, own, len(thread.events), origin + time if relative else origin), scope)

    def _event(self, one: dict[str, Any], origin: float, scope: int, thread: int) -> Event:
        row = len(self.events)
        took = self._time(one, "api_time") if one.get("api_time") is not None else math.nan
        prompt, output = (self._count(one, key) for key in ("in", "out"))
        kinds = one.get("input_types") or ["tool_result"]
        cause = TOOL if any("tool" in str(kind) for kind in kinds) else USER
        event = Event(self._time(one, "t") + origin, took, prompt, output, cause, row, row + 1)
        self.events.append(event)
        self.ids.append(one.get(IDS))
        self.scopes.append(scope)
        self.threads.append(thread)
        return event

    def _time(self, one: dict[str, Any], key: str) -> float:
        value = one.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            self.source.findings.add(f"row {len(self.events) + 1}: {key} is {value!r:.60}; seconds from 0 are wanted")
            return 0.0
        return float(value)

    def _count(self, one: dict[str, Any], key: str) -> int:
        value = one.get(key)
        if type(value) is not int:
            self.source.findings.add(f"row {len(self.events) + 1}: {key} is {value!r:.60}; a whole number of tokens is wanted")
            return 1
        return value

    def _size(self, sessions: Sequence[dict[str, Any]]) -> int:
        sizes = [session.get("block_size", WEKA) for session in sessions]
        odd = next((size for size in sizes if type(size) is not int or size < 1 or size != sizes[0]), None)
        if odd is not None:
            self.source.fail(f"block_size is {odd!r}; one whole number of tokens from 1 is wanted for all sessions")
        return int(sizes[0])


def _tokens(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
