"""Drawings of a run of reinforcement learning: what each step's seconds went to, how stale what is trained on was, the long tail, lengths
generated and trained on, what was generated in vain, and samples that run and wait over time. The Gantt chart is in `gantt.py`.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from sim.report.gantt import gantts
from sim.report.plots import BINS, LEGEND, Plot, figure, over_time
from sim.report.svg import CARD, INK, SERIES, STYLE, svg
from sim.report.words import number, percent, scaled, seconds
from sim.study.facts import Bins
from sim.study.metrics import Facts
from sim.study.rl_run import Rows, Run, runs

RUNS = 3
SHORTER = 0.97  # from here on answers trained on are called shorter
SEEN = 0.004  # share of a bar that can be seen
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
            yield from _staleness(run, of)
            yield from _tail(figures, of)
            yield from _lengths(run, of)
            yield from _waste(figures, of)
            yield _busy(facts, run, of)


def stacks(steps: Rows) -> dict[str, np.ndarray]:
    """Seconds of each part of each step, `other` among them, in the order of `PARTS`."""
    took = steps["end"] - steps["start"]
    known = {part: steps[part] for part in PARTS if part != "other"}
    return known | {"other": np.maximum(took - sum(known.values()), 0.0)}


def _breakdown(run: Run, of: str) -> Plot:
    from matplotlib.figure import Figure

    parts, took, skipped = stacks(run.steps), run.steps["end"] - run.steps["start"], run.skipped
    total = max(float(took[skipped:].sum()), 1e-300)
    shares = {part: float(values[skipped:].sum()) / total for part, values in parts.items()}
    used = [part for part, share in shares.items() if share > SEEN]
    biggest = sorted(used, key=lambda part: -shares[part])[:3]
    title = f"What the steps{of} take"
    left_out = f", the first {'step' if skipped == 1 else f'{skipped} steps'} left out" if skipped else ""
    said = ", ".join(f"{PARTS[part][0]} {percent(shares[part])}" for part in biggest)
    note = f"{len(took)} steps. On average, which is the bar on top{left_out}, one takes {seconds(float(took[skipped:].mean()))}: {said}."
    drawn = Figure(figsize=(4.3, 3.4), layout="constrained")
    top, axes = drawn.subplots(2, 1, height_ratios=(1, 7))
    left, below = 0.0, np.zeros(len(took))
    version = run.steps["version"]
    edges = np.append(version - 0.5, version[-1] + 0.5)
    for part in used:
        words, colour, alpha = PARTS[part]
        top.barh(0, 100 * shares[part], left=100 * left, color=colour, alpha=alpha, height=0.8)
        if shares[part] >= 0.09:
            top.annotate(f"{100 * shares[part]:.0f}%", (100 * (left + shares[part] / 2), 0), ha="center", va="center", fontsize=8.5,
                         color=INK, bbox=_plate())  # fmt: skip
        above = below + parts[part]
        axes.stairs(above, edges, baseline=below, color=colour, alpha=alpha, fill=True, label=words)
        left, below = left + shares[part], above
    top.set_xlim(0, 100)
    top.axis("off")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("seconds of a step, by the version it made", pad=6)
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2, borderpad=0)
    return Plot(title, note, svg(drawn, title, f"{title}. {note}"))


def _plate() -> dict[str, Any]:
    """What makes a number legible on any colour: a plate of the card's own."""
    return {"boxstyle": "round,pad=0.15", "facecolor": CARD, "edgecolor": "none", "alpha": 0.85}


def _staleness(run: Run, of: str) -> Iterator[Plot]:
    """Nothing where every token was of the version that was updated."""
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
    from matplotlib.figure import Figure

    title = f"How stale samples{of} are"
    drawn = Figure(figsize=(4.3, 3.6), layout="constrained")
    for place, (axes, heights, (_, words)) in enumerate(zip(drawn.subplots(3, 1, sharex=True, sharey=True), bars, LAGS, strict=True)):
        axes.bar(range(shown + 1), heights, color=SERIES[place], alpha=0.75, width=0.8)
        for at, height in enumerate(heights):
            if height >= 0.5:
                axes.annotate(f"{height:.0f}", (at, height), (0, 1), textcoords="offset points", ha="center", va="bottom", fontsize=8)
        axes.set_title(f"{words}, % of samples" if not place else words)
        axes.set_ylim(0, 1.25 * max(float(one.max()) for one in bars))
        axes.grid(axis="x", visible=False)
    axes.set_xticks(range(shown + 1), [*map(str, range(shown)), f"{shown}{'+' * (most > shown)}"])
    axes.set_xlabel("versions")
    yield Plot(title, note, svg(drawn, title, f"{title}. {note}"))


