"""The catalogue of GPUs and nodes: what each can do, and how we know.

A profile is one YAML file under `hardware_profiles/`, or a file of the user's own. Its `sources:` map names where figures come from, and
every figure is `{value: 3.35TB/s, source: <id>}`. The blocks of `physics` are the parameters of the first-form latency model, each block
with its one source. Everything is SI: bytes, bytes per second (one way), FLOP/s (dense, never sparse), watts, dollars per hour.

Conventions for readers of `Gpu.physics`: `fp16` runs as `bf16`; `int4` is weight-only and computes at the bf16 peak, as does `mxfp4`;
`fp8` is per tensor and `fp8_block` has 128 x 128 scales; the link of `all_reduce` is NVLink where the GPU has it and PCIe where not.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.units import parse

KINDS = ("measured", "fitted", "datasheet", "judgement")
INTERCONNECTS = ("nvswitch", "nvlink_pairs", "pcie")
FLOPS_DTYPES = ("bf16", "fp16", "fp8", "int8", "int4", "nvfp4")
GEMM_DTYPES = ("bf16", "fp8", "fp8_block", "int8", "int4", "nvfp4")

# What each figure is; a trailing "0" lets it be zero, which elsewhere is an error.
GPU_FIGURES = {
    "memory": "size", "bandwidth": "bandwidth", "l2": "size", "sms": "count", "nvlink": "bandwidth0", "pcie": "bandwidth",
    "tdp": "number", "idle_watts": "number", "price_per_hour": "number",
}
NODE_FIGURES = {
    "gpus": "count", "domain": "count", "cpu_cores": "count", "host_memory": "size", "nic_bandwidth": "bandwidth0", "nics": "count0",
    "overhead_watts": "number0",
}
_ROOFLINE = {"t0": "duration", "compute": "fraction", "memory": "fraction"}
PHYSICS_BY_DTYPE = {"gemm": (_ROOFLINE, GEMM_DTYPES, ("bf16", "int4")), "attention_decode": (_ROOFLINE, ("bf16", "fp8"), ("bf16", "fp8"))}
PHYSICS = {
    "attention_prefill": {"t0": "duration", "compute": "fraction", "overhead": "number0"},
    "all_reduce": {"alpha": "duration", "beta": "duration0", "efficiency": "fraction"},
    "elementwise": {"t0": "duration", "memory": "fraction"},
    "host": {"seconds": "duration0"},
    "launch": {"seconds": "duration0"},
}


@dataclass(frozen=True)
class Figure:
    """A number and how it is known: `kind` is one of KINDS (best first), `source` says what it was read from, `date` when (ISO)."""

    value: float
    kind: str
    source: str
    date: str


def _worst(figures: Mapping[str, Figure], prefixes: tuple[str, ...]) -> str:
    kinds = [f.kind for key, f in figures.items() if not prefixes or any(key == p or key.startswith(p + ".") for p in prefixes)]
    return max(kinds, key=KINDS.index, default=KINDS[0])


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
    physics: dict[str, Any]
    figures: dict[str, Figure]

    @property
    def worst(self) -> str:
        """The least certain kind among all figures."""
        return _worst(self.figures, ())

    def worst_of(self, *keys: str) -> str:
        """The least certain kind among figures under the given keys (`physics.gemm`, `bandwidth`)."""
        return _worst(self.figures, keys)


@dataclass(frozen=True)
class Node:
    """One host. `domain`: GPUs that share one NVLink domain (1: none; in a rack it may exceed `gpus`).

    `fits` lists the GPUs it takes, `nic_bandwidth` is bytes/s one way per GPU, `overhead_watts` all it draws besides its GPUs.
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
    figures: dict[str, Figure]

    @property
    def worst(self) -> str:
        """The least certain kind among all figures."""
        return _worst(self.figures, ())

    def link(self, gpu: Gpu, n: int) -> float:
        """Bytes/s one way between `n` GPUs: NVLink within one domain, PCIe within the node, else the network."""
        if gpu.nvlink and n <= self.domain:
            return gpu.nvlink
        return gpu.pcie if n <= self.gpus else self.nic_bandwidth


