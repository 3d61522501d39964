"""AIPerf's multi-turn JSON lines, with sub-agents: one session a line, `session_id` and `turns` (AIPerf 0.13.0, DAG JSONL).

A turn is sent `delay` milliseconds after the answer to the one before (or after the line's `think_time_ms`). `spawns` of a turn name the
sessions that begin when it is answered, side by side, in contexts of their own; the turn `join_at` (counted from 0) waits for all of them,
the next one where it is not given, none where it is null. Sessions in `forks` go on in the context of the turn that names them, and nobody
waits for them. A session that none names is a root, with all it spawns.

A turn's text is new in its prompt, which begins with the turn before and its answer; with `prompts: whole` it is all of it. Its tokens are
`input_length`, else those of `text`, `texts` or `messages` by their characters; an answer has `output_length` or `max_tokens`.
"""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sim.core.errors import did_you_mean
from workloads.formats._records import first_record, records
from workloads.formats._source import Source
from workloads.programs.readers.base import Reading, each
from workloads.programs.script import JOIN, SPAWN, TOOL, USER, Call, Recorded, Script, Shares, cycle

SESSION, TURNS = "session_id", "turns"


@dataclass
class AiperfDag:
    uses: ClassVar[tuple[str, ...]] = ("characters", "whole", "output")

    def sniff(self, source: Source) -> bool:
        return TURNS in first_record(source.data[: 1 << 20])

    def read(self, sources: Sequence[Source], how: Reading) -> Recorded:
        return each(sources, how, lambda source: _File(source, how).recorded())


@dataclass
class _Session:
    """A line. `parent` session and its turn `at`; `fork`: in the context of that turn. `calls`: their numbers, once there are any."""

    name: str
    line: int
    record: dict[str, Any]
    turns: list[dict[str, Any]]
    parent: int = -1
    at: int = 0
    fork: bool = False
    children: list[int] = field(default_factory=list)
    joins: dict[int, list[int]] = field(default_factory=dict)
    first: int = -1


