"""How far simulated runs of reinforcement learning lie from published ones: a page, a section of ACCURACY.md, and a table for a terminal.

For each run: its configuration, what was assumed and whence, what was reported, what is simulated, and the error. All is written from an
`RlSummary` alone, so that no figure is typed by hand and every miss is shown as it is.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.core.errors import BadInput
from sim.report import folder as beside
from sim.report.accuracy import BAND, MARKERS, Table, markdown_rows, square
from sim.report.plots import Plot
from sim.report.section import Card
from sim.report.svg import GRID, INK, SERIES, STYLE, svg
from sim.report.template import fill
from sim.report.words import number, percent
from sim.study.shelf import put
from sim.study.validate.rl import RlSummary
from sim.study.validate.rl_plan import Plan

BEGIN, END = "<!-- reinforcement learning -->", "<!-- end of reinforcement learning -->"
FOOTER = (
    "step_s: seconds of a version. wait_s: the trainer waited for answers. gen_s: a generation. tok_s: tokens trained on per second, "
    "tok_s_gpu with prompts and per GPU. Shares are of a step; tail_*: of a round."
)  # fmt: skip
SHOWN = ("step_s", "wait_s", "gen_s", "speedup_vs_sync")
HEAD = ("run", "configuration", "metric", "reported", "simulated", "error", "")


def save(summary: RlSummary, folder: Path) -> None:
    """Write accuracy_rl.html and ACCURACY.md, each whole or not at all. Raises BadInput when the folder cannot be written."""
    try:
        put(folder, {"accuracy_rl.html": page(summary), "ACCURACY.md": markdown(summary)})
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def page(summary: RlSummary) -> str:
    """One page that needs nothing else: no network, the plot and the script inline."""
    return fill(
        "accuracy", figures=summary.figures, cards=_cards(summary), plots=_plots(summary), tables=tables(summary), footer=FOOTER,
        files=beside.of_accuracy(errors=len(summary.errors), could_not=len(summary.could_not)),
    )


def markdown(summary: RlSummary) -> str:
    """The section of ACCURACY.md, between the marks by which `merged` finds it."""
    figures = summary.figures
    lines = [
        BEGIN, "# Reinforcement learning", "",
        f"Written by `burstsim validate --rl` ({figures['version']}) from {figures['table']} and the project's own table; do not edit. "
        f"{figures['predicted']} of {figures['rows']} published runs were simulated. Update and log-probability times that a row reports "
        "are inputs; step, wait and generation are predicted, but for the generation that a length law was fitted to.", "",
    ]  # fmt: skip
    for table in tables(summary):
        lines += [f"## {table.title}", "", *markdown_rows(table), *([f"\n{table.note}"] if table.note else []), ""]
    return "\n".join(lines).rstrip() + f"\n{END}\n"


def merged(text: str, section: str) -> str:
    """A text with its section on reinforcement learning replaced, or put at its end.

    >>> merged("a\\n", BEGIN + "b" + END + "\\n") == merged("a\\n\\n" + BEGIN + END + "\\n", BEGIN + "b" + END + "\\n")
    True
    """
    before, mark, rest = text.partition(BEGIN)
    after = rest.partition(END)[2].lstrip("\n") if mark else ""
    before = before.rstrip("\n")
    return (f"{before}\n\n" if before else "") + section + (f"\n{after}" if after else "")


def section_of(text: str) -> str:
    """The section on reinforcement learning of a text, empty where there is none."""
    _, mark, rest = text.partition(BEGIN)
    return mark + rest.partition(END)[0] + END + "\n" if mark else ""


def terminal(summary: RlSummary) -> str:
    """Goals, figures and what could not be done, as plain text."""
    blocks = []
    for table in tables(summary):
        if table.title.startswith("Assumed"):
            continue
        rows = [tuple(table.head), *table.rows]
        widths = [max(len(row[place]) for row in rows) for place in range(len(table.head))]
        left = [place < table.texts for place in range(len(widths))]
        lines = [
            "  ".join(cell.ljust(width) if to else cell.rjust(width) for cell, width, to in zip(row, widths, left, strict=True)).rstrip()
            for row in rows
        ]  # fmt: skip
        blocks.append("\n".join([table.title, *lines]))
    return "\n\n".join(blocks)


def tables(summary: RlSummary) -> list[Table]:
    """What all forms show, in order."""
    goals = [(one["goal"], one["wanted"], one["found"], "yes" if one["met"] else "no") for one in summary.goals]
    fits = [
        (one["id"], number(one["mean_tokens"]), number(one["reported"]), number(one["simulated"])) for one in summary.fits
    ]  # fmt: skip
    could = [(one["id"], one["why"]) for one in summary.could_not]
    note = "The mean of the lognormal if there were no limit; the only figure that is fitted, once per setup."
    return [
        Table("Goals of published runs", ("goal", "wanted", "found", "met"), goals, 3),
        Table("Published and simulated", HEAD, _rows(summary), 3, "An input is a figure that the simulation was given."),
        Table("Fitted lengths", ("run", "mean tokens", "gen_s reported", "gen_s simulated"), fits, 1, note),
        Table("Assumed where the row does not say", ("what", "value", "source", "runs"), _assumed(summary.plans), 4),
        Table("Runs that could not be done", ("run", "why"), could, 2, "" if could else "Every run was simulated."),
    ]  # fmt: skip


def configuration(plan: Plan) -> str:
    """A run in one line."""
    if "sync" in plan.scenario:
        return "{model}, {n_gpus} {gpu}, a sync of weights alone".format(**plan.scenario["sync"])
    cluster, load = plan.scenario["cluster"], plan.scenario["workloads"][0]
    pool, trainer = cluster["pools"][0], cluster["trainers"][0]
    each = math.prod(pool["parallel"].get(key, 1) for key in ("tp", "pp", "dp"))
    split = "shared" if "shares" in trainer else f"{pool['replicas'] * each}:{trainer['gpus']}"
    total = trainer["gpus"] + (0 if "shares" in trainer else pool["replicas"] * each)
    gate = {key: value for key, value in load.get("staleness", {}).items() if key != "kind"}
    bound = "".join(f", {key} {value}" for key, value in gate.items())
    cap = f", {load['prompts']} x {load['samples']} samples"
    cap += f" up to {load['answers']['cap']:,} tokens" if "answers" in load else ""
    return f"{plan.scenario['model'].rpartition('/')[2]}, {total} {pool['gpu']} {split}, {plan.mode}{bound}{cap}"


def _rows(summary: RlSummary) -> list[tuple[str, ...]]:
    """A line per figure; the run and its configuration stand in the first."""
    errors = {(row.id, row.metric): row.ape for row in summary.errors.itertuples()}
    rows: list[tuple[str, ...]] = []
    for plan in summary.plans:
        if plan.id not in summary.found:
            continue
        told = (plan.id, configuration(plan))
        lines = [(metric, value, summary.found[plan.id].figures.get(metric, math.nan)) for metric, value in plan.measured.items()]
        for metric, value, predicted in [*lines, *((name, value, math.nan) for name, value in plan.inputs.items())]:
            given = metric in plan.inputs or (metric == "gen_s" and plan.fits == plan.fits)
            base = metric == "speedup_vs_sync" and (plan.id, metric) not in errors
            word = "input" if metric in plan.inputs else "fitted" if given else "base" if base else ""
            error = percent(predicted / value - 1) if (plan.id, metric) in errors else "–"
            rows.append((*told, metric, number(value), "" if metric in plan.inputs else number(predicted), error, word))
            told = ("", "")
    return rows


def _assumed(plans: Sequence[Plan]) -> list[tuple[str, ...]]:
    """Each assumption once, with the runs it was made for."""
    found: dict[tuple[str, ...], list[str]] = {}
    for plan in plans:
        if not plan.reason:
            for one in plan.assumed:
                found.setdefault(tuple(one), []).append(plan.id)
    many = sum(not plan.reason for plan in plans)
    return [(*said, "all" if len(names) == many else ", ".join(names)) for said, names in sorted(found.items())]


def _cards(summary: RlSummary) -> list[Card]:
    cards = []
    for metric in SHOWN:
        part = summary.errors[summary.errors["metric"] == metric]
        if len(part):
            more = f"median error, {len(part)} runs; mean {percent(float(part['ape'].mean()))}"
            cards.append(Card(metric, percent(float(part["ape"].median())), more))
    met = sum(one["met"] for one in summary.goals)
    cpu = number(summary.figures["cpu_s"])
    return [*cards, Card("Goals met", f"{met} of {len(summary.goals)}", f"{cpu} CPU-seconds")]


def _plots(summary: RlSummary) -> list[Plot]:
    """Steps simulated over steps published, by framework."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    part = summary.errors[summary.errors["metric"] == "step_s"]
    if part.empty:
        return []
    look: Any = STYLE
    who = [summary.rows[name]["framework"] or "other" for name in part["id"]]
    with pyplot.rc_context(look):
        figure, axis = pyplot.subplots(figsize=(4.6, 4.2), layout="constrained")
        ends = part[["measured", "predicted"]].to_numpy().min() / 1.3, part[["measured", "predicted"]].to_numpy().max() * 1.3
        axis.fill_between(ends, [(1 - BAND) * end for end in ends], [(1 + BAND) * end for end in ends], color=GRID, alpha=0.6, linewidth=0)
        axis.plot(ends, ends, color=INK, linewidth=0.8)
        for place, name in enumerate(dict.fromkeys(who)):
            some = part[[one == name for one in who]]
            style: dict[str, Any] = {"s": 18, "alpha": 0.8, "color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)]}
            axis.scatter(some["measured"], some["predicted"], label=name, linewidths=0, **style)
        axis.set(xlabel="published, s", ylabel="simulated, s")
        square(axis, ends)
        axis.legend(loc="upper left", fontsize=8)
        text = svg(figure, "rl-step", f"simulated against published step of {len(part)} runs")
        pyplot.close(figure)
    return [Plot("Seconds of a step", "The band is 10% about the diagonal.", text)]
