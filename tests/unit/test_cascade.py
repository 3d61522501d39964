"""Cascades: who is sent on, what the caller waits for, what the table says of it, and input that makes no sense."""
from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.core.request import Request
from sim.policy.escalate import chance
from sim.spec.cascade import Escalate

SMALL, LARGE = "Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.2-3B"
FIXED = {"kind": "fixed", "input": 100, "output": 20}
MIXED = {"kind": "uniform", "input": [10, 300], "output": [5, 60]}


def pools(*names, **engine):
    models = {"student": SMALL, "middle": LARGE, "teacher": "meta-llama/Llama-3.1-8B"}
    return [{"name": name, "model": models[name], "gpu": "h100_sxm", "engine": engine} for name in names]


def scenario(cascades, workloads=None, cluster=None, **rest):
    workloads = workloads or [{"kind": "poisson", "name": "chat", "rate": 20, "num_requests": 300, "lengths": MIXED}]
    return {"seed": 3, "model": SMALL, "workloads": workloads,
            "cluster": {"pools": pools("student", "teacher"), "cascades": cascades} | (cluster or {})} | rest  # fmt: skip


def link(escalate=0.3, start="student", to="teacher", **rest):
    return {"from": start, "to": to, "escalate": escalate, **rest}


def stages(result):
    return result.tables["stages"].to_pandas()


def sent_on(result):
    """The numbers, among the callers' requests, of those that were sent on."""
    frame = stages(result).query("stage == 0 and part == 'answer'").sort_values("start", kind="stable")
    return set(np.flatnonzero(frame["outcome"] == "escalated"))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_is_sent_on(share):
    result = sim.run(scenario([link(share)]))
    found, counts = result.summary["cascade"], result.summary["requests"]
    assert found["escalated_share"] == pytest.approx(share, abs=0.08 if 0 < share < 1 else 0)
    assert found["requests"] == found["answered"] == 300
    assert counts["arrived"] == counts["completed"] == 300 + round(300 * found["escalated_share"])
    assert sum(found["answered_by"].values()) == pytest.approx(1.0)
    assert found["answered_by"].get("teacher", 0.0) == found["escalated_share"]
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_what_ifs_share_their_luck():
    """With a larger share those who were sent on before still are, and another workload's traffic moves nobody."""
    few, many = sent_on(sim.run(scenario([link(0.2)]))), sent_on(sim.run(scenario([link(0.5)])))
    assert few < many
    other = {"kind": "poisson", "name": "b", "model": "teacher", "rate": 9, "num_requests": 90, "lengths": MIXED}
    raw = scenario([link(0.2)])
    assert sent_on(sim.run(raw | {"workloads": [*raw["workloads"], other]})) == few


@pytest.mark.parametrize(("verifier", "seconds"), [({"seconds": "250ms"}, 0.25), ({"seconds": 0}, 0.0)])
def test_latency_is_the_sum_of_the_stages(verifier, seconds):
    """One request at a time: the student's answer, the verdict, the teacher's answer."""
    slow = [{"kind": "constant", "name": "chat", "rate": 0.1, "num_requests": 20, "lengths": MIXED}]
    result = sim.run(scenario([link(0.5, verifier=verifier)], slow))
    frame = result.requests.set_index("request")
    rows = stages(result)
    for _, chain in rows.groupby("root"):
        answers = frame.loc[chain["request"]]
        assert chain["end"].max() - chain["start"].min() == pytest.approx(answers["e2e"].sum() + seconds, abs=1e-8)
        assert len(chain) == 1 + (chain["outcome"] == "escalated").sum()
    assert 0 < result.summary["cascade"]["escalated_share"] < 1
    whole = rows.groupby("root")["end"].max() - rows.groupby("root")["start"].min()
    assert result.summary["cascade"]["e2e_s"]["mean"] == pytest.approx(whole.mean())
    assert result.summary["cascade"]["verifier"]["model_requests"] == 0
    assert (result.summary["cascade"]["verifier"]["mean_s"] or 0.0) == pytest.approx(seconds, abs=1e-8)


def test_rules():
    request = Request(0, 0.0, 80, 30)
    assert chance(Escalate(share=0.3), request, "a") == 0.3
    assert [chance(Escalate(by="output_tokens", above=above), request, "a") for above in (29, 30)] == [1.0, 0.0]
    assert [chance(Escalate(by="input_tokens", above=above), request, "a") for above in (79, 80)] == [1.0, 0.0]
    assert [chance(Escalate(classes={"a": 0.6}), request, name) for name in ("a", "b")] == [0.6, 0.0]


def test_long_answers_are_sent_on():
    result = sim.run(scenario([link({"by": "output_tokens", "above": 40})]))
    frame = stages(result).query("stage == 0").merge(result.requests, on="request")
    assert ((frame["outcome"] == "escalated") == (frame["output_tokens"] > 40)).all()


