"""Sessions of coding agents as kv-cache-tester records them (also semianalysisai/cc-traces-weka): one JSON object per session.

A file holds one session, a list of them, or one on each line. A session has `id`, `block_size` (64 tokens), `hash_id_scope` and `requests`:
`t` (seconds from its start), `in`, `out`, `hash_ids`; ids of scope `local` mean something within one session only. An entry of `type:
subagent` has requests of its own, whose times count from the session's start or, when the first of them is before the sub-agent's own `t`,
from there. All sessions begin at 0; rows are in order of time.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.formats._ids import IDS, WEKA, hashed
from workloads.formats._records import records
from workloads.formats._sheet import AGENT, Sheet, numbers, rows
from workloads.formats._source import Source
from workloads.formats.base import Rows

MAIN = "main"


@dataclass
class Weka:
    def sniff(self, path: str, head: bytes) -> bool:
        return head.lstrip().startswith((b"{", b"[")) and b'"hash_id_scope"' in head and b'"requests"' in head

    def read(self, source: Source) -> Rows:
        source.unit = "row"
        sessions = _sessions(source)
        table: list[tuple[Any, ...]] = []
        for number, session in enumerate(sessions):
            if not isinstance(session.get("requests"), list):
                source.fail(f"session {number + 1} has no list `requests`")
            name = str(session.get("id", number))
            table += [(number, name, *row) for row in _requests(source, session["requests"])]
        if not table:
            source.fail("no session of it has a request")
        keys = ("scope", "session_id", AGENT, "t", "in", "out", IDS)
        columns = {key: [row[at] for row in table] for at, key in enumerate(keys)}
        sheet = Sheet(source, ["t", "in", "out", IDS], columns, np.arange(1, len(table) + 1))
        found = rows(sheet, numbers(sheet, "t"), "in", "out", "session_id")
        if source.identity:
            scopes = {session.get("hash_id_scope") for session in sessions}
            scope = None if scopes == {"global"} else np.array(columns["scope"], dtype=np.int64)
            found = found._replace(content=hashed(sheet, found.prompt, _size(source, sessions), all_blocks=False, scope=scope))
        assert found.arrival is not None
        return found.pick(np.argsort(found.arrival, kind="stable"))


def _sessions(source: Source) -> list[dict[str, Any]]:
    try:
        whole = json.loads(source.data)
    except ValueError:
        return records(source)[0]
    found = whole if isinstance(whole, list) else [whole]
    if not all(isinstance(session, dict) for session in found):
        source.fail("a session, or a list of sessions, is wanted; each is a JSON object with a list `requests`")
    return found


def _requests(source: Source, entries: list[Any], agent: str = MAIN, start: float = 0.0) -> Iterator[tuple[Any, ...]]:
    """(agent, time, input, output, ids) of each request, those of sub-agents among them."""
    for entry in entries:
        if not isinstance(entry, dict):
            source.fail(f"found {str(entry)[:40]!r} in a list `requests`; JSON objects are wanted")
        time: Any = entry.get("t")
        if entry.get("type") != "subagent":
            yield agent, time + start if _number(time) else time, entry.get("in"), entry.get("out"), entry.get(IDS)
            continue
        inner = entry.get("requests")
        if not isinstance(inner, list):
            source.fail("an entry of type subagent has no list `requests`")
        first: Any = inner[0].get("t") if inner and isinstance(inner[0], dict) else None
        relative = _number(time) and _number(first) and first < time
        yield from _requests(source, inner, str(entry.get("agent_id", "subagent")), start + time if relative else start)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _size(source: Source, sessions: list[dict[str, Any]]) -> int:
    sizes = [session.get("block_size", WEKA) for session in sessions]
    odd = next((size for size in sizes if type(size) is not int or size < 1 or size != sizes[0]), None)
    if odd is not None:
        source.fail(f"block_size is {odd!r}; one whole number of tokens from 1 is wanted for all sessions")
    return int(sizes[0])