def gpu(name: str) -> Gpu:
    """A GPU of the catalogue, or one described in a YAML file of the user's own. Raises BadInput with all that is wrong."""
    path = _locate("gpus", "GPU", name)
    profile = _Profile(path)
    texts: dict[str, Any] = {key: profile.text(key) for key in ("title", "vendor", "architecture", "node")}
    values: dict[str, Any] = {key: profile.figure(key, kind) for key, kind in GPU_FIGURES.items()}
    flops = profile.flops()
    physics = profile.physics()
    profile.finish({*texts, *values, "flops", "physics"})
    sms = int(values.pop("sms"))
    return Gpu(name=_stem(path), sms=sms, flops=flops, physics=physics, figures=profile.figures, **texts, **values)


def node(name: str) -> Node:
    """A node of the catalogue, or one described in a YAML file of the user's own. Raises BadInput with all that is wrong."""
    path = _locate("nodes", "node", name)
    profile = _Profile(path)
    title, interconnect, fits = profile.text("title"), profile.text("interconnect", INTERCONNECTS), profile.names("fits")
    values: dict[str, Any] = {key: profile.figure(key, kind) for key, kind in NODE_FIGURES.items()}
    profile.finish({"title", "interconnect", "fits", *values})
    counts = {key: int(values.pop(key)) for key in ("gpus", "domain", "cpu_cores", "nics")}
    return Node(_stem(path), title, fits, interconnect, figures=profile.figures, **counts, **values)


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
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise BadInput([Problem(f"no file with a {what} profile here", file=str(path))])
        return path
    known = _names(folder)
    if name not in known:
        raise BadInput(f"unknown {what} '{name}'; {did_you_mean(name.lower(), known)} (or give the path of a YAML file)")
    return files("hardware_profiles").joinpath(folder, name + ".yaml")


