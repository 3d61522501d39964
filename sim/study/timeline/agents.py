"""Agents packed on threads: its life, and in it calls of models, tools, its user, its sub-agents; tool calls by tool beside them.

A session is drawn with all agents that worked for it, or not at all; of many, sessions are taken evenly by the number of their roots. An
arrow leads from an agent to each it set to work. What happens between two calls is told by what the later one was made for (`turns.cause`).
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sim.study.facts import Tables
from sim.study.timeline.level import Lanes
from sim.study.timeline.spells import Spells, draw
from sim.study.timeline.stream import Trace, evenly, names, quoted, said

TOOLS = Spells("tool calls", "tool", ("agent", "queued", "outcome", "tries", "observation"))
BETWEEN = {"user": "user thinks", "tool": "tools", "subagent": "waits for agents", "retry": "waits to try again"}


class Seat(NamedTuple):
    """Where an agent is drawn, and its life in microseconds."""

    process: int
    thread: int
    begin: int
    end: int


def agents(trace: Trace, tables: Tables, most: int, room: int) -> None:
    """At most `most` sessions in at most `room` events."""
    table = tables.result.tables["agents"]
    chosen, shown, of = _chosen(tables, most, room)
    if not len(chosen):
        return
    process = trace.process(f"agents of {shown} of {of} sessions" if shown < of else "agents")
    seats, waited = _lives(trace, tables, chosen, process)
    _calls(trace, tables, seats, waited)
    known = np.sort(np.array(list(seats)))
    draw(trace, tables.result.tables["tool_calls"], TOOLS, room // 2, keep=lambda page: _in(page["agent"], known))
    trace.notes["agents"] = {"shown": len(seats), "of": len(table), "sessions": shown, "of_sessions": of}


def _chosen(tables: Tables, most: int, room: int) -> tuple[np.ndarray, int, int]:
    """Sorted numbers of the root agents of sessions to draw; how many of how many they are."""
    table = tables.result.tables["agents"]
    root = table["root"]
    roots, place = np.unique(root, return_inverse=True)
    # An agent is a slice and an arrow, a call a slice and the time before it; a tool call has two events.
    events = np.bincount(place, 3 + 2.0 * table["calls"] + 2.0 * table["tool_calls"], len(roots))
    picked = np.arange(0, len(roots), evenly(len(roots), most)) if most else np.zeros(0, dtype="i8")
    if events[picked].sum() > room:
        picked = picked[:: evenly(int(events[picked].sum()), room)]
        picked = picked[np.cumsum(events[picked]) <= room]
    return roots[picked], len(picked), len(roots)


def _in(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are among the sorted `known`."""
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: np.ndarray = known[place] == values
    return found


def _lives(trace: Trace, tables: Tables, chosen: np.ndarray, process: int) -> tuple[dict[int, Seat], set[int]]:
    """A slice for each agent, and the arrows between them; also those that waited for a sandbox."""
    table = tables.result.tables["agents"]
    rows = np.flatnonzero(_in(table["root"], chosen))
    rows = rows[np.lexsort((table["agent"][rows], table["depth"][rows], table["start"][rows]))]
    kinds, workloads, status = names(table, "kind"), table.labels["workload"], table.labels["status"]
    end = np.where(np.isnan(table["end"][rows]), trace.end, table["end"][rows])
    names_ = ("agent", "root", "parent", "kind", "workload", "status", "calls", "tool_calls", "prompt_tokens", "output_tokens", "sandbox_s")
    columns = [table[name][rows].tolist() for name in names_]
    lanes, seats, waited = Lanes(trace, process, "lane"), dict[int, Seat](), set[int]()
    for begin, until, agent, root, parent, kind, workload, how, calls, tools, prompt, output, sandbox in zip(
        *trace.spans(table["start"][rows], end), *columns, strict=True
    ):
        seats[agent] = Seat(*lanes.place(begin, until), begin, until)
        trace.slice(seats[agent][:2], kinds[kind], (begin, until), said(
            agent=agent, root=root, workload=workloads[workload], status=status[how], calls=calls, tool_calls=tools or None,
            prompt_tokens=prompt, output_tokens=output))  # fmt: skip
        if parent in seats and seats[parent].begin <= begin <= seats[parent].end:
            trace.arrow('"works for"', (*seats[parent][:2], begin), (*seats[agent][:2], begin))
        if sandbox > 0:
            waited.add(agent)
    return seats, waited


def _calls(trace: Trace, tables: Tables, seats: dict[int, Seat], waited: set[int]) -> None:
    """Calls of models, and what their agents did before each."""
    turns, requests = tables.result.tables["turns"], tables.result.tables["requests"]
    agents, found = np.sort(np.array(list(seats))), {}
    for page in turns.pages():
        mine = np.flatnonzero(_in(page["agent"], agents))
        columns = [page[name][mine].tolist() for name in ("request", "agent", "turn", "cause", "gap")]
        for request, agent, turn, cause, gap in zip(*columns, strict=True):
            found[request] = agent, turn, turns.labels["cause"][cause], gap
    if not found:
        return
    wanted = np.sort(np.array(list(found)))
    for page in requests.pages():
        mine = np.flatnonzero(_in(page["request"], wanted))
        end = tables.departures(page)[mine] + page["overhead"][mine]
        columns = [page[name][mine].tolist() for name in ("request", "arrival", "input_tokens", "output_tokens", "cached_tokens")]
        for begin, until, request, arrival, prompt, output, cached in zip(
            *trace.spans(page["arrival"][mine], end), *columns, strict=True
        ):
            agent, turn, cause, gap = found[request]
            seat = seats[agent]
            known = gap == gap
            before = trace.spans(np.array([arrival - gap if known else seat.begin / 1e6]), np.array([arrival]))
            name = BETWEEN.get(cause, "") if known else "waits for its sandbox" if agent in waited else ""
            span = max(before[0][0], seat.begin), min(before[1][0], seat.end)
            if name and span[1] > span[0]:
                trace.slice(seat[:2], quoted(name), span)
            span = max(begin, seat.begin), min(until, seat.end)
            if span[1] >= span[0]:
                trace.slice(seat[:2], '"LLM"', span, said(
                    request=request, turn=turn, cause=cause, input_tokens=prompt, output_tokens=output, cached_tokens=cached or None))
