"""`burstsim validate`: a small table of runs as benchmarks publish them, what becomes of each row, and how errors are summed up."""
from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trace_samples import INFERENCEX

from sim.core.errors import BadInput
from sim.report import accuracy
from sim.spec.hardware import gpu
from sim.study.validate import table as whole
from sim.study.validate import validate
from sim.study.validate.errors import COLUMNS, by, errors_of, stats
from sim.study.validate.goals import judged
from sim.study.validate.held_out import fit_constants
from sim.study.validate.precision_of import precision_of
from sim.study.validate.predict import predict, prepared
from sim.study.validate.runs import NUMBERS, TEXTS, read
from sim.study.validate.scenario_of import case_of, gpu_named, metric_of, model_named
from sim.study.validate.store import Store, key_of
from sim.study.validate.traffic import traffic

RUNS = Path(__file__).resolve().parents[3] / "shared" / "data" / "e2e" / "runs.csv"
BASE = {
    "source": "bench", "gpu": "H100-SXM", "model": "meta-llama/Llama-3.1-8B-Instruct", "engine": "vllm", "engine_version": "0.15.1",
    "precision": "bf16", "kv_dtype": "bf16", "n_gpus": 1, "tp": 1, "pp": 1, "mode": "agg", "isl": 128, "osl": 16, "quality": "ok",
}  # fmt: skip
CLOSED = {"run_id": "closed", "concurrency": 4, "n_requests": 24, "ttft_mean_ms": 20.0, "tpot_mean_ms": 8.0, "e2e_mean_ms": 140.0}
OPEN = {"run_id": "open", "request_rate": 5, "n_requests": 20, "ttft_mean_ms": 20.0, "itl_mean_ms": 8.0, "e2e_p90_ms": 150.0}
STAGED = {
    "run_id": "staged", "workload": "chat; 2 then 4 req/s x5 s each; stage 1", "request_rate": 4, "ttft_mean_ms": 20.0,
    "itl_mean_ms": 8.0, "notes": "KV blocks gpu=28000 cpu=0",
}  # fmt: skip
MOST = {"run_id": "most", "engine": "trtllm", "n_requests": 40, "output_tok_s": 2000.0, "output_tok_s_per_gpu": 2000.0}
APART = {"run_id": "apart", "mode": "disagg", "concurrency": 4, "tpot_mean_ms": 8.0}
STRANGE = {"run_id": "strange", "gpu": "TPU-v5", "concurrency": 4, "tpot_mean_ms": 8.0}


def written(folder, *rows):
    path = folder / "runs.csv"
    pd.DataFrame([BASE | row for row in rows]).to_csv(path, index=False)
    return path


def row(**changes):
    """A row as `read` gives it."""
    empty = dict.fromkeys(NUMBERS, float("nan")) | dict.fromkeys(TEXTS, "")
    return empty | BASE | {"run_id": "x", "concurrency": 4.0, "tpot_mean_ms": 8.0} | changes


