"""What is wrong with a scenario's network beyond its schema: names nobody has, parts that nothing connects, pools without hosts.

Works on the raw mapping, beside the schema's checks; what the schema refuses is left to it. Regions that pass no requests to each other
need no way between them for bytes, but one for requests they do, or they would be two scenarios.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sim.core.errors import BadInput, Problem, did_you_mean

PATH = "cluster.network"


def problems(cluster: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong, with the dotted keys of a scenario."""
    network = cluster.get("network")
    if not isinstance(network, dict):
        return []
    hosts, stores, wans = (_items(network.get(key)) for key in ("hosts", "stores", "wan"))
    found: list[Problem] = []
    nodes = {index: _node(group, f"{PATH}.hosts.{index}", found) for index, group in hosts}
    for key, items in (("hosts", hosts), ("stores", stores)):
        found += _twice(key, items)
    regions = list(dict.fromkeys(_region(item) for _, item in [*hosts, *stores]))
    for index, wan in wans:
        for end in _ends(wan):
            if end not in regions:
                found.append(Problem(f"no hosts or stores are in region '{end}'; {_near(end, regions)}", f"{PATH}.wan.{index}.between"))
    pairs = [(index, set(_ends(wan))) for index, wan in wans if _ends(wan)]
    for place, (index, pair) in enumerate(pairs):
        if pair in [other for _, other in pairs[:place]]:
            found.append(Problem(f"the way between {' and '.join(sorted(pair))} is given twice", f"{PATH}.wan.{index}.between"))
    found += _no_cards(hosts, stores, nodes)
    found += _apart(hosts, stores, wans)
    found += _without_hosts(_items(cluster.get("pools")), hosts, regions)
    return found


def _node(group: dict[str, Any], path: str, found: list[Problem]) -> Any:
    """The node of a group of hosts, None where it cannot be told."""
    from sim.spec import hardware

    gpu, node = (_catalogue(hardware.gpu, group.get("gpu"), f"{path}.gpu", found), None)
    name = group.get("node") or (gpu and gpu.node)
    if name:
        node = _catalogue(hardware.node, name, f"{path}.node", found)
    if gpu and node and gpu.name not in node.fits and "/" not in str(group["gpu"]):
        found.append(Problem(f"{gpu.name} does not go into {node.name}, which takes {', '.join(node.fits)}", f"{path}.node"))
    return node


def _catalogue(look_up: Any, name: Any, path: str, found: list[Problem]) -> Any:
    if not isinstance(name, str):
        return None
    try:
        return look_up(name)
    except BadInput as error:
        found += [Problem(str(problem), path) for problem in error.problems]
        return None


