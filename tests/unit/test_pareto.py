"""A frontier of three wishes: what no point beats, at rising load on every layout."""
from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner
from plans import layouts, problem
from scenarios import written

import sim
from sim.cli import main
from sim.core.errors import BadInput
from sim.report import pareto as page
from sim.study.plan import pareto as study
from sim.study.plan.ledger import Ledger
from sim.study.plan.pareto import PRICE, SPEED, YIELD, marked


def point(speed, yields, price, verdict="stable"):
    return {SPEED: speed, YIELD: yields, PRICE: price, "verdict": verdict}


def test_points_that_another_beats_are_not_on_the_frontier():
    rows = [point(3, 1, 9), point(1, 3, 3), point(1, 2, 3), point(2, 2, 1), point(9, 9, 0.1, "overloaded"), point(None, 5, 1)]
    assert [row["frontier"] for row in marked(rows)] == [True, True, False, True, False, False]


def test_equal_points_are_both_on_it():
    assert [row["frontier"] for row in marked([point(1, 1, 1), point(1, 1, 1)])] == [True, True]


def test_every_layout_is_run_at_rising_load(tmp_path):
    made = problem({"gpu": ["h100_sxm", "l4"], "parallel": [{"tp": 1}, {"tp": 3}]}, {"num_requests": 100})
    path, folder = written(tmp_path, yaml.safe_dump(made)), tmp_path / "out"
    outcome = CliRunner().invoke(main, ["pareto", str(path), "-o", str(folder), "--jobs", "1"])
    assert outcome.exit_code == 0, outcome.output
    found = study.read(folder)
    assert {row["layout"] for row in found.rows} == {"h100_sxm, tp 1", "l4, tp 1"}
    assert {layout for layout, _ in found.refused} == {"h100_sxm, tp 3", "l4, tp 3"}
    front = found.frontier
    assert front[SPEED].is_monotonic_decreasing
    assert front[YIELD].is_monotonic_increasing
    mine = [row for row in found.rows if row["layout"] == "h100_sxm, tp 1"]
    assert [row["load"] for row in mine] == sorted(row["load"] for row in mine)
    page = (folder / "report.html").read_text()
    assert "frontier" in page
    assert CliRunner().invoke(main, ["report", str(folder)]).exit_code == 0
    assert (folder / "report.html").read_text() == page


def test_layouts_with_long_names_leave_room_for_the_drawing():
    names = [f"h100_sxm, tp {tp}, max_num_batched_tokens {tokens}" for tp in (1, 2, 4) for tokens in range(1024, 6 * 1024, 1024)]
    rows = [{**point(at + load, 20 - at - load / 2, 1 + at + load), "layout": name, "frontier": True, "met": True}
            for at, name in enumerate(names) for load in (0, 0.5)]  # fmt: skip
    [speed, price] = page._plots(study.Pareto(sim.loads(problem()), rows, []))
    for drawing in (speed, price):
        assert all(name in drawing.svg for name in names)


def test_clients_that_wait_are_doubled(tmp_path):
    made = problem({"gpu": ["h100_sxm"], "parallel": [{"tp": 1}], "engine": {"max_num_seqs": [8]}},
                   {"kind": "closed", "concurrency": 2, "num_requests": 20})  # fmt: skip
    outcome = CliRunner().invoke(main, ["pareto", str(written(tmp_path, yaml.safe_dump(made))), "--json", "--jobs", "1"])
    assert [row["load"] for row in json.loads(outcome.stdout)] == [1, 2, 4, 8]


def test_traffic_that_cannot_be_raised_is_refused():
    made = problem()
    made["cluster"]["trainers"] = [{"name": "learner", "gpu": "h100_sxm", "gpus": 8}]
    made["workloads"] = [{"kind": "rl", "mode": "sync_disaggregated", "steps": 2, "prompts": 4, "samples": 4, "prompt": 100,
                          "answers": {"mean": 50, "sigma": 0.5, "cap": 200}}]  # fmt: skip
    with pytest.raises(BadInput, match="can be raised"):
        sim.pareto(made)


def test_traffic_without_a_rate_is_loaded_by_times():
    made = problem({"gpu": ["h100_sxm"], "parallel": [{"tp": 1}]})
    made["cluster"]["sandboxes"] = [{"name": "swe", "nodes": 2, "node": "general_64", "memory": "1GB", "boot": "1s"}]
    made["workloads"] = [{"kind": "evals", "tasks": 1, "samples": 1, "preset": "swe_agent"}]
    made["slo"] = {"task_p95": "5h"}
    assert tuple(one.load for one in study._points(layouts(made)[0], Ledger())) == study.FACTORS
