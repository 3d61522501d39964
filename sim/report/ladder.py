"""A ladder as one page and as a block of text: which step bought what. Every word about a step is written from its figures."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.report import folder, rl_ladder
from sim.report.plots import Plot
from sim.report.svg import SERIES, STYLE, svg
from sim.report.template import fill
from sim.report.words import DASH, counted, dollars, number, percent, seconds
from sim.spec.limits import worded
from sim.spec.load import dump
from sim.study.ladder import Ladder

HEADS = ("Step", "GPUs needed", "Tokens/s per GPU", "$ per Mtok", "Throughput", "Cheaper", "GPUs", "Tokens/s", "TTFT p95", "TPOT p95",
         "KV waste", "Spread")  # fmt: skip
GROUPS = (("", 1), ("Smallest fleet within the service levels", 5), ("Fleet as written", 6))
PICKS = ("needed", "rate", "price", "throughput", "cost", "gpus", "tokens", "ttft", "tpot", "waste", "spread")
TICKS = ((12.0, (1,)), (4.0, (1, 2, 5)), (0.0, (1, 2, 3, 4, 5, 6, 8)))  # times powers of ten, by the largest over the smallest value
SAME = 0.02  # factors so near to 1 are called no difference


def render(ladder: Ladder) -> str:
    """The page; it links to the page of each step in the folders beside it."""
    rows = ladder.rows
    trained = rl_ladder.learned(rows)
    kept = [row for row in rows if row["kept"]]
    told = trained.rows if trained else [[one["label"], *(one[pick] for pick in PICKS)] for one in map(cells, rows)]
    return fill(
        "ladder", name=ladder.scenario.name, description=ladder.scenario.description, done=len(rows), wanted=ladder.wanted,
        heads=rl_ladder.HEADS if trained else HEADS, groups=() if trained else GROUPS,
        rows=[[f"{place}. {line[0]}", *line[1:]] for place, line in enumerate(told, 1)],
        links=[f"{row['folder']}/report.html" for row in rows], said=[(row, sentence(row, rows)) for row in rows],
        whole="" if trained else whole(kept), plots=trained.plots if trained else plots(rows), most=ladder.most, trained=trained,
        beside=rl_ladder.BESIDE, limits=_limits(ladder), scenario=dump(ladder.scenario), files=folder.of_ladder(rows),
    )  # fmt: skip


def block(ladder: Ladder) -> str:
    """The table as text, ending without a newline."""
    trained = rl_ladder.lines(ladder.rows)
    if trained:
        return "\n".join(trained)
    head = ("step", "GPUs needed", "tok/s/GPU", "$/Mtok", "x tok/s/GPU", "x cheaper", "TTFT p95", "TPOT p95", "KV waste")
    picks = ("needed", "rate", "price", "throughput", "cost", "ttft", "tpot", "waste")
    table = [head, *((one["label"], *(one[pick] for pick in picks)) for one in map(cells, ladder.rows))]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    widths[0] *= -1
    lines = ["  ".join(f"{cell:{'<' if w < 0 else '>'}{abs(w)}}" for cell, w in zip(line, widths, strict=True)) for line in table]
    return "\n".join([*lines, "GPUs, money and factors: smallest fleet within the SLO. Latency and KV waste: the fleet as written."])


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a step as people read them."""
    return {
        "name": row["name"], "folder": row["folder"], "label": row["name"] + ("" if row["kept"] else " (tried)"), "kept": row["kept"],
        "needed": DASH if row["needed_gpus"] is None else number(row["needed_gpus"]),
        "rate": number(row["needed_output_tokens_per_s_per_gpu"]), "price": dollars(row["needed_usd_per_million_output_tokens"]),
        "throughput": times(row["throughput_factor"]), "cost": times(row["cost_factor"]), "gpus": number(row["gpus"]),
        "ttft": seconds(row["ttft_p95"]), "tpot": seconds(row["tpot_p95"]), "tokens": number(row["output_tokens_per_s"]),
        "attainment": percent(row["attainment"]), "waste": f"{percent(row['kv_internal'])} / {percent(row['kv_external'])}",
        "spread": f"{percent(row['spread_replicas'])} / {percent(row['spread_time'])}",
    }  # fmt: skip


def times(factor: float | None) -> str:
    """
    >>> times(2.346), times(0.5), times(12.3), times(None)
    ('× 2.35', '× 0.50', '× 12.3', '–')
    """
    return DASH if factor is None else f"× {factor:.2f}" if factor < 10 else f"× {number(factor)}"


