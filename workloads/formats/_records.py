"""JSON lines: one object a line."""
from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from workloads.formats._sheet import Sheet, plain, require
from workloads.formats._source import Source


def first_record(head: bytes) -> dict[str, Any]:
    """The first object of the file, keys in lower case; empty when its first line is not one."""
    line = head.lstrip().split(b"\n", 1)[0]
    if not line.startswith(b"{"):
        return {}
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return {plain(key): value for key, value in record.items()} if isinstance(record, dict) else {}


def records(source: Source) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Every object of the file and its line; lines that hold none are noted. Raises BadInput when there is no object at all."""
    found: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(source.data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            source.findings.add(f"this is no JSON object: {str(error).split(':')[0]}", number)
            continue
        if isinstance(record, dict):
            found.append(record)
            lines.append(number)
        else:
            source.findings.add(f"this is no JSON object but {line[:40].decode('utf-8', 'replace')!r}", number)
    if not found:
        source.fail("no line holds a JSON object")
    return found, np.array(lines, dtype=np.int64)


def read(source: Source, required: Sequence[Sequence[str]], optional: Sequence[str] = ()) -> Sheet:
    """The wanted keys of all objects as columns; a key that an object lacks is an empty cell. Raises BadInput when no object has a key."""
    found, lines = records(source)
    # The first objects show what keys there are; looking at all of a million would take as long as reading them.
    names = list(dict.fromkeys(key for record in found[:100] for key in record))
    require(source, names, required)
    written = {plain(name): name for name in reversed(names)}
    wanted = [name for choices in (*required, optional) for name in choices if name in written]
    columns = {name: [record.get(written[name]) for record in found] for name in wanted}
    return Sheet(source, names, columns, lines)
