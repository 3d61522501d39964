"""Requests, each an asynchronous slice of its workload: queue, prefill, decode, and within them the time it was held or got no tokens.

Of many, every k-th by number is drawn, which is evenly over the arrivals. Times are the engine's; what a request spends on its way to and
from it is said in its arguments.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.core.request import STATUSES
from sim.study.facts import Tables
from sim.study.timeline.stream import Trace, evenly, names, said

EACH = 8  # events of a request: begin and end of its own and of three phases
INSIDE = 4  # of what happens to it, counted as many for each
WITHIN = {"held": '"held: no replica"', "gate": '"held: gate"', "stalls": '"stalled"'}


def requests(trace: Trace, tables: Tables, seats: Sequence[str], most: int, room: int) -> None:
    """At most `most` requests in at most `room` events; `seats` are the names of replicas."""
    table = tables.result.tables["requests"]
    step = evenly(len(table), min(most, room // (EACH + INSIDE)))
    if not most or step > len(table):
        return
    inside = _inside(trace, tables, step, (room - EACH * -(-len(table) // step)) // 2)
    process = trace.process(f"requests, 1 in {step}" if step > 1 else "requests")
    workloads, reasons, shown = names(table, "workload"), table.labels["reason"], 0
    for page in table.pages():
        mine = np.flatnonzero(page["request"] % step == 0)
        left = tables.departures(page)[mine]
        times = [trace.times(np.where(np.isnan(page[key][mine]), left, page[key][mine])) for key in ("arrival", "admitted", "first_token")]
        begun = [(~np.isnan(page[key][mine])).tolist() for key in ("admitted", "first_token")]
        columns = [page[key][mine].tolist() for key in ("request", "workload", "replica", "status", "reason", "input_tokens",
                                                        "output_tokens", "cached_tokens", "preemptions", "overhead")]  # fmt: skip
        for row in zip(*times, trace.times(left), *begun, *columns, strict=True):
            arrival, admitted, first, end, ran, answered, number, workload, replica, *how, prompt, output, cached, again, away = row
            status, reason = how
            at = (process, workloads[workload], trace.identity())
            trace.inside("b", at, workloads[workload], arrival, said(
                request=number, status=STATUSES[status], reason=reasons[reason] or None, replica=seats[replica] if replica >= 0 else None,
                input_tokens=prompt, output_tokens=output, cached_tokens=cached or None, preemptions=again or None, overhead_s=away or None,
            ))  # fmt: skip
            phases = [('"queue"', arrival, admitted, True), ('"prefill"', admitted, first, ran), ('"decode"', first, end, answered)]
            within = inside.get(number, [])
            for name, begin, until, there in phases:
                if there and (until > begin or name != '"queue"'):
                    trace.inside("b", at, name, begin)
                    for what, start, stop in within:
                        if begin <= start < until:
                            trace.inside("b", at, what, start)
                            trace.inside("e", at, what, min(stop, until))
                    trace.inside("e", at, name, until)
            trace.inside("e", at, workloads[workload], end)
            shown += 1
    trace.notes["requests"] = {"shown": shown, "of": len(table)}


def _inside(trace: Trace, tables: Tables, step: int, most: int) -> dict[int, list[tuple[str, int, int]]]:
    """What happened to the requests drawn: (what, begin, end) in order of time, not overlapping; at most `most` in all."""
    found: dict[int, list[tuple[str, int, int]]] = {}
    count = left_out = 0
    for name, words in WITHIN.items():
        for page in tables.result.tables[name].pages():
            mine = np.flatnonzero(page["request"] % step == 0)
            left_out += max(len(mine) - (most - count), 0)
            mine = mine[: max(most - count, 0)]
            count += len(mine)
            start, end = page["start"][mine], page["end"][mine]
            spans = trace.spans(start, np.where(np.isnan(end), trace.end, end))
            for number, begin, until in zip(page["request"][mine].tolist(), *spans, strict=True):
                found.setdefault(number, []).append((words, begin, until))
    for number, spells in found.items():
        spells.sort(key=lambda spell: spell[1:])
        found[number] = [spell for place, spell in enumerate(spells) if not place or spell[1] >= spells[place - 1][2]]
    if left_out:
        trace.notes["stalls"] = {"shown": count, "of": count + left_out}
    return found
