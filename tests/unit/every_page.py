"""One small page of every kind that the project writes, each with the folder that its study saves, by the kind's name."""
from __future__ import annotations

from rl_made import made
from test_ladder import row
from test_report_agents import scenario as crew
from test_report_rl import rung
from test_validate import CLOSED, OPEN, STRANGE
from test_validate import written as table
from test_validate_rl import ASYNC, SYNC, fit, stand_in
from test_validate_rl import written as table_rl

import sim
from sim.report import accuracy, accuracy_rl, intervals, traffic
from sim.report import capacity as capacity_page
from sim.report import compare as comparison_page
from sim.report import curve as curve_page
from sim.report import ladder as ladder_page
from sim.report import pareto as frontier_page
from sim.report import plan as plan_page
from sim.report import sweep as sweep_page
from sim.report.page import render
from sim.study import capacity as capacities
from sim.study import ladder as ladders
from sim.study import pareto as frontiers
from sim.study import plan as plans
from sim.study import speed_cost
from sim.study.replicate import replicate
from sim.study.validate import validate
from sim.study.validate.rl import Doing, validate_rl
from workloads.fitting import subjects
from workloads.fitting.figures import quantities
from workloads.fitting.views import CLOSE, busiest, view

LENGTHS = {"kind": "fixed", "input": 300, "output": 20}
CHAT = {
    "name": "chat", "description": "Small, of few requests.", "model": "meta-llama/Llama-3.1-8B", "seed": 1,
    "cluster": {"pools": [{"gpu": "h100_sxm"}]},
    "workloads": [{"kind": "poisson", "rate": 20, "num_requests": 40, "lengths": LENGTHS}],
    "slo": {"ttft_p95": "500ms", "tpot_p95": "40ms"},
}  # fmt: skip
SEARCH = {"gpu": ["l4", "h100_sxm", "l40s"], "parallel": [{"tp": 1}, {"tp": 2}], "replicas": {"range": {"min": 1, "max": 8}},
          "replications": 2}  # fmt: skip


def run(folder):
    """With agents, an evaluation, sandboxes, money and a network with its drawing."""
    result = sim.run(crew(network={"fabric": "hgx_leaf_spine", "hosts": [{"gpu": "l40s", "count": 1, "node": "pcie_l40s"}]}))
    result.save(folder)
    return render(result)


def learning(folder):
    result = made(2)
    result.save(folder)
    return render(result)


def replications(folder):
    found, result = replicate(sim.loads(CHAT), 3), sim.run(CHAT)
    result.save(folder)
    found.save(folder)
    return render(result, intervals.sheet(found))


def sweep(folder):
    """With a layout that does not fit."""
    return sweep_page.render(sim.sweep(CHAT, {"cluster.pools.0.parallel.tp": [1, 3], "workloads.0.rate": [5, 50]}, folder, crew=1))


def comparison(folder):
    """With a waterfall."""
    found = sim.what_if(CHAT, {"cluster.pools.0.gpu": "h200_sxm", "workloads.0.rate": 40}, n=2, figure="tpot_s.p50")
    found.save(folder)
    return comparison_page.render(found.report())


def plan(folder):
    found = sim.plan(CHAT | {"plan": SEARCH})
    plans.save(found, folder)
    return plan_page.render(found)


def capacity(folder):
    found = sim.capacity(CHAT, replications=2)
    capacities.save(found, folder)
    return capacity_page.render(found)


def frontier(folder):
    found = sim.pareto(CHAT | {"plan": SEARCH | {"parallel": [{"tp": 1}]}})
    frontiers.save(found, folder)
    return frontier_page.render(found)


def ladder(folder):
    """Of rows made by hand."""
    dear = {"needed_output_tokens_per_s_per_gpu": 2.0, "needed_usd_per_million_output_tokens": 8.0, "kv_internal": 0.4}
    first = row(name="naive", needed_gpus=16, held_back="The queue.", **dear)
    better = {"needed_output_tokens_per_s_per_gpu": 4.0, "needed_usd_per_million_output_tokens": 4.0, "ttft_p95": 0.3, "held_back": ""}
    rows = [first, row(name="tried", below=first, kept=False, **better), row(name="better", below=first, why="Half the GPUs.", **better)]
    steps = [{"name": one["name"], "set": {"seed": 1}} for one in rows]
    return _climbed(ladders.Ladder(sim.loads(CHAT | {"ladder": steps}), rows, 3, 512), folder)


def ladder_rl(folder):
    """Of which one rung is missing."""
    turns, stale = made(0), made(2)
    return _climbed(ladders.Ladder(stale.scenario, [rung("in turns", turns), rung("stale", stale)], 3, 512), folder)


def _climbed(found, folder):
    ladders.prepare(found.scenario, folder, False)
    ladders.save(found, folder)
    return ladder_page.render(found)


def curve(folder):
    closed = {"kind": "closed", "concurrency": 1, "num_requests": 8, "lengths": LENGTHS}
    vary = {"concurrency": [1, 4], "vary": {"cluster.pools.0.parallel.tp": [1, 2]}, "rounds": 2}
    scenario = sim.loads(CHAT | {"workloads": [closed], "curve": vary, "carbon": {"grid": "world"}})
    speed_cost.prepare(scenario, folder, False)
    (*_, found) = speed_cost.sweep(scenario, folder)
    return curve_page.render(found)


def measured(folder):
    """Errors against measured runs."""
    return accuracy.page(validate(table(folder.parent, CLOSED, OPEN, STRANGE), None, None, folder, jobs=1))


def published(folder):
    """Errors against published runs of reinforcement learning, with times that nobody simulated."""
    return accuracy_rl.page(validate_rl(table_rl(folder.parent, SYNC, ASYNC), folder, own=False, doing=Doing(stand_in, fit)))


def load(folder):
    """Traffic alone: three workloads and their sum."""
    gamma = {"kind": "gamma", "cv": 3, "num_requests": 300, "lengths": LENGTHS}
    path = folder / "load.yaml"
    path.write_text(sim.dump(sim.loads(CHAT | {"workloads": [{"name": f"of {rate}", "rate": rate, **gamma} for rate in (5, 20, 80)]})))
    shown, remarks = subjects.of_workloads(str(path), None, 1)
    whole = max(one.span for one in shown)
    views = [view(one.name, one, whole, one.tick, close=busiest(shown[-1].times, whole, whole * CLOSE)) for one in shown]
    words = {"requests": "requests", **{one.name: one.words for one in quantities()}}
    drawn = traffic.figures({one.name: one.figures() for one in shown}, words)
    return traffic.page("Traffic", "three", tables=[drawn], plots=traffic.plots(views), remarks=[*remarks, "A remark."], yaml="kind: gamma")


KINDS = {one.__name__: one for one in (run, learning, replications, sweep, comparison, plan, capacity, frontier, ladder, ladder_rl,
                                       curve, measured, published, load)}  # fmt: skip
