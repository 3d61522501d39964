"""Collectives: NCCL's, engines' own all-reduce, send and receive, and DeepEP's exchange of tokens.

NCCL was measured on two number formats; a collective only counts bytes, so both go into one group. Sizes are held out, each for all numbers
of GPUs apart. The form of three protocols is fitted by least squares, and then the knots of the measured curve are read off the same rows
(`Curved.refine`): least squares over knots would leave those that no row touches wherever they started.

Rows of one table belong to one GPU, but for Vidur's, which name the host: of those, only hosts whose GPU is meant and whose network card
is known.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from calibrate.fitting import Parameter
from calibrate.ops.base import Group
from sim.physics import deepep
from sim.physics.collectives import Collective, crossing, eager_copy
from sim.spec.hardware import Gpu

CUSTOM = {
    "vLLM_custom_graph": "vllm", "SGLang_CustomAllReduce_graph": "sglang", "TRTLLM": "trtllm",
    "vLLM_custom_eager": "vllm", "SGLang_CustomAllReduce_eager": "sglang",
}  # fmt: skip
OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
HOSTS = {"h100_dgx": ("h100_sxm", 50e9), "a100_dgx": ("a100_sxm_80gb", 0.0)}  # Vidur's: our GPU, and its card's bytes/s (0: not recorded)
WITHIN = 0.02  # of the measured curve: knots between which it is straight to this share are left out
OUTLIER = 1.3  # times the median of the three next sizes: a disturbed measurement

PROTOCOLS = [
    *(Parameter(f"a{i}", start, 1e-7, 3e-4) for i, start in ((1, 4e-6), (2, 8e-6), (3, 2e-5))),
    *(Parameter(f"g{i}", 1e-6, 1e-9, 3e-5) for i in (1, 2, 3)),
    *(Parameter(f"e{i}", start, 0.005, 0.94) for i, start in ((1, 0.03), (2, 0.2), (3, 0.8))),
]  # fmt: skip
EAGER = Parameter("eager", 2e-5, 1e-6, 1e-3)
POINT = [Parameter("alpha", 1e-5, 1e-7, 1e-3), Parameter("efficiency", 0.7, 0.01, 0.94)]
LOW_LATENCY = [
    Parameter("a", 1e-5, 1e-6, 1e-4), Parameter("g", 5e-9, 1e-10, 1e-7), Parameter("e", 0.5, 0.01, 0.94),
    Parameter("b_expert", 4e9, 1e8, 1e12), Parameter("p", 2.0, 1.0, 12.0),
]  # fmt: skip
NORMAL = [
    Parameter("a", 3e-5, 1e-6, 2e-4), Parameter("token", 1e-8, 1e-11, 1e-6), Parameter("e", 0.5, 0.01, 0.94),
    Parameter("b_sm", 1.5e10, 1e9, 1e12), Parameter("q", 4.0, 1.0, 12.0),
]  # fmt: skip


@dataclass(frozen=True)
class Curved(Group):
    """A collective whose fit also holds its measured curve."""

    curved = True

    def refine(self, gpu: Gpu, parameters: Mapping[str, float], kept: np.ndarray) -> dict[str, float]:
        """Parameters beside those of least squares, from the rows `kept` (bool): the knots of the curve, and the link they belong to."""
        n, size, eager = (self.rows[name].to_numpy()[kept] for name in ("n_gpus", "message_bytes", "eager"))
        found = {"bandwidth": link(gpu)}
        for ranks in np.unique(n[~eager]):
            rows = (n == ranks) & ~eager
            sizes, seconds = knots(size[rows].astype(float), self.seconds[kept][rows])
            found |= {f"t{int(ranks)}_{int(s)}": float(f"{t:.4g}") for s, t in zip(sizes, seconds, strict=True)}
        return found


def link(gpu: Gpu) -> float:
    """The link that a table of one node measured: NVLink, or PCIe where the GPU has none."""
    return gpu.nvlink or gpu.pcie


def groups(table: pd.DataFrame, gpu: Gpu) -> list[Group]:
    """The collectives of `table`, those of one node on the link of `gpu`."""
    found: list[Group] = [_curved(rows) for rows in _collectives(table)]
    return [*found, *_points(table, gpu), *_deepep(table)]


def knots(size: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fewest measured points between which straight lines keep `WITHIN` of the measured curve, made rising and freed of outliers."""
    sizes = np.unique(size)
    logs = np.array([np.log(seconds[size == s]).mean() for s in sizes])
    # What disturbs a measurement makes it longer, and a rising curve has no point far above those that follow.
    following = np.array([*(np.median(logs[i + 1 : i + 4]) for i in range(len(logs) - 1)), np.inf])
    kept = logs < following + np.log(OUTLIER)
    sizes, curve = sizes[kept], np.exp(isotonic_regression(logs[kept]).x)
    chosen = sorted({0, len(sizes) - 1})
    while True:
        apart = np.abs(np.interp(sizes, sizes[chosen], curve[chosen]) / curve - 1.0)
        if apart.max() <= WITHIN:
            return sizes[chosen], curve[chosen]
        chosen = sorted({*chosen, int(apart.argmax())})


