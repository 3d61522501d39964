"""The drawing of a cluster: of each region its spine, leaf switches, hosts and stores, then wans, a host of each kind from inside, and of
each pool where a GPU's memory goes. What is alike is drawn once, with how many there are, so that a large fabric stays a small picture.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sim.report.inventory import Facts, fabric_words, inventory, leaf_words, memory_words, pool_words, rate, wan_words
from sim.report.svg import GRID, INK, SERIES, STYLE, VARIABLES, alone, light, svg
from sim.report.words import counted, scaled, seconds
from sim.spec.scenario import Scenario

WIDTH = 940.0  # units of a hundredth of an inch, y downwards
KINDS = 4  # of leafs, hosts or stores drawn side by side; the rest is counted
ACROSS = 3  # hosts seen from inside in a row
POOLS = 12
BESIDE = 136.0  # width of a store
GAP = 14.0
SMALL, TITLE = 8.0, 10.5
PARTS = (("weights", 0), ("activations", 1), ("reserve", 4), ("kv", 2))  # of a GPU's memory, with the colour of each


def drawing(scenario: Scenario) -> str:
    """The cluster as one inline `svg` element for a page of the report."""
    return _svg(inventory(scenario))


def _svg(facts: Facts) -> str:
    from matplotlib import rc_context

    with rc_context(STYLE):
        return svg(_figure(facts), "topology", f"What the cluster of {facts['name']} is made of")


def save(scenario: Scenario, path: Path) -> None:
    """Write the drawing to an .svg or .png file, in the light colours of the report."""
    facts, colours = inventory(scenario), light()
    if path.suffix == ".png":
        _figure(facts, colours).savefig(path, dpi=150, facecolor=colours["--card"])
        return
    path.write_text(alone(_svg(facts)), encoding="utf-8")


def _figure(facts: Facts, colours: dict[str, str] | None = None) -> Any:
    """The whole drawing; `colours` by variable, or placeholders that `svg` turns into variables."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        pen = Pen(colours or {variable: stand for stand, variable in VARIABLES.items()})
        network = facts["network"]
        if network is not None:
            _network(pen, network)
        if facts["pools"]:
            _pools(pen, facts["pools"])
        figure = Figure(figsize=(WIDTH / 100, pen.y / 100))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, WIDTH), ylim=(pen.y, 0))
        axes.axis("off")
        pen.onto(axes)
    return figure


class Pen:
    """Remembers what to draw, and how far down the page it is: the height of the figure is known only at the end."""

    def __init__(self, colours: dict[str, str]):
        self.y = GAP
        self._colours, self._ink = colours, colours[VARIABLES[INK]]
        self._grid, self._series = colours[VARIABLES[GRID]], [colours[VARIABLES[one]] for one in SERIES]
        self._drawn: list[Any] = []

    def box(self, x: float, y: float, width: float, height: float, colour: int = -1, fill: float = 0.0) -> None:
        """A rectangle; `colour` is a series' or -1 for the grid's, `fill` how dense it is within."""
        from matplotlib.patches import Rectangle

        edge = self._grid if colour < 0 else self._series[colour]
        self._drawn.append(Rectangle((x, y), width, height, facecolor=(edge, fill), edgecolor=edge, linewidth=0.9, clip_on=False))

    def line(self, xs: tuple[float, ...], ys: tuple[float, ...], colour: int = -1, width: float = 1.0) -> None:
        from matplotlib.lines import Line2D

        self._drawn.append(Line2D(xs, ys, color=self._grid if colour < 0 else self._series[colour], linewidth=width, clip_on=False))

    def text(self, x: float, y: float, words: str, size: float = SMALL, **options: Any) -> None:
        """Words whose left end (`ha`) is at x and whose middle is at y."""
        from matplotlib.text import Text

        options = {"ha": "left", "va": "center", "color": self._ink} | options
        self._drawn.append(Text(x, y, words, fontsize=size, **options))

    def onto(self, axes: Any) -> None:
        for artist in self._drawn:
            axes.add_artist(artist)


def _network(pen: Pen, network: Facts) -> None:
    lanes = len(network["wan"])
    left = GAP + 26.0 * lanes if lanes else GAP
    spines: dict[str, float] = {}
    pen.text(GAP, pen.y + 6, f"Network: {fabric_words(network['fabric'])}", TITLE, weight="bold")
    pen.y += 24
    for region in network["regions"]:
        spines[region["name"]] = _region(pen, region, network["fabric"], left)
    for lane, wan in enumerate(network["wan"]):
        x, (a, b) = GAP + 26.0 * lane + 8, sorted(spines[end] for end in wan["between"])
        pen.line((left, x, x, left), (a, a, b, b), 3, 1.4)
        pen.text(x - 7, (a + b) / 2, f"wan {wan_words(wan)}", rotation=90, ha="center")
    groups = [group for region in network["regions"] for group in region["groups"]]
    kinds = {(group["gpu"], group["node"]): group for group in groups}
    _hosts(pen, list(kinds.values()))


