"""The plain table of requests: a time, input tokens, output tokens, and the names that other tools give to these three.

`arrival_s, input_tokens, output_tokens` is ours; Vidur writes arrived_at, num_prefill_tokens, num_decode_tokens; splitwise-sim
arrival_timestamp, prompt_size, token_size; guidellm timestamp, input_length, output_length; LLMServingSim arrival_time_ns, input_toks,
output_toks; BLIS arrival_time_us. `timestamp` is a wall clock in seconds, counted from its earliest, or dates and times in text; the others
count from their own zero, unless they are so large that they must be a wall clock. `agent_id` parts a session into contexts that grow each
on its own; what prompts share is in further columns (`_ids.py`). `pause_s`: seconds from the answer before, of the same context, until the
request was sent.
"""
from __future__ import annotations

import numpy as np

from workloads.formats._ids import REFERENCES, identified
from workloads.formats._sheet import AGENT, Sheet, clock, dated, from_first, numbers, rows
from workloads.formats.base import Rows

SECONDS = {
    "arrival_s": 1.0,
    "arrived_at": 1.0,
    "arrival_timestamp": 1.0,
    "arrival_time_ns": 1e-9,
    "arrival_time_us": 1e-6,
    "timestamp": 1.0,
}
INPUT = ("input_tokens", "num_prefill_tokens", "prompt_size", "input_length", "input_toks")
OUTPUT = ("output_tokens", "num_decode_tokens", "token_size", "output_length", "output_toks")
SESSION = ("session_id", "chat_id")
REQUIRED = (tuple(SECONDS), INPUT, OUTPUT)
PAUSE = "pause_s"
OPTIONAL = (*SESSION, AGENT, PAUSE, *REFERENCES)
WALL_CLOCK = 1e8


def plain_rows(sheet: Sheet) -> Rows:
    """The rows of a sheet that has the three columns."""
    name = sheet.first(tuple(SECONDS))
    written = name == "timestamp" and dated(sheet, name)
    arrival = clock(sheet, name) if written else numbers(sheet, name) * SECONDS[name]
    remarks = []
    if name == "timestamp":
        arrival = from_first(arrival)
    elif (earliest := np.nanmin(arrival, initial=np.inf)) > WALL_CLOCK and np.isfinite(earliest):
        arrival = from_first(arrival)
        remarks.append(f"{sheet.source.name}: {name} is taken for a wall clock and counted from its earliest, {earliest:.0f} s")
    session = sheet.first(SESSION)
    found = rows(sheet, arrival, sheet.first(INPUT), sheet.first(OUTPUT), session)._replace(remarks=remarks)
    if PAUSE in sheet.columns:
        pause = numbers(sheet, PAUSE)
        for row in np.flatnonzero(pause < 0).tolist():
            sheet.wrong(row, f"{PAUSE} is {pause[row]:g}; seconds from 0 are wanted")
        found = found._replace(pause=pause)
    return identified(sheet, found, session)
