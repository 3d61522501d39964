"""A matplotlib figure as one inline `svg` element. Colours become CSS variables of the page, so that one drawing serves light, dark and
print; fonts are the page's; the same figure gives the same bytes.
"""
from __future__ import annotations

import io
import re
from html import escape
from typing import Any

# Colours to draw with, each standing for a CSS variable.
INK, GRID, CARD = "#010203", "#010204", "#010205"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215")
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