def _region(pen: Pen, region: Facts, fabric: Facts, left: float) -> float:
    """Draw a region below what is there; returns the height of its spine, where wans end."""
    top, right = pen.y, WIDTH - GAP
    across = f", {rate(region['bisection'])} across its middle" if region["bisection"] else ""
    pen.text(left, top + 6, region["name"] or "One region", 9.5, weight="bold")
    pen.text(right, top + 6, f"{counted(region['hosts'], 'host')}, {counted(region['gpus'], 'GPU')}{across}", ha="right")
    stores = region["stores"][:KINDS]
    end, spine = right - (BESIDE + 44 if stores else 0), top + 20
    pen.box(left, spine, end - left, 22, 0, 0.14)
    title = "one switch" if fabric["kind"] == "flat" else "spine"
    pen.text((left + end) / 2, spine + 11, title, ha="center")
    for index, store in enumerate(stores):
        x, y = right - BESIDE, spine + 44 * index
        pen.box(x, y, BESIDE, 36, 4, 0.12)
        pen.text(x + 8, y + 12, store["name"] if len(store["name"]) < 22 else store["name"][:20] + "…", weight="bold")
        later = f", {seconds(store['latency'])}" if store["latency"] else ""
        pen.text(x + 8, y + 26, f"{store['kind']}, {rate(store['bandwidth'])}{later}", 7)
        pen.line((x, x - 22, x - 22, end), (y + 11, y + 11, spine + 11, spine + 11), 4)
    if len(region["stores"]) > KINDS:
        pen.text(right - BESIDE, spine + 44 * KINDS + 4, f"and {len(region['stores']) - KINDS} more stores")
    leafs, groups = region["leafs"][:KINDS], {group["name"]: group for group in region["groups"]}
    width = min((end - left - GAP * (len(leafs) - 1)) / max(len(leafs), 1), 400.0)
    lowest = spine + 44.0 * len(stores)
    for index, leaf in enumerate(leafs):
        lowest = max(lowest, _leaf(pen, leaf, groups, fabric, (left + index * (width + GAP), spine + 22, width)))
    if len(region["leafs"]) > KINDS:
        pen.text(left, lowest + 6, f"and {sum(leaf['count'] for leaf in region['leafs'][KINDS:])} more leafs, which differ")
        lowest += 14
    pen.y = lowest + GAP + 4
    return spine + 11


def _leaf(pen: Pen, leaf: Facts, groups: dict[str, Facts], fabric: Facts, at: tuple[float, float, float]) -> float:
    """A leaf switch (or the rails of a pod) with the hosts below it, once for all that are alike; returns how far down it reaches."""
    x, y, width = at
    if fabric["kind"] != "flat":
        pen.line((x + 14,) * 2, (y, y + 24), 0, 1.0 + 3.0 / fabric["oversubscription"])
        pen.text(x + 22, y + 12, leaf_words(leaf, fabric) if width > 260 else rate(leaf["up"]) + " up")
        y += 24
        many = leaf["switches"]
        for rail in range(many):
            piece = width / many
            pen.box(x + rail * piece + 1, y, piece - 2, 16, 0, 0.22)
            if many > 1 and piece > 24:
                pen.text(x + (rail + 0.5) * piece, y + 8, f"rail {rail}" if piece > 44 else str(rail), 7, ha="center")
        if many == 1:
            alike = f", {leaf['count']:,} alike" if leaf["count"] > 1 else ""
            pen.text(x + width / 2, y + 8, f"leaf{alike}", 7, ha="center")
        y += 16
    for name, count in list(leaf["hosts"].items())[:KINDS]:
        y = _row_of_hosts(pen, groups[name], count, (x, y, width))
    if len(leaf["hosts"]) > KINDS:
        pen.text(x, y + 8, f"and {len(leaf['hosts']) - KINDS} more kinds of hosts")
        y += 14
    return y