def _collectives(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of each op and framework, with our `op`, `framework` and whether they are `eager`."""
    if not {"message_bytes", "n_gpus", "kernel"} <= set(table):
        return []
    rows = table[table["op"].isin(OPS) & table["message_bytes"].gt(0) & table["n_gpus"].gt(1)]
    rows = rows[rows["kernel"].eq("NCCL") | (rows["op"].eq("all_reduce") & rows["kernel"].isin(CUSTOM))]
    nccl = rows["kernel"].eq("NCCL")
    rows = rows.assign(
        our_op=np.where(nccl & rows["op"].eq("all_reduce"), "all_reduce_nccl", rows["op"]),
        framework=rows["kernel"].map({"NCCL": "nccl", **CUSTOM}), eager=rows["kernel"].astype(str).str.endswith("_eager"),
    )  # fmt: skip
    return [part for _, part in rows.groupby(["our_op", "framework"], sort=True)]


def _curved(rows: pd.DataFrame) -> Group:
    op = str(rows["our_op"].iloc[0])
    n, size, eager = (rows[name].to_numpy() for name in ("n_gpus", "message_bytes", "eager"))
    sets = [(int(ranks), n == ranks) for ranks in np.unique(n)]

    def predict(chip: Gpu, parameters: Mapping[str, float]) -> np.ndarray:
        curve, seconds = Collective(op, parameters, link(chip)), np.zeros(len(rows))
        for ranks, mine in sets:
            seconds[mine] = curve.seconds(size[mine], ranks)
        called = np.maximum(seconds + eager_copy(size, chip.bandwidth), parameters.get("eager", 0.0))
        return np.where(eager, called, seconds)

    def floor(chip: Gpu) -> np.ndarray:
        # NVLink switches from Hopper on add up what passes them, and so beat the ring's bound on all-reduce.
        share = np.array([1.0 if op.startswith("all_reduce") else crossing(op, int(ranks)) for ranks in n])
        least: np.ndarray = size * share / link(chip)
        return least

    shapes = np.array([f"{ranks:g}x{bytes_:g}" for ranks, bytes_ in zip(n, size, strict=True)])
    hull = {"size": size[~eager].astype(float), "gpus": n[~eager].astype(float)}
    parameters = [*PROTOCOLS, EAGER] if eager.any() else PROTOCOLS
    return Curved(op, "", str(rows["framework"].iloc[0]), _library(rows), rows, shapes, parameters, predict, floor, ~eager, hull)


def _points(table: pd.DataFrame, gpu: Gpu) -> list[Group]:
    """Send and receive between two GPUs, of one host (`p2p`) and of two (`network`)."""
    if not {"system", "devices_per_node", "message_bytes"} <= set(table):
        return []
    rows = table[table["op"].eq("p2p") & table["message_bytes"].gt(0)]
    rows = rows[[HOSTS.get(str(system), ("", 0.0))[0] == gpu.name for system in rows["system"]]]
    found = []
    for op, devices in (("p2p", 2), ("network", 1)):
        mine = rows[rows["devices_per_node"].eq(devices)]
        card = HOSTS[str(mine["system"].iloc[0])][1] if len(mine) else 0.0
        if len(mine) and (op == "p2p" or card):
            found.append(_point(op, mine, card))
    return found


def _point(op: str, rows: pd.DataFrame, card: float) -> Group:
    size = rows["message_bytes"].to_numpy(float)

    def rate(chip: Gpu) -> float:
        return card if op == "network" else link(chip)

    return Group(
        op, "", "any", _library(rows), rows, np.array([f"{bytes_:g}" for bytes_ in size]), POINT,
        lambda chip, fit: fit["alpha"] + size / (fit["efficiency"] * rate(chip)), lambda chip: size / rate(chip),
        np.ones(len(rows), bool), {"size": size},
    )  # fmt: skip


def _deepep(table: pd.DataFrame) -> list[Group]:
    """DeepEP within one node."""
    if not {"num_tokens", "hidden", "topk", "n_experts", "n_gpus", "kernel"} <= set(table):
        return []
    found = []
    for mode in ("ll", "normal"):
        for way, width in (("dispatch", deepep.SENT), ("combine", deepep.RETURNED)):
            rows = table[table["op"].eq(f"deepep_{mode}_{way}") & table["num_tokens"].gt(0)]
            rows = rows[rows["n_nodes"].fillna(1).eq(1)] if "n_nodes" in rows else rows
            if len(rows):
                found.append(_exchange(f"deepep_{mode}_{way}", rows, width))
    return found


def _exchange(op: str, rows: pd.DataFrame, element: float) -> Group:
    tokens, hidden, topk, experts, n = (rows[name].to_numpy(float) for name in ("num_tokens", "hidden", "topk", "n_experts", "n_gpus"))
    sms = rows["kernel"].str.extract(r"sms=(\d+)", expand=False).astype(float).fillna(deepep.SMS).to_numpy()
    low = op.startswith("deepep_ll")
    sent = tokens * hidden * element * (topk if low else 1.0)

    def per_ranks(priced: Callable[[np.ndarray, deepep.Reach], np.ndarray], chip: Gpu) -> np.ndarray:
        seconds = np.zeros(len(rows))
        for ranks in np.unique(n):
            mine = n == ranks
            seconds[mine] = priced(mine, deepep.Reach(int(ranks), 1, chip.nvlink, 0.0))
        return seconds

    def predict(chip: Gpu, fit: Mapping[str, float]) -> np.ndarray:
        if low:
            return per_ranks(lambda mine, reach: deepep.low_latency(fit, sent[mine], reach, experts[mine]), chip)
        return per_ranks(lambda mine, reach: deepep.normal(fit, tokens[mine], hidden[mine] * element, topk[mine], reach, sms[mine]), chip)

    def floor(chip: Gpu) -> np.ndarray:
        return per_ranks(lambda mine, reach: (tokens * hidden * element)[mine] * deepep.copies(topk[mine], reach.n) / reach.link, chip)

    shapes = np.array([f"{h:g}x{k:g}x{e:g}" for h, k, e in zip(hidden, topk, experts, strict=True)])
    hull = {"tokens": tokens, "hidden": hidden, "topk": topk, "experts": experts, "gpus": n}
    parameters, cold = LOW_LATENCY if low else NORMAL, np.ones(len(rows), bool)
    return Group(op, "", "any", _library(rows), rows, shapes, parameters, predict, floor, cold, hull)


def _library(rows: pd.DataFrame) -> str:
    return ", ".join(sorted({str(source).removeprefix("aic:") for source in rows["source"]})) if "source" in rows else ""
