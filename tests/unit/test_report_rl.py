"""What a page, a text block and a ladder say and draw of reinforcement learning."""
from __future__ import annotations

import re

import numpy as np
import pytest
from rl_made import LOGPROB, SYNC, UPDATE, made
from synthetic import edit, queue

import sim
from sim.report import gantt, rl, rl_ladder, rl_plots
from sim.report.gantt import gantts
from sim.report.ladder import block as ladder_block
from sim.report.ladder import render as ladder_page
from sim.report.page import render
from sim.report.text import block
from sim.study.ladder import Ladder, figures, others
from sim.study.metrics import Facts

SCENARIO = {
    "name": "tiny", "model": "Qwen/Qwen2.5-0.5B",
    "cluster": {"pools": [{"name": "rollouts", "gpu": "h100_sxm", "replicas": 2}],
                "trainers": [{"name": "train", "gpu": "h100_sxm", "gpus": 2}]},
    "workloads": [{"kind": "rl", "mode": "async", "steps": 4, "prompts": 4, "samples": 4, "prompt": {"mean": 200},
                   "answers": {"mean": 300, "sigma": 0.8, "cap": 4096}, "staleness": {"kind": "areal", "eta": 1}}],
}  # fmt: skip


@pytest.fixture(scope="module")
def turns():
    return made(0)


@pytest.fixture(scope="module")
def stale():
    return made(2)


@pytest.fixture(scope="module")
def drawn(stale):
    return {plot.title: plot for plot in rl_plots.plots(Facts(stale), stale.summary)}


def rung(name, result):
    compared = dict.fromkeys(("throughput_factor", "cost_factor", "ttft_factor", "tpot_factor"))
    return {"key": name, "name": name, "why": "", "kept": True, "folder": name} | figures(result, None) | compared


def by_title(parts):
    return {part.title: part for part in parts}


# -- figures -------------------------------------------------------------
def test_cards_say_what_the_summary_says(stale):
    figures, cards = stale.summary["rl"]["grpo"], {name: (value, more) for name, value, more in rl.cards(stale.summary)}
    assert cards["A step"] == ("22 s", "p99 25.7 s; 5 steps, the first 3 left out")
    assert cards["Trainer waits"][0] == f"{100 * figures['trainer_idle_frac']:.3g}%"
    assert cards["Staleness, mean"][0] == f"{figures['staleness']['lag_mean']['mean']:.3g}"
    assert cards["Dollars per step"][0] == f"${figures['money']['usd_per_step']:.2f}"


def test_runs_in_turns_have_rounds_and_no_staleness(turns):
    panels = by_title(rl.panels(turns.summary))
    assert panels["Staleness"].rows == [("All samples", "of the version that was updated")]
    answers = dict(panels["Answers"].rows)
    assert answers["The last 10% of samples, of a round's time"] == "52.5%"
    assert dict(panels["Reinforcement learning"].rows)["GPUs"] == "4 generate, 4 train"
    (plot,) = rl_plots.tail(turns.summary["rl"]["grpo"], "")
    assert "the last 10% of the samples take 52.5% of the time" in plot.note


def test_stale_runs_say_what_is_beyond_the_bound(stale):
    rows = dict(by_title(rl.panels(stale.summary))["Staleness"].rows)
    figures = stale.summary["rl"]["grpo"]["staleness"]
    assert rows["Beyond the bound of 2"].startswith(f"{figures['bound']['violations']:,} (")
    assert figures["bound"]["violations"] > 0


def test_parts_of_a_step_sum_to_it(turns):
    sheet = by_title(rl.sheets(turns.summary))["Where a step goes"]
    parts = {row[0]: row[1] for row in sheet.rows}
    assert (parts["Update"], parts["Log-probabilities"]) == (f"{UPDATE:g} s", f"{LOGPROB:g} s")
    assert sum(float(row[2][:-1]) for row in sheet.rows[:-1]) == pytest.approx(100, abs=0.3)
    assert "GPUs changing hands" not in parts


def test_tables_of_graders_and_publications(turns):
    sheets = by_title(rl.sheets(turns.summary))
    assert [row[0] for row in sheets["Who gave rewards"].rows] == ["rule"]
    assert dict(zip(sheets["Who gave rewards"].heads, sheets["Who gave rewards"].rows[0], strict=False))["Timed out"] == "0"
    assert dict(map(tuple, sheets["New weights"].rows))["The trainer stands still"] == f"{SYNC:g} s"


def test_what_stands_beside_verls_names_exists(stale):
    figures = stale.summary["rl"]["grpo"]
    for name, path in rl.OURS.items():
        found = figures
        for key in path.split(" ")[0].split("."):
            found = found[key]
        if name in figures["verl"] and "and" not in path:
            assert found == pytest.approx(figures["verl"][name]), name


def test_nothing_where_nobody_learns():
    result = queue(0.5, 50)
    facts = Facts(result)
    assert not [*rl.cards(result.summary), *rl.panels(result.summary), *rl.sheets(result.summary), *rl_plots.plots(facts, result.summary)]
    assert rl_ladder.lines([{"name": "one", "rl": None}]) == []


def test_a_ladder_says_what_other_traffic_got():
    got = {"requests": 1200, "completed": 1100, "ttft_p50": 0.25, "ttft_p95": 2.0, "e2e_p50": 9.0, "e2e_p95": 60.0}
    rows = [{"name": "lent", "busy": 0.5, "others": got}, {"name": "own", "busy": 0.25, "others": got | {"ttft_p50": None}}]
    first, second = rl_ladder.beside(rows)
    assert first == ["lent", "1,200", "1,100", "250 ms", "2 s", "9 s", "60 s", "50%"]
    assert second[3] == "–"
    assert rl_ladder.beside([{"name": "alone", "busy": 0.5, "others": None}]) == []