class _Profile:
    """A profile while it is read: hands out checked values and gathers everything that is wrong with them."""

    def __init__(self, path: Traversable):
        self.file = str(path)
        self.problems: list[Problem] = []
        self.figures: dict[str, Figure] = {}
        self.data = self._load(path)
        self.sources = self._sources()

    def _load(self, path: Traversable) -> dict[str, Any]:
        try:
            # The C loader is some eight times faster; it is absent where PyYAML was built without libyaml.
            data = yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            raise BadInput([Problem(f"not valid YAML: {error.problem}", file=self.file, line=line)]) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput([Problem(f"not valid YAML: {error}", file=self.file)]) from None
        if not isinstance(data, dict):
            raise BadInput([Problem("a mapping of keys is wanted", file=self.file)])
        return data

    def _sources(self) -> dict[str, tuple[str, str, str]]:
        found = self._map(self.data.get("sources"), "sources", None)
        sources = {}
        for name, entry in found.items():
            fields = self._map(entry, f"sources.{name}", ("kind", "what", "date"))
            if len(fields) == 3 and fields["kind"] not in KINDS:
                self.wrong(f"sources.{name}.kind", f"found '{fields['kind']}'; one of {', '.join(KINDS)} is wanted")
            elif len(fields) == 3:
                sources[str(name)] = (str(fields["kind"]), str(fields["what"]), str(fields["date"]))
        return sources

    def wrong(self, path: str, message: str) -> None:
        self.problems.append(Problem(message, path, self.file))

    def _map(self, found: Any, path: str, keys: tuple[str, ...] | None) -> dict[str, Any]:
        """The mapping, if it is one and has exactly `keys` (None: any, but some); else empty, with the problems noted."""
        if not isinstance(found, dict) or (keys is None and not found):
            self.wrong(path, "missing; a mapping is wanted" if found is None else f"found {found!r}; a mapping is wanted")
            return {}
        if keys is None:
            return found
        for key in found:
            if key not in keys:
                self.wrong(f"{path}.{key}", f"unknown key; {did_you_mean(str(key), keys)}")
        for key in keys:
            if key not in found:
                self.wrong(f"{path}.{key}", "missing")
        return found if set(found) == set(keys) else {}

    def text(self, key: str, known: tuple[str, ...] = ()) -> str:
        found = self.data.get(key)
        if not isinstance(found, str) or not found:
            self.wrong(key, "missing; text is wanted" if found is None else f"found {found!r}; text is wanted")
            return ""
        if known and found not in known:
            self.wrong(key, f"found '{found}'; {did_you_mean(found, known)}")
        return found

    def names(self, key: str) -> tuple[str, ...]:
        found = self.data.get(key)
        if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
            self.wrong(key, "a list of names is wanted")
            return ()
        return tuple(found)

    def figure(self, key: str, kind: str) -> float:
        """The value of the top-level figure `key`."""
        return self._figure(self.data.get(key), key, kind)

    def _figure(self, found: Any, key: str, kind: str) -> float:
        if found is None:
            self.wrong(key, "missing; a figure {value: ..., source: ...} is wanted")
            return 1.0
        entry = self._map(found, key, ("value", "source"))
        return self.number(entry["value"], key, kind, entry["source"]) if entry else 1.0

    def number(self, value: Any, key: str, kind: str, source: Any) -> float:
        """Check and convert one value, and note its provenance. `kind` is a key's meaning as in GPU_FIGURES."""
        try:
            number = _convert(value, kind)
        except ValueError as error:
            self.wrong(key, str(error))
            return 1.0
        if source not in self.sources:
            self.wrong(key, f"source '{source}' is not in sources; {did_you_mean(str(source), self.sources)}")
            return number
        self.figures[key] = Figure(number, *self.sources[source])
        return number

    def flops(self) -> dict[str, float]:
        found = self._map(self.data.get("flops"), "flops", None)
        for dtype in found:
            if dtype not in FLOPS_DTYPES:
                self.wrong(f"flops.{dtype}", f"unknown dtype; {did_you_mean(str(dtype), FLOPS_DTYPES)}")
        if found and "bf16" not in found:
            self.wrong("flops.bf16", "missing; the attention kernels are held against it")
        return {dtype: self._figure(entry, f"flops.{dtype}", "number") for dtype, entry in found.items()}

    def physics(self) -> dict[str, Any]:
        found = self._map(self.data.get("physics"), "physics", (*PHYSICS_BY_DTYPE, *PHYSICS))
        if not found:
            return {}
        blocks: dict[str, Any] = {key: self._block(found[key], f"physics.{key}", kinds) for key, kinds in PHYSICS.items()}
        for key, (kinds, known, wanted) in PHYSICS_BY_DTYPE.items():
            by_dtype = self._map(found[key], f"physics.{key}", None)
            for dtype in (*(name for name in by_dtype if name not in known), *(name for name in wanted if name not in by_dtype)):
                self.wrong(f"physics.{key}.{dtype}", "missing" if dtype in wanted else f"unknown dtype; {did_you_mean(str(dtype), known)}")
            blocks[key] = {dtype: self._block(entry, f"physics.{key}.{dtype}", kinds) for dtype, entry in by_dtype.items()}
        return blocks

    def _block(self, found: Any, path: str, kinds: Mapping[str, str]) -> dict[str, float]:
        entry = self._map(found, path, (*kinds, "source"))
        return {key: self.number(entry[key], f"{path}.{key}", kind, entry["source"]) for key, kind in kinds.items()} if entry else {}

    def finish(self, known: set[str]) -> None:
        """Raise BadInput if anything was wrong, unknown keys included."""
        for key in self.data:
            if key not in known | {"sources"}:
                self.wrong(str(key), f"unknown key; {did_you_mean(str(key), known)}")
        if self.problems:
            raise BadInput(self.problems)


def _convert(value: Any, kind: str) -> float:
    """The SI value; raises ValueError when it is no number, not finite, or has a sign or size its kind forbids."""
    zero_allowed, kind = kind.endswith("0"), kind.rstrip("0")
    if kind in ("size", "bandwidth", "duration"):
        number = parse(value, kind)
    else:
        # YAML 1.1 reads 989e12 as text, so text that is a number is taken as one.
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError(f"found {value!r}; a number is wanted")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"found '{value}'; a number is wanted") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_allowed):
        raise ValueError(f"found {value!r}; a {'non-negative' if zero_allowed else 'positive'} number is wanted")
    if kind == "fraction" and number > 1:
        raise ValueError(f"found {value!r}; a fraction of the peak, at most 1, is wanted")
    if kind == "count" and number != int(number):
        raise ValueError(f"found {value!r}; a whole number is wanted")
    return number
