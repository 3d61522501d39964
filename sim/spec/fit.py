"""A fitted kernel: parameters of one form on one GPU, with the range they were measured in and the error they showed there.

A profile lists its fits; each is found by (operation, dtype, framework, version of the framework). The forms themselves are in
`sim/physics`; this file knows the names and limits of their parameters only, so that a profile can be checked when it is read. A
utilisation above LIMIT of a datasheet's peak is no fit but a mistake (most published points stay below 0.90), and is refused.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sim.spec.dtype import DTYPES

LIMIT = 0.95
FRAMEWORKS = ("vllm", "trtllm", "sglang", "nccl", "any")
"""Whose kernels; `nccl` for the library's own collectives, `any` for what does not depend on the engine. Order of preference."""

# Parameters by operation, with what each is: seconds, bytes/s, fraction (a utilisation, at most LIMIT), or number. SI throughout.
_PROTOCOL = {f"{name}{i}": kind for i in (1, 2, 3) for name, kind in (("a", "seconds"), ("g", "seconds"), ("e", "fraction"))}
_SMALL = {"t0": "seconds", "e_m": "fraction", "hit": "number"}
_LOW_LATENCY = {"a": "seconds", "g": "seconds", "e": "fraction", "b_expert": "rate", "p": "number"}
_NORMAL = {"a": "seconds", "token": "seconds", "e": "fraction", "b_sm": "rate", "q": "number"}
_DECODE = {
    "t0": "seconds", "tau0": "seconds", "b_sm": "rate", "e_m": "fraction", "t_m": "seconds", "p": "number", "q": "number", "rho": "number",
    "t_comb": "seconds", "t_s": "seconds", "l2cap": "number", "gamma": "number", "hit": "number", "e_c": "fraction",
}  # fmt: skip
_PREFILL = {
    "t0": "seconds", "e": "fraction", "soft": "seconds", "o": "number", "c": "number", "pl": "number", "p": "number", "e_m": "fraction",
    "t_q": "seconds", "t_kv": "seconds",
}  # fmt: skip
PARAMETERS: dict[str, dict[str, str]] = {
    "gemm": {
        "t0": "seconds", "e_c": "number", "a_tile": "number", "pro": "seconds", "e_m": "fraction", "b_sm": "rate", "b_l2": "number",
        "sk": "seconds", "p": "number", "q": "number", "thr": "number", "hit": "number", "l2cap": "number",
    },
    "quantise": {"tq": "seconds", "cb": "number", "h": "number"},
    "attn_decode": {
        **_DECODE, "d": "number", "u": "fraction", "v": "number", "t_q": "seconds", "t_fold": "seconds",
        "least": "number", "most": "number",
    },
    "attn_prefill": _PREFILL,
    "attn_mixed": {
        **{name: _PREFILL[name] for name in ("t0", "e", "soft", "o", "c", "pl", "p", "e_m", "t_kv")},
        "od": "number", "t_x": "seconds", "l2cap": "number", "gamma": "number", "tile": "number",
    },
    "mla_decode": {**_DECODE, "t_q": "seconds", "most": "number"},
    "mla_prefill": _PREFILL,
    "all_reduce": _PROTOCOL, "all_reduce_nccl": _PROTOCOL, "all_gather": _PROTOCOL, "reduce_scatter": _PROTOCOL, "all_to_all": _PROTOCOL,
    "p2p": {"alpha": "seconds", "efficiency": "fraction"}, "network": {"alpha": "seconds", "efficiency": "fraction"},
    "deepep_ll_dispatch": _LOW_LATENCY, "deepep_ll_combine": _LOW_LATENCY,
    "deepep_normal_dispatch": _NORMAL, "deepep_normal_combine": _NORMAL,
    "moe": {
        "t0": "seconds", "t_e": "seconds", "move": "number", "away": "number", "e_c": "fraction", "a_tile": "number", "q": "number",
        "e_m": "fraction", "b_sm": "rate", "p": "number", "l2cap": "number", "hit": "number",
    },
    "elementwise": _SMALL, "norm": _SMALL, "rope": _SMALL, "activation": _SMALL, "embedding": _SMALL, "sampling": _SMALL,
    "host": {"seconds": "seconds", "synchronous": "seconds"},
    "launch": {"seconds": "seconds"},
    "frontend": {"seconds": "seconds"},
}  # fmt: skip


