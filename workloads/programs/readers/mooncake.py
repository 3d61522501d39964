"""Mooncake's JSON lines with sessions, as AIPerf reads them: input_length, output_length, session_id, `delay` or `timestamp` (ms).

A row of a session is sent `delay` after the answer to the row before it; without one it follows at once. The first row's `timestamp` is
the session's begin, and a row without a session is one of its own. `hash_ids` name the prompt's blocks of 512 tokens (or `block_size`),
each with all before it, in all sessions alike. Without them a prompt is taken to begin with the row before and its answer. The input is
taken for the whole prompt; with `prompts: added` for what is new in it, which then follows the row before and its answer.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from workloads.formats._ids import LISTS, identified
from workloads.formats._sheet import rows
from workloads.formats._source import Source
from workloads.formats._table import columns, read
from workloads.programs.readers._beside import optional, texts
from workloads.programs.readers._links import ASSUMED, assumed, told
from workloads.programs.readers.base import Reading, each
from workloads.programs.script import TOOL, USER, Call, Recorded, Script, Shares

INPUT, OUTPUT, SESSION, DELAY, AT = "input_length", "output_length", "session_id", "delay", "timestamp"


@dataclass
class Mooncake:
    uses: ClassVar[tuple[str, ...]] = ("whole",)

    def sniff(self, source: Source) -> bool:
        names = columns(source)
        return {INPUT, OUTPUT} <= names and "turns" not in names and bool({AT, DELAY} & names)

    def read(self, sources: Sequence[Source], how: Reading) -> Recorded:
        return each(sources, how, lambda source: _read(source, how))


def _read(source: Source, how: Reading) -> Recorded:
    source.identity = how.whole is not False
    sheet = read(source, ((INPUT,), (OUTPUT,)), (SESSION, DELAY, AT, *LISTS))
    count = len(sheet.line)
    found = rows(sheet, None, INPUT, OUTPUT)
    content = identified(sheet, found).content
    delay = optional(sheet, DELAY) if DELAY in sheet.columns else [math.nan] * count
    at = optional(sheet, AT) if AT in sheet.columns else [math.nan] * count
    names = texts(sheet, SESSION) if SESSION in sheet.columns else [""] * count
    source.findings.stop()
    prompt, output = found.prompt.tolist(), found.output.tolist()
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name or f"row {row + 1}", []).append(row)
    ref = [-1] * count
    for members in groups.values():
        for before, row in pairwise(members):
            ref[row] = before
            if how.whole is False:
                prompt[row] += prompt[before] + output[before]
    if content is not None:
        shares = told(content)
    elif how.whole is False:
        shares = Shares(ref, [prompt[one] + output[one] if one >= 0 else 0 for one in ref], prompt, True)
    else:
        place = {name: number for number, name in enumerate(groups)}
        threads = [place[name or f"row {row + 1}"] for row, name in enumerate(names)]
        shares = assumed(threads, list(range(count)), prompt, output)
    return _scripts(groups, (at, delay), (prompt, output, sheet.line.tolist()), shares, source)


def _scripts(
    groups: dict[str, list[int]], times: tuple[list[float], list[float]], counts: tuple[list[int], list[int], list[int]], shares: Shares,
    source: Source,
) -> Recorded:  # fmt: skip
    (at, delay), (prompt, output, line) = times, counts
    sessions: list[Script] = []
    calls: list[Call] = []
    known = [at[members[0]] for members in groups.values()]
    origin = min((time for time in known if time == time), default=0.0)
    for name, members in groups.items():
        first = len(calls)
        for place, row in enumerate(members):
            wait = delay[row] / 1000 if place and delay[row] == delay[row] else 0.0
            after = (len(calls) - 1,) if place else ()
            cause, idle = (TOOL, wait) if place else (USER, math.nan)
            calls.append(Call(0, prompt[row], output[row], wait, after, cause, row, line[row], idle))
        sessions.append(Script(name, (at[members[0]] - origin) / 1000, first, len(members), ("main",), (0,)))
    remarks = [] if shares.told or len(groups) == len(prompt) else [f"{source.name}: {ASSUMED}"]
    untold = sum(delay[row] != delay[row] for members in groups.values() for row in members[1:])
    if untold:
        remarks.append(f"{source.name}: {untold} calls have no delay; each is sent as soon as the answer before it is there")
    return Recorded(sessions, calls, shares, remarks)
