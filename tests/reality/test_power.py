"""Power against measurements: Llama2-70B on A100 by phase and layout (Splitwise), a power cap, and the socket of an A6000 server.

The weights of `sim.physics.power` are fitted here again, with each layout left out in turn, so that the errors it states are of layouts the
fit has not seen. FLOP and bytes are those of the model over the measured times; idle power is the profile's.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from sim.physics import power
from sim.physics.base import Work
from sim.physics.power import Activity, clock, watts
from sim.physics.step import EngineStep
from sim.spec.hardware import gpu, node
from sim.spec.llm import llm
from sim.spec.scenario import Pool
from sim.study.run import run

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PHASES = DATA / "kernels" / "splitwise_phase_latency.csv"
SERVER = DATA / "e2e" / "llmservingsim_ispass26" / "figure_6" / "measured"
A100 = gpu("a100_sxm_80gb")
LAYERS, HEADS, KV_HEADS, WIDTH, WEIGHTS = 80, 64, 8, 128, 68.7e9  # of Llama2-70B; parameters without the embedding

pytestmark = pytest.mark.skipif(not PHASES.is_file(), reason=f"needs the measurements in {DATA}")


@pytest.fixture(scope="module")
def phases() -> pd.DataFrame:
    """One row per shape and layout whose power was logged: activity of both phases, peak and mean power over the TDP."""
    table = pd.read_csv(PHASES)
    keys = ["tensor_parallel", "prompt_size", "batch_size"]
    logged = ["peak_power", "average_power", "prompt_time", "token_time", "e2e_time"]
    rows = table[table.peak_power > 0].groupby(keys)[logged].median().reset_index()
    tokens, gpus = rows.prompt_size * rows.batch_size, rows.tensor_parallel
    attention = 4 * LAYERS * HEADS * WIDTH * tokens * rows.prompt_size / 2
    cache = 4 * LAYERS * KV_HEADS * WIDTH * rows.batch_size * (rows.prompt_size + 64)
    prompt, token = rows.prompt_time / 1e3, rows.token_time / 1e3
    rows["prompt_flops"] = (2 * WEIGHTS * tokens + attention) / gpus / prompt / A100.flops["bf16"]
    rows["prompt_bytes"] = 2 * WEIGHTS / gpus / prompt / A100.bandwidth
    rows["token_flops"] = 2 * WEIGHTS * rows.batch_size / gpus / token / A100.flops["bf16"]
    rows["token_bytes"] = (2 * WEIGHTS + cache) / gpus / token / A100.bandwidth
    rows["share"] = rows.prompt_time / rows.e2e_time
    return rows


def predicted(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Power of the prompt, and the mean of the request, over the TDP."""
    prompt, token = (watts(A100.idle_watts, A100.tdp, Activity(rows[f"{name}_flops"], rows[f"{name}_bytes"])) / A100.tdp
                     for name in ("prompt", "token"))  # fmt: skip
    return np.asarray(prompt), np.asarray(rows.share * prompt + (1 - rows.share) * token)


