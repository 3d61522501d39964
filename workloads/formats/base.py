"""What a trace format is: it recognises a file and turns it into rows; and how a file becomes rows that can be trusted.

A format is one dataclass with `sniff` and `read`. It finds bad cells; what is wrong with good numbers (order, negative times, requests
without tokens) is found here, the same for all formats. Everything wrong with a file is said at once, the first ten things in full.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

import numpy as np

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.registry import FORMATS
from sim.core.units import CENTURY
from workloads._identity import Blocks, Chain
from workloads.formats._source import Source, listed, open_source
from workloads.lengths.base import MOST_TOKENS

HEAD = 1 << 20
PLAIN = "arrival_s, input_tokens, output_tokens"
ZeroTokens = Literal["error", "skip"]
Order = Literal["check", "sort", "any"]


class Rows(NamedTuple):
    """A trace as arrays of one length.

    `arrival`: seconds from the trace's own origin (float64), or None when the format has no times; NaN where a cell is bad. `prompt` and
    `output`: tokens (int64), `session`: number of the session or -1 (int64), `line`: where the row stands in the file (from 1; the row
    number where a file has no lines). `remarks` go to the result. `thread`: number of the context that grows from row to row, one for each
    agent of a session, or -1 (int64); None: it is the session. `content`: what rows share, where the file says so and it was asked for.
    `pause`: seconds from the answer to the row before of its context until the row was sent (float64; 0 in its first row), where told.
    """

    arrival: np.ndarray | None
    prompt: np.ndarray
    output: np.ndarray
    session: np.ndarray
    line: np.ndarray
    remarks: list[str]
    thread: np.ndarray | None = None
    content: Blocks | Chain | None = None
    pause: np.ndarray | None = None

    def pick(self, which: np.ndarray | slice) -> Rows:
        """The rows of a mask, of indices or of a slice."""
        arrival = None if self.arrival is None else self.arrival[which]
        thread = None if self.thread is None else self.thread[which]
        content = None if self.content is None else self.content.pick(which)
        pause = None if self.pause is None else self.pause[which]
        counts = self.prompt[which], self.output[which], self.session[which]
        return Rows(arrival, *counts, self.line[which], self.remarks, thread, content, pause)


class Format(Protocol):
    def sniff(self, path: str, head: bytes) -> bool:
        """Whether a file that begins with `head` (already unpacked) is of this format. `path` is its name, often misleading."""

    def read(self, source: Source) -> Rows:
        """The rows of the file, in its order. Bad cells go to `source.findings`; raises BadInput when there is nothing to read."""


def load(
    path: str, format: str = "auto", zero_tokens: ZeroTokens = "error", order: Order = "check", identity: bool = False
) -> Rows:
    """Read and check a trace file, plain or gzipped.

    `format`: a name of the family `format`, or `auto`. `zero_tokens`: whether rows without a prompt or an answer are an error or left out.
    `order`: times must ascend (`check`), are made to (`sort`), or do not matter (`any`). `identity`: also what the prompts share, where the
    format tells. Raises BadInput with all that is wrong.
    """
    source = open_source(path)
    source.identity = identity
    try:
        rows = reader(source, format).read(source)
    except BadInput as error:
        other = [name for name in recognised(source) if name != format]
        if format != "auto" and other:
            error.problems.append(Problem(f"it looks like format {' or '.join(other)}", file=path))
        raise
    rows = _tokens(source, rows, zero_tokens)
    if order != "any" and rows.arrival is not None:
        rows = _times(source, rows, order)
    source.findings.stop()
    if not len(rows.prompt):
        source.fail("no row of it is usable")
    return rows


def reader(source: Source, format: str) -> Format:
    """The format of that name, or with `auto` the only one that recognises the file. Raises BadInput."""
    if format != "auto":
        found: Format = FORMATS.find(format)()
        return found
    names = recognised(source)
    if len(names) > 1:
        source.fail(f"this may be {' or '.join(names)}, which differ in the unit of time or of lengths; set format to the right one")
    if not names:
        source.fail(f"the format is not recognised; {source.opening()}{_advice(source)}; known formats: {', '.join(FORMATS.names())}")
    chosen: Format = FORMATS.find(names[0])()
    return chosen


def _advice(source: Source) -> str:
    """What would make it a trace, by how it begins."""
    line = source.data[:HEAD].strip().split(b"\n")[0].strip()
    if b"\r" in line:
        return "; its lines end in bare carriage returns, and line feeds are wanted"
    if line.startswith(b"["):
        return "; a JSON list is no trace: one object on each line is wanted"
    return "" if line.startswith(b"{") else f"; plain csv wants a first line with the columns {PLAIN}"


def recognised(source: Source) -> list[str]:
    """Names of the formats that the file may be of."""
    return [name for name in FORMATS.names() if FORMATS.find(name)().sniff(source.path, source.data[:HEAD])]


def unknown_format(name: str) -> Iterable[tuple[str, str]]:
    """The problem, if any, of a format's name, as a kind's `check` gives it."""
    if name != "auto" and name not in FORMATS.names():
        yield "format", f"unknown format '{name}'; {did_you_mean(name, ['auto', *FORMATS.names()])}"


def _tokens(source: Source, rows: Rows, zero_tokens: ZeroTokens) -> Rows:
    for name, counts in (("input", rows.prompt), ("output", rows.output)):
        negative = counts < 0
        if negative.any():
            source.found(f"negative {name} tokens", rows.line[negative])
        huge = counts > MOST_TOKENS
        if huge.any():
            source.found(f"{name} tokens beyond {MOST_TOKENS}", rows.line[huge])
    zero = (rows.prompt == 0) | (rows.output == 0)
    if not zero.any():
        return rows
    if zero_tokens == "error":
        source.found("no input or no output tokens", rows.line[zero], "; `zero_tokens: skip` leaves such rows out")
        return rows
    where = listed(source.unit, rows.line[zero])
    remark = f"{source.name}: left out {zero.sum()} of {len(zero)} rows without input or output tokens ({where})"
    return rows.pick(~zero)._replace(remarks=[*rows.remarks, remark])


def _times(source: Source, rows: Rows, order: Order) -> Rows:
    assert rows.arrival is not None
    negative = rows.arrival < 0
    if negative.any():
        source.found("negative times", rows.line[negative])
    far = rows.arrival > CENTURY
    if far.any():
        source.found("times beyond 100 years", rows.line[far], "; is the column in seconds?")
    if order == "sort":
        return rows.pick(np.argsort(rows.arrival, kind="stable"))
    good = np.flatnonzero(np.isfinite(rows.arrival))
    back = good[1:][np.diff(rows.arrival[good]) < 0]
    if len(back):
        source.found("a time before that of the row above", rows.line[back], "; `sort: true` puts the rows in order of time")
    return rows

