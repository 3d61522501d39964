"""Fit the parameters of the first-form latency model to published kernel measurements.

    python -m calibrate.roofline ../shared/data/kernels            a table of parameters and errors per GPU and kernel
    python -m calibrate.roofline ../shared/data/kernels --yaml     the same parameters as `physics:` blocks for a profile

The forms are those of `sim/physics`: t = t0 + max(arithmetic / (compute P), bytes / (memory BW)) with the profile's dense peak P and
bandwidth BW; prefill attention has arithmetic only, with `overhead` keys added per query; all-reduce is alpha + beta (n-1) +
2 (n-1)/n S / (efficiency link). Fits are least squares on log t with a soft loss, on three quarters of the shapes; the errors printed are
those on the other quarter, which no fit has seen. Only cold points are kept: the tables time operands that stay in the L2 cache when
they fit there, while a serving engine reads weights and KV from memory at every step.
"""
from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from sim.spec.hardware import Gpu, gpu
from sim.spec.llm import ACTIVATION_BYTES, WEIGHT_BYTES

TABLES = {"a100_sxm_80gb": "a100_sxm", "h100_sxm": "h100_sxm", "b200": "b200_sxm", "gb200": "gb200", "rtx_pro_6000": "rtx_pro_6000_server"}
# Of the table's dtypes, which stands for ours and from which library: the engine modelled is vLLM, others fill in where it has no rows. Its
# block-scaled fp8 rows are of a release that later ones halve, so DeepGEMM's are taken.
GEMMS = {
    "bf16": ("bfloat16", "vllm"), "fp8": ("fp8", "vllm"), "fp8_block": ("fp8_block", "trtllm"), "nvfp4": ("nvfp4", "vllm"),
    "int8": ("sq", "trtllm"), "int4": ("int4_wo", "trtllm"),
}
COLD = 1.2  # operands beyond this many L2 sizes are read from memory
BRIEF = 2e-6  # points whose ideal time is below this show the fixed time t0, cached or not
SECONDS = 1e-6  # of the tables' unit
HOLD_OUT = 4  # one shape in so many is held out
# Physical limits (no published point is above); decode attention with few query heads per KV head never meets its arithmetic side, and
# the lower limit keeps that efficiency in the range seen where it does.
LIMITS = {"compute": (0.25, 0.90), "memory": (0.02, 0.95), "efficiency": (0.02, 0.95), "overhead": (1.0, 4000.0)}
TIMES = (1e-7, 1e-4)
START = {"t0": 5e-6, "compute": 0.6, "memory": 0.7, "overhead": 150.0, "alpha": 4e-6, "beta": 3e-7, "efficiency": 0.6}

Form = Callable[[dict[str, float]], np.ndarray]


@dataclass(frozen=True)
class Points:
    """Measured times (s), the shape each belongs to, and the form that predicts them from parameters."""

    op: str
    seconds: np.ndarray
    shapes: np.ndarray
    names: tuple[str, ...]
    form: Form


@dataclass(frozen=True)
class Fit:
    """Parameters of one kernel on one GPU, and percentage errors on the shapes held out."""

    op: str
    parameters: dict[str, float]
    points: int
    held_out: int
    median: float
    p95: float
    bias: float


def fit(points: Points) -> Fit:
    """Parameters from the shapes kept, errors from those held out. A shape falls on one side by its checksum, so a rerun agrees."""
    held: np.ndarray = np.array([zlib.crc32(shape.encode()) % HOLD_OUT == 0 for shape in points.shapes])
    bounds = [np.log(LIMITS.get(name, TIMES)) for name in points.names]

    def residuals(x: np.ndarray) -> np.ndarray:
        return (np.log(points.form(dict(zip(points.names, np.exp(x), strict=True)))) - np.log(points.seconds))[~held]

    start = [np.log(START[name]) for name in points.names]
    found = least_squares(residuals, start, bounds=tuple(zip(*bounds, strict=True)), loss="soft_l1", f_scale=0.1)
    parameters = dict(zip(points.names, np.exp(found.x).tolist(), strict=True))
    ratio = (points.form(parameters) / points.seconds)[held]
    error = 100 * np.abs(ratio - 1)
    median, p95 = np.percentile(error, [50, 95])
    return Fit(points.op, parameters, int((~held).sum()), int(held.sum()), float(median), float(p95), float(100 * (np.median(ratio) - 1)))