def replayed(folder):
    """A run replayed request by request: its request file, and each request's own times."""
    requests = [{"input_toks": 100 + i, "output_toks": 8, "arrival_time_ns": int(2e8 * i)} for i in range(6)]
    (folder / "requests").mkdir()
    (folder / "requests" / "chat.jsonl").write_text("".join(json.dumps(one) + "\n" for one in requests))
    (folder / "H100__chat").mkdir()
    times = [{"queued_ts": 50 + 0.2 * i, "last_token_ts": 50 + 0.2 * i + 0.08} for i in range(6)]
    (folder / "H100__chat" / "requests.jsonl").write_text("".join(json.dumps(one) + "\n" for one in times))
    return {
        "run_id": "replay", "request_file": "e2e/requests/chat.jsonl", "e2e_mean_ms": 80.0, "tpot_mean_ms": 8.0,
        "notes": "engine-side timestamps; per-request file + 1 s time series in e2e/H100__chat; KV blocks resolved by vLLM: 28000",
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    path = written(folder, CLOSED, OPEN, STAGED, MOST, APART, STRANGE, replayed(folder))
    seen = []
    summary = validate(path, None, None, folder / "out", jobs=1, progress=lambda done, total: seen.append((done, total)))
    return path, folder / "out", summary, seen


def test_every_kind_of_run_is_predicted_beside_what_was_measured(done):
    _, out, summary, _ = done
    errors = pd.read_csv(out / "errors.csv")
    assert tuple(errors.columns) == COLUMNS
    found = {run: set(part["metric"]) for run, part in errors.groupby("run_id")}
    assert found == {
        "closed": {"ttft_mean", "tpot_mean", "e2e_mean"}, "open": {"ttft_mean", "itl_mean", "e2e_p90"},
        "staged": {"ttft_mean", "itl_mean", "kv_blocks"}, "most": {"output_tok_s"}, "replay": {"e2e_mean", "tpot_mean", "kv_blocks"},
    }  # fmt: skip
    np.testing.assert_allclose(errors["ape"], abs(errors["predicted"] / errors["measured"] - 1), rtol=1e-3)
    # A decode step of 8B in bf16 reads 15 GB at 3.35 TB/s or less: no units are mixed up on the way.
    pace = errors[errors["metric"].isin(["tpot_mean", "itl_mean"])]["predicted"]
    assert pace.between(4.5, 20).all()
    assert errors.set_index(["run_id", "metric"]).loc[("most", "output_tok_s"), "predicted"] > 1000
    assert summary.chosen == 7


def test_rows_that_could_not_be_done_are_listed_with_the_reason(done):
    _, out, summary, _ = done
    why = {entry["run_id"]: entry["why"] for entry in summary.could_not}
    assert set(why) == {"apart", "strange"}
    assert "disaggregated" in why["apart"]
    assert "'TPU-v5' is not in the catalogue" in why["strange"]
    assert list(pd.read_csv(out / "could_not.csv")["run_id"]) == [entry["run_id"] for entry in summary.could_not]


def test_each_request_of_a_replay_is_compared(done):
    _, out, summary, _ = done
    requests = pd.read_csv(out / "requests.csv")
    assert len(requests) == 6
    assert set(requests["run_id"]) == {"replay"}
    np.testing.assert_allclose(requests["measured_s"], 0.08, rtol=1e-4)
    mean = summary.errors.set_index(["run_id", "metric"]).loc[("replay", "e2e_mean"), "predicted"]
    assert requests["predicted_s"].mean() * 1e3 == pytest.approx(mean, rel=1e-3)


def test_the_summary_is_written_and_counts_every_row(done):
    _, out, summary, seen = done
    figures = json.loads((out / "summary.json").read_text())
    assert (figures["rows"], figures["predicted"]) == (7, 5)
    assert {entry["metric"]: entry["n"] for entry in figures["errors"]["metric"]}["ttft_mean"] == 3
    assert {"metric x gpu", "metric x engine", "metric x model"} <= set(figures["errors"])
    assert {goal["goal"] for goal in figures["goals"]} == {"TPOT, all runs, leave-one-model-out", "TTFT, all runs, leave-one-model-out"}
    assert any("max_num_seqs 1024" in text for text in figures["assumed"])
    assert seen[-1] == (10, 10)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert set(summary.held["run_id"]) == set(summary.errors["run_id"])


def test_the_page_and_the_text_say_the_same(done, tmp_path):
    _, _, summary, _ = done
    accuracy.save(summary, tmp_path)
    page, text = (tmp_path / "accuracy.html").read_text(), (tmp_path / "ACCURACY.md").read_text()
    assert page.count("<svg") >= 4
    assert "http" not in page.replace("http://www.w3.org", "")
    assert text.startswith("# Accuracy\n")
    assert "5 of 7 measured runs" in text
    assert "disaggregated" in text
    assert all(f"## {table.title}\n" in text and f"<h2>{table.title}</h2>" in page for table in accuracy.tables(summary))


def test_an_interrupted_validation_goes_on_where_it_stopped(done, monkeypatch, tmp_path):
    path, out, _, _ = done
    again = tmp_path / "again"
    again.mkdir()
    lines = (out / "rows.jsonl").read_text().splitlines(keepends=True)
    (again / "rows.jsonl").write_text("".join(lines[:-1]) + lines[-1][:25])
    ran = []
    monkeypatch.setattr(whole, "predict", lambda case, constants, real=whole.predict: ran.append(case.run_id) or real(case, constants))
    validate(path, None, None, again, jobs=1)
    assert len(ran) == 1
    assert (again / "errors.csv").read_text() == (out / "errors.csv").read_text()
    assert len((again / "rows.jsonl").read_text().splitlines()) == len(lines)
    validate(path, "run_id == 'closed'", None, again, jobs=1)
    assert len(ran) == 1
    validate(path, "run_id == 'closed'", None, again, jobs=1, force=True)
    assert len(ran) > 1
    assert set(ran[1:]) == {"closed"}


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    path = written(tmp_path, CLOSED)
    with pytest.raises(BadInput, match="holds no validation"):
        validate(path, None, None, tmp_path, jobs=1, force=True)


def test_rows_are_kept_by_all_that_decides_them(tmp_path):
    case = case_of(row(), [tmp_path])
    assert key_of(case) == key_of(case_of(row(), [tmp_path]))
    assert len({key_of(case), key_of(case, {"host_overhead": 1e-3}), key_of(case_of(row(concurrency=5.0), [tmp_path]))}) == 3
    store = Store(tmp_path / "new", force=False)
    store.put({"key": "a", "run_id": "x"})
    assert Store(tmp_path / "new", force=False).get("a") == {"key": "a", "run_id": "x"}
    assert Store(tmp_path / "new", force=True).get("a") is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"ttft_mean_ms": -3}, "ttft_mean_ms: found -3"),
    ({"tpot_mean_ms": "nan ms"}, "tpot_mean_ms: found 'nan ms'; a number is wanted"),
    ({"tpot_mean_ms": 0.008}, "looks like seconds; milliseconds are wanted"),
    ({"ttft_mean_ms": 2e7}, "looks like microseconds"),
    ({"e2e_mean_ms": 14000.0}, "times ttft_mean_ms"),
    ({"e2e_p50_ms": 200.0, "e2e_p90_ms": 150.0}, r"e2e_p50_ms \(200\) is above e2e_p90_ms"),
    ({"concurrency": 0}, "concurrency: found 0"),
    ({"isl": None}, "isl: is empty"),
])  # fmt: skip
def test_a_figure_that_cannot_be_true_costs_its_row(tmp_path, changes, message):
    path = written(tmp_path, CLOSED, OPEN | {"run_id": "bad"} | CLOSED | {"run_id": "bad"} | changes)
    rows, left_out = read(path)
    assert list(rows["run_id"]) == ["closed"]
    assert [entry["run_id"] for entry in left_out] == ["bad"]
    assert left_out[0]["why"].startswith("row 3: ")
    with pytest.raises(BadInput, match=message):
        read(path, "run_id == 'bad'")


