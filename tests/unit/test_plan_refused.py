"""Searches that cannot be, or cannot be satisfied: what is wrong, where it was written, and what comes nearest."""
from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner
from plans import problem
from scenarios import written

import sim
from sim.cli import main

ONE = {"gpu": ["h100_sxm"], "parallel": [{"tp": 1}], "replicas": {"range": {"min": 1, "max": 2}}}
FEW = {"num_requests": 20, "rate": 5}


def told(tmp_path, verb, made, code):
    """What a verb says of a scenario that it leaves with `code`."""
    path = written(tmp_path, yaml.safe_dump(made, sort_keys=False))
    outcome = CliRunner().invoke(main, [verb, str(path), "--jobs", "1"])
    assert outcome.exit_code == code, outcome.output
    return outcome.stderr.replace(str(path), "scenario.yaml") if code == 2 else outcome.stdout


def at(made, word):
    """The line of a scenario on which a word stands first."""
    return next(number for number, line in enumerate(yaml.safe_dump(made, sort_keys=False).splitlines(), 1) if word in line)


@pytest.mark.parametrize(
    ("plan", "word", "said"),
    [
        ({"gpu": []}, "gpu: []", "plan.gpu: found no choices; at least 1 is wanted"),
        ({"gpu": ["h100_sxm", "h1000"]}, "h1000", "plan.gpu.1: unknown GPU 'h1000'; did you mean h100_sxm?"),
        ({"gpu": {"choices": ["h1000"]}}, "h1000", "plan.gpu.choices.0: unknown GPU 'h1000'; did you mean h100_sxm?"),
        ({"replicas": {"range": {"min": 8, "max": 4}}}, "range:", "plan.replicas.range: found min 8 and max 4; min is the smaller one"),
        ({"replicas": [0, 1]}, "replicas:", "plan.replicas: found 0; whole numbers from 1 on are wanted"),
        ({"replicas": {"range": {"min": 0, "max": 0}}}, "replicas:", "plan.replicas: found 0; whole numbers from 1 on are wanted"),
        ({"replicas": {"range": {"min": 1.2, "max": 1.8}}}, "replicas:", "plan.replicas: there is none between min and max; whole numbers"),
        ({"growth": [0]}, "- 0", "plan.growth.0: found 0; a value above 0 is wanted"),
        ({"growth": [1.0, -2.0]}, "- -2", "plan.growth.1: found -2.0; a value above 0 is wanted"),
        ({"meets": 0}, "meets: 0", "plan.meets: found 0; a value above 0 is wanted"),
        ({"parallel": [{"tp": 1}, {"tp": 0}]}, "tp: 0", "plan.parallel.1.tp: found 0; a value of at least 1 is wanted"),
        ({"parallel": [{"tpp": 2}]}, "tpp", "plan.parallel.0.tpp: unknown key of cluster.pools.0.parallel; did you mean tp"),
        ({"engine": {"max_num_seqs": {"range": {"min": 0, "max": 64, "step": 32}}}}, "max_num_seqs:",
         "plan.engine.max_num_seqs: found 0; a value of at least 1 is wanted"),
        ({"alternatives": [{"name": "none", "set": {"cluster.pools.0.gpu": "v100"}}], "gpu": None}, "set:",
         "plan.alternatives.0.set: unknown GPU 'v100'"),
        ({"parallel": [{"tp": 0}], "gpu": ["h1000"]}, "tp: 0", "plan.gpu.0: unknown GPU 'h1000'"),
        ({"max_gpus": 4}, "max_gpus", "plan.max_gpus: unknown key of plan"),
    ],
)  # fmt: skip
def test_a_choice_that_nobody_can_have_is_refused_at_its_line(tmp_path, plan, word, said):
    made = problem(ONE | plan, FEW)
    error = told(tmp_path, "plan", made, 2)
    assert said in error
    lines = [int(one.partition("scenario.yaml:")[2].partition(":")[0]) for one in error.splitlines()]
    assert at(made, word) in lines


