"""What the parts of a page are made of: cards, panels of figures and sheets of rows. Each part of a run has a file that makes its own."""
from __future__ import annotations

from typing import NamedTuple

COLUMNS, LETTERS = 6, 70  # more than these are more than half a page


class Card(NamedTuple):
    """One figure that is shown large."""

    title: str
    value: str
    note: str = ""


class Mark(NamedTuple):
    """A word that stands out; `look` is good, bad, warn or none."""

    look: str
    word: str


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

    @property
    def whole(self) -> bool:
        """Whether it wants the width of the page."""
        widest = [max(map(len, column)) for column in zip(self.heads, *self.rows, strict=False)]
        return len(self.heads) > COLUMNS or sum(widest) > LETTERS