def test_a_table_without_what_is_needed_is_refused(tmp_path):
    path = tmp_path / "runs.csv"
    with pytest.raises(BadInput, match="no such file"):
        read(path)
    pd.DataFrame([{"run_id": "a", "gpus": "h100"}]).to_csv(path, index=False)
    with pytest.raises(BadInput) as caught:
        read(path)
    messages = [problem.message for problem in caught.value.problems]
    assert any("no column 'gpu'; did you mean gpus?" in text for text in messages)
    assert any("no measured figure" in text for text in messages)
    with pytest.raises(BadInput, match="run_id must be there"):
        read(written(tmp_path, CLOSED, CLOSED))
    with pytest.raises(BadInput, match="no row has quality 'ok'"):
        read(written(tmp_path, CLOSED | {"quality": "dev run"}))


@pytest.mark.parametrize("where", ["gpu ==", "nonsense == 1", "tp + 1", "tp == 77", "@__import__('os').getcwd() == ''"])
def test_a_bad_expression_is_bad_input(tmp_path, where):
    with pytest.raises(BadInput, match="--where"):
        read(written(tmp_path, CLOSED), where)


def test_an_expression_chooses_rows_of_any_quality(tmp_path):
    rows, _ = read(written(tmp_path, CLOSED, OPEN | {"quality": "dev run"}), "concurrency.isna() and tp == 1")
    assert list(rows["run_id"]) == ["open"]


