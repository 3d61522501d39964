"""From a table of measurements to a profile and back: bad tables, too few points, implausible fits, and the commands."""
from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from calibrate import table as measured
from calibrate.check import check, rows
from calibrate.fit import fit_all, implausible
from calibrate.profile import write
from sim.cli import main
from sim.core.errors import BadInput
from sim.physics.gemm import gemm
from sim.physics.kernels import Kernels
from sim.spec.dtype import DTYPES
from sim.spec.hardware import gpu

CHIP = "h20"  # no kernels of its own


def shapes(count: int = 160) -> pd.DataFrame:
    """GEMM rows of a chip that behaves as the profile says, but is a tenth slower and has 2 % of noise."""
    rng = np.random.default_rng(7)
    n, k = (rng.choice([512, 1536, 2560, 4096, 5120, 7168, 8192, 14336, 28672], count) for _ in range(2))
    m = np.round(np.exp(rng.uniform(0, np.log(16384), count)))
    chip = gpu(CHIP)
    seconds = gemm(chip, Kernels(chip).need("gemm", "bf16").parameters, DTYPES["bf16"], m, n, k).seconds
    latency = seconds * 1e6 * 1.1 * np.exp(rng.normal(0, 0.02, count))
    said = {"op": "gemm", "source": "burstsim:torch/2.13.0", "dtype": "bfloat16"}
    return pd.DataFrame({**said, "m": m, "n": n, "k": k, "latency_us": latency})


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "raw.csv"
    shapes().to_csv(path, index=False)
    return path


def groups(path, chip=CHIP):
    return measured.groups(measured.read([path]), gpu(chip))


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_profile_of_ten_minutes(points, tmp_path):
    """fit writes a profile that loads, runs, carries its error, and predicts shapes it has not seen within the noise."""
    out = tmp_path / "mine.yaml"
    result = invoke("calibrate", "fit", points, "--gpu", CHIP, "-o", out)
    assert result.exit_code == 0, result.output
    mine = gpu(str(out))
    fit = mine.fit("gemm", "bf16", "any")
    assert (fit.origin, fit.kind, fit.prior, fit.framework) == ("mine", "fitted", "h100_sxm", "any")
    assert fit.errors.median < 0.03
    assert fit.hull["m"][1] > 10_000
    assert "raw.csv" in fit.source
    assert mine.fit("attn_decode", "bf16").origin == "h100_sxm"  # still on loan
    shown = json.loads(invoke("calibrate", "check", points, "--gpu", out, "--json").output)
    (row,) = [row for row in shown if row["op"] == "gemm"]
    assert {"op", "dtype", "n", "mape", "median_ape", "p95_ape"} <= set(row)
    assert row["median_ape"] < 0.03
    assert row["held_out"]["n"] == fit.errors.points
    before = json.loads(invoke("calibrate", "check", points, "--gpu", CHIP, "--json").output)
    assert before[0]["median_ape"] > 0.07  # what the loan was off by


def test_a_second_fit_replaces_the_first(points, tmp_path):
    out = tmp_path / "mine.yaml"
    assert invoke("calibrate", "fit", points, "--gpu", CHIP, "-o", out).exit_code == 0
    first = out.read_text()
    assert invoke("calibrate", "fit", points, "--gpu", out, "-o", out).exit_code == 0
    assert out.read_text().count("op: gemm") == first.count("op: gemm") == 1


def test_the_picture_is_drawn(points, tmp_path):
    assert invoke("calibrate", "plot", points, "--gpu", CHIP, "-o", tmp_path / "p.svg").exit_code == 0
    assert "median error" in (tmp_path / "p.svg").read_text() or (tmp_path / "p.svg").stat().st_size > 5000
    result = invoke("calibrate", "plot", points, "--gpu", CHIP, "-o", tmp_path / "p.doc")
    assert result.exit_code == 2
    assert ".png" in result.stderr


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("latency_us", np.nan, "latency_us is not a number in 1 rows"),
        ("latency_us", -3.0, "latency_us is not positive in 1 rows"),
        ("latency_us", np.inf, "latency_us is not finite"),
        ("m", 0.0, "m = 0.0"),
    ],
)
def test_a_row_that_is_no_measurement_is_named(points, column, value, said):
    frame = pd.read_csv(points).astype({"m": float})
    frame.loc[4, column] = value
    frame.to_csv(points, index=False)
    result = invoke("calibrate", "check", points, "--gpu", CHIP)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "raw.csv:6" in result.stderr


def test_a_table_without_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    result = invoke("calibrate", "fit", path, "--gpu", CHIP)
    assert result.exit_code == 2
    assert "no column op and no column latency_us; found a, b" in result.stderr
    assert "no such file" in invoke("calibrate", "check", tmp_path / "absent.csv", "--gpu", CHIP).stderr


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "milliseconds"), (1e-6, "seconds")])
def test_another_unit_is_recognised(points, factor, unit):
    frame = pd.read_csv(points)
    frame.assign(latency_us=frame["latency_us"] * factor).to_csv(points, index=False)
    result = invoke("calibrate", "check", points, "--gpu", CHIP)
    assert result.exit_code == 2
    assert f"it looks like {unit}" in result.stderr


def test_points_under_the_roofline_are_left_out_by_name(points):
    frame = pd.read_csv(points)
    frame.loc[9, "latency_us"] = 0.01
    frame.to_csv(points, index=False)
    found, remarks = groups(points)
    assert "1 points faster than the datasheet of h20 allows are left out" in remarks[0]
    assert "raw.csv:11" in remarks[0]
    assert len(found[0].rows) == len(frame) - 1


