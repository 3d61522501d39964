"""Attention kernels: decode and prefill of grouped heads, and both in one variable-length call (columns of LLMServingSim's profiles).

Mixed rows say their heads, or a model of the catalogue and the `tp` that divides its heads.

What is left out of the fits, and why: rows in which prefill has one new token (engines call the decode kernel); head dims above 256
(another kernel on every GPU); all but the major kernel of a framework and dtype (vLLM 0.24 takes Triton for fp8 keys at head dim 192, and
FlashInfer elsewhere); bf16 arithmetic over an fp8 cache in TensorRT-LLM's prefill (it has an fp8 kernel); decode by TensorRT-LLM 1.0 on
A100, whose published times exceed the memory bandwidth. Decode rows were measured again and again on one set of keys: below some 0.8 of
the L2 cache these stay in it, which `predict` takes into account and `cold` leaves out.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pandas as pd

from calibrate.fitting import Parameter
from calibrate.ops.base import Group
from sim.core.errors import BadInput
from sim.physics import attention_decode, attention_prefill
from sim.physics.attention_decode import Shape
from sim.physics.attention_mixed import PACKED_TILE, TILE, Mixed
from sim.physics.attention_prefill import ENDLESS, Piece, piece
from sim.spec.hardware import Gpu
from sim.spec.llm import llm

DTYPES = {"bfloat16": "bf16", "float16": "bf16", "fp8": "fp8"}
KV_BYTES = {"bf16": 2.0, "fp8": 1.0}
WIDEST = 256
FRAMEWORKS = {"vllm": "vllm", "trtllm": "trtllm", "sglang": "sglang"}
HEAD_COLUMNS = ("n_heads", "n_kv_heads", "head_dim")


def held(name: str, value: float) -> Parameter:
    """A choice that the kernel's kind makes, not the fit."""
    return Parameter(name, value, value * (1.0 - 1e-5), value * (1.0 + 1e-5))


DECODE = (
    Parameter("t0", 8e-6, 1e-6, 3e-5), Parameter("tau0", 4e-6, 1e-7, 5e-5), Parameter("b_sm", 5e10, 5e9, 6e11),
    Parameter("e_m", 0.9, 0.3, 0.95), Parameter("t_m", 6e-6, 1e-8, 2e-5), Parameter("p", 2.5, 1.0, 12.0), Parameter("q", 0.9, 0.01, 1.0),
    Parameter("rho", 0.75, 0.2, 1.0), Parameter("t_comb", 2e-6, 1e-8, 3e-5), Parameter("t_s", 1e-8, 1e-10, 1e-6),
    Parameter("l2cap", 0.8, 0.2, 1.2), Parameter("gamma", 10.0, 1.0, 20.0), Parameter("hit", 1.5, 1.0, 6.0),
    Parameter("e_c", 0.4, 0.02, 0.95),
)  # fmt: skip
HEADS = (Parameter("t_q", 5e-8, 1e-9, 1e-5), Parameter("t_fold", 1e-6, 1e-9, 2e-5))
WIDTH = (Parameter("d", 0.3, 0.02, 1.5), Parameter("u", 0.5, 0.001, 0.9), Parameter("v", 2.0, 0.3, 3.0))
PREFILL = (
    Parameter("t0", 9e-6, 1e-6, 4e-5), Parameter("e", 0.7, 0.1, 0.95), Parameter("soft", 3e-11, 1e-13, 2e-10),
    Parameter("o", 100.0, 5.0, 2000.0),
    Parameter("c", 0.7, 0.05, 1.5), Parameter("pl", 2.0, 1.0, 8.0), Parameter("p", 1.2, 1.0, 8.0), Parameter("e_m", 0.6, 0.05, 0.95),
    Parameter("t_q", 1e-7, 1e-9, 5e-6), Parameter("t_kv", 6e-8, 1e-10, 1e-6),
)  # fmt: skip
MIXED = (
    # One head dim cannot tell softmax from arithmetic: its time is that of the same kernel in pure prefill (RTX PRO 6000, vLLM 0.24).
    Parameter("t0", 4e-6, 1e-7, 4e-5), Parameter("e", 0.6, 0.05, 0.95), held("soft", 6.6e-11), Parameter("o", 100.0, 1.0, 1000.0),
    Parameter("od", 150.0, 1.0, 2000.0), Parameter("c", 0.8, 0.05, 1.5), Parameter("pl", 1.6, 1.0, 8.0), Parameter("p", 3.0, 1.0, 8.0),
    Parameter("e_m", 0.8, 0.1, 0.95), Parameter("t_x", 3e-7, 1e-10, 1e-5), Parameter("t_kv", 6e-8, 1e-10, 1e-6),
    Parameter("l2cap", 2.0, 0.01, 4.0), Parameter("gamma", 2.0, 0.5, 10.0), held("tile", float(TILE)),
)  # fmt: skip
PACKING = ("flash3", "fa3")  # kernels whose tiles hold the query heads of a group, by the end of their name