def _tail(found: Mapping[str, Any], of: str) -> Iterator[Plot]:
    tail = found["tail"]
    if not tail:
        return
    shares, times = (100 * np.array(values) for values in zip(*tail["curve"], strict=True))
    took = percent(tail["last_10_percent"])
    note = f"Mean over {tail['rounds']} rounds: the last 10% of the samples take {took} of the time. Dashed: if they came evenly."

    def draw(axes: Any) -> None:
        axes.fill_between(times, shares, color=SERIES[2], alpha=0.2, linewidth=0)
        axes.plot(times, shares, color=SERIES[2], marker="o", markersize=3)
        axes.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=0.8)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("time of a round, %")
        axes.set_title("samples that are done, %")

    yield figure(f"The long tail{of}", note, draw)


def _lengths(run: Run, of: str) -> Iterator[Plot]:
    """Lengths of all samples that ended in the time that counts, and of those trained on."""
    tokens = run.samples["tokens"]
    kinds = {"generated": tokens[run.generated], "trained on": tokens[run.trained]}
    if any(len(values) < 2 for values in kinds.values()) or tokens.max() <= 0:
        return
    means = {name: float(values.mean()) for name, values in kinds.items()}
    bias = means["trained on"] / means["generated"] if means["generated"] else float("nan")
    note = (
        f"On average {number(round(means['generated']))} tokens of those generated, {number(round(means['trained on']))} of those trained "
        f"on: {number(bias)} times as long{', for what is short is trained on first or more often' if bias < SHORTER else ''}."
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

    yield figure(f"How long answers{of} are", note, draw)


def _thousands(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value).replace(" ", "")))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _waste(found: Mapping[str, Any], of: str) -> Iterator[Plot]:
    waste = found["waste"]
    if len(waste["tokens"]) < 2:
        return
    tokens = {reason.replace("_", " "): count for reason, count in waste["tokens"].items()}
    names = sorted(tokens, key=lambda reason: -tokens[reason])[:8]
    note = f"{scaled(float(waste['total'])).strip()} tokens in all, {percent(waste['share'])} of those generated; most of it: {names[0]}."

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

    yield figure(f"Generated in vain{of}", note, draw)


def _stopped(run: Run) -> np.ndarray:
    """When each sample ended, s; one that did not was called off when its group was done or gone (NaN: it was not)."""
    groups, done = run.groups, run.samples["done"]
    over = np.full(int(groups["group"].max(initial=-1)) + 1, np.nan)
    over[groups["group"]] = np.where(np.isnan(groups["done"]), groups["ended"], groups["done"])
    return np.where(np.isnan(done), np.maximum(over[run.samples["group"]], run.samples["begun"]), done)


def _busy(facts: Facts, run: Run, of: str) -> Plot:
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

    def draw(axes: Any, clock: float) -> None:
        axes[0].stairs(running, edges / clock, color=SERIES[2], fill=True, alpha=0.25)
        axes[0].stairs(running, edges / clock, color=SERIES[2], baseline=None)
        axes[0].set_title("samples that run")
        axes[1].stairs(waiting, edges / clock, color=SERIES[0], baseline=None, label="for the trainer")
        axes[1].stairs(grading, edges / clock, color=SERIES[1], baseline=None, linestyle="--", label="for rewards")
        axes[1].set_title("groups that wait", pad=20)
        axes[1].legend(ncols=2, handlelength=1.8, **LEGEND)
        for one in axes:
            one.set_ylim(bottom=0)

    return over_time(f"Samples{of} under way, and groups that wait", note, facts, draw)