def wanted(op: str, dtype: str) -> Mapping[str, str]:
    """The parameters a fit of `op` must have: a GEMM of a dtype that quantises activations also has those of that kernel."""
    extra = PARAMETERS["quantise"] if op == "gemm" and dtype in DTYPES and DTYPES[dtype].quantises else {}
    return {**PARAMETERS[op], **extra}


def optional(op: str, name: str) -> str | None:
    """What `name` is if a fit of `op` may have it beside the parameters it must have, else None.

    Collectives of a node may hold the measured curve: knots `t<gpus>_<bytes>` in seconds, the `bandwidth` of the link they were measured
    over, and `eager`, the seconds from call to call when the host launches it outside a CUDA graph.
    """
    if PARAMETERS.get(op) is not _PROTOCOL:
        return None
    return {"bandwidth": "rate", "eager": "seconds"}.get(name, "seconds" if table_key(name) else None)


def table_key(name: str) -> tuple[int, int] | None:
    """(GPUs, bytes) of a knot's name, `t8_65536`; None for any other name."""
    gpus, _, size = name[1:].partition("_")
    return (int(gpus), int(size)) if name[:1] == "t" and gpus.isdecimal() and size.isdecimal() else None


@dataclass(frozen=True)
class Errors:
    """Absolute percentage errors as fractions, over `points` no fit has seen: their median, 95th percentile and mean."""

    points: int
    median: float
    p95: float
    mape: float


@dataclass(frozen=True)
class Fit:
    """`library` is what was measured, with its version; `origin` the GPU it was measured on; `prior` the GPU whose fit it started from.

    `hull` maps each size to the (lowest, highest) measured; `points` is how many were fitted (0: a judgement). `kind` and `source` say how
    it is known (sim.spec.hardware.KINDS). `version` is the release of the framework it is of, `0.15` for all of 0.15; '' is of any.
    """

    op: str
    dtype: str
    framework: str
    parameters: Mapping[str, float]
    origin: str
    kind: str
    source: str
    library: str = ""
    points: int = 0
    prior: str = ""
    hull: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    errors: Errors | None = None
    version: str = ""

    def __getitem__(self, name: str) -> float:
        return self.parameters[name]

    def outside(self, **sizes: float) -> str:
        """The first of `sizes` that lies outside the measured range, in words; '' when all are inside or nothing was measured."""
        for name, size in sizes.items():
            low, high = self.hull.get(name, (size, size))
            if not low <= size <= high:
                return f"{name} {size:g} is outside the measured {low:g} to {high:g}"
        return ""

    def with_parameters(self, parameters: Mapping[str, float]) -> Fit:
        return replace(self, parameters=parameters)

    def transferred(self, errors: Errors | None) -> Fit:
        """The same parameters lent to another GPU by its datasheet, with the wider error that such loans showed."""
        return replace(self, kind="judgement", source=f"transferred from {self.origin} by datasheet ratios; {self.source}", errors=errors)


def release(version: str) -> tuple[int, ...]:
    """
    >>> release("0.15.1"), release("v1.2.0rc2.post2"), release("dev-cu13")
    ((0, 15, 1), (1, 2, 0), ())
    """
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else ()


def same_release(one: str, other: str) -> bool:
    """Whether two versions agree as far as both say.

    >>> same_release("0.15", "0.15.1"), same_release("0.15.0", "0.15.1")
    (True, False)
    """
    return all(a == b for a, b in zip(release(one), release(other), strict=False))


def of_version(fits: Sequence[Fit], version: str) -> Fit:
    """Which of `fits`, at least one, that differ in their version alone: that of the same release, else that of any version.

    Where there is neither, the last release before the wanted one, else the first after it; the newest when none is wanted.
    """
    known = sorted((fit for fit in fits if fit.version), key=lambda fit: release(fit.version))
    of_any = next((fit for fit in fits if not fit.version), None)
    same = [fit for fit in known if release(version) and same_release(fit.version, version)]
    if same or of_any or not known:
        return same[-1] if same else of_any or fits[0]
    before = [fit for fit in known if not release(version) or release(fit.version) <= release(version)]
    return before[-1] if before else known[0]
