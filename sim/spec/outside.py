"""What a scenario says about the world outside its file: paths, and names of the catalogues.

Works on the raw mapping, beside the schema's checks, so that an unknown GPU and a mistyped key are reported together.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from sim.core import registry
from sim.core.errors import BadInput, Problem
from sim.spec import over_network, power, prices, wiring
from sim.spec.yaml_marks import Document, Place, Route

SUFFIXES = (".json", ".yaml", ".yml")


def absolute(document: Document) -> dict[str, Any]:
    """A copy of the document's mapping in which every path is absolute, taken relative to the folder of the file that names it."""
    data: dict[str, Any] = _copy(document.data)
    paths = _Paths(document.places)
    paths.names(data, (), ("model",))
    cluster = _mapping(data.get("cluster"))
    for index, pool in _items(cluster.get("pools")):
        paths.names(pool, ("cluster", "pools", index), ("model", "gpu", "node"))
        drafts = _mapping(_mapping(pool.get("engine")).get("speculative_config"))
        paths.names(drafts, ("cluster", "pools", index, "engine", "speculative_config"), ("model",))
        paths.kind(registry.BATCHERS, _mapping(pool.get("engine")).get("batcher"), ("cluster", "pools", index, "engine", "batcher"))
    for index, trainer in _items(cluster.get("trainers")):
        paths.names(trainer, ("cluster", "trainers", index), ("model", "gpu", "node"))
    paths.names(_mapping(data.get("prices")), ("prices",), ("book",))
    paths.names(_mapping(data.get("carbon")), ("carbon",), ("grid",))
    for key in ("pools", "regions"):
        said = _mapping(_mapping(data.get("carbon")).get(key))
        paths.names(said, ("carbon", key), tuple(said))
    paths.kind(registry.ROUTERS, cluster.get("router"), ("cluster", "router"))
    paths.kind(registry.ADMISSIONS, cluster.get("admission"), ("cluster", "admission"))
    paths.kind(registry.GATES, cluster.get("gate"), ("cluster", "gate"))
    for index, group in _items(_mapping(cluster.get("network")).get("hosts")):
        paths.names(group, ("cluster", "network", "hosts", index), ("gpu", "node"))
    for index, workload in _items(data.get("workloads")):
        paths.kind(registry.WORKLOADS, workload, ("workloads", index))
    return data


def problems(raw: Mapping[str, Any]) -> list[Problem]:
    """Unknown catalogue names, files that are not there, and layouts that the model or the node rules out."""
    found: list[Problem] = []
    pools = _items(_mapping(raw.get("cluster")).get("pools"))
    trainers = _items(_mapping(raw.get("cluster")).get("trainers"))
    # GPUs that a trainer shares are paid, and fed, as their pool's.
    paid = [pool for _, pool in pools] + [{"name": "train", **trainer} for _, trainer in trainers if trainer.get("shares") is None]
    found += prices.problems(raw.get("prices"), paid)
    found += power.problems(raw.get("carbon"), paid)
    default = raw.get("model")
    shared = _look_up("model", default, "model", found) if isinstance(default, str) else None
    both = [("pools", *one) for one in pools] + [("trainers", *one) for one in trainers]
    for what, index, pool in both:
        path = f"cluster.{what}.{index}"
        model = _look_up("model", pool["model"], f"{path}.model", found) if isinstance(pool.get("model"), str) else shared
        gpu = _look_up("gpu", pool.get("gpu"), f"{path}.gpu", found)
        node = _look_up("node", pool.get("node") or (gpu and gpu.node), f"{path}.node", found)
        if gpu and node and gpu.name not in node.fits and not os.path.isabs(pool["gpu"]):
            found.append(Problem(f"{gpu.name} does not go into {node.name}, which takes {', '.join(node.fits)}", f"{path}.node"))
        found += _layout(pool, path, model, node)
        found += _drafts(pool, path, model)
    found += wiring.problems(_mapping(raw.get("cluster")))
    found += over_network.problems(raw)
    for index, workload in _items(raw.get("workloads")):
        found += [
            Problem(f"no such file: {file}" if file else "found an empty text; the path of a file is wanted", f"workloads.{index}.{key}")
            for key, file in named_files(registry.WORKLOADS, workload) if not file or not Path(_without_class(file)).exists()
        ]
    return found


def _without_class(file: str) -> str:
    """The path in `path.py:Class`."""
    path, colon, name = file.rpartition(":")
    return path if colon and path.endswith(".py") and name.isidentifier() else file


