"""Small kernels: rows of norms, rotary embedding, activation, embedding lookup and sampler, predicted by `sim/physics/elementwise.py`.

One group per kind (`norm`, `rope`, `activation`, `embedding`, `sampling`) and framework, and one of them all (`elementwise`), sampler and
quantisation apart, for GPUs and kinds without their own. The kind is told by the name of the operation, in our own grid, in Vidur's
profiles or in LLMServingSim's (whose column is `layer`); our grid's casts to fp8 belong to the products (`gemm.py`). Widths come from
`hidden` or, where an operation is not as wide as the model, from the catalogue by the name in `model`. Vidur timed whole microseconds, and
kernels that did not fuse: a norm there reads and writes once, and the residual's `add` is separate. Profiles in place find operands in L2,
as serving does; our own grid (`burstsim`) rotates.
"""
from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd

from calibrate.fitting import Parameter
from calibrate.ops.base import Group
from sim.core.errors import BadInput, Problem
from sim.physics.elementwise import LOGIT_BYTES, SAMPLER_KERNELS, activation_bytes, elementwise, floor, lookup_bytes, norm_bytes, rope_bytes
from sim.spec.dtype import SIXTEEN_BIT
from sim.spec.fit import FRAMEWORKS
from sim.spec.hardware import Gpu
from sim.spec.llm import Llm, llm

KINDS = {
    "add": "add", "input_layernorm": "norm", "post_attention_layernorm": "norm", "layernorm": "norm", "final_layernorm": "norm",
    "rmsnorm_residual": "norm", "attn_rope": "rope", "rotary_emb": "rope", "rope_kvwrite": "rope", "mlp_act": "activation",
    "act_fn": "activation", "silu_mul": "activation", "emb": "embedding", "embedding": "embedding", "sampler(per_sequence)": "sampling",
    "topk_sample": "sampling",
}  # fmt: skip
"""The operations of a table by kind."""
POOLED = "elementwise"
UNFUSED = ("input_layernorm", "post_attention_layernorm")  # Vidur's: the residual is added by `add`
GRID_KV = 8 * 128  # elements of keys, and of values, of a token in our own grid
OURS = "burstsim"
PARAMETERS = (Parameter("t0", 2.6e-6, 0.3e-6, 20e-6), Parameter("e_m", 0.7, 0.05, 0.949), Parameter("hit", 3.0, 1.0, 8.0))


def groups(table: pd.DataFrame, gpu: Gpu) -> list[Group]:
    """One group per kind and framework, and per framework one of all kinds. Rows of models that the catalogue lacks are left out.

    Raises BadInput naming rows whose sizes are no positive numbers.
    """
    name = table["op"] if "op" in table else table.get("layer", pd.Series(index=table.index, dtype=object))
    rows = table.assign(op=name)
    rows = rows[rows["op"].isin(list(KINDS))]
    if rows.empty:
        return []
    rows = rows.reindex(columns=list(dict.fromkeys((*rows.columns, "source", "model", "tp", "m", "tokens", "hidden", "cold"))))
    size = {key: pd.to_numeric(rows[key], errors="coerce") for key in ("m", "tokens", "hidden", "tp")}
    rows = rows.assign(tokens=size["m"].fillna(size["tokens"]), tp=size["tp"].fillna(1.0), hidden=size["hidden"])
    rows["kind"] = rows["op"].map(KINDS)
    rows = rows.assign(moved=[_moved(row) for row in rows.to_dict("records")])
    rows = rows[rows["moved"] != 0.0]
    _check(rows)
    found = []
    for framework, some in rows.groupby(rows["source"].map(_framework)):
        for kind, own in some.groupby("kind"):
            if kind != "add":
                found.append(_group(str(kind), own.reset_index(drop=True), str(framework), gpu))
        found.append(_group(POOLED, some[some["kind"] != "sampling"].reset_index(drop=True), str(framework), gpu))
    return found


def _moved(row: Mapping[str, object]) -> float:
    """Bytes of a row; 0 where its width is not known, NaN where its sizes are wrong."""
    tokens, tp, op, kind = float(str(row["tokens"])), float(str(row["tp"])), str(row["op"]), row["kind"]
    hidden, model = float(str(row["hidden"])), _model(str(row["model"]))
    ours = str(row["source"]).startswith(OURS)
    if hidden != hidden and model is not None:
        hidden = float(model.hidden)
    if not (tokens >= 1 and tp >= 1):
        return float("nan")
    if kind in ("rope", "activation", "sampling") and not ours and model is None:
        return 0.0
    if kind == "sampling":
        return LOGIT_BYTES * tokens * (model.vocab if model else hidden)
    if kind == "activation":
        inner = hidden if ours or model is None else model.intermediate / tp
        return float(activation_bytes(tokens, inner) if model is None or model.gated else lookup_bytes(tokens, inner))
    if kind == "rope":
        heads = (model.heads + 2 * model.kv_heads) * model.head_dim / tp if model and not ours else hidden + 2 * GRID_KV
        return float(rope_bytes(tokens, heads))
    if kind == "add":
        return 3 * SIXTEEN_BIT * tokens * hidden
    if kind == "embedding" or op in UNFUSED:
        return float(lookup_bytes(tokens, hidden))
    return float(norm_bytes(tokens, hidden))


@cache
def _model(name: str) -> Llm | None:
    try:
        return llm(name)
    except BadInput:
        return None


def _check(rows: pd.DataFrame) -> None:
    wrong = ~(rows["moved"] > 0.0)
    if wrong.any():
        row = rows[wrong].iloc[0]
        shown = ", ".join(f"{name} = {row[name]!r}" for name in ("tokens", "hidden", "tp"))
        raise BadInput([Problem(
            f"op {row['op']}: {int(wrong.sum())} rows without sizes, the first with {shown}; wanted are tokens (or m) of at least 1 and "
            "the width, in `hidden` or by a `model` of the catalogue",
            file=str(row["file"]) if "file" in rows else "", line=int(row["line"]) if "line" in rows else 0,
        )])  # fmt: skip


def _framework(source: object) -> str:
    name = str(source).split(":", 1)[-1].split("/", 1)[0]
    return name if name in FRAMEWORKS else "any"


def _group(kind: str, rows: pd.DataFrame, framework: str, gpu: Gpu) -> Group:
    moved, kernels = rows["moved"].to_numpy(float), SAMPLER_KERNELS if kind == "sampling" else 1
    cold = rows["cold"].eq(True).to_numpy()

    def predict(gpu: Gpu, fit: Mapping[str, float]) -> np.ndarray:
        return np.asarray(elementwise(gpu, fit, moved, kernels, cold).seconds)

    return Group(
        op=kind, dtype="", framework=framework, library=str(rows["source"].iloc[0]).split(":", 1)[-1], rows=rows,
        shapes=np.array([f"{bytes_:.0f}" for bytes_ in moved]), parameters=PARAMETERS,
        predict=predict, floor=lambda gpu: floor(gpu, moved, cold), cold=np.ones(len(rows), bool), hull={"bytes": moved},
    )  # fmt: skip
