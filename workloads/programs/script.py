"""A recorded session as a script to replay: which calls it made, what each waited for, and what its prompt shares with earlier ones.

The calls of a session form a graph without cycles. A call is sent `wait` seconds after the answers of all calls in `after` are there, so
that sub-agents in parallel, joins and forks are edges and nothing else. Tokens and seconds; numbers of calls count through the whole
recording, those of one session in a row.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

USER, TOOL, SPAWN, JOIN = "user", "tool", "spawn", "subagent"


class ToolUse(NamedTuple):
    """A tool that ran between two calls: `start` seconds after the answer that asked for it, for `seconds`."""

    name: str
    start: float
    seconds: float


class Call(NamedTuple):
    """`agent`: number of its agent within the session, 0 the main one. `after`: calls whose answers it waits for; none: it waits for the
    session's begin only.

    `cause`: what it waited for (a user, a tool, being spawned, sub-agents). `idle`: seconds, as recorded, from the answer before in its own
    context until it was sent, NaN where there is none. `tools` ran before it. `row`: its place in the recording's `Shares`. `line`: where
    it was written.
    """

    agent: int
    prompt: int
    output: int
    wait: float
    after: tuple[int, ...]
    cause: str
    row: int
    line: int
    idle: float = math.nan
    tools: tuple[ToolUse, ...] = ()


class Script(NamedTuple):
    """One session: `start` in seconds from the recording's origin, NaN where it does not tell. Its calls are `first` to `first + size`.

    `agents`: the kind of each of its agents, `parents` whom each works for, -1 for the first; a parent comes before its own. `system`:
    tokens each of them begins with that are the same in other sessions, 0 if untold.
    """

    name: str
    start: float
    first: int
    size: int
    agents: tuple[str, ...]
    system: tuple[int, ...]
    parents: tuple[int, ...] = (-1,)


class Shares(NamedTuple):
    """What prompts share: row i begins with `shared[i]` tokens of row `ref[i]`, of its prompt and its answer; -1: of no other.

    `told`: the recording says this itself. Rows that are not replayed are here too, for others may begin as they do.
    """

    ref: Sequence[int]
    shared: Sequence[int]
    prompt: Sequence[int]
    told: bool


class Recorded(NamedTuple):
    """A recording: sessions in the order of the file, all their calls, what the prompts share, and remarks for the result.

    `across`: prompts of different sessions share something.
    """

    sessions: list[Script]
    calls: list[Call]
    shares: Shares
    remarks: list[str]
    across: bool = False


def joined(one: Recorded, other: Recorded) -> Recorded:
    """Two recordings as one, the second after the first; nothing of one is shared with the other."""
    calls, rows = len(one.calls), len(one.shares.ref)
    moved = [call._replace(after=tuple(number + calls for number in call.after), row=call.row + rows) for call in other.calls]
    sessions = [script._replace(first=script.first + calls) for script in other.sessions]
    ref = [before + rows if before >= 0 else -1 for before in other.shares.ref]
    shares = Shares([*one.shares.ref, *ref], [*one.shares.shared, *other.shares.shared], [*one.shares.prompt, *other.shares.prompt],
                    one.shares.told and other.shares.told)  # fmt: skip
    remarks = [*one.remarks, *(remark for remark in other.remarks if remark not in one.remarks)]
    return Recorded([*one.sessions, *sessions], [*one.calls, *moved], shares, remarks, one.across or other.across)


def without(found: Recorded, gone: Set[int]) -> Recorded:
    """A recording without some of its calls: who waited for one waits for what that waited for, and for as much longer."""
    place = {number: at for at, number in enumerate(number for number in range(len(found.calls)) if number not in gone)}
    calls = []
    for number in place:
        call = found.calls[number]
        after, wait = dict.fromkeys(call.after), call.wait
        while waiting := [one for one in after if one in gone]:
            for one in waiting:
                del after[one]
                after.update(dict.fromkeys(found.calls[one].after))
            wait += max(found.calls[one].wait for one in waiting)
        calls.append(call._replace(after=tuple(place[one] for one in after), wait=wait))
    sessions = []
    for script in found.sessions:
        left = [place[number] for number in range(script.first, script.first + script.size) if number in place]
        if left:
            sessions.append(script._replace(first=left[0], size=len(left)))
    return found._replace(sessions=sessions, calls=calls)


def cycle(after: Sequence[Iterable[int]]) -> list[int]:
    """Numbers that wait for each other in a ring; empty when there is none. `after[i]` are the numbers that i waits for.

    >>> cycle([[], [0], [1, 0]]), cycle([[2], [0], [1]])
    ([], [0, 2, 1])
    """
    state = [0] * len(after)
    for begin in range(len(after)):
        path, edges = [begin], [iter(after[begin])]
        if state[begin]:
            continue
        state[begin] = 1
        while path:
            step = next(edges[-1], None)
            if step is None:
                state[path.pop()] = 2
                edges.pop()
            elif state[step] == 1:
                return path[path.index(step) :]
            elif not state[step]:
                state[step] = 1
                path.append(step)
                edges.append(iter(after[step]))
    return []
