"""Who did what when, in a run of reinforcement learning: a lane for each trainer, for rollout replicas (bands of neighbours where they are
many), graders, sandboxes and other pools, over the steps in the middle of the run and over all of it.

What a lane says it says by height or place as well as by colour: replicas generate from below, and pause from above; a trainer's update
fills its lane, and the rest of what it does fills less of it. Time is cut into bins, so that a page stays small however long the run.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.report.plots import Plot
from sim.report.svg import GRID, INK, SERIES, STYLE, svg
from sim.report.words import percent
from sim.study.facts import Bins
from sim.study.metrics import Facts

LANES = 16  # of rollout replicas
OTHERS = 4  # of graders, of pools of sandboxes, and of other pools, each
BINS = 200
STEPS = 5  # in the middle
VERSIONS = 14  # that have room for their names at the top
LEVELS = 24.0  # heights that are told apart
WIDTH = 15  # letters of a name


class Look(NamedTuple):
    """How something is drawn: colour, opacity, height in its lane."""

    colour: str
    alpha: float
    height: float = 1.0


# What a trainer does, by states of `train_states`; those that are not here are blank.
TRAINER = {
    "update": ("update", Look(SERIES[0], 0.85)), "logprob": ("log-probabilities", Look(SERIES[0], 0.45, 0.7)),
    "reference": ("log-probabilities", Look(SERIES[0], 0.45, 0.7)), "publish": ("weights out, or in", Look(SERIES[1], 0.85, 0.85)),
    "reward": ("waits for rewards", Look(SERIES[4], 0.6, 0.35)), "data": ("waits for data", Look(SERIES[3], 0.4, 0.35)),
    "checkpoint": ("checkpoint", Look(SERIES[3], 0.85, 0.85)), "validate": ("validation", Look(SERIES[3], 0.45, 0.6)),
    "onload": ("GPUs change hands", Look(SERIES[4], 0.85, 0.5)), "offload": ("GPUs change hands", Look(SERIES[4], 0.85, 0.5)),
    "down": ("down", Look(INK, 0.6, 0.2)),
}  # fmt: skip
STEPPING, FILL = ("generates", Look(SERIES[2], 0.22)), ("batch, of the largest", Look(SERIES[2], 0.8))
PAUSED = {
    "update": ("weights out, or in", Look(SERIES[1], 0.7)), "drain": ("waits to be paused", Look(SERIES[1], 0.3)),
    "sleep": ("asleep", Look(INK, 0.22)),
}  # fmt: skip
GRADES, LINE = ("grades, sandboxes held", Look(SERIES[4], 0.75)), ("queued", Look(SERIES[4], 0.25))
OTHER = ("other pools, replicas busy", Look(SERIES[3], 0.6))
Area = tuple[str, Look, np.ndarray]


class Lane(NamedTuple):
    """A name, areas that rise from below (one on the other's ground), areas that hang from above, what is said at its right end; and
    for trainers (begin, end, state) in place of areas.
    """

    name: str
    rising: Sequence[Area] = ()
    hanging: Sequence[Area] = ()
    said: str = ""
    spans: Sequence[tuple[float, float, str]] = ()


class Chart(NamedTuple):
    """Lanes over a window of time (s), and when versions were out, with their numbers."""

    title: str
    lanes: Sequence[Lane]
    window: tuple[float, float]
    versions: Sequence[tuple[float, int]]

    @property
    def height(self) -> float:
        """Inches that it wants."""
        return 1.15 + max(0.22 * len(self.lanes), min(0.34 * len(self.lanes), 1.9))


def gantts(facts: Facts) -> Iterator[Plot]:
    """As the page has them."""
    yield from (_plot(one) for one in charts(facts))


def charts(facts: Facts) -> Iterator[Chart]:
    """The middle of the run, where it has more than a few steps, and all of it. Nothing without reinforcement learning."""
    steps = facts.result.tables["rl_steps"]
    if not len(steps) or facts.end <= 0:
        return
    longest = np.bincount(steps["workload"]).argmax()
    start, end, version = (steps[name][steps["workload"] == longest] for name in ("start", "end", "version"))
    windows = [("Who does what: all of the run", 0.0, facts.end)]
    if len(start) > STEPS + 2:
        first = (len(start) - STEPS) // 2
        windows.insert(0, (f"Who does what: {STEPS} steps in the middle", float(start[first]), float(end[first + STEPS - 1])))
    edges = [np.linspace(begin, until, BINS + 1) for _, begin, until in windows]
    found = _replicas(facts, edges)
    for (title, begin, until), grid, rollouts, others in zip(windows, edges, *found, strict=True):
        lanes = [*_trainers(facts, begin, until), *rollouts, *_graders(facts, grid), *_sandboxes(facts, grid), *others]
        here = [(float(at), int(name)) for at, name in zip(end, version, strict=True) if begin < at <= until]
        yield Chart(title, lanes, (begin, until), here)


def _trainers(facts: Facts, begin: float, until: float) -> Iterator[Lane]:
    table = facts.result.tables["train_states"]
    names = list(dict.fromkeys(run["trainer"] for run in facts.meta["rl"]))
    for name in names[:OTHERS]:
        code = table.labels["trainer"].index(name) if name in table.labels["trainer"] else -1
        inside = (table["trainer"] == code) & (table["start"] < until) & (table["end"] > begin)
        start, end = np.maximum(table["start"][inside], begin), np.minimum(table["end"][inside], until)
        states = [table.labels["state"][code] for code in table["state"][inside]]
        busy = sum(float(b - a) for a, b, state in zip(start, end, states, strict=True) if state in ("update", "logprob", "reference"))
        spans = list(_joined(zip(start.tolist(), end.tolist(), states, strict=True), (until - begin) / (4 * BINS)))
        yield Lane(_short("trainer" if len(names) == 1 else name), said=percent(busy / (until - begin)), spans=spans)


def _joined(spans: Any, least: float) -> Iterator[tuple[float, float, str]]:
    """Spans with those too short to be seen left to the one before, and neighbours that look the same as one."""
    last: tuple[float, float, str] | None = None
    for start, end, state in spans:
        if last is not None and start <= last[1] and (end - start < least or TRAINER.get(state) == TRAINER.get(last[2])):
            last = (last[0], end, last[2])
            continue
        if last is not None:
            yield last
        last = (start, end, state)
    if last is not None:
        yield last


def _replicas(facts: Facts, edges: list[np.ndarray]) -> tuple[list[list[Lane]], list[list[Lane]]]:
    """For each window the lanes of rollout replicas, and of other pools; one walk over the stretches."""
    pools = list(dict.fromkeys(run["pool"] for run in facts.meta["rl"]))
    of = np.array(facts.pool_of_replica)
    bands = [(pool, band) for pool in pools for band in _bands(np.flatnonzero(of == pool), max(LANES // len(pools), 1))]
    others = [name for name in facts.pools if name not in pools][:OTHERS]
    groups = [band for _, band in bands] + [np.flatnonzero(of == name) for name in others]
    group = np.full(len(of), -1)
    for number, members in enumerate(groups):
        group[members] = number
    steps, running = ([[Bins(grid) for grid in edges] for _ in groups] for _ in range(2))
    most = np.zeros(len(groups))
    for page in facts.stretches():
        batch = (page["decoders"] + page["prefills"]).astype(float)
        mine = group[page["replica"]]
        for number in np.unique(mine[mine >= 0]).tolist():
            here = mine == number
            start, end, many = page["start"][here], page.end[here], batch[here]
            most[number] = max(most[number], many.max())
            for window in range(len(edges)):
                steps[number][window].add(start, end)
                running[number][window].add(start, end, many)
    largest = {pool: max((most[n] for n, (name, _) in enumerate(bands) if name == pool), default=0.0) or 1.0 for pool in pools}
    rollouts: list[list[Lane]] = []
    rest: list[list[Lane]] = []
    for window, grid in enumerate(edges):
        lanes = []
        for number, (pool, members) in enumerate(bands):
            busy = steps[number][window].means() / len(members)
            fill = running[number][window].means() / len(members) / largest[pool]
            rising = [(*STEPPING, busy), (*FILL, fill)]
            lanes.append(Lane(_named(pool, of, members), rising, _standing(facts, grid, members), percent(float(busy.mean()))))
        rollouts.append(lanes)
        shares = [steps[len(bands) + number][window].means() / max(len(groups[len(bands) + number]), 1) for number in range(len(others))]
        rest.append([Lane(f"pool {_short(name)}", [(*OTHER, share)], said=percent(float(share.mean())))
                     for name, share in zip(others, shares, strict=True)])  # fmt: skip
    return rollouts, rest


def _bands(members: np.ndarray, most: int) -> list[np.ndarray]:
    """Neighbours together, as few as give at most so many bands."""
    size = max(-(-len(members) // most), 1)
    return [members[start : start + size] for start in range(0, len(members), size)]


def _named(pool: str, of: np.ndarray, members: np.ndarray) -> str:
    """`rollouts 0-3`, counted in the pool."""
    first = int((of[: members[0]] == pool).sum())
    last = first + len(members) - 1
    return f"{_short(pool)} {first}" + (f"–{last}" if last > first else "")


def _standing(facts: Facts, grid: np.ndarray, members: np.ndarray) -> list[Area]:
    """What of a band's time it stood still, by reason."""
    table = facts.result.tables["pauses"]
    if not len(table):
        return []
    here = np.isin(table["replica"], members)
    found = []
    for why, (words, look) in PAUSED.items():
        mine = here & (table["why"] == table.labels["why"].index(why))
        if mine.any():
            start, end = table["start"][mine], table["end"][mine]
            found.append((words, look, Bins(grid).add(start, np.where(np.isnan(end), facts.end, end)).means() / len(members)))
    return found


def _graders(facts: Facts, grid: np.ndarray) -> Iterator[Lane]:
    table = facts.result.tables["rl_grades"]
    for code, name in enumerate(table.labels["grader"][:OTHERS]):
        mine = table["grader"] == code
        asked, end = table["start"][mine], np.where(np.isnan(table["end"][mine]), facts.end, table["end"][mine])
        served = np.minimum(asked + table["queued"][mine], end)
        yield from _counted(f"grades: {_short(name)}", Bins(grid).add(served, end).means(), Bins(grid).add(asked, end).means())


def _sandboxes(facts: Facts, grid: np.ndarray) -> Iterator[Lane]:
    table = facts.result.tables["sandboxes"]
    for code, name in enumerate(table.labels["pool"][:OTHERS]):
        mine = (table["pool"] == code) & ~np.isnan(table["granted"])
        held = Bins(grid).add(table["granted"][mine], table["released"][mine]).means()
        asked = Bins(grid).add(table["asked"][mine], table["released"][mine]).means()
        yield from _counted(f"sandboxes: {_short(name)}", held, asked)


def _counted(name: str, served: np.ndarray, asked: np.ndarray) -> Iterator[Lane]:
    """A lane of how many are served, and of how many ask."""
    most = float(asked.max(initial=0.0))
    if most > 0:
        waiting = [(*LINE, asked / most)] if (asked - served).max() > 0.01 * most else []
        yield Lane(name, [*waiting, (*GRADES, served / most)], said=f"≤ {most:,.0f}" if most >= 10 else f"≤ {most:.2g}")


def _plot(chart: Chart) -> Plot:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(8.7, chart.height), layout="constrained")
        handles = draw(figure.subplots(), chart)
        figure.legend(handles=handles, loc="outside upper left", ncols=4, handlelength=1.2, columnspacing=1.2, borderpad=0)
        note = _note(chart.lanes)
        return Plot(chart.title, note, svg(figure, chart.title, f"{chart.title}. {note}"), broad=True)