def column(rows: pd.DataFrame, name: str) -> np.ndarray:
    return np.asarray(rows[name], float)


def origin(source: str) -> tuple[str, str]:
    """(framework, library with its version) of a table's source, `aic:vllm/0.24.0` or `burstsim:torch/2.5`."""
    library = source.split(":", 1)[-1]
    return FRAMEWORKS.get(library.split("/", 1)[0], "any"), library


def choices(framework: str, kernel: str) -> tuple[Parameter, Parameter]:
    """Which groups of query heads a decode kernel packs into one tile: `least` and `most`.

    FlashAttention 2 packs where there are two or more (and no window); TensorRT-LLM's own kernels up to 32 heads.
    """
    second = kernel in ("vllm_flash_attn", "vllm_flash_attn_fa2", "FLASH_ATTENTION")
    return held("least", 2.0 if second else 1.0), held("most", 32.0 if framework == "trtllm" else 1e6)


def major(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the kernel that has most of them."""
    kernels = rows["kernel"].fillna("")
    return rows[kernels == kernels.mode().iloc[0]].reset_index(drop=True)


def shape(rows: pd.DataFrame) -> Shape:
    dim = column(rows, "head_dim")
    return Shape(column(rows, "n_heads"), column(rows, "n_kv_heads"), dim, 2.0 * dim, 4.0 * dim, 2.0 * dim)


def words(rows: pd.DataFrame, *names: str) -> np.ndarray:
    """One word per row that names its shape."""
    return np.array(["/".join(str(int(value)) for value in row) for row in rows[list(names)].itertuples(index=False)])


def groups(table: pd.DataFrame, gpu: Gpu) -> list[Group]:
    found = []
    if "op" in table:
        for op, bind in (("attn_decode", _decode), ("attn_prefill", _prefill)):
            kept = table[(table["op"] == op) & (table["head_dim"] <= WIDEST) & table["kv_dtype"].isin(DTYPES) & table["dtype"].isin(DTYPES)]
            for (source, kv), rows in kept.groupby(["source", "kv_dtype"], sort=True):
                group = bind(rows, gpu, str(source), DTYPES[str(kv)])
                if group:
                    found.append(group)
    if {"prefill_chunk", "kv_prefill", "n_decode", "kv_decode"} <= set(table.columns):
        kept = _with_heads(table[(table["prefill_chunk"] > 0) & (table["n_decode"] > 0)])
        found += [_mixed(major(rows), gpu, str(source)) for source, rows in kept.groupby("source", sort=True)]
    return found


def _with_heads(rows: pd.DataFrame) -> pd.DataFrame:
    """Mixed rows over 16-bit keys that say their heads or those of a model we know; `heads_from` says which of the two."""
    rows = rows.reindex(columns=list(dict.fromkeys((*rows.columns, *HEAD_COLUMNS, "model", "tp", "kernel", "kv_dtype"))))
    own = rows[list(HEAD_COLUMNS)].notna().all(axis=1)
    named = [_heads_of(model, tp) for model, tp in zip(rows["model"], rows["tp"].fillna(1.0), strict=True)]
    heads = {name: rows[name].where(own, [one[i] for one in named]) for i, name in enumerate(HEAD_COLUMNS)}
    kernels = [name if isinstance(name, str) else "" for name in rows["kernel"]]
    rows = rows.assign(**heads, heads_from=np.where(own, "row", "model"), kernel=kernels)
    wide = rows["kv_dtype"].isna() | rows["kv_dtype"].map(DTYPES).eq("bf16")
    return rows[rows["n_heads"].ge(1) & rows["n_kv_heads"].ge(1) & rows["head_dim"].le(WIDEST) & wide]


@cache
def _heads_of(model: object, tp: float) -> tuple[float, float, float]:
    """Query heads, KV heads and head dim on one of `tp` GPUs; NaN for a model that the catalogue lacks."""
    try:
        known = llm(str(model))
    except BadInput:
        return (float("nan"),) * 3
    return known.heads / tp, max(known.kv_heads / tp, 1.0), float(known.head_dim)


def _window(rows: pd.DataFrame) -> np.ndarray:
    return np.asarray(rows["window"].fillna(0), float) if "window" in rows else np.zeros(len(rows))


def _decode(rows: pd.DataFrame, gpu: Gpu, source: str, dtype: str) -> Group | None:
    framework, library = origin(source)
    if library == "trtllm/1.0.0" or rows.empty:
        return None
    rows = major(rows)
    kernel, window = str(rows["kernel"].iloc[0]), _window(rows)
    heads, batch, context = shape(rows), column(rows, "batch"), column(rows, "seqlen_kv")
    keys = np.where(window > 0, np.minimum(context, np.maximum(window, 1)), context)
    rotated = rows["cold"].eq(True).to_numpy() if "cold" in rows else np.zeros(len(rows), bool)
    predict, floor, cold = decode_rows(gpu, heads, KV_BYTES[dtype], batch, keys, window, rotated)
    hull = {"batch": batch, "context": context, "query": heads.query, "kv": heads.kv, "dim": heads.dim}
    parameters = (*DECODE, *HEADS, *WIDTH, *choices(framework, kernel))
    named = words(rows, "n_heads", "n_kv_heads", "head_dim")
    return Group("attn_decode", dtype, framework, f"{library} {kernel}", rows, named, parameters, predict, floor, cold, hull)


Predict = Callable[[Gpu, Mapping[str, float]], np.ndarray]


def decode_rows(
    gpu: Gpu, heads: Shape, kv_bytes: float, batch: np.ndarray, keys: np.ndarray, window: np.ndarray, rotated: np.ndarray | bool = False
) -> tuple[Predict, Callable[[Gpu], np.ndarray], np.ndarray]:
    """(predict, floor, cold) of decode rows measured with whatever the cache keeps, or with `rotated` operands that it cannot keep."""
    cold = (attention_decode.traffic(heads, kv_bytes, batch, keys) > gpu.l2) | rotated

    def predict(gpu: Gpu, parameters: Mapping[str, float]) -> np.ndarray:
        warm, fresh = (
            attention_decode.time(gpu, parameters, heads, kv_bytes, batch, keys, window, warm=kept).seconds for kept in (True, False)
        )
        return np.asarray(np.where(rotated, fresh, warm)) if np.any(rotated) else warm

    def floor(gpu: Gpu) -> np.ndarray:
        compute, memory = attention_decode.floor(gpu, heads, kv_bytes, batch, keys)
        # A part of what exceeds the cache is still found in it.
        return np.asarray(np.maximum(compute, np.maximum(memory - gpu.l2 / gpu.bandwidth, 0.0)), float)

    return predict, floor, cold


def _prefill(rows: pd.DataFrame, gpu: Gpu, source: str, dtype: str) -> Group | None:
    framework, library = origin(source)
    rows = rows[rows["seqlen_q"] > 1]
    if framework == "trtllm" and dtype == "fp8":
        rows = rows[rows["dtype"] == "fp8"]
    if rows.empty:
        return None
    rows = major(rows)
    heads, kv_bytes = shape(rows), KV_BYTES[dtype]
    work = stack(rows, heads, kv_bytes, _window(rows))
    predict, floor = prefill_rows(heads, kv_bytes, work)
    new, context = column(rows, "seqlen_q"), column(rows, "seqlen_kv")
    hull = {"batch": column(rows, "batch"), "new": new, "context": context, "query": heads.query, "kv": heads.kv, "dim": heads.dim}
    cold = new >= 128
    named = words(rows, "n_heads", "n_kv_heads", "head_dim")
    library = f"{library} {rows['kernel'].iloc[0]}"
    return Group("attn_prefill", dtype, framework, library, rows, named, PREFILL, predict, floor, cold, hull)


def stack(rows: pd.DataFrame, heads: Shape, kv_bytes: float, window: np.ndarray) -> Piece:
    """What each row asks of the kernel, as arrays: `batch` equal sequences in one call."""
    fields = zip(*(np.broadcast_to(field, len(rows)) for field in heads), strict=True)
    chunks = zip(column(rows, "seqlen_q"), column(rows, "seqlen_kv"), window, fields, strict=True)
    pieces = [piece(Shape(*one), kv_bytes, int(new), int(whole - new), int(limit) or ENDLESS) for new, whole, limit, one in chunks]
    arrays = Piece(*(np.array(values, float) for values in zip(*pieces, strict=True)))
    batch = column(rows, "batch")
    return Piece(*(batch * array for array in arrays))._replace(longest=arrays.longest)


def prefill_rows(heads: Shape, kv_bytes: float, work: Piece) -> tuple[Predict, Callable[[Gpu], np.ndarray]]:
    def predict(gpu: Gpu, parameters: Mapping[str, float]) -> np.ndarray:
        terms = attention_prefill.terms(gpu, parameters, heads, attention_prefill.peak(gpu, kv_bytes), work)
        return np.asarray(attention_prefill.join(parameters, *terms), float)

    def floor(gpu: Gpu) -> np.ndarray:
        compute, memory = attention_prefill.floor(gpu, heads, attention_prefill.peak(gpu, kv_bytes), work)
        # Operands of one call may have stayed in the cache from the call before.
        return np.asarray(np.maximum(compute, np.maximum(memory - gpu.l2 / gpu.bandwidth, 0.0)), float)

    return predict, floor


def _mixed(rows: pd.DataFrame, gpu: Gpu, source: str) -> Group:
    """Rows of chunk and decoders in one call, one shape per chunk and the tokens before it; decoders hold `kv_decode` each."""
    framework, library = origin(source)
    chunk, before = column(rows, "prefill_chunk"), column(rows, "kv_prefill")
    decoders, each, query = column(rows, "n_decode"), column(rows, "kv_decode"), column(rows, "n_heads")
    heads = list(zip(*(column(rows, name) for name in HEAD_COLUMNS), strict=True))
    calls = [(one, int(n), int(n * k), [(int(c), int(b))]) for one, n, k, c, b in zip(heads, decoders, each, chunk, before, strict=True)]
    kernel = rows["kernel"].iloc[0] or "flash_attn 2"
    parameters = (*MIXED[:-1], held("tile", float(PACKED_TILE if kernel.endswith(PACKING) else TILE)))

    def bound(gpu: Gpu, values: Mapping[str, float]) -> dict[tuple[float, ...], Mixed]:
        shapes = {one: Shape(*one, 2.0 * one[2], 4.0 * one[2], 2.0 * one[2]) for one in dict.fromkeys(heads)}
        return {one: Mixed(gpu, values, shape, 2.0, 0) for one, shape in shapes.items()}

    def predict(gpu: Gpu, values: Mapping[str, float]) -> np.ndarray:
        kernels = bound(gpu, values)
        return np.array([kernels[one].seconds(n, held, chunks) for one, n, held, chunks in calls])

    def floor(gpu: Gpu) -> np.ndarray:
        kernels = bound(gpu, {p.name: p.start for p in parameters})
        return np.array([kernels[one].terms(n, held, chunks)[3] for one, n, held, chunks in calls]) - gpu.l2 / gpu.bandwidth

    hull = {"chunk": chunk, "before": before, "decoders": decoders, "context": each, "query": query}
    named = words(rows, "prefill_chunk", "kv_prefill")
    if rows["heads_from"].eq("row").all():
        # Few chunks and many heads: held out by both.
        named = words(rows, "prefill_chunk", "kv_prefill", "n_heads", "n_kv_heads")
    cold = np.ones(len(rows), bool)
    return Group("attn_mixed", "bf16", framework, f"{library} {kernel}", rows, named, parameters, predict, floor, cold, hull)
