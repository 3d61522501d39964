"""The catalogue of GPUs and nodes: what each can do, and how we know.

A profile is one YAML file under `hardware_profiles/`, or a file of the user's own. Everything is SI: bytes, bytes per second (one way),
FLOP/s (dense, never sparse), watts, dollars per hour. A GPU on which kernels were measured lists their `fits`. Another names, in `like`,
the measured GPU whose fits it borrows (by default the one of its architecture): they are scaled by datasheet ratios, and carry the wider
error that such loans showed between measured GPUs (`hardware_profiles/transfer.yaml`).
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.spec.fit import FRAMEWORKS, Errors, Fit, of_version
from sim.spec.profile import KINDS, Figure, Profile

INTERCONNECTS = ("nvswitch", "nvlink_pairs", "pcie")

# What each figure is; a trailing "0" lets it be zero, which elsewhere is an error.
GPU_FIGURES = {
    "memory": "size", "bandwidth": "bandwidth", "l2": "size", "sms": "count", "nvlink": "bandwidth0", "pcie": "bandwidth",
    "tdp": "number", "idle_watts": "number", "price_per_hour": "number",
}
NODE_FIGURES = {
    "gpus": "count", "domain": "count", "cpu_cores": "count", "host_memory": "size", "nic_bandwidth": "bandwidth0", "nics": "count0",
    "overhead_watts": "number0",
}
# Figures of a node that a profile may leave out: 0 then.
OPTIONAL = {"memory_bandwidth": "bandwidth"}


def _worst(figures: Mapping[str, Figure]) -> str:
    return max((figure.kind for figure in figures.values()), key=KINDS.index, default=KINDS[0])


@dataclass(frozen=True)
class Gpu:
    """One accelerator. `memory` is what its driver reports, `sms` its multiprocessors, `nvlink` and `pcie` bytes/s one way (0: none).

    `flops` are dense peaks by dtype; `node` names its usual node; `figures` holds the provenance of every number by dotted key.
    """

    name: str
    title: str
    vendor: str
    architecture: str
    memory: float
    bandwidth: float
    l2: float
    sms: int
    flops: dict[str, float]
    nvlink: float
    pcie: float
    tdp: float
    idle_watts: float
    price_per_hour: float
    node: str
    fits: tuple[Fit, ...]
    figures: dict[str, Figure]

    @property
    def worst(self) -> str:
        """The least certain kind among all figures and fits."""
        return max(_worst(self.figures), *(fit.kind for fit in self.fits), key=KINDS.index)

    def fit(self, op: str, dtype: str = "", framework: str = "vllm", version: str = "") -> Fit | None:
        """What is known of a kernel, of that framework where it was measured, else of another; None if of none.

        Of several versions the one asked for or the nearest (`sim.spec.fit.of_version`); '' asks for that of any version.
        """
        found = [fit for fit in self.fits if fit.op == op and fit.dtype == dtype]
        best = min(found, key=lambda fit: (fit.framework != framework, FRAMEWORKS.index(fit.framework)), default=None)
        if best is None:
            return None
        # A version is one of its own framework; another's releases are numbered otherwise.
        return of_version([fit for fit in found if fit.framework == best.framework], version if best.framework == framework else "")

    def peak(self, dtype: str) -> float:
        """FLOP/s at which the chip multiplies `dtype` of its `flops`; the 16-bit peak where it has no units for it."""
        return self.flops.get(dtype, self.flops["bf16"])


@dataclass(frozen=True)
class Node:
    """One host. `domain`: GPUs that share one NVLink domain (1: none; in a rack it may exceed `gpus`).

    `fits` lists the GPUs it takes, `nic_bandwidth` is bytes/s one way per GPU, `overhead_watts` all it draws besides its GPUs,
    `memory_bandwidth` bytes/s of its main memory, reads and writes together (0: unknown, no limit).
    """

    name: str
    title: str
    fits: tuple[str, ...]
    interconnect: str
    gpus: int
    domain: int
    cpu_cores: int
    host_memory: float
    nic_bandwidth: float
    nics: int
    overhead_watts: float
    memory_bandwidth: float
    figures: dict[str, Figure]

    @property
    def worst(self) -> str:
        """The least certain kind among all figures."""
        return _worst(self.figures)

    def link(self, gpu: Gpu, n: int) -> float:
        """Bytes/s one way between `n` GPUs: NVLink within one domain, PCIe within the node, else the network."""
        if gpu.nvlink and n <= self.domain:
            return gpu.nvlink
        return gpu.pcie if n <= self.gpus else self.nic_bandwidth


def gpu(name: str) -> Gpu:
    """A GPU of the catalogue, or one described in a YAML file of the user's own. Raises BadInput with all that is wrong."""
    path = _locate("gpus", "GPU", name)
    return _read(path) if _of_ones_own(name) else _shipped(name)


