"""What a notebook shows of a scenario, a result and a plan: the answer and the figures, escaped, and nothing from elsewhere."""
from __future__ import annotations

import re

import pytest

import sim
from sim.core import display
from sim.spec.load import loads

CHAT = {
    "name": "chat <b>&", "seed": 3, "model": "meta-llama/Llama-3.1-8B", "slo": {"ttft_p99": "500ms", "tpot_p99": "2s", "attainment": 0.9},
    "cluster": {"pools": [
        {"name": "big", "gpu": "h100_sxm", "replicas": 2, "parallel": {"tp": 2}},
        {"name": "small", "gpu": "l40s", "autoscale": {"max": 4, "policy": {"kind": "concurrency", "target": 8}}},
    ]},
    "workloads": [{"kind": "preset", "preset": "azure_conv_2023", "rate": 10, "num_requests": 1200, "start": "2s"}],
}  # fmt: skip


def words(html):
    """The text of a display, cells apart. It needs nothing else, and leaves colours to the notebook."""
    assert not re.search(r"<script|<link|<style|https?:|url\(|background|(?<!-)color:", html)
    assert html.count("<div") == html.count("</div>") == 1
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).strip()


def chat(**changes):
    one = {"gpu": "h100_sxm"}
    work = {"kind": "preset", "preset": "azure_conv_2023", "rate": 10, "num_requests": 100}
    return CHAT | {"cluster": {"pools": [one]}, "workloads": [work]} | changes


def test_a_scenario_says_what_runs_on_what():
    said = words(loads(CHAT)._repr_html_())
    for part in (
        "scenario chat &lt;b&gt;&amp; model meta-llama/Llama-3.1-8B", "pool big 4 × h100_sxm (2 replicas of 2); tp 2; bf16",
        "pool small 1 to 4 replicas of 1 × l40s", "traffic preset azure_conv_2023, rate 10, start 2 s, num_requests 1,200",
        "SLO TTFT p99 ≤ 500 ms, TPOT p99 ≤ 2 s, by 90% of the requests", "seed 3",
    ):  # fmt: skip
        assert part in said
    work = {"kind": "train", "steps": 3, "batch": 8, "lengths": {"kind": "fixed", "input": 9, "output": 9}}
    cluster = {"trainers": [{"gpu": "h100_sxm", "gpus": 8}]}
    trains = {"model": "Qwen/Qwen2.5-7B", "description": "<i>", "workloads": [work], "cluster": cluster}
    learns = words(loads(trains)._repr_html_())
    assert "&lt;i&gt; model Qwen/Qwen2.5-7B trainer train 8 × h100_sxm traffic train, " in learns


def test_a_scenario_whose_files_have_moved_is_shown_too():
    gone = {"kind": "trace", "format": "csv", "path": "gone/<x>.csv"}
    scenario = loads({"model": "gone/config.json", "cluster": {"pools": [{"gpu": "gone"}]}, "workloads": [gone]}, lookup=False)
    said = words(scenario._repr_html_())
    assert "gone/config.json pool serve 1 × gone" in said
    assert "gone/&lt;x&gt;.csv" in said


def test_a_result_begins_with_the_verdict():
    result = sim.run(chat())
    said = words(result._repr_html_())
    assert said.startswith("result chat &lt;b&gt;&amp; Stable: ")
    for part in ("TTFT, median", "Output tokens per second", result.summary["why"][0]["text"], "checks of the run's own books hold."):
        assert part.replace("'", "&#x27;") in said
    assert f"Extrapolated beyond what was measured: {len(result.summary['provenance']['extrapolations'])} remark" in said


def test_a_result_whose_books_do_not_add_up_says_so():
    result = sim.run(chat())
    result.summary["audit"]["I2"] = {"ok": False, "detail": "3 blocks <lost>"}
    assert "AUDIT FAILED, do not trust this: I2: 3 blocks &lt;lost&gt;" in words(result._repr_html_())


def test_a_plan_gives_the_answer_and_the_runners_up():
    wanted = {"gpu": {"choices": ["l40s", "h100_sxm"]}, "replicas": {"range": {"min": 1, "max": 4}}, "replications": 1}
    plan = sim.plan(chat(slo={"ttft_p99": "1s"}, plan=wanted))
    said = words(plan._repr_html_())
    best = plan.best
    assert said.startswith(f"plan chat &lt;b&gt;&amp; {best['layout']}, in {best['replicas']} replica")
    assert f"${best['usd_per_hour']:,.2f} an hour" in said
    for layout in plan.layouts:
        assert layout["layout"] in said
    assert list(plan.runners_up["layout"]) == [layout["layout"] for layout in plan.layouts if layout["layout"] != best["layout"]] != []
    nothing = words(sim.plan(chat(slo={"ttft_p99": "100us"}, plan=wanted))._repr_html_())
    assert "Nothing that may be chosen meets the SLO." in nothing
    assert "Limit Asked Reached Holds TTFT p99 100 µs" in nothing


def test_a_capacity_gives_the_knee_and_the_loads_around_it():
    found = sim.capacity(chat(slo={"ttft_p99": "1s"}), replications=1)
    said = words(found._repr_html_())
    assert said.startswith("capacity chat &lt;b&gt;&amp; Up to ")
    assert f"What gives first: {found.binds}." in said
    assert found._repr_html_().count("<tr>") == len(found.rows) + 1
    nothing = words(sim.capacity(chat(slo={"ttft_p99": "100us"}), replications=1)._repr_html_())
    assert nothing.startswith("capacity chat &lt;b&gt;&amp; The SLO is met at no load that was tried")
    assert "Limit Asked Reached TTFT p99 100 µs" in nothing


def test_a_frontier_gives_its_points_and_what_cannot_be():
    found = sim.pareto(chat(slo={}, plan={"gpu": ["h100_sxm"], "parallel": [{"tp": 1}, {"tp": 3}]}))
    html = found._repr_html_()
    said = words(html)
    assert said.startswith("frontier chat &lt;b&gt;&amp; ")
    assert "Fastest for a user is h100_sxm, tp 1" in said
    assert html.count("<tr>") == len(found.frontier) + 1 + len(found.refused) + 1
    assert "1 layout that cannot be Layout Why h100_sxm, tp 3" in said


def test_studies_look_alike():
    replications = sim.replicate(chat(), n=2)
    assert words(replications._repr_html_()).startswith("replications chat &lt;b&gt;&amp; 2 replications of chat")
    comparison = sim.what_if(chat(), {"seed": 5}, n=2)
    assert words(comparison._repr_html_()).startswith("comparison with chat &lt;b&gt;&amp;")


@pytest.mark.parametrize(("rows", "shown", "more"), [(3, 3, ""), (display.MOST, 50, ""), (1234, 50, "and 1,184 more")])
def test_a_table_ends(rows, shown, more):
    html = display.table(("a", "b"), [(1.5, "<x>")] * rows)
    assert html.count("<tr>") == shown + 1
    assert html.count("text-align: right") == html.count("text-align: left") == shown + 1
    assert ("more" in html) is bool(more)
    assert more in html
    assert display.table(("a",), []) == display.listed([]) == display.said("") == ""
