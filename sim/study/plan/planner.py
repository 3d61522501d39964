"""How a plan is made: the search at every growth, and what is found out about its answer and about those that lost."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sim.core.errors import BadInput, Problem
from sim.spec.limits import percentile_limits, worded
from sim.spec.load import located
from sim.spec.profile import KINDS
from sim.spec.scenario import Scenario
from sim.study.plan.bench import Bench
from sim.study.plan.capacity import headroom
from sim.study.plan.cheapest import Offer, ascending, cheapest
from sim.study.plan.chooser import proposed
from sim.study.plan.edge import Edge, edge
from sim.study.plan.layouts import SAME, Layout, Layouts
from sim.study.plan.offers import Offers
from sim.study.plan.sensitivity import relaxed, tornado
from sim.study.plan.trial import binding
from sim.study.replicate.interval import share
from sim.study.result import Result
from sim.study.run import run

SHOWN = 3  # reasons that an error lists
RUNNERS = 3  # layouts whose own fewest replicas are looked for, beside the answer
HOUR = 3600.0
Row = dict[str, Any]


class Planner:
    """One plan in the making: what is known of every layout at each growth."""

    def __init__(self, scenario: Scenario, layouts: Layouts, bench: Bench):
        self.scenario, self.layouts, self.bench, self.search = scenario, layouts, bench, bench.search
        self.many = len(layouts) > self.search.trials
        self.order = proposed(layouts, self.search.trials, scenario.seed) if self.many else ascending
        self.offers: dict[float, Offers] = {}

    def found(self, explain: bool) -> Row:
        """All that a `Plan` (`study/plan/plan.py`) says, but for its scenario; only the answer, unless it is to `explain` it."""
        answers: list[Row] = []
        before, searched = None, 0
        for growth in self.search.growth:
            before = self.offers[growth] = Offers(self.bench, growth, before)
            answers.append(self._answer(growth, self._cheapest(before, growth)))
            searched = searched or self.bench.searched
            if answers[-1]["place"] is None:
                self._able(before)
                break
        first = answers[0]
        if first["place"] is None:
            why: Row = {"best": None, "reachable": self._reachable(first["growth"])}
        else:
            why = self._apart(first) | (self._explained(answers) if explain else {})
        whole = self._distinct() * len(self.search.counts)
        found = {"answers": answers, "layouts": self._became(first), "searched": searched, "whole": whole, **why}
        return found | {"runs": self.bench.rows}

    def _distinct(self) -> int:
        """How many layouts there are, without those that are the same as another one, as far as they were looked at."""
        looked = dict.fromkeys(place for offers in self.offers.values() for place in offers.made)
        return len(self.layouts) - sum(self.layouts[place].refused.startswith(SAME) for place in looked)

    def _able(self, offers: Offers) -> None:
        """Raise BadInput when every layout is refused, and not for want of memory."""
        looked = [self.layouts[place] for place in offers.made]
        if all(layout.refused and not layout.lacking for layout in looked):
            reasons = dict.fromkeys(f"{layout.words}: {layout.refused}" for layout in looked if not layout.refused.startswith(SAME))
            more = [f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
            none = f"none of the {len(looked)} layouts can be" if len(looked) > 1 else "the only layout cannot be"
            message = f"{none}: {'. '.join([*list(reasons)[:SHOWN], *more])}"
            raise BadInput(located([Problem(message, "plan")], self.scenario))

    def _cheapest(self, offers: Offers, growth: float) -> tuple[int, int] | None:
        """The answer, confirmed."""
        runs = self.search.replications
        return cheapest(offers, self._holds(growth), lambda place, count: self.bench.confirmed(place, count, growth, runs), self.order)

    def _holds(self, growth: float) -> Callable[[int, int], bool]:
        return lambda place, count: self.bench.one(place, count, growth, self.search.short).met

    def _answer(self, growth: float, best: tuple[int, int] | None) -> Row:
        runs = self.search.replications
        row: Row = {"growth": growth, "place": None, "layout": None, "replicas": None, "gpus": None, "usd_per_hour": None}
        if best is None:
            return row | {"met": None, "met_low": None, "met_high": None, "runs": runs}
        place, count = best
        found = [one.met for one in self.bench.many(place, count, growth, runs)]
        sure = share(found) if len(found) > 1 else None
        layout = self.layouts[place]
        return row | {
            "place": place, "layout": layout.words, "replicas": count, "gpus": layout.gpus(count),
            "usd_per_hour": self.bench.usd(place, count, growth),
            "met": sum(found) / len(found), "met_low": sure.low if sure else None, "met_high": sure.high if sure else None,
            "runs": len(found),
        }  # fmt: skip

    def _apart(self, first: Row) -> Row:
        """The answer for the traffic of today in its parts, and its scenario."""
        place, count, growth = first["place"], first["replicas"], first["growth"]
        answer = self.bench.scenario(place, count, growth).model_copy(update={"name": f"{self.scenario.name}: the plan"})
        parts = _parts(self.layouts[place], count, self.bench.one(place, count, growth).figures)
        return {"best": first | parts | {"short": None, "share": 1.0, "binds": "", "binds_text": ""}, "answer": answer}

    def _explained(self, answers: Sequence[Row]) -> Row:
        """Why it is this one, and what it hangs on."""
        first = answers[0]
        place, count, growth = first["place"], first["replicas"], first["growth"]
        apart, bench = self._apart(first), self.bench
        result = run(apart["answer"])
        near = edge(bench, place, count, growth)
        base = bench.scenario(place, count, growth)
        head = headroom(base, lambda one: bench.other(place, count, one, f"load {one.workloads}").met)
        self._runners(place, growth)
        for row in answers[1:]:
            # What staying with the layout of today would cost then.
            row["same"] = self._same(place, row) if row["place"] is not None else None
        return {
            "best": apart["best"] | _bound(count, near), "assumed": _assumed(result),
            "extrapolated": list(result.summary["provenance"]["extrapolations"]),
            "relax": relaxed(bench, place, near, growth),
            "head": None if head is None else (head.low, head.high if math.isfinite(head.high) else None),
            "tornado": tornado(bench, place, count, growth, near.draw, self._rivals(place, growth)),
        }  # fmt: skip

    def _same(self, place: int, row: Row) -> Row:
        if row["place"] == place:
            return {"replicas": row["replicas"], "usd_per_hour": row["usd_per_hour"]}
        offer = self.offers[row["growth"]][place]
        found = self._fewest(offer, place, row["growth"])
        return {"replicas": found, "usd_per_hour": None if found is None else self.bench.usd(place, found, row["growth"])}

    def _fewest(self, offer: Offer, place: int, growth: float) -> int | None:
        """The fewest replicas of one layout that hold, by single runs."""
        alone = cheapest([offer], lambda _, count: self._holds(growth)(place, count))
        return None if alone is None else alone[1]

    def _runners(self, best: int, growth: float) -> None:
        """Find what the nearest rivals would have needed."""
        offers = self.offers[growth]
        rivals = [place for place in offers.made if place != best and offers[place].least < math.inf and offers[place].high is None]
        for place in sorted(rivals, key=lambda one: offers[one].least)[:RUNNERS]:
            self._fewest(offers[place], place, growth)

    def _rivals(self, best: int, growth: float) -> list[tuple[int, int]]:
        """Layouts beside the answer with replicas that are known to hold."""
        offers = self.offers[growth]
        held = [(place, offers[place].high) for place in offers.made if place != best]
        return [(place, offers[place].counts[high]) for place, high in held if high is not None]

    def _became(self, first: Row) -> list[Row]:
        """What became of every layout that was looked at, under the traffic of today; cheapest first."""
        growth, rows = self.search.growth[0], []
        offers = self.offers[growth]
        for place in offers.made:
            layout, offer = self.layouts[place], offers[place]
            if layout.refused.startswith(SAME):
                continue
            row: Row = {"layout": layout.words, **{f"choice.{key}": _text(value) for key, value in layout.choices.items()}}
            count = offer.counts[offer.high] if offer.high is not None else None
            state, why = "loses", offers.notes.get(place, "")
            if layout.refused or why:
                state, why = ("refused" if layout.refused else "impossible"), layout.refused or why
            elif place == first["place"]:
                state, count = "best", first["replicas"]
            elif count is not None:
                why = f"holds with {count}, for ${self.bench.usd(place, count, growth):,.2f} an hour"
            else:
                state, why = self._lost(place, offer, growth, first)
            low = None if state in ("refused", "impossible") or offer.least == math.inf else offer.least
            cost = self.bench.usd(place, count, growth) if count is not None else None
            row |= {"place": place, "state": state, "replicas": count, "usd_per_hour": cost, "at_least": cost or low, "why": why}
            row["lacking_bytes"] = math.ceil(layout.lacking) or None
            rows.append(row)
        order = ("best", "loses", "fails", "impossible", "refused")
        return sorted(rows, key=lambda row: (order.index(row["state"]), row["at_least"] or math.inf, row["place"]))

    def _lost(self, place: int, offer: Offer, growth: float, first: Row) -> tuple[str, str]:
        """Why a layout lost that is not known to hold with any number."""
        failed = self.bench.failed(place, growth)
        if failed is None:
            count = offer.counts[offer.low] if offer.low < len(offer.counts) else None
            if count is None:
                return "fails", f"needs more than {offer.counts[-1]} replicas, by its throughput alone"
            cost = f"${offer.cost(count):,.2f} an hour"
            if not any(self.layouts[place].least <= one < count for one in offer.counts):
                return "loses", f"the fewest there can be cost {cost} already"
            return "loses", f"needs {count} replicas or more by its throughput alone, for {cost}"
        count, run = failed
        worst = run.misses[0] if run.misses else ("", 1.0)
        by = f"{worded(worst[0])} is {worst[1]:.3g} times its limit" if worst[0] not in ("", "throughput") else "arrivals outrun service"
        what = run.refused or by
        met, runs = self.bench.outcome(place, count, growth)
        if met:
            what = f"only {met} of {runs} runs meet the SLO"
        if offer.low >= len(offer.counts):
            return "fails", f"not even {count} replicas: {what}"
        return "loses", f"with {count}, for ${self.bench.usd(place, count, growth):,.2f} an hour, {what}"

    def _reachable(self, growth: float) -> list[Row]:
        """What comes nearest to the SLO, with the most replicas of the layouts that can run: each limit, and what blocks it. `floor`: why
        more replicas would not help.
        """
        offers, most = self.offers[growth], self.search.counts[-1]
        # Of many, those that physics lets come nearest.
        for place in sorted((place for place in offers.made if not self.layouts[place].refused), key=offers.over)[: 2 * RUNNERS]:
            self.bench.one(place, most, growth)
        able = [row for row in self.bench.rows if not row["refused"] and row["growth"] == growth]
        if not able:
            return []
        limits = percentile_limits(self.scenario.slo)
        nearest = min(able, key=lambda row: (row["verdict"] == "overloaded", row["over_limit"]))
        run = self.bench.one(nearest["place"], nearest["replicas"], growth, nearest["share"])
        found = []
        for (measure, percentile), limit in limits.items():
            row = next((one for one in run.limits if one["limit"] == f"{measure}_p{percentile}"), None)
            found.append({
                "limit": f"{measure}_p{percentile}", "limit_s": limit, "reached_s": row["measured_s"] if row else None,
                "ok": row["ok"] if row else None, "layout": nearest["layout"], "replicas": nearest["replicas"], "binds": nearest["binds"],
                "why": " ".join(run.why), "verdict": run.verdict, "floor": offers.notes.get(nearest["place"], ""),
            })  # fmt: skip
        return found


def _parts(layout: Layout, count: int, figures: Mapping[str, Any]) -> Row:
    nodes, free = layout.nodes(count)
    hours = figures["run.sim_s"] / HOUR
    usd = layout.hourly(count) if layout.fixed else float(figures["cost.usd_per_hour"])
    return {
        "choices": {key: _text(value) for key, value in layout.choices.items()}, "gpu": layout.mine.gpu, "pool": layout.mine.name,
        "scaled": not layout.fixed,
        "gpus_per_replica": layout.mine.parallel.gpus, "pool_gpus": count * layout.mine.parallel.gpus, "nodes": nodes, "free_gpus": free,
        "usd_per_hour": usd, "usd_per_year": usd * 24 * 365, "run_usd_per_hour": figures.get("cost.usd_per_hour"),
        "usd_per_million_output_tokens": figures.get("cost.usd_per_million_output_tokens"),
        "input_usd_per_million": figures.get("cost.input_usd_per_million"),
        "output_usd_per_million": figures.get("cost.output_usd_per_million"),
        "kilowatts": figures["energy.site_kwh"] / hours if hours and "energy.site_kwh" in figures else None,
        "figures": dict(figures),
    }  # fmt: skip


def _assumed(result: Result) -> list[Row]:
    """Figures under where they come from: the least certain first. Of fits of kernels the median error, where one is known."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    errors: dict[tuple[str, str, str], list[float]] = {}
    for part in (*result.meta["pools"], *result.meta["trainers"]):
        for line in part["provenance"]:
            at = line["kind"], line["source"], line["date"]
            if line["name"] not in groups.setdefault(at, []):
                groups[at].append(line["name"])
                errors.setdefault(at, []).extend([line["value"]] if line["name"].startswith("kernel") and line["value"] is not None else [])
    found = [
        {"kind": kind, "source": source, "date": date, "figures": names, "error": max(errors[kind, source, date], default=None)}
        for (kind, source, date), names in groups.items()
    ]  # fmt: skip
    return sorted(found, key=lambda row: -KINDS.index(row["kind"]))


def _bound(count: int, near: Edge) -> Row:
    """What binds: what fails with fewer replicas; `share`: under how much of the traffic that, and what follows from it, was run."""
    fewer, failed, (part, number) = near.fewer, near.failed, near.draw
    if fewer is None:
        text = f"{count} is the fewest there can be: nothing smaller was allowed."
        return {"short": None, "share": part, "binds": "the size of a replica", "binds_text": text}
    if failed is None:
        text = f"With {fewer} no run is known that fails where that of {count} holds."
        return {"short": fewer, "share": part, "binds": "chance", "binds_text": text}
    misses = ", ".join(f"{worded(name)} at {ratio:.3g} times its limit" for name, ratio in failed.misses if name != "throughput")
    way = f"With {fewer}, under the first {part:.0%} of the traffic" if part < 1 else f"With {fewer}"
    if number:
        few = near.first is not None and near.first.met
        way = f"{way} the run of the first seed holds, but not enough of the others do. By one that fails" if few else f"{way}, by one seed"
    return {
        "short": fewer, "share": part, "binds": binding(failed),
        "binds_text": " ".join([f"{way}: {misses or 'arrivals outrun service'}.", *failed.why]),
    }  # fmt: skip


def _text(value: Any) -> str:
    return " ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)