@pytest.mark.parametrize(("words", "chip", "parts"), [
    ({"precision": "fp8", "kv_dtype": "", "engine": "vllm"}, "h100_sxm", ("fp8", "fp8", "bf16")),
    ({"precision": "fp8", "kv_dtype": "", "engine": "trtllm"}, "h100_sxm", ("fp8", "fp8", "fp8")),
    ({"precision": "fp4", "kv_dtype": "", "engine": "vllm"}, "b200", ("nvfp4", "nvfp4", "fp8")),
    ({"precision": "fp4", "kv_dtype": "", "model": "openai/gpt-oss-120b"}, "h100_sxm", ("bf16", "mxfp4", "bf16")),
    ({"precision": "fp8", "kv_dtype": "", "notes": "gemm=fp8_block; moe=fp8_block"}, "h100_sxm", ("fp8_block", "fp8_block", "bf16")),
    ({"precision": "int4", "kv_dtype": "", "model": "moonshotai/Kimi-K2.5"}, "b200", ("bf16", "int4", "bf16")),
    ({"precision": "", "kv_dtype": ""}, "h100_sxm", ("bf16", "bf16", "bf16")),
    ({"precision": "fp8", "kv_dtype": "fp8_e4m3"}, "h100_sxm", ("fp8", "fp8", "fp8")),
])  # fmt: skip
def test_precision_is_what_the_checkpoint_holds(words, chip, parts):
    found, _ = precision_of(row(**words), gpu(chip))
    assert (found["attention"], found["mlp"], found["kv"]) == parts
    with pytest.raises(BadInput, match="precision 'fp3'"):
        precision_of(row(precision="fp3"), gpu(chip))


def test_names_of_benchmarks_are_those_of_the_catalogue():
    assert [gpu_named(name) for name in ("H100-SXM", "RTX-PRO-6000", "NVIDIA GB200", "RTX4090", "L40S", "A100-SXM4-80GB")] == [
        "h100_sxm", "rtx_pro_6000", "gb200", "rtx4090", "l40s", "a100_sxm_80gb"]  # fmt: skip
    assert model_named("acme/Qwen3-8B-FP8-dynamic") == model_named("Qwen/Qwen3-8B")
    assert metric_of("itl_p95_ms") == "itl_p95"
    with pytest.raises(BadInput, match="unknown model 'acme/nothing-1b'"):
        model_named("acme/nothing-1b")