def named_files(family: registry.Family, options: Any) -> Iterator[tuple[str, str]]:
    """The paths in the options of a kind, nested kinds too: dotted key and path."""
    for holder, key, route in _file_fields(family, options, ()):
        values = holder[key] if isinstance(holder[key], list) else [holder[key]]
        yield from ((".".join(map(str, route)), value) for value in values if isinstance(value, str) and "://" not in value)


def _file_fields(family: registry.Family, options: Any, route: Route) -> Iterator[tuple[dict[str, Any], str, Route]]:
    if not isinstance(options, dict) or not isinstance(options.get("kind"), str):
        return
    try:
        cls = family.find(options["kind"])
    except BadInput:
        return
    yield from ((options, key, (*route, key)) for key in registry.files(cls) if key in options)
    for key, nested in registry.families(cls).items():
        yield from _file_fields(nested, options.get(key), (*route, key))


class _Paths:
    """Makes paths absolute in place, by the folder of the nearest thing written."""

    def __init__(self, places: Mapping[Route, Place]):
        self.places = places

    def names(self, holder: dict[str, Any], route: Route, keys: tuple[str, ...]) -> None:
        """Catalogue names that may be paths: those that look like a file or are one."""
        for key in keys:
            value = holder.get(key)
            if isinstance(value, str) and value:
                path = self._absolute(value, (*route, key))
                there = os.path.isfile(path) or os.path.isfile(os.path.join(path, "config.json"))
                if value.endswith(SUFFIXES) or value.startswith((".", "~", "/")) or ("/" in value and there):
                    holder[key] = path

    def kind(self, family: registry.Family, options: Any, route: Route) -> None:
        for holder, key, at in _file_fields(family, options, route):
            value = holder[key]
            if isinstance(value, list):
                holder[key] = [self._absolute(part, at) if isinstance(part, str) else part for part in value]
            elif isinstance(value, str) and value:
                holder[key] = self._absolute(value, at)

    def _absolute(self, value: str, route: Route) -> str:
        if "://" in value:
            return value
        while route not in self.places:
            route = route[:-1]
        return os.path.abspath(self.places[route].folder / Path(value).expanduser())


def _look_up(what: str, name: Any, path: str, found: list[Problem]) -> Any:
    from sim.spec import hardware, llm

    if not isinstance(name, str):
        return None
    if not name.strip():
        found.append(Problem("found an empty text; a name of the catalogue or a path is wanted", path))
        return None
    try:
        return {"model": llm.llm, "gpu": hardware.gpu, "node": hardware.node}[what](name)
    except BadInput as error:
        found += [Problem(str(problem), path) for problem in error.problems]
        return None


def _layout(pool: Mapping[str, Any], path: str, model: Any, node: Any) -> Iterator[Problem]:
    tp = _mapping(pool.get("parallel")).get("tp", 1)
    if isinstance(tp, bool) or not isinstance(tp, int) or tp < 1:
        return
    if model is not None:
        fits = [n for n in range(1, model.heads + 1) if model.heads % n == 0 and (model.kv_heads % n == 0 or n % model.kv_heads == 0)]
        sizes = ", ".join(str(n) for n in fits if n & (n - 1) == 0)
        if tp not in fits:
            what = f"{model.name} has {model.heads} attention heads and {model.kv_heads} key-value heads, which do not split {tp} ways"
            yield Problem(f"{what}; sizes that work: {sizes}", f"{path}.parallel.tp")
    if node is not None and not _fits(tp, node):
        what = f"a tensor-parallel group of {tp} does not divide up node {node.name}: {node.gpus} GPUs, {node.domain} in one NVLink domain"
        sizes = ", ".join(str(n) for n in range(1, max(node.gpus, node.domain) + 1) if _fits(n, node))
        yield Problem(f"{what}; sizes that work: {sizes}", f"{path}.parallel.tp")


def _drafts(pool: Mapping[str, Any], path: str, model: Any) -> list[Problem]:
    """What is wrong with speculation on this model. A pool that the schema refuses is left to it."""
    from pydantic import ValidationError

    from sim.spec.draft import draft
    from sim.spec.scenario import Pool

    if model is None or not _mapping(_mapping(pool.get("engine")).get("speculative_config")):
        return []
    try:
        draft(model, Pool.model_validate(pool), path)
    except BadInput as error:
        return error.problems
    except ValidationError:
        return []
    return []


def _fits(tp: int, node: Any) -> bool:
    # Within a node every split counts, over PCIe if need be; beyond it only whole nodes of one NVLink domain.
    return bool(node.gpus % tp == 0 if tp <= node.gpus else tp <= node.domain and tp % node.gpus == 0)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copy(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(part) for part in value]
    return str(value) if isinstance(value, PurePath) else value
