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
    homes: Ends = {str(store["name"]): _region(store) for _, store in stores if isinstance(store.get("name"), str)}
    apart = _apart(network)
    found = list(_stores(pools, homes if isinstance(network, dict) else None, apart))
    disaggregation = cluster.get("disaggregation")
    if isinstance(disaggregation, dict) and not isinstance(network, dict):
        found += [
            Problem(f"found {disaggregation[key]}, but there is no network; no other traffic is on the link of a hand-on",
                    f"cluster.disaggregation.{key}") for key in ("weight", "priority") if key in disaggregation
        ]  # fmt: skip
    ends: Ends = {str(pool.get("name", "serve")): _region(pool) for _, pool in pools}
    trainers = _items(cluster.get("trainers"))
    ends |= {str(one.get("name", "train")): _region(one) or ends.get(str(one.get("shares")), "") for _, one in trainers}
    found += _handed_on(pools, apart)
    for index, workload in _items(raw.get("workloads")):
        if workload.get("kind") == "transfers":
            found += _transfers(workload, f"workloads.{index}", (homes, ends) if isinstance(network, dict) else None, apart)
    return found


def _stores(pools: list[tuple[int, dict[str, Any]]], homes: Ends | None, apart: Any) -> Iterator[Problem]:
    """Cold starts from, and lower KV tiers at, stores nobody has, or from which no bytes reach the pool; None: there is no network."""
    for index, pool in pools:
        for name, key in (*_tiers(pool), *_starts(pool)):
            path = f"cluster.pools.{index}.{key}.store"
            if isinstance(name, str) and homes is None:
                yield Problem(f"found '{name}', but there is no network; write cluster.network with this store, or give a bandwidth", path)
            elif isinstance(name, str) and homes is not None and name not in homes:
                yield Problem(f"no store '{name}'; {_near(name, homes)}", path)
            elif isinstance(name, str) and homes is not None and apart(homes[name], _region(pool)):
                what = f"found '{name}' in region '{homes[name]}'; no wan with a bandwidth connects it with '{_region(pool)}'"
                yield Problem(f"{what}, where the pool is", path)


def _tiers(pool: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    engine = pool.get("engine")
    for number, tier in _items(engine.get("kv_tiers")) if isinstance(engine, dict) else ():
        yield tier.get("store"), f"engine.kv_tiers.{number}"


def _starts(pool: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    start = pool.get("start")
    stages = {stage: start.get(stage) for stage in ("image", "weights")} if isinstance(start, dict) else {}
    yield from ((fetched.get("store"), f"start.{stage}") for stage, fetched in stages.items() if isinstance(fetched, dict))


def _handed_on(pools: list[tuple[int, dict[str, Any]]], apart: Any) -> Iterator[Problem]:
    """Decode pools that no bytes reach from the prefill pools."""
    sources = [_region(pool) for _, pool in pools if pool.get("role") == "prefill"]
    for index, pool in pools:
        far = [source for source in sources if apart(source, _region(pool))] if pool.get("role") == "decode" else []
        if far:
            what = f"keys and values of prefill pools in region '{far[0]}' do not reach region '{_region(pool)}'"
            yield Problem(f"{what}: no wan with a bandwidth connects them", f"cluster.pools.{index}.region")


def _transfers(workload: Mapping[str, Any], path: str, there: tuple[Ends, Ends] | None, apart: Any) -> Iterator[Problem]:
    """What is wrong with a transfer between what is `there`: stores, and pools; None without a network."""
    if there is None:
        yield Problem("there is no network to move bytes over; write cluster.network, with hosts and what connects them", path)
        return
    stores, pools = there
    ends = stores | pools
    names = [workload.get(key) for key in ("source", "target")]
    for key, name in zip(("source", "target"), names, strict=True):
        if isinstance(name, str) and name not in ends:
            yield Problem(f"no pool and no store is named '{name}'; {_near(name, ends)}", f"{path}.{key}")
        elif isinstance(name, str) and name in stores and name in pools:
            yield Problem(f"a pool and a store are named '{name}'; give one of them another name", f"{path}.{key}")
    if all(isinstance(name, str) and name in stores and name not in pools for name in names):
        if workload.get("bytes", "weights") == "weights":
            what = f"found weights, but neither {names[0]} nor {names[1]} is a pool with a model"
            yield Problem(f"{what}; give a size, such as bytes: 16GB", f"{path}.bytes")
        if names[0] == names[1]:
            yield Problem(f"found '{names[1]}', where it comes from too; nothing would move", f"{path}.target")
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