def draw(axes: Any, chart: Chart) -> list[Any]:
    """All lanes, the first on top. Returns the handles of a legend, which whoever draws it puts."""
    from matplotlib.patches import Patch

    _, lanes, window, versions = chart
    unit, clock = next(((u, s) for s, u in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")) if window[1] >= 2 * s), ("s", 1.0))
    used: dict[str, Look] = {}
    grid = np.linspace(*window, BINS + 1) / clock
    for row, lane in enumerate(lanes):
        for words, look, values in lane.rising:
            if _area(axes, (grid, values), (row + 0.92, -0.84), look):
                used.setdefault(words, look)
        ground = np.zeros(BINS)
        for words, look, values in lane.hanging:
            if _area(axes, (grid, values), (row + 0.08, 0.84), look, ground):
                used.setdefault(words, look)
            ground = ground + values
        for state in dict.fromkeys(state for *_, state in lane.spans if state in TRAINER):
            words, look = TRAINER[state]
            used.setdefault(words, look)
            _spans(axes, [(start / clock, end / clock) for start, end, one in lane.spans if one == state], row, look)
        axes.plot([window[0] / clock, window[1] / clock], [row + 0.92] * 2, color=GRID, linewidth=0.6, zorder=0)
        axes.annotate(lane.said, (1.0, row + 0.5), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                      fontsize=8.5)  # fmt: skip
    named = _apart([at for at, _ in versions], (window[1] - window[0]) / VERSIONS)
    for place, (at, version) in enumerate(versions):
        axes.axvline(at / clock, color=GRID, linewidth=0.7, zorder=0)
        if place in named:
            axes.annotate(f"v{version}", (at / clock, 1.0), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                          ha="center", fontsize=8.5)  # fmt: skip
    axes.set_yticks(np.arange(len(lanes)) + 0.5, [lane.name for lane in lanes])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lanes), 0)
    axes.set_xlim(window[0] / clock, window[1] / clock)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"time, {unit}")
    return [Patch(facecolor=look.colour, alpha=look.alpha, label=words) for words, look in used.items()]


def _apart(times: Sequence[float], least: float) -> set[int]:
    """Places of those that are at least so far from each other, the last among them.

    >>> sorted(_apart([1.0, 8.0, 8.1, 8.2, 9.0], 0.8))
    [0, 3, 4]
    """
    kept: list[int] = []
    for place in reversed(range(len(times))):
        if not kept or times[kept[-1]] - times[place] >= least * (1 - 1e-9):
            kept.append(place)
    return set(kept)


def _note(lanes: Sequence[Lane]) -> str:
    worked = ", ".join(f"{lane.name} {lane.said}" for lane in lanes if lane.spans)
    rolled = [float(values.mean()) for lane in lanes for words, _, values in lane.rising if words == STEPPING[0]]
    said = [f"Share of the time with passes of the model: {worked}." if worked else ""]
    if rolled:
        ends = dict.fromkeys((percent(min(rolled)), percent(max(rolled))))
        said.append(f"Rollout replicas: {' to '.join(ends)} of it with a step.")
    said.append("At the right: the share of the time at work; of graders and sandboxes the most at a time. Lines: a version is out.")
    return " ".join(filter(None, said))


def _area(axes: Any, steps: tuple[np.ndarray, np.ndarray], lane: tuple[float, float], look: Look, ground: np.ndarray | None = None) -> bool:
    """Fill from the ground (0) to values, shares of a lane that begins at `lane[0]` and is `lane[1]` high; False when there is nothing.

    Heights are rounded to `LEVELS`, upwards from the first bit, so that neighbours alike become one step of the outline.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    edges, values = steps
    base = np.zeros(len(values)) if ground is None else ground
    top = np.ceil(np.clip(base + values, 0, 1) * LEVELS - 1e-9) / LEVELS
    base = np.round(np.clip(base, 0, 1) * LEVELS) / LEVELS
    top = np.maximum(top * look.height, base)
    if not (top > base).any():
        return False
    over, under = _outline(edges, top), _outline(edges, base)
    points = np.array(over + under[::-1])
    points[:, 1] = lane[0] + lane[1] * points[:, 1]
    axes.add_patch(PathPatch(Path(points, closed=False), facecolor=look.colour, alpha=look.alpha, linewidth=0))
    return True


def _outline(edges: np.ndarray, heights: np.ndarray) -> list[tuple[float, float]]:
    """The corners of a line of steps."""
    keep = np.flatnonzero(np.concatenate([[True], np.diff(heights) != 0]))
    at = np.append(edges[keep], edges[-1])
    return [(x, y) for place, y in enumerate(heights[keep]) for x in (at[place], at[place + 1])]


def _spans(axes: Any, spans: list[tuple[float, float]], row: int, look: Look) -> None:
    """All the bars of one state as one shape."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    low, high = row + 0.92, row + 0.92 - 0.84 * look.height
    corners = [corner for a, b in spans for corner in ((a, low), (b, low), (b, high), (a, high), (a, low))]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(spans)
    axes.add_patch(PathPatch(Path(corners, codes), facecolor=look.colour, alpha=look.alpha, linewidth=0))


def _short(name: str) -> str:
    return name if len(name) <= WIDTH else f"{name[: WIDTH - 1]}…"
