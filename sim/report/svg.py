"""A matplotlib figure as one inline `svg` element. Colours become CSS variables of the page, so that one drawing serves light, dark and
print; fonts are the page's; the same figure gives the same bytes.
"""
from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

# Colours to draw with, each standing for a CSS variable.
INK, GRID, CARD = "#010203", "#010204", "#010205"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215")
POINT = 4 / 3  # pixels
DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)  # in a page
VARIABLES = {INK: "--ink-soft", GRID: "--grid", CARD: "--card"} | {colour: f"--s{i}" for i, colour in enumerate(SERIES, 1)}
STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": GRID, "xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.linewidth": 0.8, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 9,
    "axes.titlesize": 9.5, "axes.titlelocation": "left", "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "lines.linewidth": 1.4, "text.parse_math": False,
}  # fmt: skip


def svg(figure: Any, salt: str, label: str) -> str:
    """The drawing as text. `salt` keeps ids of different figures on one page apart; `label` is what a screen reader says."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": salt}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # Its style element would reach into the page, and ids such as `axes_1` are the same in every figure.
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+ ?|\n", lambda m: (m[1] or "") + " ", match[0]), text)
    text = re.sub(r"font: ([0-9.]+px)[^;\"]*|font-family: [^;\"]*;? ?", lambda m: f"font-size: {m[1]}" if m[1] else "", text)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view
    opening = f'<svg role="img" aria-label="{escape(label)}" {view[0]} xmlns:xlink="http://www.w3.org/1999/xlink">'
    text = re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1)
    text = re.sub(r">\s+<", "><", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def light() -> dict[str, str]:
    """The page's colours by the name of their variable, as it has them first: the light ones."""
    found: dict[str, str] = {}
    for name, colour in re.findall(r"(--[\w-]+):\s*(#\w+)", files("sim.report").joinpath("page.css").read_text("utf-8")):
        found.setdefault(name, colour)
    return found


def fixed(drawing: str, colours: Mapping[str, str]) -> str:
    """A drawing with colours in place of variables, for readers that know none."""
    return re.sub(r"var\((--[\w-]+)\)", lambda match: colours[match[1]], drawing)


def alone(drawing: str) -> str:
    """A drawing of a page as a file of its own: light colours on their ground, as large as its letters want, and fonts of the reader's."""
    colours = light()
    size = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', drawing)
    assert size
    width, height = (round(float(side) * POINT, 1) for side in size.groups())
    look = f"background: {colours['--card']}; font-family: sans-serif; stroke-linejoin: round"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" style="{look}" '
    return fixed(drawing, colours).replace("<svg ", opening, 1) + "\n"
