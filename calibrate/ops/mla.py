"""Latent attention of DeepSeek models: decode over the compressed cache, prefill over expanded heads.

Fitted from TensorRT-LLM's rows, which time the kernel alone in a CUDA graph. Left out: vLLM 0.14, whose rows hold 130-300 us of eager
Python whatever the size; and rows of whole modules (`mla_module_*`), which include projections and serve as a check only.
"""
from __future__ import annotations

import pandas as pd

from calibrate.fitting import Parameter
from calibrate.ops.attention import DECODE, DTYPES, KV_BYTES, PREFILL, column, decode_rows, held, major, origin, prefill_rows, stack, words
from calibrate.ops.base import Group
from sim.physics.mla import Latent
from sim.spec.hardware import Gpu

EAGER = ("vllm/0.14.0",)


def groups(table: pd.DataFrame, gpu: Gpu) -> list[Group]:
    found = []
    if "op" in table:
        for op in ("mla_decode", "mla_prefill"):
            kept = table[(table["op"] == op) & table["kv_dtype"].isin(DTYPES)]
            for (source, kv), rows in kept.groupby(["source", "kv_dtype"], sort=True):
                if origin(str(source))[1] not in EAGER:
                    found.append(_group(op, major(rows), gpu, str(source), DTYPES[str(kv)]))
    return [group for group in found if len(group.rows)]


def _group(op: str, rows: pd.DataFrame, gpu: Gpu, source: str, dtype: str) -> Group:
    framework, library = origin(source)
    if op == "mla_prefill":
        rows = rows[rows["seqlen_q"] > 1].reset_index(drop=True)
    query, batch, context = column(rows, "n_heads"), column(rows, "batch"), column(rows, "seqlen_kv")
    latent, new, kv_bytes = Latent(query), column(rows, "seqlen_q"), KV_BYTES[dtype]  # type: ignore[arg-type]
    hull = {"batch": batch, "context": context, "query": query}
    library = f"{library} {rows['kernel'].iloc[0]}"
    named = words(rows, "n_heads")
    if op == "mla_decode":
        predict, floor, cold = decode_rows(gpu, latent.decode_shape, kv_bytes, batch, context, 0.0 * batch)
        # Packing needs Hopper's or B200's shared memory; elsewhere each head is a tile of its own, and keys are not split.
        packs = gpu.architecture in ("hopper", "blackwell")
        parameters = (*DECODE, Parameter("t_q", 5e-8, 1e-9, 1e-5), held("most", 1e6 if packs else 0.1))
        return Group(op, dtype, framework, library, rows, named, parameters, predict, floor, cold, hull)
    work = stack(rows, latent.prefill_shape, kv_bytes, 0.0 * batch)
    predict, floor = prefill_rows(latent.prefill_shape, kv_bytes, work)
    return Group(op, dtype, framework, library, rows, named, PREFILL, predict, floor, new >= 128, hull | {"new": new})