def fits(folder: Path, name: str) -> Iterator[Fit]:
    """Every kernel the tables hold for the GPU `name` (a key of TABLES)."""
    chip = gpu(name)
    tables = {part: pd.read_csv(folder / f"aic_{TABLES[name]}_{part}.csv", low_memory=False) for part in ("gemm", "attention", "comm")}
    for dtype in GEMMS:
        points = gemm(tables["gemm"], chip, dtype)
        if points is not None:
            yield fit(points)
    for kv in ("bf16", "fp8"):
        points = attention_decode(tables["attention"], chip, kv)
        if points is not None:
            yield fit(points)
    yield fit(attention_prefill(tables["attention"], chip))
    yield fit(all_reduce(tables["comm"], chip))


def gemm(table: pd.DataFrame, chip: Gpu, dtype: str) -> Points | None:
    """y[m, n] = x[m, k] W. Points in which the L2 cache could serve the weights and memory would be the limit are left out."""
    label, library = GEMMS[dtype]
    rows = table[(table.op == "gemm") & (table.dtype == label) & table.source.str.contains(library) & (table.n >= 512) & (table.k >= 512)]
    if rows.empty:
        return None
    width, wide = WEIGHT_BYTES["fp8" if dtype == "fp8_block" else dtype], ACTIVATION_BYTES["fp8" if dtype == "fp8_block" else dtype]
    peak = chip.flops["bf16" if dtype == "int4" else "fp8" if dtype == "fp8_block" else dtype]
    m, n, k = (rows[key].to_numpy(float) for key in ("m", "n", "k"))
    arithmetic = 2 * m * n * k / peak
    memory = (n * k * width + m * k * wide + 2 * m * n) / chip.bandwidth
    cold = (n * k * width > COLD * chip.l2) | (arithmetic > 1.5 * memory) | (np.maximum(arithmetic, memory) < BRIEF)
    return _roofline(f"gemm.{dtype}", rows[cold], ("n", "k"), arithmetic[cold], memory[cold])


def attention_decode(table: pd.DataFrame, chip: Gpu, kv: str) -> Points | None:
    """One query per sequence against its cache, full attention, head size 128; cold points, and those small enough to show t0 alone."""
    rows = _attention(table, "attn_decode", {"bf16": "bfloat16"}.get(kv, kv))
    if rows.empty:
        return None
    tokens = rows.batch.to_numpy(float) * rows.seqlen_kv
    kv_bytes = tokens * 2 * rows.n_kv_heads * rows.head_dim * {"bf16": 2, "fp8": 1}[kv]
    kept = ((kv_bytes > COLD * chip.l2) | (kv_bytes / chip.bandwidth < BRIEF)).to_numpy()
    arithmetic = (4 * rows.n_heads * rows.head_dim * tokens / chip.flops["bf16"]).to_numpy()
    memory = (kv_bytes / chip.bandwidth).to_numpy()
    return _roofline(f"attention_decode.{kv}", rows[kept], ("n_heads", "n_kv_heads"), arithmetic[kept], memory[kept])


def attention_prefill(table: pd.DataFrame, chip: Gpu) -> Points:
    """Causal attention of whole prompts (none before them), head size 128, 16-bit cache, at least 16 tokens."""
    rows = _attention(table, "attn_prefill", "bfloat16")
    rows = rows[rows.seqlen_q >= 16]
    n = rows.seqlen_q.to_numpy(float)
    per_pair = 4 * (rows.batch * rows.n_heads * rows.head_dim).to_numpy(float) / chip.flops["bf16"]

    def form(p: dict[str, float]) -> np.ndarray:
        return np.asarray(p["t0"] + per_pair * n * ((n + 1) / 2 + p["overhead"]) / p["compute"])

    shapes = _shapes(rows, ("n_heads", "n_kv_heads"))
    return Points("attention_prefill", rows.latency_us.to_numpy() * SECONDS, shapes, ("t0", "compute", "overhead"), form)


