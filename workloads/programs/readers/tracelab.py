"""TraceLab's replay CSV: session_id, arrival_time, round_idx, prefix_len, input_len, output_len, tool_wait_after_ms.

A round's prompt is `prefix_len` tokens that were there before and `input_len` new ones. The next round of the session is sent
`tool_wait_after_ms` after its answer. `arrival_time` (taken as seconds) is that of the session. In round 0 the prefix is the system prompt.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workloads.formats._sheet import numbers, tokens
from workloads.formats._source import Source
from workloads.formats._table import columns, read
from workloads.programs.readers._beside import texts
from workloads.programs.readers.base import Reading, each
from workloads.programs.script import TOOL, USER, Call, Recorded, Script, Shares

SESSION, AT, ROUND, PREFIX, INPUT, OUTPUT, WAIT = (
    "session_id", "arrival_time", "round_idx", "prefix_len", "input_len", "output_len", "tool_wait_after_ms",
)  # fmt: skip


@dataclass
class Tracelab:
    def sniff(self, source: Source) -> bool:
        return {SESSION, PREFIX, INPUT, OUTPUT, WAIT} <= columns(source)

    def read(self, sources: Sequence[Source], how: Reading) -> Recorded:
        return each(sources, how, _read)


def _read(source: Source) -> Recorded:
    sheet = read(source, tuple((name,) for name in (SESSION, AT, ROUND, PREFIX, INPUT, OUTPUT, WAIT)))
    names, at, order = texts(sheet, SESSION), numbers(sheet, AT), numbers(sheet, ROUND)
    prefix, new, output = tokens(sheet, PREFIX).tolist(), tokens(sheet, INPUT).tolist(), tokens(sheet, OUTPUT).tolist()
    wait = (numbers(sheet, WAIT) / 1000).tolist()
    for row, seconds in enumerate(wait):
        if seconds < 0:
            sheet.wrong(row, f"{WAIT} is {1000 * seconds:g}; a time from 0 is wanted")
        if min(prefix[row], new[row]) < 0:
            sheet.wrong(row, f"{min(prefix[row], new[row])} tokens; a number from 0 is wanted")
    source.findings.stop()
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name, []).append(row)
    prompt = [before + more for before, more in zip(prefix, new, strict=True)]
    ref, shared = [-1] * len(names), [0] * len(names)
    sessions: list[Script] = []
    calls: list[Call] = []
    origin = min(at.tolist())
    for name, members in groups.items():
        members.sort(key=lambda row: order[row])
        first = len(calls)
        for place, row in enumerate(members):
            line = int(sheet.line[row])
            if not place:
                calls.append(Call(0, prompt[row], output[row], 0.0, (), USER, row, line))
                continue
            before = members[place - 1]
            most = prompt[before] + output[before]
            if prefix[row] > most:
                sheet.wrong(row, f"{PREFIX} is {prefix[row]}; the round before it and its answer have {most} tokens")
            ref[row], shared[row] = (before, prefix[row]) if prefix[row] > 0 else (-1, 0)
            calls.append(Call(0, prompt[row], output[row], wait[before], (len(calls) - 1,), TOOL, row, line, wait[before]))
        sessions.append(Script(name, float(at[members[0]]) - origin, first, len(members), ("main",), (prefix[members[0]],)))
    return Recorded(sessions, calls, Shares(ref, shared, prompt, True), [])