def _twice(key: str, items: list[tuple[int, dict[str, Any]]]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, item in items:
        name = item.get("name")
        if isinstance(name, str) and name and first.setdefault(name, index) != index:
            yield Problem(f"{key}.{first[name]} is named '{name}' too; names must differ", f"{PATH}.{key}.{index}.name")


def _no_cards(hosts: Any, stores: Any, nodes: Mapping[int, Any]) -> Iterator[Problem]:
    """Hosts without network cards, where something else is to be reached."""
    several = len(hosts) > 1 or bool(stores)
    for index, group in hosts:
        node, count = nodes[index], group.get("count", 1)
        if node and not (node.nics and node.nic_bandwidth) and (several or (isinstance(count, int) and count > 1)):
            what = f"node {node.name} has {'network cards of 0 bytes/s' if node.nics else 'no network cards'}"
            yield Problem(f"{what}: nothing connects these hosts; a node with nics and nic_bandwidth is wanted", f"{PATH}.hosts.{index}")


def _apart(hosts: Any, stores: Any, wans: Any) -> Iterator[Problem]:
    """Regions that nothing connects, stores that no host reaches and hosts that reach no store of a kind there is."""
    # Where only some have a region, that is what is wrong, and what it cuts off is not said too.
    some = sorted({_region(item) for _, item in [*hosts, *stores]})
    if len(some) > 1 and not some[0]:
        for key, items in (("hosts", hosts), ("stores", stores)):
            yield from (Problem(f"no region is given while others have one; known: {', '.join(some[1:])}", f"{PATH}.{key}.{index}")
                        for index, item in items if not _region(item))  # fmt: skip
        return
    links = [_ends(wan) for _, wan in wans]
    requests = together(links)
    loads = together([_ends(wan) for _, wan in wans if wan.get("bandwidth") is not None])
    regions = [(_region(group), index) for index, group in hosts]
    told = {regions[0][0]} if regions else set()
    for region, index in regions:
        if region not in told and not any(requests(region, other) for other in sorted(told)):
            what = f"no wan connects region '{region}' with '{regions[0][0]}'"
            yield Problem(f"{what}; add {{between: [{regions[0][0]}, {region}], latency: ...}} to wan", f"{PATH}.hosts.{index}")
        told.add(region)
    for index, store in stores:
        if not any(loads(_region(store), region) for region, _ in regions):
            what = f"no route from store '{store.get('name')}' in region '{_region(store)}' to any hosts"
            yield Problem(f"{what}: {_missing(_region(store), regions[0][0] if regions else '', links)}", f"{PATH}.stores.{index}")
    for kind in ("storage", "registry"):
        homes = [(_region(store), store.get("name")) for _, store in stores if store.get("kind", "storage") == kind]
        for region, index in regions if homes else ():
            if not any(loads(home, region) for home, _ in homes):
                names = " or ".join(f"'{name}' ({home})" if home else f"'{name}'" for home, name in homes)
                what = f"no route from {kind} {names} to these hosts in region '{region}'"
                yield Problem(f"{what}: {_missing(homes[0][0], region, links)}", f"{PATH}.hosts.{index}")


def _missing(a: str, b: str, links: list[tuple[str, ...]]) -> str:
    there = any({a, b} == set(ends) for ends in links)
    return f"the wan between {a} and {b} needs a bandwidth" if there else f"a wan between '{a}' and '{b}' with a bandwidth is wanted"


def _without_hosts(pools: Any, hosts: Any, regions: list[str]) -> Iterator[Problem]:
    """Pools whose GPU, node or region no hosts have."""
    for index, pool in pools:
        gpu, node, region, path = pool.get("gpu"), pool.get("node"), pool.get("region"), f"cluster.pools.{index}"
        with_gpu = [group for _, group in hosts if group.get("gpu") == gpu]
        if not with_gpu and hosts and isinstance(gpu, str):
            known = [str(group.get("gpu")) for _, group in hosts]
            yield Problem(f"no hosts of {PATH} have {gpu}; {_near(gpu, known)}", f"{path}.gpu")
            continue
        if isinstance(region, str) and region and region not in regions:
            yield Problem(f"no hosts of {PATH} are in region '{region}'; {_near(region, regions)}", f"{path}.region")
            continue
        fitting = [group for group in with_gpu if not (isinstance(region, str) and region) or _region(group) == region]
        if with_gpu and not fitting:
            yield Problem(f"no hosts of {PATH} in region '{region}' have {gpu}; it is in {_listed(with_gpu)}", f"{path}.region")
        elif isinstance(node, str) and fitting and not any((group.get("node") or _usual(gpu)) == node for group in fitting):
            known = [str(group.get("node") or _usual(gpu)) for group in fitting]
            yield Problem(f"no hosts of {PATH} with {gpu} are {node}; {_near(node, known)}", f"{path}.node")


def _usual(gpu: Any) -> str:
    from sim.spec import hardware

    try:
        return hardware.gpu(str(gpu)).node
    except BadInput:
        return ""


def _listed(groups: list[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(_region(group) or "no region" for group in groups))


def _near(name: str, known: list[str]) -> str:
    return did_you_mean(name, dict.fromkeys(one for one in known if one)) if any(known) else "none is named"


def together(links: list[tuple[str, ...]]) -> Any:
    """Whether two regions are joined by some of the links, one after the other."""
    home: dict[str, str] = {}

    def root(region: str) -> str:
        while home.get(region, region) != region:
            region = home[region]
        return region

    for ends in links:
        if len(ends) == 2:
            home[root(ends[0])] = root(ends[1])
    return lambda a, b: root(a) == root(b)


def _ends(wan: Mapping[str, Any]) -> tuple[str, ...]:
    ends = wan.get("between")
    return tuple(str(end) for end in ends) if isinstance(ends, (list, tuple)) and len(ends) == 2 else ()


def _region(item: Mapping[str, Any]) -> str:
    region = item.get("region", "")
    return region if isinstance(region, str) else ""


def _items(value: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []
