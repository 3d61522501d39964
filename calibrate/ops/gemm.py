"""Matrix products: rows of op `gemm`, one group per dtype and framework, of the newest version measured.

Kernels of one framework change between releases by more than they differ between shapes, so versions are never mixed: the newest is
taken, and within it the kernel with the most rows. Dtypes that quantise activations are measured with that kernel in front, so one fit
explains both: its parameters are those of "gemm" and of "quantise" (`sim.spec.fit.wanted`). Our own grid times the cast of activations to
fp8 apart (op `fp8_quant`, `hidden` wide); its rows join the fp8 products of their run, and tell the parameters of quantising.

Published tables leave operands in the L2 cache between repeats. AIConfigurator rotates a few copies of the weights; a share of them is
found in L2 that falls from 1 to 0 as the footprint of the rotation passes `l2cap` times its size. Rows of our own measurement are cold: it
rotates through several times L2.

Weight-only formats need no term for their conversion: per tile it is work per weight, which `a_tile`/tm is already.
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
from sim.physics.gemm import gemm, quantise, roofline
from sim.spec.dtype import DTYPES, SIXTEEN_BIT, Dtype
from sim.spec.fit import FRAMEWORKS
from sim.spec.hardware import Gpu
from sim.spec.llm import llm

OP = "gemm"
CAST, CAST_DTYPE, CAST_BYTES = "fp8_quant", "fp8", 3.0  # op of our own grid; read in 16 bits, written in 8
COLUMNS = ("source", "dtype", "kernel", "m", "n", "k")
NAMES = {
    "bfloat16": "bf16", "float16": "bf16", "half": "bf16", "fp16": "bf16", "sq": "int8", "int8_wo": "int8_weights", "int4_wo": "int4",
}  # fmt: skip
"""Names of tables for our dtypes; ours go by themselves."""
LEAST = 512  # of n and k: thinner products are other kernels
FEWEST = 12  # weight shapes of a table from which some can be held out
COPIES = 6.0  # of the weights in AIConfigurator's rotation; 3 fits as well, with a smaller l2cap
SHARPNESS = 8.0  # with which the rotation falls out of L2
NOMINAL = 0.8  # of L2: an l2cap, to say which rows are cold before a fit knows its own
COLD = ("burstsim", "llmservingsim")  # sources that begin so were measured cold: by rotation, or in place in a model
LAYERS = {"qkv_proj": "qkv", "o_proj": "o", "gate_up_proj": "gate_up", "down_proj": "down", "lm_head(per_sequence)": "lm_head"}

# Starts are an H200's fit, which also serve as the prior: coefficients are nearly the same from Hopper to Blackwell. The limits on
# e_c and a_tile keep the arithmetic of large shapes below 0.95 of the peak.
_PLAIN = (
    Parameter("t0", 2.26e-6, 0.3e-6, 40e-6),
    Parameter("e_c", 0.95, 0.2, 0.98),
    Parameter("a_tile", 4.3, 3.0, 40.0),
    Parameter("pro", 1.14e-6, 0.02e-6, 20e-6),
    Parameter("e_m", 0.85, 0.2, 0.94),
    Parameter("b_sm", 66e9, 5e9, 500e9),
    Parameter("b_l2", 4.4, 0.3, 30.0),
    Parameter("sk", 1.66e-6, 0.05e-6, 1e-3),
    Parameter("p", 3.9, 1.0, 12.0),
    Parameter("q", 0.19, 0.02, 1.0),
    Parameter("thr", 0.049, 0.001, 0.3),
    Parameter("hit", 2.8, 1.0, 10.0),
    Parameter("l2cap", 0.83, 0.3, 1.5),
)
_QUANTISED = {
    "t0": 7.37e-6, "e_c": 0.93, "a_tile": 5.6, "pro": 2.04e-6, "e_m": 0.85, "b_sm": 65e9, "b_l2": 3.8, "sk": 1.62e-6, "p": 4.1, "q": 0.35,
    "thr": 0.036, "hit": 2.8, "l2cap": 0.77,
}  # fmt: skip
_QUANTISE = (Parameter("tq", 3.4e-6, 0.1e-6, 20e-6), Parameter("cb", 10.5, 0.1, 100.0), Parameter("h", 0.5, 0.01, 10.0))


def parameters(dtype: Dtype) -> tuple[Parameter, ...]:
    """What is fitted for `dtype`. The starts are a prior too, which few points need: `{p.name: p.start for p in parameters(dtype)}`."""
    if not dtype.quantises:
        return _PLAIN
    return (*(p._replace(start=_QUANTISED[p.name]) for p in _PLAIN), *_QUANTISE)


def groups(table: pd.DataFrame, gpu: Gpu) -> list[Group]:
    """One group per dtype and framework of the rows with op `gemm` and n, k >= 512. Other rows, and dtypes unknown to us, are left out.

    Raises BadInput naming the rows whose sizes are no positive numbers.
    """
    rows = pd.concat([table[table["op"] == OP], _layers(table)], ignore_index=True)
    if rows.empty:
        return []
    casts = _casts(table)
    rows = rows.reindex(columns=list(dict.fromkeys((*table.columns, *COLUMNS))))
    rows = rows.assign(kernel=[name if isinstance(name, str) else "" for name in rows["kernel"]])
    sizes = rows[["m", "n", "k"]].apply(pd.to_numeric, errors="coerce")
    _check(rows, ~(sizes >= 1).all(axis=1))
    rows = rows.assign(**{name: sizes[name] for name in sizes}, dtype=rows["dtype"].map(lambda name: NAMES.get(str(name), str(name))))
    rows = rows[(rows["n"] >= LEAST) & (rows["k"] >= LEAST) & rows["dtype"].isin(list(DTYPES))]
    found = []
    for (name, framework), some in rows.groupby(["dtype", rows["source"].map(_framework)], sort=True):
        libraries = some["source"].map(_library)
        some = some[libraries == max(libraries.unique(), key=_version)]
        some = some[some["kernel"] == some["kernel"].value_counts().index[0]]
        if name == CAST_DTYPE and not casts.empty:
            some = pd.concat([some, casts[casts["source"].isin(some["source"].unique())]])
        found.append(_group(some.reset_index(drop=True), DTYPES[str(name)], str(framework), gpu))
    return found


def _casts(table: pd.DataFrame) -> pd.DataFrame:
    """Our grid's casts of (m, k) activations; n is NaN. Raises BadInput naming the rows without sizes."""
    rows = table[table["op"] == CAST]
    if rows.empty:
        return rows
    rows = rows.assign(n=np.nan, k=rows.get("hidden", np.nan))
    sizes = rows[["m", "k"]].apply(pd.to_numeric, errors="coerce")
    _check(rows, ~(sizes >= 1).all(axis=1))
    return rows.assign(**{name: sizes[name] for name in sizes})


def _layers(table: pd.DataFrame) -> pd.DataFrame:
    """Projections timed in place, as products: sizes from the model in `model`, divided by `tp`, and the number of `tokens`."""
    rows = table[table["op"].isin(list(LAYERS))]
    if rows.empty or not {"model", "tp", "tokens"} <= set(rows):
        return rows.iloc[:0]
    sizes = [_projection(LAYERS[op], model, tp) for op, model, tp in zip(rows["op"], rows["model"], rows["tp"], strict=True)]
    return rows.assign(op=OP, m=rows["tokens"], n=[n for n, _ in sizes], k=[k for _, k in sizes], kernel="in place")


@cache
def _projection(name: str, model: str, tp: float) -> tuple[float, float]:
    matrix = next(matrix for matrix in llm(model).matrices if matrix.name == name)
    return matrix.n / (tp if matrix.split == "n" else 1), matrix.k / (tp if matrix.split == "k" else 1)


def _check(rows: pd.DataFrame, wrong: pd.Series) -> None:
    if wrong.any():
        row = rows[wrong].iloc[0]
        shown = ", ".join(f"{size} = {row[size]}" for size in "mnk")
        raise BadInput([Problem(
            f"op {row['op']}: {int(wrong.sum())} rows without sizes, the first with {shown}; m, n and k of at least 1 are wanted",
            file=str(row["file"]) if "file" in rows else "", line=int(row["line"]) if "line" in rows else 0,
        )])  # fmt: skip


def _library(source: object) -> str:
    """`aic:vllm/0.24.0` -> `vllm/0.24.0`."""
    return str(source).split(":", 1)[-1] if isinstance(source, str) else ""


def _framework(source: object) -> str:
    """Whose kernels a source measured: an engine's, or `any`."""
    name = _library(source).split("/", 1)[0]
    return name if name in FRAMEWORKS else "any"


def _version(library: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", library.partition("/")[2])]


def _group(rows: pd.DataFrame, dtype: Dtype, framework: str, gpu: Gpu) -> Group:
    m, n, k = (rows[size].to_numpy(float) for size in "mnk")
    cast = rows["op"].eq(CAST).to_numpy()
    product = ~cast
    source, kernel = rows["source"].iloc[0], rows["kernel"].iloc[0]
    ours = isinstance(source, str) and source.startswith(COLD)
    weights, passing = np.where(cast, 0.0, n * k * dtype.weight), m * (k * dtype.activation + SIXTEEN_BIT * n)
    moved = np.where(cast, CAST_BYTES * m * k, weights + passing)
    footprint = COPIES * weights + passing

    def predict(gpu: Gpu, fit: Mapping[str, float]) -> np.ndarray:
        cached = 0.0 if ours else 1.0 / (1.0 + (footprint / (fit["l2cap"] * gpu.l2)) ** SHARPNESS)
        seconds = np.empty(len(m))
        seconds[product] = gemm(gpu, fit, dtype, m[product], n[product], k[product], cached=cached).seconds
        # Our own grid times the kernel that quantises apart.
        if cast.any():
            seconds[cast] = quantise(gpu, fit, m[cast], k[cast], cold=True).seconds
        return np.asarray(seconds + quantise(gpu, fit, m, k).seconds if dtype.quantises and not ours else seconds)

    def floor(gpu: Gpu) -> np.ndarray:
        # Of one product's operands L2 can hold at most its own size from one repeat to the next.
        beyond = np.maximum(moved - gpu.l2, 0.0) / gpu.bandwidth
        beyond[product] = np.maximum(beyond, roofline(gpu, dtype, m, n, k, cached=1.0))[product]
        return np.asarray(beyond)

    return Group(
        op=OP, dtype=dtype.name, framework=framework,
        library=f"{_library(source)} {kernel}".strip(),
        rows=rows, shapes=_shapes(m, n, k),
        parameters=parameters(dtype), predict=predict, floor=floor,
        cold=(footprint > NOMINAL * gpu.l2) | ours, hull={"m": m, "n": n, "k": k},
    )  # fmt: skip


def _shapes(m: np.ndarray, n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """What is held out together: weight shapes, or token counts where a table has too few shapes to spare any; casts one by one."""
    words = np.array([f"{a:.0f}x{b:.0f}" for a, b in zip(n, k, strict=True)])
    products = words if len(set(words)) >= FEWEST else np.array([f"m{tokens:.0f}" for tokens in m])
    return np.where(np.isnan(n), [f"cast {a:.0f}x{b:.0f}" for a, b in zip(m, k, strict=True)], products)