def test_what_a_row_does_not_say_is_not_guessed(tmp_path):
    for changes, message in (
        ({"n_gpus": 8.0}, "n_gpus is 8, but tp x pp x dp is 1"), ({"spec_decode": "mtp"}, "speculative decoding"),
        ({"engine": "tgi"}, "unknown engine 'tgi'"), ({"request_file": "gone.jsonl"}, "name its folder with --replay"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            case_of(row(**changes), [tmp_path])


def test_the_load_of_a_row(tmp_path):
    closed = traffic(row(concurrency=512.0), [tmp_path]).workloads[0]
    assert (closed["kind"], closed["num_requests"]) == ("closed", 2048)
    most = traffic(row(concurrency=float("nan"), isl=128.0, osl=128.0), [tmp_path]).workloads[0]
    assert most["concurrency"] == most["num_requests"] == 30000
    staged = traffic(row(workload="5 then 10 req/s x600 s each; whole run"), [tmp_path])
    assert [(load["rate"], load["start"]) for load in staged.workloads] == [(5, 0), (10, 600)]
    assert staged.window is None
    assert traffic(row(workload="5 then 10 req/s x600 s each; stage 1"), [tmp_path]).window == (600, 1200)
    drawn = traffic(row(source="InferenceX-db", isl=1000.0, osl=100.0), [tmp_path]).workloads[0]["lengths"]
    assert drawn == {"kind": "uniform", "input": [800, 1000], "output": [80, 100]}
    # 100 tokens are asked for, and (1010 - 10) / 20 + 1 = 51 came.
    short = traffic(row(osl=100.0, ttft_mean_ms=10.0, itl_mean_ms=20.0, e2e_mean_ms=1010.0), [tmp_path]).workloads[0]["lengths"]
    assert short["output"] == 51


def test_tensorrt_admits_only_what_fits_to_its_end(tmp_path):
    case = case_of(row(engine="trtllm", gpu="RTX4090", concurrency=float("nan"), isl=2048.0, osl=2048.0, n_requests=40.0), [tmp_path])
    scenario, _ = prepared(case, {})
    engine = scenario.cluster.pools[0].engine
    assert 1 <= engine.max_num_seqs < 40


def test_the_arithmetic_of_a_group():
    rows = [
        {"run_id": str(i), "source": "s", "gpu_written": "g", "model_written": "m", "engine": "e",
         "measured": {"a": 10.0}, "figures": {"a": p}}
        for i, p in enumerate([9.0, 10.0, 12.0, 14.0])
    ]  # fmt: skip
    errors = errors_of(rows)
    assert stats(errors) == pytest.approx({"n": 4, "median_ape": 0.15, "mape": 0.175, "p90": 0.34, "bias": 0.1})
    assert by(errors, ["metric", "gpu"]) == [{"metric": "a", "gpu": "g", **stats(errors)}]


def test_goals_are_judged_on_the_runs_they_name():
    columns = {"run_id": ["blis-train/1/all", "blis-train/1/stage0", "other"], "metric": ["e2e_mean"] * 3, "ape": [0.05, 0.9, 0.9]}
    errors = pd.DataFrame(columns)
    found = judged(errors, errors, pd.DataFrame({"run_id": [], "ape": []}))
    assert found == [{"goal": "BLIS-train15, E2E means", "wanted": 0.06, "found": 0.05, "n": 1, "met": True}]


def test_constants_come_from_the_other_models():
    rows = [
        {"run_id": f"{model}{i}", "model": model, "framework": "vllm", "gpu": "g", "light": True, "tpot": shift, "ttft": 10 * shift,
         "host_overhead": 2e-3, "frontend_overhead": 0.0}
        for model, shift, count in (("a", 1e-3, 9), ("b", 3e-3, 4), ("c", -1e-3, 4)) for i in range(count)
    ]  # fmt: skip
    points = pd.DataFrame(rows)
    assert fit_constants(points)["vllm", "g"] == pytest.approx({"host_overhead": 3e-3, "frontend_overhead": 0.01})
    assert fit_constants(points, "a")["vllm", "g"] == pytest.approx({"host_overhead": 3e-3, "frontend_overhead": 0.01})
    assert fit_constants(points, "b")["vllm", "g"] == pytest.approx({"host_overhead": 2e-3, "frontend_overhead": 0.0})
    assert fit_constants(points[points["model"] == "a"], "a") == {}


def test_every_published_run_becomes_a_case_or_a_reason():
    if not RUNS.is_file():
        pytest.skip("no measured runs at ../shared/data/e2e")
    rows, left_out = read(RUNS)
    assert len(rows) == 1138
    assert not left_out
    reasons = set()
    for one in rows.to_dict("records"):
        try:
            assert case_of(one, [RUNS.parent, RUNS.parent.parent]).measured
        except BadInput as error:
            reasons.add(str(error).split("'")[0])
    assert all("disaggregated" in reason or reason == "" for reason in reasons), reasons


def test_a_run_without_prefix_caching_is_simulated_without():
    def caching(**changes):
        return case_of(row(**changes), []).scenario["cluster"]["pools"][0]["engine"].get("enable_prefix_caching")

    assert caching(workload="ShareGPT, prefix caching off") is False
    assert caching(source="AIC-silicon/InferenceX-db") is False
    assert caching(workload="ShareGPT, prefix caching") is None


def test_prompts_of_a_stage_begin_with_one_of_the_system_prompts():
    text = "chat: 447+100 in/248 out shared-prefix chat, 9 prompts x5 users; 2.5 then 6 req/s x600 s each; whole run"
    loads = traffic(row(workload=text), []).workloads
    assert [load["prefixes"] for load in loads] == [{"tokens": 447, "count": 9}] * 2
    assert "prefixes" not in traffic(row(workload="2 then 4 req/s x5 s each"), []).workloads[0]


def test_users_of_a_multi_turn_run_wait_for_simulated_answers(tmp_path):
    (tmp_path / "x.requests.csv").write_text(INFERENCEX)
    measured = {"request_file": "x.requests.csv", "notes": "multi-turn", "concurrency": 2.0, "ttft_p50_ms": 500.0}
    case = case_of(row(**measured), [tmp_path])
    assert case.scenario["workloads"] == [{"kind": "trace", "path": str(tmp_path / "x.requests.csv"), "pace": "answers"}]
    plain, read = copy.deepcopy(case), case
    reading = plain.scenario["cluster"]["pools"][0]["engine"].pop("frontend_per_token")
    plain, read = predict(plain), predict(read)
    # Answers that come later move the turns that follow, hardly their pace.
    assert read["figures"]["tpot_mean"] == pytest.approx(plain["figures"]["tpot_mean"], rel=0.05)
    # The median of four prompts lies between the middle two, 1190 and 1200 tokens.
    assert read["figures"]["ttft_p50"] - plain["figures"]["ttft_p50"] == pytest.approx(1195 * reading * 1e3, rel=0.5)
    with pytest.raises(BadInput, match="request_file is empty"):
        case_of(row(**measured | {"request_file": ""}), [tmp_path])


def test_a_disaggregated_run_has_a_pool_for_each_role(tmp_path):
    split = {
        "mode": "disagg", "concurrency": 4.0, "tpot_mean_ms": 8.0, "ttft_mean_ms": 30.0,
        "prefill_cfg": "tp=1;pp=1;dp=2;moe_tp=0;ep=0;batch=1;workers=1", "decode_cfg": "tp=2;pp=1;dp=1;moe_tp=1;ep=1;batch=2;workers=2",
    }  # fmt: skip
    case = case_of(row(**split), [tmp_path])
    pools = [(pool["role"], pool["replicas"], pool["parallel"]) for pool in case.scenario["cluster"]["pools"]]
    assert pools == [("prefill", 1, {"tp": 1, "pp": 1, "dp": 2, "ep": 1}), ("decode", 2, {"tp": 2, "pp": 1, "dp": 1, "ep": 1})]
    assert set(predict(case)["figures"]) == {"tpot_mean", "ttft_mean"}
    for wrong, said in (({"concurrency": math.nan}, "not recorded"), ({"decode_cfg": "tp=2"}, "workers=.. is wanted")):
        with pytest.raises(BadInput, match=said):
            case_of(row(**split | wrong), [tmp_path])


def test_a_gpu_of_several_memories_is_the_one_named_else_the_largest():
    assert [gpu_named(name) for name in ("A100-SXM4-40GB", "A100-SXM4-80GB", "A100-SXM")] == [
        "a100_sxm_40gb", "a100_sxm_80gb", "a100_sxm_80gb"]  # fmt: skip


def test_the_worst_run_decides_where_a_goal_is_for_every_run():
    ids = [f"ix-agentic/agentic_dsr1_tp8_bs{users}_x" for users in (1, 8, 16)]
    errors = pd.DataFrame({"run_id": ids, "metric": "ttft_p50", "ape": [0.1, 0.2, 0.9]})
    found = {goal["goal"]: goal for goal in judged(errors, errors, pd.DataFrame({"run_id": [], "ape": []}))}
    worst = found["agents, TP8, 1 to 8 users, worst TTFT median"]
    assert (worst["found"], worst["n"], worst["met"]) == (0.2, 2, True)