def test_classes_and_what_they_cost():
    workloads = [{"kind": "poisson", "name": name, "rate": 10, "num_requests": 200, "lengths": MIXED} for name in ("easy", "hard")]
    result = sim.run(scenario([link({"classes": {"hard": 0.8}})], workloads))
    classes = result.summary["cascade"]["classes"]
    assert classes["easy"]["escalated_share"] == 0.0
    assert classes["hard"]["escalated_share"] == pytest.approx(0.8, abs=0.1)
    assert sum(row["usd"] for row in classes.values()) == pytest.approx(result.summary["cost"]["usd_total"])
    assert classes["hard"]["usd_per_request"] > 1.5 * classes["easy"]["usd_per_request"]
    pools = result.summary["pools"]
    assert sum(pool["usd_total"] for pool in pools.values()) == pytest.approx(result.summary["cost"]["usd_total"])
    # The easy ones never reach the teacher, so its whole price is the hard ones'.
    assert classes["hard"]["usd"] > pools["teacher"]["usd_total"]


def test_a_model_judges_what_was_written():
    result = sim.run(scenario([link(0.4, verifier={"model": "teacher", "output_tokens": 2})]))
    frame = stages(result).merge(result.requests, on="request")
    verdicts, answers = frame.query("part == 'verdict'").set_index("root"), frame.query("stage == 0 and part == 'answer'").set_index("root")
    assert len(verdicts) == len(answers) == 300
    assert (verdicts["input_tokens"] == answers["input_tokens"] + answers["output_tokens"]).all()
    assert (verdicts["output_tokens"] == 2).all()
    assert (verdicts["end"] <= answers["end"]).all()
    assert set(verdicts["service"]) == {"teacher"}
    assert result.summary["cascade"]["verifier"]["model_requests"] == 300


def test_a_judge_of_the_same_model_finds_the_answer_in_its_cache():
    """It reads prompt and answer where they were written, so all but the last block is there."""
    slow = [{"kind": "constant", "name": "chat", "rate": 1, "num_requests": 10, "lengths": {"kind": "fixed", "input": 320, "output": 64}}]
    result = sim.run(scenario([link(0.4, verifier={"model": "student"})], slow))
    frame = stages(result).merge(result.requests, on="request")
    assert (frame.query("part == 'verdict'")["cached_tokens"] == 368).all()
    assert (frame.query("part == 'answer'")["cached_tokens"] == 0).all()


def test_the_answer_goes_along_and_the_next_one_is_longer():
    result = sim.run(scenario([link(1.0, include_answer=True, output_scale=1.5)]))
    frame = stages(result).merge(result.requests, on="request")
    first, second = (frame.query(f"stage == {stage}").set_index("root").sort_index() for stage in (0, 1))
    assert (second["input_tokens"] == first["input_tokens"] + first["output_tokens"]).all()
    assert (second["output_tokens"] == np.maximum(1, np.round(1.5 * first["output_tokens"]))).all()


def test_three_stages():
    cascades = [link(0.5, "student", "middle"), link(0.5, "middle", "teacher")]
    quality = {"student": 60, "middle": 70, "teacher": 80}
    result = sim.run(scenario(cascades, cluster={"pools": pools("student", "middle", "teacher"), "quality": quality}))
    found = result.summary["cascade"]
    assert found["escalated_share"] == pytest.approx(0.5, abs=0.1)
    assert found["answered_by"]["teacher"] == pytest.approx(0.25, abs=0.08)
    mean = sum(quality[name] * share for name, share in found["answered_by"].items())
    assert found["quality"] == {"as_given": quality, "mean_of_answers": pytest.approx(mean)}
    assert set(stages(result)["stage"]) == {0, 1, 2}


def test_no_quality_is_made_up():
    assert sim.run(scenario([link()])).summary["cascade"]["quality"] is None
    partly = sim.run(scenario([link()], cluster={"quality": {"teacher": 80}})).summary["cascade"]["quality"]
    assert partly == {"as_given": {"teacher": 80.0}, "mean_of_answers": None}


def test_a_caller_waits_for_the_last_answer():
    closed = [{"kind": "closed", "name": "chat", "concurrency": 1, "num_requests": 30, "lengths": MIXED}]
    rows = stages(sim.run(scenario([link(0.5, verifier={"seconds": 0.1})], closed)))
    starts, ends = (rows.groupby("root", sort=True)[key].agg(how).to_numpy() for key, how in (("start", "min"), ("end", "max")))
    np.testing.assert_allclose(starts[1:], ends[:-1], atol=1e-8)


