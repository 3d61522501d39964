"""What is wrong with what a scenario wants to move over its network: ends nobody has, ways that lead nowhere, no network at all.

Works on the raw mapping, beside the schema's checks; what the schema refuses is left to it.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sim.core.errors import Problem, did_you_mean

Ends = dict[str, str]  # name of a pool or store: its region, empty where none is said


def problems(raw: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong, with the dotted keys of a scenario."""
    cluster = raw.get("cluster")
    if not isinstance(cluster, dict):
        return []
    network, pools = cluster.get("network"), _items(cluster.get("pools"))
    stores = _items(network.get("stores")) if isinstance(network, dict) else []
    found = list(_tiers(pools, stores, isinstance(network, dict)))
    disaggregation = cluster.get("disaggregation")
    if isinstance(disaggregation, dict) and not isinstance(network, dict):
        found += [
            Problem(f"found {disaggregation[key]}, but there is no network; no other traffic is on the link of a hand-on",
                    f"cluster.disaggregation.{key}") for key in ("weight", "priority") if key in disaggregation
        ]  # fmt: skip
    ends: Ends = {str(pool.get("name", "serve")): _region(pool) for _, pool in pools}
    homes: Ends = {str(store["name"]): _region(store) for _, store in stores if isinstance(store.get("name"), str)}
    apart = _apart(network)
    found += _handed_on(pools, apart)
    for index, workload in _items(raw.get("workloads")):
        if workload.get("kind") == "transfers":
            found += _transfers(workload, f"workloads.{index}", homes | ends if isinstance(network, dict) else None, apart)
    return found


def _tiers(pools: list[tuple[int, dict[str, Any]]], stores: list[tuple[int, dict[str, Any]]], there: bool) -> Iterator[Problem]:
    """Lower KV tiers at stores nobody has."""
    known = [str(store.get("name")) for _, store in stores]
    for index, pool in pools:
        engine = pool.get("engine")
        for number, tier in _items(engine.get("kv_tiers")) if isinstance(engine, dict) else ():
            name, path = tier.get("store"), f"cluster.pools.{index}.engine.kv_tiers.{number}.store"
            if isinstance(name, str) and not there:
                yield Problem(f"found '{name}', but there is no network; write cluster.network with this store, or give a bandwidth", path)
            elif isinstance(name, str) and name not in known:
                yield Problem(f"no store '{name}'; {_near(name, known)}", path)


def _handed_on(pools: list[tuple[int, dict[str, Any]]], apart: Any) -> Iterator[Problem]:
    """Decode pools that no bytes reach from the prefill pools."""
    sources = [_region(pool) for _, pool in pools if pool.get("role") == "prefill"]
    for index, pool in pools:
        far = [source for source in sources if apart(source, _region(pool))] if pool.get("role") == "decode" else []
        if far:
            what = f"keys and values of prefill pools in region '{far[0]}' do not reach region '{_region(pool)}'"
            yield Problem(f"{what}: no wan with a bandwidth connects them", f"cluster.pools.{index}.region")


def _transfers(workload: Mapping[str, Any], path: str, ends: Ends | None, apart: Any) -> Iterator[Problem]:
    if ends is None:
        yield Problem("there is no network to move bytes over; write cluster.network, with hosts and what connects them", path)
        return
    names = [workload.get(key) for key in ("source", "target")]
    for key, name in zip(("source", "target"), names, strict=True):
        if isinstance(name, str) and name not in ends:
            yield Problem(f"no pool and no store is named '{name}'; {_near(name, ends)}", f"{path}.{key}")
    source, target = (ends.get(name) if isinstance(name, str) else None for name in names)
    if source is not None and target is not None and apart(source, target):
        yield Problem(f"no wan with a bandwidth connects '{source}', where {names[0]} is, with '{target}'", f"{path}.target")


def _apart(network: Any) -> Any:
    """Whether no bytes get from one region to another; unknown where either is not said."""
    from sim.spec.wiring import together

    wans = _items(network.get("wan")) if isinstance(network, dict) else []
    joined = together([tuple(map(str, wan["between"])) for _, wan in wans if wan.get("bandwidth") is not None and _two(wan.get("between"))])
    return lambda a, b: isinstance(network, dict) and bool(a) and bool(b) and not joined(a, b)


def _two(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2


def _near(name: str, known: Any) -> str:
    return did_you_mean(name, list(known)) if known else "none is named"


def _region(item: Mapping[str, Any]) -> str:
    region = item.get("region", "")
    return region if isinstance(region, str) else ""


def _items(value: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []
