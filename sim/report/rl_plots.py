"""Drawings of a run of reinforcement learning: what each step's seconds went to, how stale what is trained on was, the long tail, lengths
generated and trained on, what was generated in vain, and samples that run and wait over time. The Gantt chart is in `gantt.py`.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from sim.report.gantt import gantts
from sim.report.plots import BINS, LEGEND, Drawing, Part, Plot, over_time
from sim.report.svg import CARD, INK, SERIES, STYLE, svg
from sim.report.words import counted, number, percent, scaled, seconds
from sim.study.facts import Bins
from sim.study.metrics import Facts
from sim.study.rl.run import Rows, Run, runs

RUNS = 3
SHORTER = 0.97  # from here on answers trained on are called shorter
SEEN = 0.004  # share of a bar that can be seen
FAR, ROOM = 5.0, 1.3  # times the 95th percentile, beyond which a step is cut off; room above the others, where that is said
MOST_CUT = 3  # named in the drawing and in words
# Parts of a step in the order they are stacked: words, colour, opacity.
PARTS = {
    "wait": ("answers awaited", INK, 0.25), "reward": ("rewards awaited", SERIES[4], 0.75), "data": ("data awaited", SERIES[3], 0.3),
    "logprob": ("log-probabilities", SERIES[0], 0.35), "reference": ("the reference's", SERIES[0], 0.18),
    "update": ("update", SERIES[0], 0.85), "sync": ("weights out", SERIES[1], 0.85), "switch": ("GPUs change hands", SERIES[4], 0.35),
    "checkpoint": ("checkpoint", SERIES[3], 0.85), "validation": ("validation", SERIES[3], 0.5), "other": ("other", SERIES[1], 0.25),
}  # fmt: skip
LAGS = (("lag_submit", "since its group began"), ("lag_oldest", "since its first token"), ("lag_mean", "mean over its tokens"))
MOST_LAGS = 12
READY = ("trained", "accepted", "stale_dropped")  # states of groups that waited for the trainer once they were scored


def plots(facts: Facts, summary: Mapping[str, Any]) -> Iterator[Plot]:
    """All of them, of the first `RUNS` runs; who does what comes first."""
    from matplotlib import rc_context

    found = summary["rl"] or {}
    if not found or facts.end <= 0:
        return
    charts = gantts(facts)
    with rc_context(STYLE):
        for run in runs(facts)[:RUNS]:
            of, figures = f" of {run.name}" if len(found) > 1 else "", found[run.name]
            if figures is None:
                continue
            # A broad drawing and one that is not make a row.
            yield from islice(charts, 1)
            yield _breakdown(run, of)
            yield from charts
            drawings = [*staleness(run, of), *tail(figures, of), *lengths(run, of), *waste(figures, of), busy(facts, run, of)]
            yield from (one.plot() for one in drawings)


def stacks(steps: Rows) -> dict[str, np.ndarray]:
    """Seconds of each part of each step, `other` among them, in the order of `PARTS`."""
    took = steps["end"] - steps["start"]
    known = {part: steps[part] for part in PARTS if part != "other"}
    return known | {"other": np.maximum(took - sum(known.values()), 0.0)}


def cut_off(took: np.ndarray) -> tuple[float, list[int]]:
    """Where an axis of such times ends, s, and which of them are beyond it, the longest first: those so long that the others would not be
    seen, such as a step that waits for the night. NaN and none where all can be seen.

    >>> cut_off(np.array([10.0, 20.0, 28800.0, 11.0]))
    (26.0, [2])
    """
    bound = FAR * float(np.quantile(took, 0.95, method="lower"))
    far = np.flatnonzero(took > bound)
    if not bound or not len(far):
        return float("nan"), []
    return ROOM * float(took[took <= bound].max()), far[np.argsort(-took[far], kind="stable")].tolist()


def _breakdown(run: Run, of: str) -> Plot:
    from matplotlib.figure import Figure

    took, skipped = run.steps["end"] - run.steps["start"], run.skipped
    shares = _shares(run)
    biggest = sorted(shares, key=lambda part: -shares[part])[:3]
    title = f"What the steps{of} take"
    left_out = f", the first {'step' if skipped == 1 else f'{skipped} steps'} left out" if skipped else ""
    said = ", ".join(f"{PARTS[part][0]} {percent(shares[part])}" for part in biggest)
    one = seconds(float(took[skipped:].mean()))
    note = f"{counted(len(took), 'step')}. On average, which is the bar on top{left_out}, one takes {one}: {said}."
    _, cut = cut_off(took)
    if cut:
        longest = ", ".join(f"version {run.steps['version'][at]} took {seconds(float(took[at]))}" for at in cut[:MOST_CUT])
        more = f", and {len(cut) - MOST_CUT} more" if len(cut) > MOST_CUT else ""
        note += f" Cut off at the top: {longest}{more}."
    drawn = Figure(figsize=(4.3, 3.4), layout="constrained")
    top, axes = drawn.subplots(2, 1, height_ratios=(1, 7))
    left = 0.0
    for part, share in shares.items():
        _, colour, alpha = PARTS[part]
        top.barh(0, 100 * share, left=100 * left, color=colour, alpha=alpha, height=0.8)
        if share >= 0.09:
            top.annotate(f"{100 * share:.0f}%", (100 * (left + share / 2), 0), ha="center", va="center", fontsize=8.5,
                         color=INK, bbox=_plate())  # fmt: skip
        left += share
    top.set_xlim(0, 100)
    top.axis("off")
    breakdown(axes, run)
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2, borderpad=0)
    return Plot(title, note, svg(drawn, title, f"{title}. {note}"))


def _shares(run: Run) -> dict[str, float]:
    """Of the time of the steps that count, by part; those that can be seen."""
    parts, took = stacks(run.steps), run.steps["end"] - run.steps["start"]
    total = max(float(took[run.skipped :].sum()), 1e-300)
    shares = {part: float(values[run.skipped :].sum()) / total for part, values in parts.items()}
    return {part: share for part, share in shares.items() if share > SEEN}


def breakdown(axes: Any, run: Run) -> None:
    """The parts of each step, stacked; whoever draws it puts the legend."""
    parts, version = stacks(run.steps), run.steps["version"]
    below, edges = np.zeros(len(version)), np.append(version - 0.5, version[-1] + 0.5)
    for part in _shares(run):
        words, colour, alpha = PARTS[part]
        above = below + parts[part]
        axes.stairs(above, edges, baseline=below, color=colour, alpha=alpha, fill=True, label=words)
        below = above
    axes.set_xlim(edges[0], edges[-1])
    took = run.steps["end"] - run.steps["start"]
    end, cut = cut_off(took)
    axes.set_ylim(0, end if cut else None)
    if cut:
        _mark(axes, version[cut], took[cut], end)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("seconds of a step, by the version it made", pad=6)


def _mark(axes: Any, versions: np.ndarray, took: np.ndarray, end: float) -> None:
    """Bars that go on beyond the end of the axis have a head there, and the longest what they reach."""
    axes.plot(versions, np.full(len(versions), end), "^", color=INK, markersize=5, clip_on=False)
    for place, at in enumerate(np.argsort(versions[:MOST_CUT], kind="stable").tolist()):
        right = versions[at] < np.mean(axes.get_xlim())
        axes.annotate(seconds(float(took[at])), (versions[at], end), (6 if right else -6, -5 - 12 * place), textcoords="offset points",
                      ha="left" if right else "right", va="top", fontsize=8.5, color=INK, bbox=_plate())  # fmt: skip


def _plate() -> dict[str, Any]:
    """What makes a number legible on any colour: a plate of the card's own."""
    return {"boxstyle": "round,pad=0.15", "facecolor": CARD, "edgecolor": "none", "alpha": 0.85}


def staleness(run: Run, of: str) -> Iterator[Drawing]:
    """A part for each of `LAGS`; nothing where every token was of the version that was updated."""
    lags = {name: run.samples[name][run.trained] for name, _ in LAGS}
    most = int(np.ceil(max((float(values.max(initial=0.0)) for values in lags.values()), default=0.0)))
    if not most:
        return
    shown = min(most, MOST_LAGS)
    counts = (np.bincount(np.minimum(np.round(values), shown).astype(int), minlength=shown + 1) for values in lags.values())
    bars = [100 * count / max(count.sum(), 1) for count in counts]
    means = {name: float(values.mean()) for name, values in lags.items()}
    note = (
        f"Versions between the policy that is updated and the one that wrote, of samples trained on. Mean: {means['lag_submit']:.2g} since "
        f"their groups began, {means['lag_oldest']:.2g} since their first tokens, {means['lag_mean']:.2g} over all tokens."
    )
    if most > shown:
        note += f" The last bar: {shown} and more."

    def part(place: int) -> Part:
        def draw(axes: Any) -> None:
            axes.bar(range(shown + 1), bars[place], color=SERIES[place], alpha=0.75, width=0.8)
            for at, height in enumerate(bars[place]):
                if height >= 0.5:
                    axes.annotate(f"{height:.0f}", (at, height), (0, 1), textcoords="offset points", ha="center", va="bottom", fontsize=8)
            axes.set_title(f"{LAGS[place][1]}, % of samples" if not place else LAGS[place][1])
            axes.set_ylim(0, 1.25 * max(float(one.max()) for one in bars))
            axes.grid(axis="x", visible=False)
            axes.set_xticks(range(shown + 1), [*map(str, range(shown)), f"{shown}{'+' * (most > shown)}"])
            axes.set_xlabel("versions")

        return draw

    yield Drawing(f"How stale samples{of} are", note, tuple(map(part, range(len(LAGS)))), (4.3, 3.6))


def tail(found: Mapping[str, Any], of: str) -> Iterator[Drawing]:
    """How samples of a round get done; nothing without rounds."""
    curve = found["tail"]
    if not curve:
        return
    shares, times = (100 * np.array(values) for values in zip(*curve["curve"], strict=True))
    took = percent(curve["last_10_percent"])
    note = f"Mean over {curve['rounds']} rounds: the last 10% of the samples take {took} of the time. Dashed: if they came evenly."

    def draw(axes: Any) -> None:
        axes.fill_between(times, shares, color=SERIES[2], alpha=0.2, linewidth=0)
        axes.plot(times, shares, color=SERIES[2], marker="o", markersize=3)
        axes.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=0.8)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("time of a round, %")
        axes.set_title("samples that are done, %")

    yield Drawing(f"The long tail{of}", note, (draw,))


def lengths(run: Run, of: str) -> Iterator[Drawing]:
    """Lengths of all samples that ended in the time that counts, and of those trained on; nothing where there are too few."""
    tokens = run.samples["tokens"]
    kinds = {"generated": tokens[run.generated], "trained on": tokens[run.trained]}
    if any(len(values) < 2 for values in kinds.values()) or tokens.max() <= 0:
        return
    means = {name: float(values.mean()) for name, values in kinds.items()}
    bias = means["trained on"] / means["generated"] if means["generated"] else float("nan")
    times = "" if number(bias) == "1" else f"{number(bias)} times "
    note = (
        f"On average {number(round(means['generated']))} tokens of those generated, {number(round(means['trained on']))} of those trained "
        f"on: {times}as long{', for what is short is trained on first or more often' if bias < SHORTER else ''}."
    )
    low = max(float(np.quantile(kinds["generated"], 0.001)), 1.0)
    edges = np.geomspace(low, max(float(tokens.max()), 1.01 * low), 41)

    def draw(axes: Any) -> None:
        for (name, values), colour, dash in zip(kinds.items(), (SERIES[1], SERIES[0]), ("-", "--"), strict=True):
            heights = 100 * np.histogram(np.maximum(values, low), edges)[0] / len(values)
            axes.stairs(heights, edges, color=colour, linestyle=dash, baseline=None, label=name, linewidth=1.5)
        axes.set_xscale("log")
        _thousands(axes)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens of a sample")
        axes.set_title("% of samples, by length", pad=20)
        axes.legend(ncols=2, handlelength=1.8, **LEGEND)

    yield Drawing(f"How long answers{of} are", note, (draw,))


