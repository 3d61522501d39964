"""What a notebook shows of a thing: a heading, sentences and tables as HTML that needs nothing else, all texts escaped.

Scenario, Result, Plan, Capacity, Pareto, Sweep, Comparison and Replications are put together from these, so that they look alike.
Colours and fonts are the notebook's own, light or dark: nothing has a background, and what stands back does so by opacity.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MOST = 50  # rows of a table
DASH = "–"
# Of the edge beside a verdict: seen on white and on black.
MARKS = {"good": "#2e9e6b", "warn": "#c98a1b", "bad": "#d9483b"}
_SOFT = "opacity: 0.75"
_CELL = "padding: 2px 12px 2px 0; border: none; vertical-align: top; max-width: 60ch; white-space: normal"
_FIGURES, _LONG = "0123456789$-–+≤≥×.", 16  # what a figure begins with, and the most letters that it has


def shown(kind: str, name: str, *parts: str) -> str:
    """A thing with its heading: `kind` is what it is, such as "scenario"."""
    head = f'<p style="margin: 0 0 4px"><span style="{_SOFT}">{escape(kind)}</span> <b>{escape(name)}</b></p>'
    return f'<div style="max-width: 72em; line-height: 1.4">{head}{"".join(parts)}</div>'


def said(text: str, mark: str = "", soft: bool = False) -> str:
    """A sentence: an answer, marked good, warn or bad at its edge, or a remark; a `soft` one stands back. Nothing when empty."""
    if not text:
        return ""
    edge = f"border-left: 4px solid {MARKS[mark]}; padding-left: 8px; font-weight: bold" if mark else _SOFT if soft else ""
    return f'<p style="margin: 4px 0; max-width: 100ch; {edge}">{escape(text)}</p>'


def listed(lines: Iterable[str], folded: str = "") -> str:
    """Sentences below each other. `folded`: what one clicks on to see them. Nothing without any."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    made = f'<ul style="margin: 4px 0; padding-left: 1.4em; max-width: 100ch">{items}</ul>'
    return _folded(folded, made) if items else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], folded: str = "") -> str:
    """A table, of at most `MOST` rows; figures stand to the right. `folded`: what one clicks on to see it. Nothing without rows."""
    if not rows:
        return ""
    cells = [[text(value) for value in row] for row in rows[:MOST]]
    right = [all(row[place][:1] in _FIGURES and len(row[place]) <= _LONG for row in cells) for place in range(len(cells[0]))]
    lines = [_line("th", heads, right)] * bool(any(heads)) + [_line("td", row, right) for row in cells]
    more = f'<p style="margin: 0; {_SOFT}">and {len(rows) - MOST:,} more</p>' if len(rows) > MOST else ""
    made = f'<table style="border-collapse: collapse; margin: 6px 0; font: inherit">{"".join(lines)}</table>{more}'
    return _folded(folded, made)


def text(value: object) -> str:
    """A cell: numbers to four digits, what is not known as a dash.

    >>> text(12345.678), text(0.25), text(None), text(float("nan")), text(True), text(3)
    ('1.235e+04', '0.25', '–', '–', 'yes', '3')
    """
    if value is None or value != value:  # NaN alone differs from itself
        return DASH
    if isinstance(value, float):
        return f"{value:.4g}"
    return {"True": "yes", "False": "no"}.get(str(value), str(value))


def _folded(folded: str, made: str) -> str:
    return f'<details><summary style="{_SOFT}; cursor: pointer">{escape(folded)}</summary>{made}</details>' if folded else made


def _line(kind: str, cells: Sequence[str], right: Sequence[bool]) -> str:
    look = f"{_CELL}; {_SOFT}" if kind == "th" else _CELL
    sides = ("right" if figures else "left" for figures in right)
    made = (f'<{kind} style="{look}; text-align: {side}">{escape(cell)}</{kind}>' for cell, side in zip(cells, sides, strict=True))
    return f"<tr>{''.join(made)}</tr>"
