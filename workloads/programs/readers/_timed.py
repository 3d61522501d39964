"""Scripts from recordings that tell when each call was sent and how long its answer took: who waited for whom follows from the times.

Within one context a call waits for all calls that had ended when it was sent, so calls that overlap are replayed side by side. Times that
are whole seconds overlap by rounding; up to `ROUNDING` is taken for that. Where the length of an answer is not told it counts as 0, so the
wait after it holds the answer's time too.

A sub-agent is spawned by the call of its parent written before it. Claude Code's recordings (kv-cache-tester) give as its time when it was
over: in 25 of the 27 places of the shared recording where there are any, the parent's next prompt has grown by about as many tokens as the
sub-agents' last answers had, and time minus duration is the end of the call before. So where a sub-agent would overlap the call written
after it, and would not the one before if its time were that of its end, it begins that much earlier and the parent's next call waits for
it. Else its times hold, and the first call of the parent sent after it was over waits for it.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from workloads.programs.script import JOIN, SPAWN, USER, Call, ToolUse

ROUNDING = 1.0


class Event(NamedTuple):
    """A call as recorded: sent at `at` (s from the session's origin), answered `length` seconds later, NaN if untold. Its answer asked for
    `tools`.
    """

    at: float
    length: float
    prompt: int
    output: int
    cause: str
    row: int
    line: int
    tools: tuple[ToolUse, ...] = ()

    @property
    def end(self) -> float:
        return self.at + (self.length if self.length == self.length else 0.0)


@dataclass
class Thread:
    """One agent's calls in order of time. `parent`: number of the thread that spawned it, -1: none; `behind`: how many calls of the parent
    are written before it. `duration`: seconds it took as told, NaN if untold. `ended`: its time may be that of its end.
    """

    events: list[Event]
    parent: int = -1
    behind: int = 0
    duration: float = math.nan
    ended: bool = False

    @property
    def end(self) -> float:
        return max(event.end for event in self.events)


def scripted(threads: Sequence[Thread], first: int) -> list[Call]:
    """The calls of one session, numbered from `first`, thread after thread; a thread comes after its parent, and has calls."""
    joins: dict[tuple[int, int], list[int]] = {}
    for number, thread in enumerate(threads):
        if thread.parent >= 0:
            _settle(threads, number, joins)
    session = _Session(threads, list(accumulate((len(thread.events) for thread in threads), initial=first)), joins)
    origin = min(thread.events[0].at for thread in threads)
    return [call for number in range(len(threads)) for call in _calls(session, number, origin)]


class _Session(NamedTuple):
    """`bases`: the number of each thread's first call. `joins`: by (thread, its call), the threads whose ends it waits for."""

    threads: Sequence[Thread]
    bases: list[int]
    joins: dict[tuple[int, int], list[int]]

    def call(self, thread: int, at: int) -> tuple[int, float]:
        """Number and end of a call."""
        return self.bases[thread] + at, self.threads[thread].events[at].end

    def last(self, thread: int) -> tuple[int, float]:
        """Number and end of the call of a thread that ended last."""
        events = self.threads[thread].events
        return self.call(thread, max(range(len(events)), key=lambda at: events[at].end))


def _settle(threads: Sequence[Thread], number: int, joins: dict[tuple[int, int], list[int]]) -> None:
    """Move a sub-agent, and those that work for it, to when it ran, and note which call of its parent waits for it."""
    thread = threads[number]
    events, begin = threads[thread.parent].events, thread.events[0].at
    length = thread.duration if thread.duration == thread.duration else thread.end - begin
    before = events[thread.behind - 1].end if thread.behind else math.inf
    after = thread.behind if thread.behind < len(events) else None
    overlaps = after is not None and thread.end > events[after].at + ROUNDING
    if thread.ended and overlaps and begin - length >= before - ROUNDING:
        shift, moved = min(length, begin - before), [number]
        for place in range(number, len(threads)):
            if place in moved or threads[place].parent in moved:
                moved.append(place)
                threads[place].events = [event._replace(at=event.at - shift) for event in threads[place].events]
    else:
        end = thread.end
        after = next((at for at, event in enumerate(events) if at >= thread.behind and event.at >= end - ROUNDING), None)
    if after is not None:
        joins.setdefault((thread.parent, after), []).append(number)


def _calls(session: _Session, number: int, origin: float) -> list[Call]:
    """The calls of one thread."""
    thread = session.threads[number]
    events, calls = thread.events, list[Call]()
    front: list[int] = []  # those that no call of the thread has waited for
    for at, event in enumerate(events):
        ended = [one for one in front if events[one].end <= event.at + ROUNDING]
        since, idle = origin, math.nan
        after = [session.call(number, one) for one in ended]
        if ended:
            idle = max(0.0, event.at - max(events[one].end for one in ended))
        elif calls:
            # It overlaps all that is under way, so it waits for what the first of these did.
            other = calls[front[0]]
            since = events[front[0]].at - other.wait
            after = [(one, since) for one in other.after]
        elif thread.parent >= 0 and thread.behind:
            after = [session.call(thread.parent, thread.behind - 1)]
        front = [one for one in front if one not in ended] + [at]
        joined = session.joins.get((number, at), [])
        after += [session.last(child) for child in joined]
        wait = max(0.0, event.at - max((end for _, end in after), default=since))
        cause = JOIN if joined else event.cause if calls else SPAWN if thread.parent >= 0 else USER
        waits = tuple(dict.fromkeys(one for one, _ in after))
        tools = tuple(tool for one in ended for tool in events[one].tools)
        calls.append(Call(number, event.prompt, event.output, wait, waits, cause, event.row, event.line, idle, tools))
    return calls
