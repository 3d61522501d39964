"""What the parts of a page are made of: panels of figures and sheets of rows. Each part of a run has a file that makes its own."""
from __future__ import annotations

from typing import NamedTuple


class Panel(NamedTuple):
    """A title with (name, value) rows."""

    title: str
    rows: list[tuple[str, str]]


class Sheet(NamedTuple):
    """A table: the first cell of each row is its head. `note` says how to read it. A `tall` one has cells below each other where there is
    little room, as any with many columns.
    """

    title: str
    heads: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""
    tall: bool = False
