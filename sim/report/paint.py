"""Colours for a drawing that is not on a page. Drawings name colours by what they stand for (`svg.py`); here each becomes a colour, in the
artists themselves: series and fills have the light ones of the page, ink and grid those that matplotlib is set to, so that a drawing also
suits a style of one's own.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.report.svg import CARD, GRID, INK, SERIES, STYLE, light

KEPT = (
    "axes.grid", "grid.linewidth", "axes.axisbelow", "axes.linewidth", "axes.spines.top", "axes.spines.right", "legend.frameon",
    "legend.fontsize", "lines.linewidth", "text.parse_math",
)  # fmt: skip
LOOK = {key: STYLE[key] for key in KEPT} | {"axes.titlesize": "medium", "grid.alpha": 0.5}


def paint(axes: Any) -> None:
    """Give everything on the axes that was drawn in a colour of `svg.py` a colour that can be seen."""
    from matplotlib import rcParams
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    page = light()
    colours: dict[Any, Any] = {colour: page[f"--s{place}"] for place, colour in enumerate(SERIES, 1)}
    colours |= {INK: rcParams["text.color"], GRID: rcParams["grid.color"], CARD: axes.get_facecolor()}
    for artist in axes.findobj():
        if isinstance(artist, Line2D):
            _replace(artist, ("color", "markerfacecolor", "markeredgecolor"), colours)
        elif isinstance(artist, Patch | Collection):
            _replace(artist, ("facecolor", "edgecolor"), colours)
        elif isinstance(artist, Text):
            _replace(artist, ("color",), colours)
            plate = artist.get_bbox_patch()
            if plate is not None:
                _replace(plate, ("facecolor",), colours)


def _replace(artist: Any, kinds: tuple[str, ...], colours: Mapping[Any, Any]) -> None:
    from matplotlib.artist import getp, setp
    from matplotlib.colors import to_hex, to_rgba_array

    for kind in kinds:
        found = to_rgba_array(getp(artist, kind))
        # Opacity is the artist's own, and stays.
        if len(found) and to_hex(found[0]) in colours:
            setp(artist, **{kind: colours[to_hex(found[0])]})