def _of_ones_own(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name


@cache
def _shipped(name: str) -> Gpu:
    """A GPU of the catalogue, which cannot change under the program: read once."""
    return _read(_locate("gpus", "GPU", name))


def _read(path: Traversable) -> Gpu:
    profile = Profile(path)
    texts: dict[str, Any] = {key: profile.text(key) for key in ("title", "vendor", "architecture", "node")}
    values: dict[str, Any] = {key: profile.figure(key, kind) for key, kind in GPU_FIGURES.items()}
    flops, own = profile.flops(), profile.fits(_stem(path))
    like = profile.data.get("like", _transfers()["likes"].get(texts["architecture"], _transfers()["likes"]["other"]))
    if "like" in profile.data and like not in _names("gpus"):
        profile.wrong("like", f"unknown GPU '{like}'; {did_you_mean(str(like), _names('gpus'))}")
    profile.finish({*texts, *values, "flops", "fits", "like"})
    sms = int(values.pop("sms"))
    lent = _lent(str(like), own, texts["architecture"]) if like != _stem(path) else ()
    return Gpu(name=_stem(path), sms=sms, flops=flops, fits=(*own, *lent), figures=profile.figures, **texts, **values)


def _lent(like: str, own: tuple[Fit, ...], architecture: str) -> tuple[Fit, ...]:
    """The fits of the GPU `like` for what `own` does not cover, with the errors of a loan within one architecture or to another."""
    lender, kinds = gpu(like), {(fit.op, fit.dtype) for fit in own}
    shown = _transfers()["errors"]["same" if lender.architecture == architecture else "other"]
    return tuple(
        fit.transferred(Errors(*(shown[fit.op][key] for key in ("points", "median", "p95", "mape"))) if fit.op in shown else fit.errors)
        for fit in lender.fits if (fit.op, fit.dtype) not in kinds
    )  # fmt: skip


@cache
def _transfers() -> dict[str, Any]:
    """Which measured GPU stands for an architecture, and what error such loans showed."""
    return dict(yaml.safe_load(files("hardware_profiles").joinpath("transfer.yaml").read_text("utf-8")))


def node(name: str) -> Node:
    """A node of the catalogue, or one described in a YAML file of the user's own. Raises BadInput with all that is wrong."""
    return _read_node(_locate("nodes", "node", name)) if _of_ones_own(name) else _shipped_node(name)


@cache
def _shipped_node(name: str) -> Node:
    return _read_node(_locate("nodes", "node", name))


def _read_node(path: Traversable) -> Node:
    profile = Profile(path)
    title, interconnect, fits = profile.text("title"), profile.text("interconnect", INTERCONNECTS), profile.names("fits")
    values: dict[str, Any] = {key: profile.figure(key, kind) for key, kind in NODE_FIGURES.items()}
    values |= {key: profile.figure(key, kind) if key in profile.data else 0.0 for key, kind in OPTIONAL.items()}
    profile.finish({"title", "interconnect", "fits", *values})
    counts = {key: int(values.pop(key)) for key in ("gpus", "domain", "cpu_cores", "nics")}
    return Node(_stem(path), title, fits, interconnect, figures=profile.figures, **counts, **values)


def profile_text(name: str) -> str:
    """The YAML of a GPU of the catalogue, or of a file of the user's own. Raises BadInput when there is none."""
    return _locate("gpus", "GPU", name).read_text("utf-8")


def gpu_names() -> list[str]:
    """Every GPU of the catalogue, sorted."""
    return _names("gpus")


def node_names() -> list[str]:
    """Every node of the catalogue, sorted."""
    return _names("nodes")


def _names(folder: str) -> list[str]:
    return sorted(entry.name[:-5] for entry in files("hardware_profiles").joinpath(folder).iterdir() if entry.name.endswith(".yaml"))


def _stem(path: Traversable) -> str:
    return path.name.rsplit(".", 1)[0]


def _locate(folder: str, what: str, name: str) -> Traversable:
    if _of_ones_own(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise BadInput([Problem(f"no file with a {what} profile here", file=str(path))])
        return path
    known = _names(folder)
    if name not in known:
        raise BadInput(f"unknown {what} '{name}'; {did_you_mean(name.lower(), known)} (or give the path of a YAML file)")
    return files("hardware_profiles").joinpath(folder, name + ".yaml")
