"""A small folder of every kind that the project writes, by the name of its kind. `studies.py` has each made once."""
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
from sim.report import accuracy, accuracy_rl, traffic
from sim.report import ladder as ladder_page
from sim.report.page import render
from sim.study import ladder as ladders
from sim.study import speed_cost
from sim.study.replicate.replicate import replicate
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
STEPS = [{"name": "one"}, {"name": "two & more", "set": {"cluster.pools.0.parallel.tp": 2}}]
WAITING = {"kind": "closed", "concurrency": 1, "num_requests": 8, "lengths": LENGTHS}
CURVE = CHAT | {
    "workloads": [WAITING], "curve": {"concurrency": [1, 4], "vary": {"cluster.pools.0.parallel.tp": [1, 2]}, "rounds": 2},
    "carbon": {"grid": "world"},
}  # fmt: skip
SPACE = {"cluster.pools.0.parallel.tp": [1, 3], "workloads.0.rate": [5, 50]}


def run(folder):
    """With agents, an evaluation, sandboxes, money and a network with its drawing."""
    sim.run(crew(network={"fabric": "hgx_leaf_spine", "hosts": [{"gpu": "l40s", "count": 1, "node": "pcie_l40s"}]})).save(folder)


def learning(folder):
    """Of tables made by hand."""
    result = made(2)
    result.save(folder)
    return render(result)


def replications(folder):
    sim.run(CHAT).save(folder)
    replicate(sim.loads(CHAT), 3).save(folder)


def sweep(folder):
    """With a layout that does not fit."""
    sim.sweep(CHAT, SPACE, folder, crew=1)


def comparison(folder):
    """With a waterfall."""
    folder.mkdir()
    sim.what_if(CHAT, {"cluster.pools.0.gpu": "h200_sxm", "workloads.0.rate": 40}, n=2, figure="tpot_s.p50").save(folder)


def plan(folder):
    sim.plan(CHAT | {"plan": SEARCH}, folder)


def capacity(folder):
    sim.capacity(CHAT, folder=folder, replications=2)


def frontier(folder):
    sim.pareto(CHAT | {"plan": SEARCH | {"parallel": [{"tp": 1}]}}, folder)


def climbed(folder):
    """A ladder with the folders of its steps."""
    scenario = sim.loads(CHAT | {"ladder": STEPS})
    ladders.prepare(scenario, folder, False)
    *_, _ = ladders.climb(scenario, folder)


def ladder(folder):
    """Of rows made by hand."""
    dear = {"needed_output_tokens_per_s_per_gpu": 2.0, "needed_usd_per_million_output_tokens": 8.0, "kv_internal": 0.4}
    first = row(name="naive", needed_gpus=16, held_back="The queue.", **dear)
    better = {"needed_output_tokens_per_s_per_gpu": 4.0, "needed_usd_per_million_output_tokens": 4.0, "ttft_p95": 0.3, "held_back": ""}
    rows = [first, row(name="tried", below=first, kept=False, **better), row(name="better", below=first, why="Half the GPUs.", **better)]
    steps = [{"name": one["name"], "set": {"seed": 1}} for one in rows]
    return _by_hand(ladders.Ladder(sim.loads(CHAT | {"ladder": steps}), rows, 3, 512), folder)


def ladder_rl(folder):
    """Of which one rung is missing."""
    turns, stale = made(0), made(2)
    return _by_hand(ladders.Ladder(stale.scenario, [rung("in turns", turns), rung("stale", stale)], 3, 512), folder)


def _by_hand(found, folder):
    ladders.prepare(found.scenario, folder, False)
    ladders.save(found, folder)
    return ladder_page.render(found)


def curve(folder):
    scenario = sim.loads(CURVE)
    speed_cost.prepare(scenario, folder, False)
    *_, _ = speed_cost.sweep(scenario, folder)


def measured(folder):
    """Errors against measured runs."""
    folder.mkdir()
    accuracy.save(validate(table(folder.parent, CLOSED, OPEN, STRANGE), None, None, folder, jobs=1), folder)


def published(folder):
    """Errors against published runs of reinforcement learning, with times that nobody simulated."""
    folder.mkdir()
    accuracy_rl.save(validate_rl(table_rl(folder.parent, SYNC, ASYNC), folder, own=False, doing=Doing(stand_in, fit)), folder)


def load(folder):
    """Traffic alone: three workloads and their sum."""
    gamma = {"kind": "gamma", "cv": 3, "num_requests": 300, "lengths": LENGTHS}
    folder.mkdir()
    path = folder / "load.yaml"
    path.write_text(sim.dump(sim.loads(CHAT | {"workloads": [{"name": f"of {rate}", "rate": rate, **gamma} for rate in (5, 20, 80)]})))
    shown, remarks = subjects.of_workloads(str(path), None, 1)
    whole = max(one.span for one in shown)
    views = [view(one.name, one, whole, one.tick, close=busiest(shown[-1].times, whole, whole * CLOSE)) for one in shown]
    words = {"requests": "requests", **{one.name: one.words for one in quantities()}}
    drawn = traffic.figures({one.name: one.figures() for one in shown}, words)
    return traffic.page("Traffic", "three", tables=[drawn], plots=traffic.plots(views), remarks=[*remarks, "A remark."], yaml="kind: gamma")


# Of each the file that tells what its folder holds; none where `burstsim report` cannot make its page, which is returned.
SAVED = {
    run: "meta.json", replications: "replications.json", sweep: "journal.jsonl", comparison: "comparison.json",
    plan: "plan.json", capacity: "capacity.json", frontier: "pareto.json", climbed: "ladder.json", curve: "curve.json",
    measured: "accuracy.html", published: "accuracy_rl.html", learning: "", ladder: "", ladder_rl: "", load: "",
}  # fmt: skip
KINDS = {one.__name__: one for one in SAVED}
REPORTED = {one.__name__: name for one, name in SAVED.items() if name}
