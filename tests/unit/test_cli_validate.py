"""`burstsim validate` end to end on a table of two runs, one of which cannot be done."""
from __future__ import annotations

import json

import pandas as pd
from click.testing import CliRunner

from sim.cli import main

ROW = {
    "run_id": "a", "source": "bench", "gpu": "H100-SXM", "n_gpus": 1, "n_nodes": 1, "model": "meta-llama/Llama-3.1-8B", "precision": "bf16",
    "kv_dtype": "bf16", "mode": "agg", "tp": 1, "pp": 1, "ep": 1, "dp": 1, "engine": "vllm", "engine_version": "0.19.0", "isl": 500,
    "osl": 20, "concurrency": 4, "n_requests": 20, "ttft_mean_ms": 40.0, "tpot_mean_ms": 7.0, "output_tok_s": 450.0, "quality": "ok",
}  # fmt: skip


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_errors_summary_and_page(tmp_path):
    table, out = tmp_path / "runs.csv", tmp_path / "out"
    pd.DataFrame([ROW, ROW | {"run_id": "b", "gpu": "TPU-v9"}]).to_csv(table, index=False)
    result = invoke("validate", table, "-o", out, "--jobs", "1", "--accuracy", tmp_path / "ACCURACY.md")
    assert result.exit_code == 0, result.output
    errors = pd.read_csv(out / "errors.csv")
    assert list(errors.columns) == ["run_id", "source", "gpu", "model", "engine", "metric", "measured", "predicted", "ape"]
    assert set(errors["metric"]) == {"ttft_mean", "tpot_mean", "output_tok_s"}
    assert (errors["ape"] < 0.6).all()
    assert json.loads((out / "summary.json").read_text())["predicted"] == 1
    assert "TPU-v9" in (tmp_path / "ACCURACY.md").read_text()
    assert "<svg" in (out / "accuracy.html").read_text()


def test_a_table_without_columns_is_refused(tmp_path):
    table = tmp_path / "runs.csv"
    table.write_text("a,b\n1,2\n")
    result = invoke("validate", table, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "runs.csv" in result.stderr
    assert not (tmp_path / "out" / "summary.json").exists()
