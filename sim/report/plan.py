"""A plan as one page and as a block of text: the answer in a sentence, what it costs and bears, what it hangs on, and who lost and why."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sim.report.decision import Card, Grid, Page, Part, columns
from sim.report.decision import render as page
from sim.report.folder import of_plan
from sim.report.plan_plots import plots
from sim.report.words import DASH, dollars, figure, number, percent, seconds
from sim.spec.limits import worded
from sim.spec.load import dump

if TYPE_CHECKING:
    from sim.study.plan.plan import Plan

Row = Mapping[str, Any]
STATES = {"best": "the answer", "loses": "dearer", "fails": "fails", "impossible": "cannot", "refused": "does not fit"}
MANY = 12  # layouts shown in a terminal
SOME = 8  # figures named of one source


def render(plan: Plan) -> str:
    """The page."""
    parts = [growth(plan), _binding(plan), _hangs(plan), Part("Other layouts", [losers(plan)], []), *_seen(plan), _assumed(plan)]
    mark, word = ("stable", _title(plan)) if plan.best else ("overloaded", "Nothing meets the SLO")
    shown = [part for part in parts if part is not None and (part.sheets or part.plots or part.lines)]
    found = Page(
        "a plan", plan.scenario.name, plan.scenario.description, mark, word, answer(plan), sentences(plan), _cards(plan), shown,
        dump(plan.scenario), "$/Mtok: dollars per million output tokens, all costs counted.",
        of_plan(len(plan.runs), plan.answer is not None),
    )  # fmt: skip
    return page(found)


def block(plan: Plan) -> str:
    """The plan as text, ending without a newline."""
    lines = [answer(plan), *sentences(plan)]
    if plan.best is None and plan.reachable:
        lines += ["", *columns(reached(plan))]
    grids = [sheet for part in (growth(plan), _hangs(plan), _binding(plan) if plan.best else None) if part for sheet in part.sheets]
    others = losers(plan)
    for grid in (*grids, others._replace(rows=others.rows[:MANY])):
        lines += ["", *columns(grid)]
    if len(others.rows) > MANY:
        lines.append(f"... and {len(others.rows) - MANY} more")
    return "\n".join(lines)


def answer(plan: Plan) -> str:
    """One sentence.

    Such as: h100_sxm, tp 1, in 5 replicas: 5 GPUs on 1 node, of which 3 GPUs stay free, $15.00 an hour, ...
    """
    best = plan.best
    if best is None:
        reached = [(worded(row["limit"]), seconds(row["reached_s"]), seconds(row["limit_s"])) for row in plan.reachable]
        limits = ", ".join(f"{name} {measured} (asked: {asked})" for name, measured, asked in reached)
        if not plan.reachable:
            able = [row for row in plan.layouts if row.get("lacking_bytes")]
            near = min(able, key=lambda row: row["lacking_bytes"]) if able else None
            why = [near["why"]] if near else list(dict.fromkeys(row["why"] for row in plan.layouts))[:3]
            nearest = f"Nearest is {near['layout']}: " if near else ""
            none = f"None of the {len(plan.layouts)} layouts can be" if len(plan.layouts) > 1 else "The only layout cannot be"
            return f"{none}. {nearest}{'. '.join(why)}."
        first = plan.reachable[0]
        who = f"{first['layout']} with {_count(first['replicas'], 'replica')}"
        said = f"Nothing that may be chosen meets the SLO. Nearest is {who}: {limits}. "
        if first.get("floor"):
            return f"{said}What blocks it, in any number of replicas: {first['floor']}."
        return f"{said}What blocks it: {first['binds'] or 'chance'}. {first['why']}"
    free = f", of which {best['free_gpus']} GPUs stay free" if best["free_gpus"] else ""
    others = f" ({best['gpus']} with those of trainers and other pools)" if best["gpus"] != best["pool_gpus"] else ""
    per = f" of {_count(best['gpus_per_replica'], 'GPU')} each" if best["gpus_per_replica"] > 1 else ""
    token = f", {dollars(best['usd_per_million_output_tokens'])} per million output tokens" if best["usd_per_million_output_tokens"] else ""
    replicas = f"{'up to ' if best['scaled'] else ''}{_count(best['replicas'], 'replica')}{per}"
    return (
        f"{best['layout']}, in {replicas}: {_count(best['pool_gpus'], 'GPU')}{others} on "
        f"{_count(best['nodes'], 'node')}{free}, {dollars(best['usd_per_hour'])} an hour{token}."
    )


def _title(plan: Plan) -> str:
    assert plan.best is not None
    return f"{dollars(plan.best['usd_per_hour'])} an hour"


def sentences(plan: Plan) -> list[str]:
    """What goes with the answer, in words."""
    best, said = plan.best, []
    if best is not None:
        met = round(best["met"] * best["runs"])
        band = f" (95 %: {percent(best['met_low'])} to {percent(best['met_high'])})" if best["met_low"] is not None else ""
        said.append(f"The SLO is met in {met} of {best['runs']} runs with seeds of their own{band}.")
        said += [f"What binds: {best['binds']}. {best['binds_text']}"] if best["binds"] else []
        said += _bears(plan)
        whole = best["run_usd_per_hour"]
        if whole is not None and abs(whole - best["usd_per_hour"]) > 0.01 * best["usd_per_hour"]:
            said.append(f"With all else that is paid (storage, traffic, nodes that come and go) it is {dollars(whole)} an hour.")
        if plan.answer is not None and plan.answer.prices is not None and "spot" in plan.answer.prices.commitment.values():
            said.append("Spot GPUs are taken to stay: that they are taken back is not simulated.")
        won = [row["lever"] for row in plan.relax if row["met"]]
        if won:
            said.append(f"{_count(best['short'], 'replica')} would do, by a run of the seed that fails, with {' or with '.join(won)}.")
        elif plan.relax:
            near = min(plan.relax, key=lambda row: row["over_limit"])
            over = f"{near['over_limit']:.3g} times the limit"
            said.append(f"No single lever that was tried lets {_count(best['short'], 'replica')} do; nearest is {near['lever']} ({over}).")
        said += _next(plan)
    said.append(f"The search took {_count(plan.searched, 'run')}; every layout in every number would have been {plan.whole:,}. "
                f"In all {_count(len(plan.runs), 'run')}, in {seconds(plan.seconds)}.")  # fmt: skip
    return said


def _next(plan: Plan) -> list[str]:
    """The cheapest of those that lost, and who would win if these GPUs cost more."""
    lost = [row for row in plan.layouts if row["state"] == "loses"]
    rival = lost[0] if lost else None
    if rival is None or plan.best is None:
        return []
    if rival["usd_per_hour"] is None:
        # Layouts come by what they cost at the least, and of this one no more is known.
        return [f"Next may be {rival['layout']}, for {dollars(rival['at_least'])} an hour or more."]
    dearer = next((row for row in plan.tornado if row["until"]), None)
    as_much = ", the same" if _even(rival, plan.best) else ""
    said = f"Next is {rival['layout']} for {dollars(rival['usd_per_hour'])} an hour{as_much}"
    if dearer is None:
        return [f"{said}."]
    who = "it" if dearer["rival"] == rival["layout"] else f"{dearer['rival']} ({dollars(dearer['rival_usd_per_hour'])})"
    if dearer["until"] - 1 < 5e-4:
        return [f"{said}; {who} wins once these GPUs cost more."]
    more = dearer["until"] - 1
    return [f"{said}{'; ' if as_much else ': '}{who} wins once these GPUs cost {percent(more)} more."]


def _even(row: Row, best: Row) -> bool:
    """Whether a layout costs what the answer does."""
    usd = row["usd_per_hour"]
    return usd is not None and abs(usd - best["usd_per_hour"]) < 0.005


def _outcome(row: Row, best: Row | None) -> str:
    if row["state"] == "loses" and best is not None and _even(row, best):
        return "as dear"
    return STATES[row["state"]] if row["state"] != "refused" or row.get("lacking_bytes") else "refused"


def _bears(plan: Plan) -> list[str]:
    if plan.head is None:
        return []
    low, high = plan.head
    if not low:
        return []
    if high is None:
        return [f"It bears {low:.3g} times the traffic and more, by a run of one seed."]
    return [f"It bears {low:.2f} to {high:.2f} times the traffic: {low - 1:.0%} of head-room, by runs of one seed."]


def _cards(plan: Plan) -> list[Card]:
    best = plan.best
    if best is None:
        return [Card(worded(row["limit"]), seconds(row["reached_s"]), f"asked: {seconds(row['limit_s'])}") for row in plan.reachable]
    band = f"; 95 %: {percent(best['met_low'])} to {percent(best['met_high'])}" if best["met_low"] is not None else ""
    met = f"of {best['runs']} runs{band}"
    head = [Card("Head-room", percent(plan.head[0] - 1), "more traffic, before the SLO is missed")] if plan.head and plan.head[0] else []
    what, _, by = best["binds"].partition(", ")
    free = _count(best["nodes"], "node") + (f", {_count(best['free_gpus'], 'GPU')} of them free" if best["free_gpus"] else "")
    return [
        Card("Replicas × layout", f"{best['replicas']} × {best['gpus_per_replica']}", best["layout"]),
        Card("GPUs", f"{best['gpus']:,}", free),
        Card("An hour", dollars(best["usd_per_hour"]), f"{dollars(best['usd_per_year'])} a year"),
        Card("Per million output tokens", dollars(best["usd_per_million_output_tokens"]), "prompts included"),
        Card("Power", f"{number(best['kilowatts'])} kW", "mean of the site, hosts and cooling included"),
        Card("SLO met", percent(best["met"]), met),
        *head,
        *([Card("Binds", what, f"{by} with fewer replicas".strip())] if what else []),
    ]  # fmt: skip


def growth(plan: Plan) -> Part | None:
    if len(plan.answers) < 2:
        return None
    runs = max(row["runs"] for row in plan.answers)
    note = (
        "Traffic: times that of today. Same layout: what staying with today's choice would cost, by single runs. "
        f"Each answer is confirmed by {_count(runs, 'run')} with seeds of their own."
    )
    heads = ("Traffic", "Layout", "Replicas", "GPUs", "$/h", "SLO met", "Same layout")
    rows = []
    for row in plan.answers:
        same = row.get("same")
        stay = DASH if same is None else f"{same['replicas']} for {dollars(same['usd_per_hour'])}" if same["replicas"] else "cannot"
        rows.append([
            f"× {row['growth']:g}", row["layout"] or "nothing meets the SLO", number(row["replicas"]), number(row["gpus"]),
            dollars(row["usd_per_hour"]), percent(row["met"]), stay if row is not plan.answers[0] else "",
        ])  # fmt: skip
    return Part("As it grows", [Grid(heads, rows, note)])


def reached(plan: Plan) -> Grid:
    holds = {True: "yes", False: "no", None: DASH}
    rows = [[worded(row["limit"]), seconds(row["limit_s"]), seconds(row["reached_s"]), holds[row["ok"]]] for row in plan.reachable]
    return Grid(("Limit", "Asked", "Reached", "Holds"), rows)


def _binding(plan: Plan) -> Part | None:
    if plan.best is None:
        return Part("The nearest that can be reached", [reached(plan)]) if plan.reachable else None
    if not plan.relax:
        return None
    note = (
        "Each lever is tried on the cluster next smaller than the answer, by a run of the seed that fails: the first with which it fails "
        f"and the answer holds{_part(plan)}. Measured over allowed: of the limit that it misses most, or comes nearest to missing."
    )
    rows = [_lever(row) for row in plan.relax]
    heads = ("Lever", f"With {_count(plan.best['short'], 'replica')}", "Tightest limit", "Measured / allowed")
    return Part("What would relax it", [Grid(heads, rows, note, best=tuple(place for place, row in enumerate(plan.relax) if row["met"]))])


_HANGS = ("Assumption", "20 % less", "As assumed", "20 % more")


def _lever(row: Row) -> list[str]:
    return [row["lever"], "does" if row["met"] else "fails", worded(row["limit"]), f"{row['over_limit']:.3g}"]


def _hangs(plan: Plan) -> Part | None:
    if not plan.tornado:
        return None
    from sim.report.plan_plots import tornado

    note = (
        "The same layout, planned anew with one assumption changed: dollars per hour, and replicas. As assumed is the answer; the others "
        f"are by single runs of the seed that decided it, with which it holds and the next smaller cluster does not{_part(plan)}. Kernel "
        "times: every kernel of pools and trainers takes so much less or more than is known of it."
    )
    return Part("What it hangs on", [Grid(_HANGS, [_swing(row) for row in plan.tornado], note)], [tornado(plan)])


def _part(plan: Plan) -> str:
    share = plan.best["share"] if plan.best is not None else 1.0
    return f", under the first {percent(share)} of the traffic, which decided it" if share < 1 else ""


def _swing(row: Row) -> list[str]:
    def side(name: str) -> str:
        count = row[f"{name}_replicas"]
        return "nothing holds" if count is None else f"{dollars(row[f'{name}_usd_per_hour'])} ({count})"

    return [row["name"], side("low"), side("was"), side("high")]


def losers(plan: Plan) -> Grid:
    heads = ("Layout", "Outcome", "Replicas", "$/h", "Why")
    rows = []
    for row in plan.layouts:
        price = dollars(row["usd_per_hour"]) if row["usd_per_hour"] else f"≥ {dollars(row['at_least'])}" if row["at_least"] else DASH
        why = row["why"] if row["state"] == "refused" else row["why"][:1].upper() + row["why"][1:]
        rows.append([row["layout"], _outcome(row, plan.best), number(row["replicas"]), price, why])
    note = (
        "Under the traffic of today. A layout that lost was not looked at further than it took to tell: ≥ is what it costs at the least. "
        "Fewest replicas of those that lost are by single runs."
    )
    best = tuple(place for place, row in enumerate(plan.layouts) if row["state"] == "best")
    return Grid(heads, rows, note, best=best, figures=4)


def _seen(plan: Plan) -> list[Part]:
    found = plots(plan)
    return [Part("Everything that was run", [], found)] if found else []


def _assumed(plan: Plan) -> Part | None:
    if not plan.assumed:
        return None
    rows = [
        [row["kind"], ", ".join(_named(name) for name in row["figures"][:SOME]) + (", ..." if len(row["figures"]) > SOME else ""),
         figure("kernel.", row["error"]) if row["error"] is not None else DASH,
         row["source"] + (f" ({row['date']})" if row["date"] else "")]
        for row in plan.assumed
    ]  # fmt: skip
    note = (
        "Error: of kernels, the largest median error among them on points that no fit has seen. The folder best holds the run of the "
        "answer, with every figure."
    )
    grid = Grid(("Known how", "Figures", "Error", "Source"), rows, note, words=True)
    return Part("What is assumed", [grid], [], [f"Extrapolated: {text}" for text in plan.extrapolated])


def _named(name: str) -> str:
    return name.removeprefix("kernel.").replace("_", " ").replace(".", " ")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