@pytest.mark.parametrize(
    ("slo", "said"),
    [
        ({"task_p95": "1s"}, "slo.task_p95: traffic of kind poisson has no tasks to be measured (those are of agents, agent_trace, evals"),
        ({"rl_step_p50": "1s", "ttft_p95": "1s"}, "slo.rl_step_p50: traffic of kind poisson has no steps of reinforcement learning"),
        ({"ttft_p101": "1s"}, "slo.ttft_p101: unknown key of slo; did you mean ttft_p90"),
        ({"ttft_p95": "1s", "attainment": 1.5}, "slo.attainment: found 1.5; a value of at most 1 is wanted"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "capacity"])
def test_a_limit_on_what_is_not_there_is_refused(tmp_path, verb, slo, said):
    made = problem(ONE, FEW, slo=slo)
    error = told(tmp_path, verb, made, 2)
    assert said in error
    assert f"scenario.yaml:{at(made, said.split(':')[0].rpartition('.')[2])}: " in error


@pytest.mark.parametrize(("verb", "head"), [("plan", "plan: none of the 2 layouts can be"), ("pareto", "plan: none of the layouts can be")])
def test_layouts_that_all_contradict_the_model_are_refused(tmp_path, verb, head):
    made = problem(ONE | {"parallel": [{"tp": 3}, {"tp": 16}]}, FEW)
    error = told(tmp_path, verb, made, 2)
    assert f"scenario.yaml:{at(made, 'plan:')}: {head}" in error
    assert "h100_sxm, tp 3: meta-llama/Llama-3.1-8B has 32 attention heads and 8 key-value heads, which do not split 3 ways" in error
    assert "h100_sxm, tp 16: a tensor-parallel group of 16 does not divide up node hgx_h100" in error


def test_a_gpu_that_is_not_sold_so_is_refused(tmp_path):
    book = tmp_path / "own.yaml"
    price = {"value": 1.0, "source": "mine"}
    said = {"title": "own", "sources": {"mine": {"kind": "judgement", "date": "2025-10", "what": "a contract"}},
            "gpus": {"l4": {"on_demand": price}, "h100_sxm": {"on_demand": price, "spot": price}}}  # fmt: skip
    book.write_text(yaml.safe_dump(said))
    words = {"prices": {"book": str(book)}}
    error = told(tmp_path, "plan", problem(ONE | {"gpu": ["l4"], "commitment": ["spot"]}, FEW, **words), 2)
    assert "plan: the only layout cannot be: l4, tp 1, spot: " in error
    assert "has no spot price of l4" in error
    found = sim.plan(problem(ONE | {"gpu": ["l4", "h100_sxm"], "commitment": ["spot"]}, FEW, **words), explain=False)
    assert found.best["layout"] == "h100_sxm, tp 1, spot"
    assert [row["state"] for row in found.layouts] == ["best", "refused"]


def test_a_model_that_fits_nowhere_says_where_it_nearly_does(tmp_path):
    made = problem({"gpu": ["l4", "l40s"], "parallel": [{"tp": 1}, {"tp": 2}, {"tp": 3}]}, FEW, model="meta-llama/Llama-3.1-70B")
    text = told(tmp_path, "plan", made, 1)
    assert text.startswith("None of the 6 layouts can be. Nearest is l40s, tp 2: meta-llama/Llama-3.1-70B does not fit on l40s with tp 2: ")
    assert "29.1 GB too little for even one KV block. It would fit with parallel: {tp: 4}" in text
    lacking = {row["layout"]: row["lacking_bytes"] for row in sim.plan(made).layouts}
    assert min((bytes_, name) for name, bytes_ in lacking.items() if bytes_) == (lacking["l40s, tp 2"], "l40s, tp 2")
    assert lacking["l40s, tp 2"] == pytest.approx(29.1e9, rel=0.01)
    assert lacking["l4, tp 3"] is None  # its heads do not divide


FLOORS = [
    ({"tpot_p95": "1ms"}, {}, "TPOT p95: a step of one request alone takes"),
    ({"ttft_p95": "5ms"}, {}, "TTFT p95: a prompt of 800 tokens alone takes"),
    ({"e2e_p95": "100ms"}, {}, "E2E p95: an answer of 100 tokens alone takes"),
    ({"tpot_p95": "1ms"}, {"kind": "closed", "concurrency": 2, "num_requests": 8}, "TPOT p95: a step of one request alone takes"),
]


@pytest.mark.parametrize(("slo", "work", "said"), FLOORS)
def test_a_limit_below_physics_is_said_to_be(tmp_path, slo, work, said):
    text = told(tmp_path, "plan", problem(ONE, FEW | work, slo=slo), 1)
    assert "Nothing that may be chosen meets the SLO. Nearest is h100_sxm, tp 1 with 2 replicas: " in text
    assert f"What blocks it, in any number of replicas: {said}" in text


def test_a_floor_is_below_what_a_run_measures(tmp_path):
    """What is said to take so long alone does take as long in the run that is shown beside it."""
    for slo, work, _ in FLOORS:
        [row] = sim.plan(problem(ONE, FEW | work, slo=slo)).reachable
        value, unit = row["floor"].partition(" takes ")[2].split(",")[0].split()
        assert float(value) * {"ms": 1e-3, "s": 1.0}[unit] <= 1.005 * row["reached_s"]


def test_a_capacity_below_physics_says_so(tmp_path):
    made = problem(ONE, FEW, slo={"tpot_p95": "1ms"})
    text = told(tmp_path, "capacity", made, 1)
    assert "TPOT p95: a step of one request alone takes" in text
    assert "at any load" in text


def test_json_of_what_cannot_be_met_has_what_blocks_it(tmp_path):
    path = written(tmp_path, yaml.safe_dump(problem(ONE, FEW, slo={"tpot_p95": "1ms"})))
    outcome = CliRunner().invoke(main, ["plan", str(path), "--json", "--jobs", "1"])
    assert outcome.exit_code == 1
    [row] = json.loads(outcome.stdout)["reachable"]
    assert row["floor"].startswith("TPOT p95: a step of one request alone takes")
    assert row["reached_s"] > row["limit_s"]


def test_choices_that_only_go_together_are_looked_at_together():
    """A mode that needs a trainer on other GPUs is no mistake where another choice gives it those."""
    vary = {"workloads.0.mode": ["sync_colocated", "sync_disaggregated"], "cluster.trainers.0.shares": ["serve", None]}
    made = problem({"vary": vary} | ONE)
    made["cluster"]["trainers"] = [{"name": "learner", "gpu": "h100_sxm", "gpus": 1, "shares": "serve"}]
    made["workloads"] = [{"kind": "rl", "mode": "sync_colocated", "steps": 2, "prompts": 4, "samples": 4, "prompt": 100,
                          "answers": {"mean": 50, "sigma": 0.5, "cap": 200}}]  # fmt: skip
    made["slo"] = {"rl_step_p50": "1h"}
    found = sim.plan(made, explain=False)
    able = [row["layout"] for row in found.layouts if row["state"] != "refused"]
    assert len(found.layouts) == 4
    assert len(able) == 2


def test_of_many_layouts_that_fail_the_one_that_comes_nearest_is_named():
    slow = ["l4", "l40s", "rtx4090", "a100_sxm_80gb"]
    choices = {"gpu": [*slow, "h100_sxm"], "parallel": [{"tp": 1}, {"tp": 2}], "replicas": [1]}
    found = sim.plan(problem(choices, FEW, slo={"ttft_p50": "100us"}), explain=False)
    assert found.best is None
    assert {row["layout"] for row in found.reachable} == {"h100_sxm, tp 2"}