def sentence(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What a step bought, in words, also when that is nothing or worse."""
    below = _below(row, rows)
    if below is None:
        return f"Needs {_gpus(row)}: what the others are compared with."
    than = "too" if _gpus(row) == _gpus(below) else f"in place of {_gpus(below)}"
    parts = [f"Needs {_gpus(row)} {than}: {_money(row)}."]
    latency = " and ".join(filter(None, (_latency_change(row, below, key) for key in ("ttft", "tpot"))))
    parts += [f"On the fleet as written {latency}."] if latency else []
    if row["audit_ok"] is False:
        parts.append("A check of this run failed: do not use its figures.")
    return " ".join(parts) + ("" if row["kept"] else " Tried and left again.")


def whole(kept: Sequence[Mapping[str, Any]]) -> str:
    """From the first step to the last, of those kept."""
    first, last = kept[0], kept[-1]
    names = "needed_gpus", "needed_usd_per_million_output_tokens", "needed_output_tokens_per_s_per_gpu"
    if len(kept) < 2 or any(row[name] is None for row in (first, last) for name in names):
        return ""
    gpus, price, rate = ((first[name], last[name]) for name in names)
    if all(abs(new / old - 1) < SAME for old, new in (gpus, price, rate)):
        what = " and ".join(filter(None, (_latency_change(last, first, key) for key in ("ttft", "tpot"))))
        changed = f"; on the fleet as written {what}" if what else ", and neither does latency"
        same = f"the GPUs needed ({number(gpus[0])}) and the price of a token do not change"
        return f"From {first['name']} to {last['name']}: {same}{changed}."
    return (
        f"From {first['name']} to {last['name']}: {counted(gpus[1], 'GPU')} in place of {number(gpus[0])}, "
        f"{number(rate[1] / rate[0])} times the output tokens per second of a GPU, "
        f"{dollars(price[1])} in place of {dollars(price[0])} per million output tokens "
        f"({number(price[0] / price[1])} times cheaper)."
    )


def plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """GPUs and money; what each step bought; latency; waste and evenness: those of which any step has figures. One line per step."""
    from matplotlib import rc_context

    drawn = {_bars: "needed_gpus", _bought: "cost_factor", _latency: "tpot_p95", _waste: "spread_time"}
    with rc_context(STYLE | {"font.size": 9, "ytick.labelsize": 8.5}):
        found = {draw: [row[key] for row in rows if row[key] is not None] for draw, key in drawn.items()}
        if all(abs(factor - 1) < SAME for row in rows for factor in (row["cost_factor"], row["throughput_factor"]) if factor is not None):
            del found[_bought]
        return [draw(rows) for draw, values in found.items() if values]


def _bars(rows: Sequence[Mapping[str, Any]]) -> Plot:
    title = "GPUs needed, and the price of a token"
    note = "Smallest fleet that carries the traffic within the service levels; logarithmic."
    axes, figure = _lines(rows, 2)
    kinds = (("needed_gpus", "GPUs"), ("needed_usd_per_million_output_tokens", "$ per Mtok"))
    for colour, (axis, (key, words)) in enumerate(zip(axes, kinds, strict=True)):
        values = [row[key] or 0 for row in rows]
        axis.barh(range(len(rows)), values, color=SERIES[colour], alpha=0.75, height=0.62)
        axis.set_xscale("log")
        axis.set_xlim(min((v for v in values if v), default=1.0) / 2, max([*values, 1.0]) * 4)
        axis.set_title(words)
        for place, value in enumerate(values):
            if value:
                axis.annotate(number(value), (value, place), (3, 0), textcoords="offset points", va="center")
        _bare(axis)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _bought(rows: Sequence[Mapping[str, Any]]) -> Plot:
    title = "Which step bought what"
    note = "Times better than the step it was put on, on the smallest fleet within the service levels; left of 1 is worse. Logarithmic."
    axes, figure = _lines(rows, 1)
    kinds = (("throughput_factor", "tokens/s per GPU", -0.19), ("cost_factor", "tokens per dollar", 0.19))
    for colour, (key, words, shift) in enumerate(kinds):
        lengths = [(row[key] or 1.0) - 1 for row in rows]
        places = [place + shift for place in range(len(rows))]
        axes[0].barh(places, lengths, left=1.0, height=0.34, color=SERIES[colour], alpha=0.75, label=words)
    axes[0].set_xscale("log")
    axes[0].axvline(1.0, color=SERIES[4], linewidth=0.8)
    _plain(axes[0], (0.25, 0.5, 1, 2, 3, 5, 10), [row[key] or 1.0 for row in rows for key in ("throughput_factor", "cost_factor")])
    axes[0].legend(ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0), handlelength=1.2, borderpad=0)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _latency(rows: Sequence[Mapping[str, Any]]) -> Plot:
    title, note = "Latency on the fleet as written", "Logarithmic. A fleet that is too small shows how long the run was."
    axes, figure = _lines(rows, 2)
    for axis, key, words, size, colour in ((axes[0], "ttft_p95", "TTFT p95, s", 1.0, 0), (axes[1], "tpot_p95", "TPOT p95, ms", 1e-3, 1)):
        values = [row[key] / size if row[key] else float("nan") for row in rows]
        axis.plot(values, range(len(rows)), "o-", color=SERIES[colour], markersize=4)
        axis.set_xscale("log")
        axis.set_title(words)
        axis.margins(x=0.12)
        known = [value for value in values if value == value]
        ratio = max(known) / min(known)
        steps = next(steps for least, steps in TICKS if ratio >= least)
        _plain(axis, [step * 10.0**power for power in range(-4, 6) for step in steps], values)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _waste(rows: Sequence[Mapping[str, Any]]) -> Plot:
    title = "KV waste and uneven use, %"
    note = "Waste: room in taken KV blocks without a token; no dot where blocks are shared. Spread: of the busy share."
    axes, figure = _lines(rows, 1)
    kinds = (("kv_internal", "KV waste", "o", 2), ("spread_replicas", "spread, replicas", "s", 0), ("spread_time", "spread, time", "D", 1))
    for key, words, marker, colour in kinds:
        values = [100 * row[key] if row[key] is not None else float("nan") for row in rows]
        axes[0].plot(values, range(len(rows)), marker, color=SERIES[colour], label=words, markersize=4.5)
    # No wider than a tenth of what is shown, so that small shares keep their places.
    most = max([1.0, *(100 * row[key] for row in rows for key, *_ in kinds if row[key] is not None)])
    axes[0].set_xlim(-0.03 * most, 1.05 * most)
    figure.legend(ncols=3, loc="outside upper left", handlelength=0.8, columnspacing=0.9, borderpad=0)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _lines(rows: Sequence[Mapping[str, Any]], columns: int) -> tuple[Any, Any]:
    """A figure of `columns` axes side by side with one line per step, the first on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, max(2.2, 0.9 + 0.235 * len(rows))), layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    axes[0].set_yticks(range(len(rows)), [row["name"] if row["kept"] else f"({row['name']})" for row in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    for axis in axes:
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
    return axes, figure


def _bare(axis: Any) -> None:
    """Bars that carry their values need no scale."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axis.xaxis.set_major_locator(NullLocator())
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _plain(axis: Any, ticks: Sequence[float], values: Sequence[float]) -> None:
    """A logarithmic axis with these ticks, those beside the values among them, written out."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(v for v in values if v == v), max(v for v in values if v == v)
    axis.xaxis.set_major_locator(FixedLocator([t for t in ticks if low / 1.6 <= t <= high * 1.6] or [low]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _below(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    kept = [one for one in rows[: rows.index(row)] if one["kept"]]
    return kept[-1] if kept else None


def _gpus(row: Mapping[str, Any]) -> str:
    return "more GPUs than were tried" if row["needed_gpus"] is None else counted(row["needed_gpus"], "GPU")


def _money(row: Mapping[str, Any]) -> str:
    rate, cost = row["throughput_factor"], row["cost_factor"]
    if rate is None or cost is None:
        return "no factor can be given"
    if abs(rate - 1) < SAME and abs(cost - 1) < SAME:
        return "no difference to throughput or money"
    worse = "worse, " if rate < 1 and cost < 1 else ""
    if abs(rate / cost - 1) < SAME:
        return f"{worse}{number(rate)} times the tokens per second of a GPU and per dollar"
    return f"{worse}{number(rate)} times the tokens per second of a GPU, {number(cost)} times the tokens per dollar"


def _latency_change(row: Mapping[str, Any], below: Mapping[str, Any], key: str) -> str:
    """How the 95th percentile of `key`, ttft or tpot, changed; nothing where it did not."""
    new, old = row[f"{key}_p95"], below[f"{key}_p95"]
    if not new or not old or abs(old / new - 1) < SAME:
        return ""
    return f"{key.upper()} p95 {'falls' if new < old else 'rises'} from {seconds(old)} to {seconds(new)}"


def _limits(ladder: Ladder) -> str:
    said = ladder.scenario.slo.model_dump(exclude_none=True)
    return ", ".join(f"{worded(name)} ≤ {seconds(limit)}" for name, limit in said.items() if name != "attainment")