def all_reduce(table: pd.DataFrame, chip: Gpu) -> Points:
    """The faster of the engine's own all-reduce (inside a graph) and NCCL's, per message size and number of GPUs, up to 256 MB."""
    # vLLM's two-GPU times on GB200 are an outlier, so SGLang's kernel stands for the engine there.
    own = "SGLang_CustomAllReduce_graph" if chip.name == "gb200" else "vLLM_custom_graph"
    rows = table[(table.op == "all_reduce") & table.kernel.isin([own, "NCCL"]) & (table.dtype != "int8")]
    rows = rows[rows.message_bytes <= 2**28].groupby(["n_gpus", "message_bytes"], as_index=False).latency_us.min()
    n = rows.n_gpus.to_numpy(float)
    wire = rows.message_bytes.to_numpy(float) * 2 * (n - 1) / n / (chip.nvlink or chip.pcie)

    def form(p: dict[str, float]) -> np.ndarray:
        return np.asarray(p["alpha"] + p["beta"] * (n - 1) + wire / p["efficiency"])

    shapes = _shapes(rows, ("message_bytes",))
    return Points("all_reduce", rows.latency_us.to_numpy() * SECONDS, shapes, ("alpha", "beta", "efficiency"), form)


def _attention(table: pd.DataFrame, op: str, kv: str) -> pd.DataFrame:
    rows = table[(table.op == op) & (table.dtype == "bfloat16") & (table.kv_dtype == kv) & table.source.str.contains("vllm")]
    rows = rows[(rows.window.fillna(0) == 0) & (rows.head_dim == 128)]
    # The kernel that the engine falls back to for odd shapes is not the one to calibrate on.
    return rows[rows.kernel == rows.kernel.mode().iloc[0]] if len(rows) else rows


def _roofline(op: str, rows: pd.DataFrame, keys: tuple[str, ...], arithmetic: np.ndarray, memory: np.ndarray) -> Points:
    def form(p: dict[str, float]) -> np.ndarray:
        return np.asarray(p["t0"] + np.maximum(arithmetic / p["compute"], memory / p["memory"]))

    return Points(op, rows.latency_us.to_numpy() * SECONDS, _shapes(rows, keys), ("t0", "compute", "memory"), form)


def _shapes(rows: pd.DataFrame, keys: tuple[str, ...]) -> np.ndarray:
    return rows[list(keys)].astype("int64").astype(str).agg("x".join, axis=1).to_numpy()


def text(name: str, value: float) -> str:
    """A parameter as it stands in a profile: times in microseconds, the rest to three digits."""
    return f"{value:.3g}" if name in LIMITS else f"{value * 1e6:.3g}us"


def table(results: list[Fit]) -> list[str]:
    """A line per kernel: parameters, errors in %, points."""
    lines = []
    for result in results:
        shown = "  ".join(f"{key} {text(key, value)}" for key, value in result.parameters.items())
        errors = f"median {result.median:5.1f}  p95 {result.p95:5.1f}  bias {result.bias:+5.1f}"
        lines.append(f"  {result.op:22} {shown:46} {errors}  ({result.points} fitted, {result.held_out} held out)")
    return lines


def blocks(results: list[Fit]) -> list[str]:
    """The fitted part of a profile's `physics`, citing a source `fit` that the profile has to describe."""
    lines, opened = ["physics:"], ""
    for result in results:
        family, _, dtype = result.op.partition(".")
        if dtype and family != opened:
            lines.append(f"  {family}:")
            opened = family
        values = ", ".join(f"{key}: {text(key, value)}" for key, value in result.parameters.items())
        lines.append(f"{'    ' + dtype if dtype else '  ' + family}: {{{values}, source: fit}}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the latency model's parameters to kernel tables.")
    parser.add_argument("folder", type=Path, help="folder with the aic_<gpu>_<kind>.csv tables")
    parser.add_argument("--gpu", choices=sorted(TABLES), action="append", help="only these GPUs")
    parser.add_argument("--yaml", action="store_true", help="print physics blocks for the profiles")
    options = parser.parse_args()
    for name in options.gpu or TABLES:
        print(f"# {name}" if options.yaml else f"{name}: errors in % on shapes not fitted")
        print("\n".join((blocks if options.yaml else table)(list(fits(options.folder, name)))))


if __name__ == "__main__":
    main()