def test_who_is_turned_away_further_on_keeps_the_answer_there_is():
    raw = scenario([link(1.0)])
    raw["cluster"]["pools"][1]["engine"] = {"max_model_len": 200}
    result = sim.run(raw)
    found, rejected = result.summary["cascade"], result.summary["requests"]["rejected"]
    assert 0 < rejected < 300
    assert found["answered"] == 300
    assert found["answered_by"]["student"] == pytest.approx(rejected / 300)
    assert found["turned_away"] == 0
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_who_is_turned_away_at_once_has_no_answer():
    raw = scenario([link(0.5)], [{"kind": "closed", "name": "chat", "concurrency": 4, "num_requests": 100, "lengths": MIXED}])
    raw["cluster"]["pools"][0]["engine"] = {"max_model_len": 200}
    found = sim.run(raw).summary["cascade"]
    assert found["answered"] + found["turned_away"] == found["requests"] == 100
    assert found["turned_away"] > 10


def test_a_run_cut_short_leaves_open_chains():
    result = sim.run(scenario([link(0.5, verifier={"seconds": 2})], duration=3.0))
    found = result.summary["cascade"]
    assert found["unfinished"] > 10
    assert found["answered"] + found["unfinished"] == found["requests"]
    assert (stages(result).query("outcome == 'open'")["end"].isna()).all()
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_a_workload_may_ask_the_teacher_itself():
    direct = {"kind": "poisson", "name": "direct", "model": "teacher", "rate": 5, "num_requests": 40, "lengths": MIXED}
    raw = scenario([link(0.5)])
    result = sim.run(raw | {"workloads": [*raw["workloads"], direct]})
    assert set(result.summary["cascade"]["classes"]) == {"chat"}
    assert result.summary["cascade"]["requests"] == 300


THREE = {"pools": pools("student", "middle", "teacher")}


@pytest.mark.parametrize(
    ("raw", "path", "fragment"),
    [
        (scenario([link(), link(start="teacher", to="student")]), "cluster.cascades.0.to", "circle: student -> teacher -> student"),
        (scenario([link(to="student")]), "cluster.cascades.0.to", "circle: student -> student"),
        (scenario([link(), link(to="middle")], cluster=THREE), "cluster.cascades.1", "another cascade starts from 'student'"),
        (scenario([link(to="taecher")]), "cluster.cascades.0.to", "did you mean teacher?"),
        (scenario([link(start="pupil")]), "cluster.cascades.0.from", "no pool serves 'pupil'"),
        (scenario([link(verifier={"model": "judge"})]), "cluster.cascades.0.verifier.model", "no pool serves 'judge'"),
        (scenario([link({"classes": {"chta": 0.5}})]), "cluster.cascades.0.escalate.classes.chta", "did you mean chat?"),
        (scenario([link()], cluster={"quality": {"studnet": 1}}), "cluster.quality.studnet", "did you mean student?"),
        (scenario([], cluster={"quality": {"student": 1}}), "cluster", "no cascades"),
        (scenario([link(), link(start="middle")], cluster=THREE), "workloads.0.model", "student or middle"),
        (scenario([link(1.2)]), "cluster.cascades.0.escalate", "at most 1"),
        (scenario([link(True)]), "cluster.cascades.0.escalate", "a share such as 0.3 is wanted"),
        (scenario([link({"by": "output_tokens"})]), "cluster.cascades.0.escalate", "belong together"),
        (scenario([link({"share": 0.1, "classes": {"chat": 0.5}})]), "cluster.cascades.0.escalate", "in one way"),
        (scenario([link(verifier={"seconds": 1, "model": "teacher"})]), "cluster.cascades.0.verifier", "either seconds or model"),
        (scenario([link(verifier={"seconds": 1, "output_tokens": 3})]), "cluster.cascades.0.verifier", "writes none"),
        (scenario([{"to": "teacher", "escalate": 0.1}]), "cluster.cascades.0.from", "missing"),
        (scenario([link(output_scale=0)]), "cluster.cascades.0.output_scale", "above 0"),
    ],
)
def test_bad_input(raw, path, fragment):
    with pytest.raises(sim.BadInput) as caught:
        sim.run(raw)
    problem = caught.value.problems[0]
    assert problem.path == path
    assert fragment in problem.message


def test_a_circle_is_found_with_its_line(tmp_path):
    path = tmp_path / "circle.yaml"
    path.write_text(
        "model: Qwen/Qwen2.5-0.5B\n"
        "cluster:\n"
        "  pools:\n"
        "    - {name: a, gpu: h100_sxm}\n"
        "    - {name: b, gpu: h100_sxm}\n"
        "  cascades:\n"
        "    - from: a\n"
        "      to: b\n"
        "      escalate: 0.5\n"
        "    - {from: b, to: a, escalate: 0.5}\n"
        "workloads:\n"
        "  - {kind: poisson, rate: 1, num_requests: 5, lengths: {kind: fixed, input: 10, output: 10}}\n"
    )
    with pytest.raises(sim.BadInput) as caught:
        sim.run(path)
    found = [(problem.path, problem.line) for problem in caught.value.problems]
    assert found == [("cluster.cascades.0.to", 8), ("cluster.cascades.1.to", 10)]