def _row_of_hosts(pen: Pen, group: Facts, count: int, at: tuple[float, float, float]) -> float:
    """Hosts of a group as small boxes, as many as fit into two rows."""
    x, y, width = at
    size, y = 15.0, y + 8
    per_row = max(int(width // (size + 3)), 1)
    shown = min(count, 2 * per_row)
    for index in range(shown):
        pen.box(x + index % per_row * (size + 3) + 1, y + index // per_row * (size + 3), size, size, 2, 0.25)
    y += math.ceil(shown / per_row) * (size + 3)
    more = f" ({count - shown:,} not drawn)" if shown < count else ""
    what = f"{count:,} host{'s' if count > 1 else ''} of {group['gpus']} {group['gpu']}{more}"
    pen.text(x + 1, y + 7, what)
    return y + 14


def _hosts(pen: Pen, groups: list[Facts]) -> None:
    """A host of each kind from inside, side by side."""
    shown, row = groups[: 2 * ACROSS], min(len(groups), ACROSS)
    pen.text(GAP, pen.y + 6, "Inside a host", TITLE, weight="bold")
    pen.y += 22
    width = min((WIDTH - 2 * GAP - GAP * (row - 1)) / row, 440.0)
    for index, group in enumerate(shown):
        _inside(pen, group, GAP + index % row * (width + GAP), width)
        if index % row == row - 1 or index == len(shown) - 1:
            pen.y += 152
    if len(groups) > len(shown):
        pen.text(GAP, pen.y - 4, f"and {len(groups) - len(shown)} more kinds of hosts")
        pen.y += 10


def _inside(pen: Pen, group: Facts, x: float, width: float) -> None:
    top, gpus, cards = pen.y, group["gpus"], group["cards"]
    pen.box(x, top, width, 138)
    pen.text(x + 8, top + 11, f"{group['node']}: {gpus} {group['gpu']}", weight="bold")
    link = "no NVLink: GPUs meet over PCIe"
    if group["nvlink"]:
        pen.box(x + 8, top + 22, width - 16, 14, 3, 0.18)
        over = f" over {group['domain'] // gpus} hosts" if group["domain"] > gpus else ""
        link = f"NVLink, {rate(group['nvlink'])} a GPU, among {group['domain']}{over}"
    pen.text(x + width / 2, top + 29, link, 7, ha="center")
    piece = (width - 16) / gpus
    for gpu in range(gpus):
        middle = x + 8 + (gpu + 0.5) * piece
        if group["nvlink"]:
            pen.line((middle, middle), (top + 36, top + 44), 3)
        pen.box(x + 8 + gpu * piece + 2, top + 44, piece - 4, 20, 2, 0.3)
        if piece > 16:
            pen.text(middle, top + 54, str(gpu), 7, ha="center")
        pen.line((middle, middle), (top + 64, top + 74), 1)
    pen.box(x + 8, top + 74, width - 16, 14, 1, 0.14)
    pen.text(x + width / 2, top + 81, f"PCIe, {rate(group['pcie'])} a GPU", 7, ha="center")
    half = (width - 24) * 0.6
    for card in range(cards):
        pen.line((x + 8 + (card + 0.5) * half / cards,) * 2, (top + 88, top + 96), 1)
        pen.box(x + 8 + card * half / cards + 1, top + 96, half / cards - 2, 16, 0, 0.3)
    words = f"{cards} card{'s' if cards > 1 else ''} of {rate(group['card'])}" if cards else "no network cards"
    pen.text(x + 8 + half / 2, top + 123, words, 7, ha="center")
    at = x + 16 + half
    pen.line((at + (x + width - 8 - at) / 2,) * 2, (top + 88, top + 96), 1)
    pen.box(at, top + 96, x + width - 8 - at, 16, 4, 0.16)
    pen.text((at + x + width - 8) / 2, top + 104, f"memory {scaled(group['host_memory'])}B", 7, ha="center")
    if group["memory_bandwidth"]:
        pen.text((at + x + width - 8) / 2, top + 123, rate(group["memory_bandwidth"]), 7, ha="center")


def _pools(pen: Pen, pools: list[Facts]) -> None:
    pen.text(GAP, pen.y + 6, "Pools, and the memory of one GPU", TITLE, weight="bold")
    x = WIDTH - GAP
    for name, colour in reversed(PARTS):
        label = "KV" if name == "kv" else name
        x -= 7.0 * len(label) + 22
        pen.box(x, pen.y + 1, 10, 10, colour, 0.4)
        pen.text(x + 15, pen.y + 6, label)
    pen.y += 22
    for pool in pools[:POOLS]:
        memory = pool["memory"]
        pen.text(GAP, pen.y + 6, pool["name"], weight="bold")
        pen.text(GAP + 7.0 * len(pool["name"]) + 10, pen.y + 6, pool_words(pool))
        at = GAP
        pen.box(GAP, pen.y + 16, WIDTH - 2 * GAP, 14)
        for name, colour in PARTS:
            width = (WIDTH - 2 * GAP) * memory[name] / memory["gpu"]
            pen.box(at, pen.y + 16, width, 14, colour, 0.4)
            at += width
        pen.text(GAP, pen.y + 39, memory_words(memory), 7)
        pen.y += 54
    if len(pools) > POOLS:
        pen.text(GAP, pen.y, f"and {len(pools) - POOLS} more pools")
        pen.y += 16