class _File:
    def __init__(self, source: Source, how: Reading):
        self.source, self.how = source, how
        self.estimated = 0
        self.sessions: list[_Session] = []
        self.places: dict[str, int] = {}
        for record, line in zip(*records(source), strict=True):
            self._line(record, int(line))
        source.findings.stop()
        for number in range(len(self.sessions)):
            self._children(number)
        source.findings.stop()
        ring = cycle([session.children for session in self.sessions])
        if ring:
            names = [self.sessions[number].name for number in (*ring, ring[0])]
            self.source.fail(f"sessions spawn each other in a ring: {' -> '.join(names)}", self.sessions[ring[0]].line)
        self.calls: list[Call] = []
        # What prompts share, as in `Shares`: its three columns.
        self.shares: tuple[list[int], list[int], list[int]] = [], [], []

    def recorded(self) -> Recorded:
        """A script for each root, with all that it spawns."""
        scripts = []
        for number, session in enumerate(self.sessions):
            if session.parent >= 0:
                continue
            family = self._family(number)
            first = len(self.calls)
            for agent, one in enumerate(family):
                self.sessions[one].first = len(self.calls) + sum(len(self.sessions[earlier].turns) for earlier in family[:agent])
            for agent, one in enumerate(family):
                self._calls(self.sessions[one], agent)
            kinds = ("main", *(self.sessions[one].name for one in family[1:]))
            start = self._number(session, session.turns[0], "timestamp")
            parents = (-1, *(family.index(self.sessions[one].parent) for one in family[1:]))
            scripts.append(Script(session.name, start / 1000, first, len(self.calls) - first, kinds, (0,) * len(family), parents))
        origin = min((script.start for script in scripts if script.start == script.start), default=0.0)
        said = f"{self.source.name}: of {self.estimated} texts the tokens are counted as {self.how.characters:g} characters each"
        scripts = [script._replace(start=script.start - origin) for script in scripts]
        return Recorded(scripts, self.calls, Shares(*self.shares, True), [said] if self.estimated else [])

    # -- the graph ------------------------------------------------------------
    def _line(self, record: dict[str, Any], line: int) -> None:
        turns, name = record.get(TURNS), str(record.get(SESSION, f"line {line}"))
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
            self.source.findings.add(f"session {name} has no {TURNS}; a list of at least one JSON object is wanted", line)
        elif name in self.places:
            self.source.findings.add(f"session {name} is on line {self.sessions[self.places[name]].line} too; names must differ", line)
        elif record.get("rounds") not in (None, 1):
            self.source.findings.add("rounds are not read; write the turns out, and leave rounds away", line)
        else:
            self.places[name] = len(self.sessions)
            self.sessions.append(_Session(name, line, record, turns))

    def _children(self, number: int) -> None:
        session = self.sessions[number]
        for at, turn in enumerate(session.turns):
            for group in self._list(session, turn, "spawns"):
                if not isinstance(group, dict) or not isinstance(group.get("children"), list):
                    self.source.findings.add(f"spawns of turn {at} are wanted as {{children: [names], join_at: turn}}", session.line)
                    continue
                join = group.get("join_at", at + 1)
                if join is not None and (type(join) is not int or not at < join <= len(session.turns)):
                    what = f"join_at is {join!r}; a turn after {at}, at most {len(session.turns)} for the end, or null is wanted"
                    self.source.findings.add(what, session.line)
                    continue
                for name in group["children"]:
                    child = self._child(number, at, str(name))
                    if child is not None and join is not None:
                        session.joins.setdefault(join, []).append(child)
            for name in self._list(session, turn, "forks"):
                child = self._child(number, at, str(name))
                if child is not None:
                    self.sessions[child].fork = True

    def _child(self, number: int, at: int, name: str) -> int | None:
        session = self.sessions[number]
        if name not in self.places:
            near = did_you_mean(name, self.places)
            self.source.findings.add(f"turn {at} of session {session.name} spawns '{name}', which has no line; {near}", session.line)
            return None
        child = self.sessions[self.places[name]]
        if child.parent >= 0:
            other = self.sessions[child.parent].name
            self.source.findings.add(f"session {name} is spawned by {other} and by {session.name}; one parent is wanted", session.line)
            return None
        child.parent, child.at = number, at
        session.children.append(self.places[name])
        return self.places[name]

    def _family(self, root: int) -> list[int]:
        found, left = [], [root]
        while left:
            found.append(left.pop())
            left += reversed(self.sessions[found[-1]].children)
        return found

    # -- calls ------------------------------------------------------------
    def _calls(self, session: _Session, agent: int) -> None:
        parent = self.sessions[session.parent] if session.parent >= 0 else None
        think = self._number(session, session.record, "think_time_ms")
        for at, turn in enumerate(session.turns):
            number = len(self.calls)
            before = number - 1 if at else parent.first + session.at if parent is not None else -1
            joined = [self.sessions[child] for child in session.joins.get(at, ())]
            after = [before] if before >= 0 else []
            after += [child.first + len(child.turns) - 1 for child in joined]
            delay = self._number(session, turn, "delay")
            wait = next((time / 1000 for time in (delay, think if at else math.nan) if time == time), 0.0)
            cause = JOIN if joined else (USER if think == think else TOOL) if at else USER if parent is None else SPAWN
            ref = before if at or session.fork else -1
            prompt, output = self._tokens(session, turn, at)
            shared = 0
            if ref >= 0:
                past = self.shares[2][ref] + self.calls[ref].output
                prompt += 0 if self.how.whole else past
                shared = min(past, prompt)
            for column, value in zip(self.shares, (ref, shared, prompt), strict=True):
                column.append(value)
            self.calls.append(Call(agent, prompt, output, wait, tuple(after), cause, number, session.line, wait if at else math.nan))

    def _tokens(self, session: _Session, turn: dict[str, Any], at: int) -> tuple[int, int]:
        """(new in the prompt, answer) of a turn."""
        where = f"turn {at} of session {session.name}"
        prompt = turn.get("input_length", turn.get("input_tokens"))
        if prompt is None:
            text = _text([turn.get(key) for key in ("text", "texts", "messages")]) + _tools(turn.get("tools"))
            if not text:
                self.source.findings.add(f"{where} has no text, texts, messages or input_length", session.line)
            self.estimated += 1
            prompt = max(1, math.ceil(len(text) / self.how.characters))
        output = next((turn[key] for key in ("output_length", "max_tokens", "max_completion_tokens") if turn.get(key) is not None),
                      self.how.output)  # fmt: skip
        if output is None:
            what = f"{where} has no output_length or max_tokens; `output_tokens` says how long such answers are"
            self.source.findings.add(what, session.line)
        for name, value in (("input_length", prompt), ("output_length", output)):
            if value is not None and (type(value) is not int or value < 0):
                self.source.findings.add(f"{name} of {where} is {value!r:.60}; a whole number of tokens is wanted", session.line)
        return prompt if type(prompt) is int else 1, output if type(output) is int else 1

    def _number(self, session: _Session, holder: dict[str, Any], key: str) -> float:
        """Milliseconds, NaN where there are none."""
        value = holder.get(key)
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            self.source.findings.add(f"{key} of session {session.name} is {value!r:.60}; milliseconds from 0 are wanted", session.line)
            return math.nan
        return float(value)

    def _list(self, session: _Session, turn: dict[str, Any], key: str) -> list[Any]:
        value = turn.get(key) or []
        if not isinstance(value, list):
            self.source.findings.add(f"{key} of session {session.name} is {value!r:.60}; a list is wanted", session.line)
            return []
        return value


def _text(value: Any) -> str:
    """All text within messages, their contents and parts of contents."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text, value))
    return _text([value.get("content"), value.get("text")]) if isinstance(value, dict) else ""


def _tools(value: Any) -> str:
    return "" if value is None else json.dumps(value)
