"""Tables that stand beside a table of calls: of agents, of tools, and of tasks. Each row names its session by `session_id`."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

from workloads.formats._sheet import Sheet, numbers
from workloads.formats._source import Source
from workloads.formats._table import columns, read
from workloads.programs.script import ToolUse

SESSION = "session_id"
AGENTS, TOOLS, TASKS = ("agent_id", "duration_s"), ("step", "tool", "latency_s"), ("start_wall",)


class Beside(NamedTuple):
    """Seconds an agent took and tokens of its system prompt by (session, agent), tools by (session, step), begin of a session, s."""

    duration: dict[tuple[str, str], float]
    system: dict[tuple[str, str], int]
    tools: dict[tuple[str, int], list[ToolUse]]
    start: dict[str, float]


def is_beside(names: Set[str]) -> bool:
    """Whether a table with these columns is one of them."""
    return SESSION in names and "input_tokens" not in names and any(set(kind) <= names for kind in (AGENTS, TOOLS, TASKS))


def beside(sources: Sequence[Source]) -> Beside:
    """What all of them tell."""
    found = Beside({}, {}, defaultdict(list), {})
    for source in sources:
        names = columns(source)
        if set(AGENTS) <= names:
            _agents(read(source, ((SESSION,), *((name,) for name in AGENTS)), ("tool_tokens", "system_tokens")), found)
        elif set(TOOLS) <= names:
            _tools(read(source, ((SESSION,), *((name,) for name in TOOLS)), ()), found)
        else:
            sheet = read(source, ((SESSION,), TASKS), ())
            found.start.update(zip(texts(sheet, SESSION), numbers(sheet, TASKS[0]).tolist(), strict=True))
        source.findings.stop()
    return found


def texts(sheet: Sheet, name: str) -> list[str]:
    """A column as text, empty where a cell is."""
    return ["" if cell is None or cell != cell else str(cell) for cell in cells(sheet, name)]


def cells(sheet: Sheet, name: str) -> list[Any]:
    """A column as Python values."""
    column = sheet.columns[name]
    return column if isinstance(column, list) else list(column.to_pylist())


def optional(sheet: Sheet, name: str) -> list[float]:
    """A column of times in which some may be missing: NaN there. One that is below 0 is noted."""
    found = []
    for row, cell in enumerate(cells(sheet, name)):
        try:
            value = float("nan") if cell is None or cell == "" else float(cell)
        except (TypeError, ValueError):
            sheet.wrong(row, f"{name} is {cell!r:.60}; seconds are wanted, or nothing")
            value = float("nan")
        if value < 0:
            sheet.wrong(row, f"{name} is {value:g}; a time from 0 is wanted")
        found.append(value)
    return found


def _agents(sheet: Sheet, found: Beside) -> None:
    parts = [optional(sheet, name) if name in sheet.columns else None for name in ("tool_tokens", "system_tokens")]
    for row, (session, agent, took) in enumerate(
        zip(texts(sheet, SESSION), texts(sheet, AGENTS[0]), optional(sheet, AGENTS[1]), strict=True)
    ):
        found.duration[session, agent] = took
        found.system[session, agent] = sum(int(part[row]) for part in parts if part and part[row] == part[row])


def _tools(sheet: Sheet, found: Beside) -> None:
    steps = numbers(sheet, TOOLS[0]).tolist()
    for row, (session, tool, took) in enumerate(
        zip(texts(sheet, SESSION), texts(sheet, TOOLS[1]), optional(sheet, TOOLS[2]), strict=True)
    ):
        if took == took and steps[row] == steps[row]:
            found.tools[session, int(steps[row])].append(ToolUse(tool, 0.0, took))
