"""What reads recordings of agents: it recognises files and turns them into scripts; and how paths become scripts that can be trusted.

A recording may come in several files, such as a folder with one session in each, or a table of calls with one of tools beside it. A reader
finds bad cells and parents that are missing; what is wrong with good numbers is found here, the same for all.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.registry import AGENT_FORMATS
from sim.core.units import CENTURY
from workloads.formats._ids import ADVICE
from workloads.formats._source import Source, listed, open_source
from workloads.lengths.base import MOST_TOKENS
from workloads.programs.script import Call, Recorded, joined, without

ZeroTokens = Literal["error", "skip", "one"]
ENDINGS = (".json", ".jsonl", ".parquet", ".csv", ".gz")
ZERO = "at least 1 of each is wanted; `zero_tokens: skip` leaves such calls out, `zero_tokens: one` takes 1 for 0"


class Reading(NamedTuple):
    """How to read. `zero_tokens`: whether calls without a prompt or an answer are an error, left out, or take one token for none.
    `whole`: whether a prompt's tokens are all that is sent or what is new in it, None: as is usual for the format. `characters`: of text to
    a token, where there is no count. `output`: tokens of answers whose length is not told, None: an error.
    """

    zero_tokens: ZeroTokens = "error"
    whole: bool | None = None
    characters: float = 4.0
    output: int | None = None


# What a recording may be read by, by the keys that people write.
KEYS = {"whole": "prompts", "characters": "characters_per_token", "output": "output_tokens"}


class Reader(Protocol):
    """`uses`, of its class: which of `KEYS` it has a use for; none where it says nothing."""

    def sniff(self, source: Source) -> bool:
        """Whether a file is of this format, or one that stands beside such a file."""

    def read(self, sources: Sequence[Source], how: Reading) -> Recorded:
        """The scripts of all files together. What is wrong goes to the sources' findings; raises BadInput when there is nothing to read."""


def load(paths: Sequence[str], format: str = "auto", how: Reading | None = None) -> Recorded:
    """Read and check a recording, of files or folders of files, plain or gzipped. Raises BadInput with all that is wrong."""
    sources = [open_source(path) for path in _files(paths)]
    name = format if format != "auto" else _recognised(sources)
    reader: Reader = AGENT_FORMATS.find(name)()
    used, said = vars(type(reader)).get("uses", ()), (how or Reading())._asdict()
    needless = [key for part, key in KEYS.items() if part not in used and said[part] != Reading()._asdict()[part]]
    if needless:
        raise BadInput([Problem(f"not used here: a recording of format {name} says it itself", key, sources[0].path) for key in needless])
    try:
        found = reader.read(sources, how or Reading())
    except BadInput as error:
        # What a trace of requests may leave out, a recording of agents may not.
        error.problems = [problem._replace(message=problem.message.removesuffix(ADVICE)) for problem in error.problems]
        other = [known for known in AGENT_FORMATS.names() if known != name and AGENT_FORMATS.find(known)().sniff(sources[0])]
        if format != "auto" and other:
            error.problems.append(Problem(f"it looks like format {' or '.join(other)}", file=sources[0].path))
        raise
    if not found.calls:
        sources[0].fail("no session of it has a call")
    session = {call.row: number for number, script in enumerate(found.sessions)
               for call in found.calls[script.first : script.first + script.size]}  # fmt: skip
    ref = found.shares.ref
    return found._replace(across=any(ref[row] >= 0 and session.get(ref[row], number) != number for row, number in session.items()))


def each(sources: Sequence[Source], how: Reading, read: Callable[[Source], Recorded]) -> Recorded:
    """The sessions of one file after the other, calls without tokens treated as wanted. Raises BadInput with what is wrong with any."""
    found: list[Recorded] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            found.append(_nonzero(read(source), source, how.zero_tokens))
            _checked(found[-1].calls, source)
            source.findings.stop()
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
    return reduce(joined, found)


def unknown(name: str) -> Iterable[tuple[str, str]]:
    """The problem, if any, of a format's name, as a kind's `check` gives it."""
    if name != "auto" and name not in AGENT_FORMATS.names():
        yield "format", f"unknown format '{name}'; {did_you_mean(name, ['auto', *AGENT_FORMATS.names()])}"


def _files(paths: Sequence[str]) -> list[str]:
    """The files named, and those within the folders named, in order of their names."""
    found: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            found.append(path)
            continue
        inside = sorted(str(entry) for entry in Path(path).iterdir() if entry.is_file() and entry.name.endswith(ENDINGS))
        if not inside:
            raise BadInput([Problem(f"the folder holds no file that ends in {', '.join(ENDINGS)}", "path", path)])
        found += inside
    return found


def _recognised(sources: Sequence[Source]) -> str:
    """The only format that takes all files."""
    fitting = [[name for name in AGENT_FORMATS.names() if AGENT_FORMATS.find(name)().sniff(source)] for source in sources]
    for source, names in zip(sources, fitting, strict=True):
        if not names:
            known = ", ".join(AGENT_FORMATS.names())
            source.findings.add(f"the format is not recognised; {source.opening()}; known formats: {known}")
    _stop(sources)
    names = [name for name in fitting[0] if all(name in others for others in fitting)]
    if len(names) != 1:
        found = "; ".join(f"{source.name}: {' or '.join(names)}" for source, names in zip(sources, fitting, strict=True))
        sources[0].fail(f"one format for all files is wanted, found {found}; set format, or give the files of one recording only")
    return names[0]


def _nonzero(found: Recorded, source: Source, how: ZeroTokens) -> Recorded:
    """The recording as `zero_tokens` wants it."""
    zero = [number for number, call in enumerate(found.calls) if call.prompt == 0 or call.output == 0]
    if how == "error" or not zero:
        return found
    where = listed(source.unit, np.array([found.calls[number].line for number in zero]))
    done = "took 1 token for 0 in" if how == "one" else "left out"
    remarks = [f"{source.name}: {done} {len(zero)} of {len(found.calls)} calls without input or output tokens ({where})", *found.remarks]
    if how == "skip":
        return without(found, frozenset(zero))._replace(remarks=remarks)
    calls = list(found.calls)
    for number in zero:
        calls[number] = calls[number]._replace(prompt=max(1, calls[number].prompt), output=max(1, calls[number].output))
    return found._replace(calls=calls, remarks=remarks)


def _checked(calls: Sequence[Call], source: Source) -> None:
    """Counts and times that no call can have."""
    for call in calls:
        where = "" if source.unit == "line" else f"row {call.line}: "
        line = call.line if source.unit == "line" else 0
        if call.prompt < 1 or call.output < 1:
            source.findings.add(f"{where}{call.prompt} input and {call.output} output tokens; {ZERO}", line)
        if max(call.prompt, call.output) > MOST_TOKENS:
            source.findings.add(f"{where}{max(call.prompt, call.output)} tokens; at most {MOST_TOKENS} are wanted", line)
        if not math.isfinite(call.wait) or call.wait < 0:
            source.findings.add(f"{where}a wait of {call.wait:g} s; a time from 0 is wanted", line)
        elif call.wait > CENTURY:
            source.findings.add(f"{where}a wait of {call.wait:g} s, more than 100 years; is its unit right?", line)


def _stop(sources: Sequence[Source]) -> None:
    """Raise BadInput with what was found in any of the files."""
    problems: list[Problem] = []
    for source in sources:
        try:
            source.findings.stop()
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