def test_other_traffic_is_what_does_not_learn(turns):
    assert others(turns) is None
    result = queue(0.5, 50)
    found = others(result)
    assert (found["requests"], found["completed"]) == (50, 50)
    assert found["ttft_p95"] == pytest.approx(result.requests["ttft"].quantile(0.95))


# -- drawings ------------------------------------------------------------
def test_every_part_is_drawn_in_colours_of_the_page(drawn):
    assert list(drawn) == [
        "Who does what: 5 steps in the middle", "What the steps take", "Who does what: all of the run", "How stale samples are",
        "How long answers are", "Samples under way, and groups that wait",
    ]  # fmt: skip
    for plot in drawn.values():
        assert not re.search(r"#0102[0-9a-f]{2}|#000000|fill: black|font-family", plot.svg)
        assert plot.broad == plot.title.startswith("Who does what")


def test_steps_are_stacked_to_their_seconds(stale):
    steps = stale.tables["rl_steps"]
    parts = rl_plots.stacks(rl_plots.runs(Facts(stale))[0].steps)
    assert sum(parts.values()) == pytest.approx(steps["end"] - steps["start"])
    assert list(parts) == list(rl_plots.PARTS)


def test_a_step_that_dwarfs_the_others_is_cut_off_and_said():
    """Of forty steps the fourth waits for the night, and the last but one an hour; without them all are drawn to their ends."""
    result = made(2, steps=40)
    usual = next(plot for plot in rl_plots.plots(Facts(result), result.summary) if plot.title == "What the steps take")
    assert "Cut off" not in usual.note
    assert rl_plots.cut_off(np.array([20.0, 99.0, 24.0, 21.0]))[1] == []
    steps = result.tables["rl_steps"]
    for row, wait in ((3, 28_800.0), (38, 3600.0)):
        for column in ("wait", "end"):
            edit(steps, column, row, float(steps[column][row]) + wait)
    end, cut = rl_plots.cut_off(steps["end"] - steps["start"])
    assert cut == [3, 38]
    assert end < 60
    plot = next(plot for plot in rl_plots.plots(Facts(result), result.summary) if plot.title == "What the steps take")
    assert plot.note.endswith("Cut off at the top: version 4 took 8.01 h, version 39 took 60.3 min.")
    said = re.findall(r">([^<>]+)</text>", plot.svg)
    assert {"8.01 h", "60.3 min"} <= set(said)
    assert max(float(text) for text in said if text.replace(".", "").isdigit()) < 60


def test_the_gantt_says_who_worked_how_long(stale):
    whole = list(gantts(Facts(stale)))[-1]
    table = stale.tables["train_states"]
    worked = (table["end"] - table["start"])[table["state"] == table.labels["state"].index("update")].sum() / stale.meta["sim_s"]
    assert f"trainer {100 * worked:.1f}%" in whole.note
    said = re.findall(r">([^<>]+)</text>", whole.svg)
    assert [f"rollouts {number}" for number in range(4)] == [text for text in said if text.startswith("rollouts")]
    assert {"update", "weights out, or in", "generates", "grades: rule", "v1", "v8"} <= set(said)


def test_many_replicas_are_bands_and_the_page_stays_small():
    result = made(2, steps=24, groups=48, samples=4, replicas=40)
    charts = list(gantts(Facts(result)))
    said = [text for text in re.findall(r">([^<>]+)</text>", charts[0].svg) if text.startswith("rollouts")]
    assert len(said) == 14
    assert (said[0], said[-1]) == ("rollouts 0–2", "rollouts 39")
    assert all(len(chart.svg) < 200_000 for chart in charts)


def test_an_outline_goes_where_its_steps_go():
    edges, heights = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.5, 0.5, 0.25])
    assert gantt._outline(edges, heights) == [(0.0, 0.5), (2.0, 0.5), (2.0, 0.25), (3.0, 0.25)]


def test_states_that_cannot_be_seen_are_left_to_the_one_before():
    spans = [(0.0, 1.0, "update"), (1.0, 1.001, "publish"), (1.001, 2.0, "update"), (3.0, 4.0, "logprob"), (4.0, 5.0, "reference")]
    assert list(gantt._joined(iter(spans), 0.01)) == [(0.0, 2.0, "update"), (3.0, 5.0, "logprob")]


# -- the whole -----------------------------------------------------------
def test_a_run_has_a_page_and_a_text():
    result = sim.run(SCENARIO)
    page, text = render(result), block(result.summary)
    for title in ("Who does what: all of the run", "What takes the time", "Where a step goes", "Under verl's names".replace("'", "&#39;")):
        assert title in page
    assert "Reinforcement learning rl" in text
    assert re.search(r"Versions made / counted: +4 / 1", text)
    assert all(entry["ok"] for entry in result.summary["audit"].values())


def test_a_ladder_says_who_won_and_why(turns, stale):
    rows = [rung("in turns", turns), rung("stale", stale)]
    ladder = Ladder(stale.scenario, rows, 2, 512)
    page, text = ladder_page(ladder), ladder_block(ladder)
    fast = turns.summary["rl"]["grpo"]["step_s"]["mean"] / stale.summary["rl"]["grpo"]["step_s"]["mean"]
    for said in (page, text):
        assert "stale is the fastest" in said
        assert f"× {fast:.2f}" in said
    assert "GPUs needed" not in page
    assert "rl" not in ladder.table
    plots = rl_ladder.learned(rows).plots
    assert [plot.title for plot in plots] == ["A step of each rung, and what it goes to", "Gained and lost against in turns"]
    assert rl_ladder.learned([rows[0], rows[1] | {"rl": None}]) is None