def errors(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Of peaks and means, where they measure what they say (see `sim.physics.power`); readings above the TDP count as the TDP."""
    peak, mean = predicted(rows)
    # A reading averages about 100 ms; batches of 8 and more do something else than FLOP; logs of long prompts end early.
    whole = (rows.prompt_time >= 100) & (rows.batch_size <= 4)
    return (peak - rows.peak_power.clip(upper=1))[whole].to_numpy(), (mean - rows.average_power)[rows.prompt_size < 4096].to_numpy()


def fitted(rows: pd.DataFrame, monkeypatch) -> np.ndarray:
    def residuals(weights: np.ndarray) -> np.ndarray:
        for name, value in zip(("FLOOR", "COMPUTE", "MEMORY"), weights, strict=True):
            monkeypatch.setattr(power, name, value)
        return np.concatenate(errors(rows))

    found = least_squares(residuals, (0.2, 1.5, 0.7), bounds=(0, 4), loss="soft_l1", f_scale=0.03).x
    residuals(found)
    return found


def test_weights_are_those_of_the_fit(phases, monkeypatch):
    shipped = power.FLOOR, power.COMPUTE, power.MEMORY
    assert fitted(phases, monkeypatch) == pytest.approx(shipped, rel=0.01)


@pytest.mark.parametrize(("gpus", "peak", "mean"), [(2, 0.001, 0.032), (4, 0.011, 0.020), (8, 0.105, 0.034)])
def test_a_layout_not_fitted(phases, monkeypatch, gpus, peak, mean):
    unseen = phases.tensor_parallel == gpus
    fitted(phases[~unseen], monkeypatch)
    found = [np.abs(part).mean() for part in errors(phases[unseen])]
    assert found[0] <= peak + 0.002
    assert found[1] <= mean + 0.002


def test_prompts_draw_more_than_tokens_and_tokens_more_with_fewer_gpus(phases):
    peak, mean = predicted(phases[(phases.prompt_size == 2048) & (phases.batch_size == 1)])
    assert (peak > mean).all()
    assert np.all(np.diff(mean) < 0)


def test_joules_per_output_token(phases):
    """Of whole requests with 128 output tokens, prompts included: from 66 J (one at a time on 8 GPUs) to 4 J (16 on 2), within 8 %."""
    rows = phases[phases.prompt_size < 4096]
    seconds = rows.e2e_time / 1e3 * A100.tdp * rows.tensor_parallel / (128 * rows.batch_size)
    measured, found = rows.average_power * seconds, predicted(rows)[1] * seconds
    assert np.median(np.abs(found / measured - 1)) < 0.03
    assert np.abs(found / measured - 1).max() < 0.09


def test_half_the_power_slows_prompts_by_three_tenths_and_tokens_not_at_all():
    """Splitwise: prompts 1.30 times as long at half the TDP, tokens unchanged. The data apply these factors; they are no measurements."""
    chip, model = gpu("h100_sxm"), llm("meta-llama/Llama-2-70b-hf")
    assert 1 / clock(chip, 350) == pytest.approx(1.30, abs=0.02)
    keys = ["hardware", "tensor_parallel", "prompt_size", "batch_size"]
    table = pd.read_csv(PHASES).groupby(keys)[["prompt_time", "token_time"]].median()
    ratio = table.loc["h100-80gb-pcap"] / table.loc["h100-80gb"]
    pool = {"gpu": "h100_sxm", "parallel": {"tp": 2}}
    full, half = (EngineStep(model, chip, Pool.model_validate(pool | {"power_cap": cap})) for cap in (700, 350))
    prompt, token = Work(((2048, 0),), 0, 0), Work((), 4, 4 * 600)
    assert half.step(prompt).seconds / full.step(prompt).seconds == pytest.approx(ratio.prompt_time.median(), rel=0.06)
    assert half.step(token).seconds / full.step(token).seconds == pytest.approx(ratio.token_time.median(), rel=0.03)


@pytest.mark.parametrize("gpus", [1, 2])
def test_the_socket_of_a_server(gpus):
    """A server with two A6000, Llama-3.1-8B on one or both: idle, and busy with 32 requests at a time, within 11 % of its watts."""
    measured = np.loadtxt(SERVER / f"server_power_tp{gpus}.tsv", skiprows=1)[:, 1]
    host, chip = node("pcie_a6000").overhead_watts, gpu("a6000")
    pool = {"gpu": "a6000", "parallel": {"tp": gpus}}
    # About the mean lengths of the requests that were sent.
    load = {"kind": "closed", "concurrency": 32, "num_requests": 96, "lengths": {"kind": "fixed", "input": 224, "output": 278}}
    busy = run({"model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [load]}).summary["energy"]["gpu_watts"]
    assert power.IDLE_HOST * host + 2 * chip.idle_watts == pytest.approx(np.quantile(measured, 0.05), rel=0.11)
    assert host + gpus * busy + (2 - gpus) * chip.idle_watts == pytest.approx(np.quantile(measured, 0.90), rel=0.06)