def _thousands(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value).replace(" ", "")))
    axes.xaxis.set_minor_formatter(NullFormatter())


def waste(found: Mapping[str, Any], of: str) -> Iterator[Drawing]:
    """Tokens generated in vain, by reason; nothing with fewer than two reasons."""
    lost = found["waste"]
    if len(lost["tokens"]) < 2:
        return
    tokens = {reason.replace("_", " "): count for reason, count in lost["tokens"].items()}
    names = sorted(tokens, key=lambda reason: -tokens[reason])[:8]
    note = f"{scaled(float(lost['total'])).strip()} tokens in all, {percent(lost['share'])} of those generated; most of it: {names[0]}."

    def draw(axes: Any) -> None:
        values = [tokens[name] for name in names]
        axes.barh(range(len(names)), values, color=SERIES[1], alpha=0.75, height=0.6)
        for place, value in enumerate(values):
            axes.annotate(scaled(float(value)).strip(), (value, place), (3, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(max(len(names), 3) - 0.5, -0.5)
        axes.set_xlim(0, 1.2 * max(values))
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.set_title("tokens, by why they were in vain")

    yield Drawing(f"Generated in vain{of}", note, (draw,))


def _stopped(run: Run) -> np.ndarray:
    """When each sample ended, s; one that did not was called off when its group was done or gone (NaN: it was not)."""
    groups, done = run.groups, run.samples["done"]
    over = np.full(int(groups["group"].max(initial=-1)) + 1, np.nan)
    over[groups["group"]] = np.where(np.isnan(groups["done"]), groups["ended"], groups["done"])
    return np.where(np.isnan(done), np.maximum(over[run.samples["group"]], run.samples["begun"]), done)


def busy(facts: Facts, run: Run, of: str) -> Drawing:
    """Samples that run, and groups that are done and wait: for rewards, and for the trainer."""
    samples, groups = run.samples, run.groups
    edges = np.linspace(facts.begin, facts.end, BINS + 1)

    def mean(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        known = ~np.isnan(start)
        return Bins(edges).add(start[known], np.where(np.isnan(end), facts.end, end)[known]).means()

    running = mean(samples["begun"], _stopped(run))
    scored = ~np.isnan(groups["scored"])
    grading = mean(groups["done"], np.where(scored, groups["scored"], groups["ended"]))
    labels = groups.labels["state"]
    ready = np.isin(groups["state"], [labels.index(name) for name in READY]) & scored
    waiting = mean(groups["scored"][ready], groups["ended"][ready])
    most, mean_wait, most_wait = (number(round(float(value))) for value in (running.max(), waiting.mean(), waiting.max()))
    note = f"At most {most} samples run at once; {mean_wait} groups wait for the trainer on average, at most {most_wait}, over a bin."

    def under_way(axes: Any, clock: float) -> None:
        axes.stairs(running, edges / clock, color=SERIES[2], fill=True, alpha=0.25)
        axes.stairs(running, edges / clock, color=SERIES[2], baseline=None)
        axes.set_title("samples that run")
        axes.set_ylim(bottom=0)

    def held(axes: Any, clock: float) -> None:
        axes.stairs(waiting, edges / clock, color=SERIES[0], baseline=None, label="for the trainer")
        axes.stairs(grading, edges / clock, color=SERIES[1], baseline=None, linestyle="--", label="for rewards")
        axes.set_title("groups that wait", pad=20)
        axes.legend(ncols=2, handlelength=1.8, **LEGEND)
        axes.set_ylim(bottom=0)

    return over_time(f"Samples{of} under way, and groups that wait", note, facts, under_way, held)