def test_too_few_points_say_which(points, tmp_path):
    pd.read_csv(points).head(8).to_csv(points, index=False)
    out = tmp_path / "mine.yaml"
    result = invoke("calibrate", "fit", points, "--gpu", CHIP, "-o", out)
    assert result.exit_code == 2
    assert "gemm bf16" in result.stderr
    assert "12 are needed" in result.stderr
    assert not out.exists()


def test_an_implausible_fit_is_refused(points, tmp_path):
    (found, _) = groups(points)
    fitted = fit_all(found, gpu(CHIP), "a test").fits[0]
    assert implausible(fitted) == []
    wrong = fitted.with_parameters({**fitted.parameters, "e_m": 0.97})
    assert "e_m = 0.97" in implausible(wrong)[0]
    out = tmp_path / "mine.yaml"
    write(CHIP, [wrong], "a test", out)
    with pytest.raises(BadInput, match=r"no kernel reaches more than 0\.95"):
        gpu(str(out))


def test_every_fit_survives_writing_and_reading(tmp_path):
    chip, out = gpu("h100_sxm"), tmp_path / "copy.yaml"
    write("h100_sxm", [fit for fit in chip.fits if fit.origin == "h100_sxm"], "all of it", out)
    copy = gpu(str(out))
    for fit in chip.fits:
        if fit.origin == "h100_sxm":
            again = copy.fit(fit.op, fit.dtype, fit.framework, fit.version)
            assert again.version == fit.version
            assert again.parameters == pytest.approx(dict(fit.parameters), rel=1e-3)
            assert again.errors == fit.errors


@pytest.mark.parametrize("name", ["a100_sxm_80gb", "h100_sxm", "b200", "gb200", "rtx_pro_6000"])
def test_profiles_hold_their_errors_on_the_published_tables(name):
    """The shapes held out, from the profile as shipped: matrix products and decode attention of the engine modelled first, vLLM."""
    from calibrate.loans import tables

    folder = Path(__file__).parents[3] / "shared" / "data" / "kernels"
    if not folder.is_dir():
        pytest.skip("no kernel tables at ../shared/data/kernels")
    paths = [path for path in tables(folder, name) if "gemm" in path.name or "attention" in path.name]
    chip = gpu(name)
    checked, _ = check(measured.groups(measured.read(paths), chip)[0], chip)
    lines = [line for row in rows(checked) for line in (row, *row["frameworks"])]
    found = {(line["op"], line["dtype"], line["framework"]): line for line in lines}
    assert found["gemm", "bf16", "vllm"]["held_out"]["median_ape"] < 0.075
    assert found["attn_decode", "bf16", "vllm"]["held_out_cold"]["median_ape"] < 0.07
    assert found["attn_prefill", "bf16", "vllm"]["held_out"]["median_ape"] < 0.12
    for key, row in found.items():
        if key[0] == "gemm" and chip.fit(*key[:2], key[2]).framework == key[2]:
            stored = chip.fit(*key[:2], key[2]).errors
            assert row["held_out_cold"]["median_ape"] == pytest.approx(stored.median, abs=0.004)


def test_the_shipped_transfer_errors_are_of_all_kernels_that_are_lent():
    text = files("hardware_profiles").joinpath("transfer.yaml").read_text()
    for op in ("gemm", "attn_decode", "attn_prefill", "moe", "all_reduce"):
        assert text.count(f"    {op}:") == 2


CPU = """
title: One core of the machine the tests run on
vendor: none
architecture: cpu
node: pcie_l4
sources:
  guess: {kind: judgement, date: 2026-11, what: "generous limits, so that no measured point is faster"}
memory: {value: 16GB, source: guess}
bandwidth: {value: 400GB/s, source: guess}
l2: {value: 32MiB, source: guess}
sms: {value: 1, source: guess}
flops:
  bf16: {value: 2e13, source: guess}
nvlink: {value: 0, source: guess}
pcie: {value: 16GB/s, source: guess}
tdp: {value: 100, source: guess}
idle_watts: {value: 20, source: guess}
price_per_hour: {value: 0.1, source: guess}
"""


def test_measured_here_fitted_here(tmp_path):
    """The whole way on the CPU: real products timed by torch, a profile fitted to them, and its error on shapes it has not seen."""
    pytest.importorskip("torch")
    profile, raw, out = tmp_path / "cpu.yaml", tmp_path / "raw.csv", tmp_path / "mine.yaml"
    profile.write_text(CPU)
    sizes = [(m, n, k) for n in (512, 640, 768, 1024) for k in (512, 704, 896) for m in (1, 9, 33, 100)]
    lines = ["kind,family,role,m,n,k,H,K,B,L,mix,S,prefix", *(f"gemm,bf16,fit,{m},{n},{k},,,,,,," for m, n, k in sizes)]
    (tmp_path / "grid.csv").write_text("\n".join(lines) + "\n")
    from calibrate.measure import measure

    measure("cpu", tmp_path / "grid.csv", raw, scale=1)
    assert invoke("calibrate", "fit", raw, "--gpu", profile, "-o", out).exit_code == 0
    fit = gpu(str(out)).fit("gemm", "bf16", "any")
    assert fit.points + fit.errors.points == len(sizes)
    (row,) = json.loads(invoke("calibrate", "check", raw, "--gpu", out, "--json").output)
    lent = json.loads(invoke("calibrate", "check", raw, "--gpu", profile, "--json").output)
    # One shared core is a poor GPU: the fit must be far closer to it than what another chip lends, not close as such.
    assert row["median_ape"] < 0.6
    assert row["median_ape"] < 0.7 * lent[0]["median_ape"]
