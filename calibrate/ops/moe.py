"""Fused mixture-of-experts rows: one group per dtype and framework, predicted by `sim/physics/experts.py`.

One row (op `moe`) times all experts of one GPU: routing, both GEMMs, activation, summation. `num_tokens` are those of all `moe_ep` GPUs;
the GPU timed is the one with most rows. `distribution` says how the benchmark spread them: `balanced` deals rows out evenly; `power_law_x`
gives the experts' loads (not their ranks) the density load^-x, from 1 to 0.8 x tokens, or from 0.01 to 2 where there are no more rows
than experts; loads are scaled to the number of rows, rounded, and the remainder goes to experts that have none. We take the quantiles of
that density for its draws. That this is how they were dealt shows in the times, which follow the weights of the experts so reached.

Versions are never mixed: the newest is taken, and within it the kernel with most rows, because several kernels under one source are
different backends of the engine. Rows are left out whose dtype we do not know (mxfp4 weights with mxfp8 activations).
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd

from calibrate.fitting import Parameter
from calibrate.ops.base import Group
from sim.core.errors import BadInput, Problem
from sim.core.rng import stream
from sim.physics.experts import Gemms, Load, price, roofline
from sim.physics.routing import Spread
from sim.spec.dtype import DTYPES, Dtype
from sim.spec.fit import FRAMEWORKS
from sim.spec.hardware import Gpu

OP = "moe"
SIZES = ("num_tokens", "hidden", "inter", "n_experts", "topk", "moe_tp", "moe_ep")
SHAPE = SIZES[1:]
NAMES = {"bfloat16": "bf16", "float16": "bf16", "int4_wo": "int4", "w4a16_mxfp4": "mxfp4", "w4a8_mxfp4_mxfp8": "mxfp4_mxfp8"}
"""Names of tables for our dtypes; ours go by themselves."""
NONGATED = "nongated"  # in the name of a kernel
PLAIN = ((512, 22), (128, 6))  # (experts, active) of the models without a gate (Nemotron-H) in AIConfigurator's tables, any kernel
SHUNNED = {("hopper", "vllm_modeloptfp8moe_flashinfer_cutlass_flashinferexperts")}
"""Kernels of an architecture that engines take only for rare checkpoints: this one streams weights at a sixth of the bandwidth."""
POWER_LAW = "power_law_"
SHUFFLES = 32
COLD = 2.0  # times L2: weights read beyond which a benchmark finds next to none of them there
PARAMETERS = (
    Parameter("t0", 25e-6, 3e-6, 200e-6),
    Parameter("t_e", 0.05e-6, 1e-10, 2e-6),
    Parameter("move", 2.0, 0.05, 30.0),
    Parameter("away", 0.3, 0.001, 1.0),
    Parameter("e_c", 0.6, 0.03, 0.949),
    Parameter("a_tile", 5.0, 0.01, 60.0),
    Parameter("q", 0.3, 0.01, 1.0),
    Parameter("e_m", 0.8, 0.1, 0.949),
    Parameter("b_sm", 60e9, 5e9, 500e9),
    Parameter("p", 3.0, 1.0, 12.0),
    Parameter("l2cap", 0.7, 0.05, 2.0),
    Parameter("hit", 2.0, 1.0, 6.0),
)


def groups(table: pd.DataFrame, gpu: Gpu) -> list[Group]:
    """One group per dtype and framework of the rows with op `moe`. Raises BadInput when their sizes are no whole numbers that divide."""
    rows = table[table["op"] == OP]
    if rows.empty:
        return []
    rows = rows.reindex(columns=list(dict.fromkeys((*table.columns, "source", "dtype", "kernel", "distribution", *SIZES))))
    rows = rows.assign(dtype=rows["dtype"].map(lambda name: NAMES.get(str(name), str(name))))
    shunned = [kernel for architecture, kernel in SHUNNED if architecture == gpu.architecture]
    rows = rows[rows["dtype"].isin(list(DTYPES)) & ~rows["kernel"].isin(shunned)]
    rows = rows.assign(**{name: pd.to_numeric(rows[name], errors="coerce") for name in SIZES})
    _check(rows)
    found = []
    for (dtype, framework), some in rows.groupby(["dtype", rows["source"].map(_framework)], sort=True):
        some = some[some["source"] == max(some["source"].unique(), key=_version)]
        family = some["kernel"].fillna("").astype(str).str.replace(f"_{NONGATED}", "", regex=False)
        some = some[family == family.value_counts().index[0]]
        found.append(_group(some.reset_index(drop=True), DTYPES[str(dtype)], str(framework), gpu))
    return found


def _check(rows: pd.DataFrame) -> None:
    sizes = rows[list(SIZES)]
    whole = (sizes >= 1).all(axis=1) & (sizes % 1 == 0).all(axis=1)
    whole &= (sizes["n_experts"] % sizes["moe_ep"] == 0) & (sizes["topk"] <= sizes["n_experts"])
    how = rows["distribution"].fillna("balanced").astype(str)
    known = how.isin(["balanced", "uniform"]) | how.str.fullmatch(POWER_LAW + r"\d+(\.\d+)?")
    wrong = ~(whole & known)
    if wrong.any():
        row = rows[wrong].iloc[0]
        shown = ", ".join(f"{name} = {row[name]!r}" for name in (*SIZES, "distribution"))
        raise BadInput([Problem(
            f"op moe: {int(wrong.sum())} rows that cannot be read, the first with {shown}; wanted are whole sizes of at least 1, moe_ep "
            f"that divides n_experts, topk within n_experts, and a distribution 'balanced' or '{POWER_LAW}1.2'",
            file=str(row["file"]) if "file" in rows else "", line=int(row["line"]) if "line" in rows else 0,
        )])  # fmt: skip


def _framework(source: object) -> str:
    """Whose kernels a source measured: `aic:vllm/0.24.0` -> `vllm`."""
    name = str(source).split(":", 1)[-1].split("/", 1)[0]
    return name if name in FRAMEWORKS else "any"


def _version(source: object) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(source).partition("/")[2])]


def _group(rows: pd.DataFrame, dtype: Dtype, framework: str, gpu: Gpu) -> Group:
    size = {name: rows[name].to_numpy(float) for name in SIZES}
    inner = size["inter"] / size["moe_tp"]
    gemms: Gemms = (_gate(rows) * inner, size["hidden"]), (size["hidden"], inner)
    load = Load(size["num_tokens"], size["num_tokens"] * size["topk"], _busiest(rows))
    weights = load.busiest.reached * dtype.weight * (gemms[0][0] * size["hidden"] + size["hidden"] * inner)

    def floor(gpu: Gpu) -> np.ndarray:
        cached = roofline(gpu, dtype, gemms, load.busiest, weights_read=False)
        return np.asarray(np.maximum(cached, np.maximum(weights - gpu.l2, 0.0) / gpu.bandwidth))

    def predict(gpu: Gpu, fit: Mapping[str, float]) -> np.ndarray:
        return np.asarray(np.maximum(price(gpu, fit, dtype, gemms, load, warm=True).seconds, floor(gpu)))

    kernel = str(rows["kernel"].fillna("").iloc[0])
    return Group(
        op=OP, dtype=dtype.name, framework=framework,
        library=f"{str(rows['source'].iloc[0]).split(':', 1)[-1]} {kernel}".strip(),
        rows=rows, shapes=rows[list(SHAPE)].astype(int).astype(str).agg("x".join, axis=1).to_numpy(),
        parameters=PARAMETERS, predict=predict, floor=floor, cold=weights > COLD * gpu.l2,
        hull={"tokens": size["num_tokens"], "hidden": size["hidden"], "inter": inner, "experts": size["n_experts"], "active": size["topk"],
              "ep": size["moe_ep"]},
    )  # fmt: skip


def _gate(rows: pd.DataFrame) -> np.ndarray:
    """2 for rows whose up projection has a gate beside it, else 1."""
    plain = rows["kernel"].fillna("").astype(str).str.contains(NONGATED)
    for experts, active in PLAIN:
        plain |= (rows["n_experts"] == experts) & (rows["topk"] == active)
    return np.where(plain, 1.0, 2.0)


def _busiest(rows: pd.DataFrame) -> Spread:
    sizes = rows[["num_tokens", "n_experts", "topk", "moe_ep"]].astype(int).itertuples(index=False)
    dealt = [_dealt(*each, how) for each, how in zip(sizes, rows["distribution"].fillna("balanced").astype(str), strict=True)]
    reached, most = np.array(dealt, float).reshape(-1, 2).T
    return Spread(reached, most)


@cache
def _dealt(tokens: int, experts: int, active: int, ep: int, how: str) -> tuple[float, float]:
    """(experts reached, rows) of the busiest GPU as the benchmark dealt them; of a power law, the mean over placements of its experts."""
    rows = tokens * active
    if not how.startswith(POWER_LAW):
        reached = float(-(-min(rows, experts) // ep))
        return reached, max(rows / ep, reached)
    loads = _loads(tokens, experts, active, float(how.removeprefix(POWER_LAW)))
    copies = np.tile(loads, (SHUFFLES if ep > 1 else 1, 1))
    placed = stream(0, "placement of experts").permuted(copies, axis=1).reshape(-1, ep, experts // ep)
    busiest = placed[np.arange(len(placed)), placed.sum(2).argmax(1)]
    return float((busiest > 0).sum(1).mean()), float(busiest.sum(1).mean())


def _loads(tokens: int, experts: int, active: int, exponent: float) -> np.ndarray:
    """Rows of each expert, largest first: they add up to tokens x active, none above `tokens`."""
    rows = tokens * active
    low, high = (1.0, 0.8 * tokens) if rows > experts and tokens > 1 else (0.01, 2.0)
    share = (np.arange(experts, 0, -1) - 0.5) / experts
    drawn = low * (high / low) ** share
    if exponent != 1.0:
        power = 1.0 - exponent
        drawn = ((high**power - low**power) * share + low**power) ** (1.0 / power)
    loads = np.minimum(np.round(drawn * rows / drawn.sum()), tokens)
    while (apart := int(rows - loads.sum())) != 0:
        free = np.flatnonzero(loads == loads.min() if apart > 0 else loads > 0)[: abs(apart)]
        loads[free] += np.sign(apart)
    return np.asarray(loads)
