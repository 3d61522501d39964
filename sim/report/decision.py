"""The page of a study that gives an answer: the answer first, then figures, drawings and tables that bear it out."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sim.report.folder import File
from sim.report.plots import Plot
from sim.report.section import Card
from sim.report.template import fill


class Grid(NamedTuple):
    """A table: the first cell of each row is its head. `words`: cells are text, else figures, up to column number `figures`; rows of the
    numbers in `best` stand out. `folded`: what one clicks on to see it; else it is there to be seen.
    """

    heads: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""
    folded: str = ""
    words: bool = False
    tall: bool = True
    best: tuple[int, ...] = ()
    figures: int = 99


class Part(NamedTuple):
    """A section."""

    title: str
    sheets: Sequence[Grid] = ()
    plots: Sequence[Plot] = ()
    lines: Sequence[str] = ()


class Page(NamedTuple):
    """`kind` of study; `word` and `lead` are the answer, `mark` one of stable, backlogged and overloaded, for its colour; `files` are those
    beside the page.
    """

    kind: str
    name: str
    description: str
    mark: str
    word: str
    lead: str
    said: Sequence[str]
    cards: Sequence[Card]
    parts: Sequence[Part]
    scenario: str
    foot: str = ""
    files: Sequence[File] = ()


def render(page: Page) -> str:
    """The page as HTML, one file."""
    return fill("decision", **page._asdict())


def columns(grid: Grid) -> list[str]:
    """Lines of a table for a terminal: figures to the right, the head of each row and words to the left."""
    table = [list(grid.heads), *map(list, grid.rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(grid.heads))]
    left = [not place or grid.words or place >= grid.figures for place in range(len(widths))]
    lines = [
        [f"{cell:<{width}}" if first else f"{cell:>{width}}" for cell, width, first in zip(line, widths, left, strict=True)]
        for line in table
    ]  # fmt: skip
    return ["  ".join(line).rstrip() for line in lines]
