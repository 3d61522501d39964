"""What a scenario's cluster is made of, before anything runs: hosts below their switches, stores, wans, and what each pool needs of them.

The same facts are printed as a tree, drawn (`sim.report.topology`) and given as JSON. Bytes, bytes/s one way, seconds.
"""
from __future__ import annotations

from collections import Counter
from typing import Any

from sim.core.errors import BadInput, Problem
from sim.physics.cabling import Cabling, box
from sim.physics.memory import divide
from sim.physics.trainer import TrainStep
from sim.report.words import counted, number, scaled, seconds
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.load import located
from sim.spec.network import Network
from sim.spec.scenario import Pool, Scenario
from sim.spec.trainer import Trainer
from sim.spec.training import residual, seated

Facts = dict[str, Any]
WORDS = {"leaf_spine": "leaf switches", "rails": "pods of rails", "flat": "one switch"}


def inventory(scenario: Scenario) -> Facts:
    """`network` (None without one) and `pools`. Raises BadInput where a model does not fit on its GPUs."""
    network = scenario.cluster.network
    pools = [_pool(scenario, index, pool) for index, pool in enumerate(scenario.cluster.pools)]
    trainers = [_trainer(scenario, index, trainer) for index, trainer in enumerate(scenario.cluster.trainers)]
    found = {"name": scenario.name, "network": _network(network) if network else None, "pools": pools}
    return {**found, "trainers": trainers} if trainers else found


def _network(network: Network) -> Facts:
    cabling, fabric = Cabling(network), network.fabric
    return {
        "fabric": {key: value for key, value in fabric.model_dump().items() if value is not None},
        "sources": {name: f"{figure.kind}: {figure.source}, {figure.date}" for name, figure in network.figures().items()},
        "hosts": len(cabling.hosts),
        "gpus": sum(host.gpus for host in cabling.hosts),
        "regions": [_region(network, cabling, name) for name in network.regions],
        "wan": [wan.model_dump() for wan in network.wan],
    }


def _region(network: Network, cabling: Cabling, name: str) -> Facts:
    hosts = [host for host in cabling.hosts if host.region == name]
    trunks = [leaf.trunk for leaf in cabling.leafs if leaf.region == name and leaf.trunk >= 0]
    cards = sum(each.card * each.cards for each in (cabling.boxes[host.number] for host in hosts))
    pods = sorted({host.leaf for host in hosts})
    up = sum(cabling.links[trunk].capacity for trunk in trunks) if len(pods) > 1 else cards
    return {
        "name": name,
        "hosts": len(hosts),
        "gpus": sum(host.gpus for host in hosts),
        # One way between two halves of the hosts, at the narrowest: what either half can send through the switches above its leafs.
        "bisection": up / 2 if len(hosts) > 1 else 0.0,
        "leafs": _leafs(cabling, name),
        "groups": [_group(group) for group in network.hosts if group.region == name],
        "stores": [store.model_dump(exclude={"region"}) for store in network.stores if store.region == name],
    }


def _leafs(cabling: Cabling, region: str) -> list[Facts]:
    """Leaf switches, or pods of rails, that are alike, with how many there are. `up`: bytes/s of all up-links (0: none)."""
    below: dict[int, Counter[str]] = {}
    rails: dict[int, dict[int, float]] = {}
    for host in cabling.hosts:
        if host.region == region:
            below.setdefault(host.leaf, Counter())[host.group] += 1
            for card in range(cabling.boxes[host.number].cards):
                trunk = cabling.leafs[cabling.leaf(host.number, card)].trunk
                if trunk >= 0:
                    rails.setdefault(host.leaf, {})[trunk] = cabling.links[trunk].capacity
    alike = Counter((tuple(groups.items()), tuple(rails.get(leaf, {}).values())) for leaf, groups in below.items())
    return [
        {"count": count, "hosts": dict(groups), "switches": max(len(ups), 1), "up": sum(ups)} for (groups, ups), count in alike.items()
    ]


def _group(group: Any) -> Facts:
    common = box(group)
    node, chip = common.node, common.gpu
    return {
        "name": group.name or group.gpu, "gpu": group.gpu, "node": node.name, "count": group.count, "gpus": node.gpus,
        "domain": common.domain or 1, "nvlink": chip.nvlink if common.domain else 0.0, "pcie": chip.pcie, "cards": common.cards,
        "card": common.card, "host_memory": node.host_memory, "memory_bandwidth": node.memory_bandwidth,
    }  # fmt: skip


def _pool(scenario: Scenario, index: int, pool: Pool) -> Facts:
    chip, model = gpu(pool.gpu), llm(pool.model or scenario.model)
    try:
        memory = divide(model, chip, pool, f"cluster.pools.{index}", residual(scenario.cluster, pool.name))
    except BadInput as error:
        raise BadInput(located([Problem(*problem) for problem in error.problems], scenario)) from None
    auto = pool.autoscale
    least, most = (pool.replicas, pool.replicas) if auto is None else (auto.min, auto.max)
    layout = {name: size for name, size in pool.parallel.model_dump().items() if size > 1 or name == "tp"}
    return {
        "name": pool.name, "model": model.name, "role": pool.role, "gpu": chip.name, "node": pool.node or chip.node, "region": pool.region,
        "replicas": pool.replicas, "least": least, "most": most, "gpus": pool.parallel.gpus, "layout": layout,
        "there": _there(scenario.cluster.network, pool, chip.node), "shares": None if pool.shares is None else pool.shares.pool,
        "memory": {
            "gpu": pool.gpu_memory or chip.memory, "weights": memory.weights, "activations": memory.activations, "reserve": memory.reserve,
            "kv": max(memory.budget - memory.weights - memory.activations - memory.reserve, 0.0),
            "kv_tokens": memory.blocks * pool.engine.block_size,
        },
    }  # fmt: skip


def _trainer(scenario: Scenario, index: int, trainer: Trainer) -> Facts:
    try:
        model = TrainStep(llm(trainer.model or scenario.model), seated(scenario.cluster, trainer), f"cluster.trainers.{index}")
    except BadInput as error:
        raise BadInput(located([Problem(*problem) for problem in error.problems], scenario)) from None
    layout = {**{name: size for name, size in trainer.parallel.model_dump().items() if size and size > 1}, "dp": trainer.dp}
    return {
        "name": trainer.name, "model": model.llm.name, "gpu": model.gpu.name, "node": model.node.name, "gpus": trainer.gpus,
        "backend": trainer.backend, "layout": layout, "memory": {**model.memory._asdict(), "left": model.memory.left},
        "shares": trainer.shares,
    }  # fmt: skip


def _there(network: Network | None, pool: Pool, usual: str) -> int | None:
    """How many GPUs there are that replicas of a pool could take; None without a network."""
    if network is None:
        return None
    fitting = [
        group for group in network.hosts
        if group.gpu == pool.gpu and pool.region in ("", group.region) and pool.node in (None, group.node or usual)
    ]  # fmt: skip
    return sum(group.count * box(group).node.gpus for group in fitting)


def text(facts: Facts) -> str:
    """The facts as a tree."""
    network = facts["network"]
    lines = [f"{facts['name']}"]
    if network is not None:
        lines += [f"network: {counted(network['hosts'], 'host')}, {counted(network['gpus'], 'GPU')}, {fabric_words(network['fabric'])}"]
        for region in network["regions"]:
            lines += _region_lines(region, network["fabric"])
        lines += [f"  wan {' - '.join(wan['between'])}: {wan_words(wan)}" for wan in network["wan"]]
    else:
        lines += ["no network is given: every transfer has its link to itself"]
    lines += ["pools"] if facts["pools"] else []
    for pool in facts["pools"]:
        lines += [f"  {pool['name']}: {pool_words(pool)}", f"    {memory_words(pool['memory'])}"]
    lines += ["trainers"] if "trainers" in facts else []
    for one in facts.get("trainers", ()):
        shape = ", ".join(f"{name} {size}" for name, size in one["layout"].items())
        gpus = f"the {one['gpus']:,} x {one['gpu']} of {one['shares']}" if one["shares"] else f"{one['gpus']:,} x {one['gpu']}"
        lines.append(f"  {one['name']}: {one['model']} on {gpus} by {one['backend']} ({shape})")
        parts = [f"{name} {scaled(size)}B" for name, size in one["memory"].items() if name not in ("budget", "left", "host") and size]
        lines.append(f"    of {scaled(one['memory']['budget'])}B a GPU: {', '.join(parts)}; {scaled(one['memory']['left'])}B are left")
    return "\n".join(lines)


def _region_lines(region: Facts, fabric: Facts) -> list[str]:
    title = f"region {region['name']}" if region["name"] else "one region"
    across = f", {rate(region['bisection'])} across its middle" if region["bisection"] else ""
    lines = [f"  {title}: {counted(region['hosts'], 'host')}, {counted(region['gpus'], 'GPU')}{across}"]
    for leaf in region["leafs"]:
        below = [f"{count:,} x {name}" for name, count in leaf["hosts"].items()]
        lines.append(f"    {leaf_words(leaf, fabric)}, over {' and '.join(below)}")
    lines += [f"    host {host_words(group)}" for group in region["groups"]]
    lines += [f"    store {store['name']} ({store['kind']}): {rate(store['bandwidth'])}{_after(store)}" for store in region["stores"]]
    return lines


# -- words, shared with the drawing ------------------------------------------
def rate(value: float) -> str:
    """
    >>> rate(50e9)
    '50 GB/s'
    """
    return f"{scaled(value)}B/s"


def fabric_words(fabric: Facts) -> str:
    """The kind of a fabric, its preset and how far it is oversubscribed."""
    of = f"{fabric['preset']}: " if "preset" in fabric else ""
    return f"{of}{WORDS[fabric['kind']]}" + ("" if fabric["kind"] == "flat" else f", {fabric['oversubscription']:g}:1")


def leaf_words(leaf: Facts, fabric: Facts) -> str:
    """How many leaf switches or pods are alike, and what they send up."""
    count, up = leaf["count"], rate(leaf["up"])
    each = " each" if count > 1 else ""
    if fabric["kind"] == "flat":
        return "the switch"
    if fabric["kind"] == "rails":
        return f"{counted(count, 'pod')} of {counted(leaf['switches'], 'rail')}{each}, {up} up from a pod"
    return f"{count:,} leaf switch{'es' if count > 1 else ''}, {up} up{each}"


def host_words(group: Facts) -> str:
    """What is in a host of a group."""
    parts = [counted(group["gpus"], "GPU") if group["name"] == group["gpu"] else f"{group['gpus']} {group['gpu']}"]
    if group["nvlink"]:
        rack = f" over {group['domain'] // group['gpus']} hosts" if group["domain"] > group["gpus"] else ""
        parts.append(f"NVLink {rate(group['nvlink'])} among {group['domain']}{rack}")
    parts.append(f"PCIe {rate(group['pcie'])}")
    parts.append(f"{counted(group['cards'], 'card')} of {rate(group['card'])}" if group["cards"] else "no network cards")
    speed = f" at {rate(group['memory_bandwidth'])}" if group["memory_bandwidth"] else ""
    return f"{group['name']} ({group['node']}): {', '.join(parts)}; memory {scaled(group['host_memory'])}B{speed}"


def wan_words(wan: Facts) -> str:
    """Speed and latency of the way between two regions."""
    speed = rate(wan["bandwidth"]) if wan["bandwidth"] else "requests only"
    return f"{speed}, {seconds(wan['latency'])} one way"


def pool_words(pool: Facts) -> str:
    """What a pool is and how many GPUs it takes."""
    layout = ", ".join(f"{name} {size}" for name, size in pool["layout"].items())
    role = "" if pool["role"] == "both" else f", {pool['role']}"
    home = f", in {pool['region']}" if pool["region"] else ""
    least, most, start = pool["least"], pool["most"], pool["replicas"]
    changing = f" ({least:,} to {most:,})" if (least, most) != (start, start) else ""
    gpus = f"{start * pool['gpus']:,}" + (f" (at most {most * pool['gpus']:,})" if most != start else "")
    replicas = f"{counted(start, 'replica')}{changing} of {pool['gpus']} {pool['gpu']} ({layout})"
    if pool["shares"]:
        return f"{pool['model']}{role}{home}, {replicas}: on the GPUs of {pool['shares']}, in turn"
    there = "" if pool["there"] is None else f" of {pool['there']:,}"
    return f"{pool['model']}{role}{home}, {replicas}: {gpus}{there} GPU{'' if gpus + there == '1' else 's'}"


def memory_words(memory: Facts) -> str:
    """What a GPU's memory is divided into."""
    parts = ", ".join(f"{name} {scaled(memory[name])}B" for name in ("weights", "activations", "reserve"))
    return f"of {scaled(memory['gpu'])}B a GPU: {parts}, KV {scaled(memory['kv'])}B; a replica holds {number(memory['kv_tokens'])} tokens"


def _after(store: Facts) -> str:
    return f", {seconds(store['latency'])} before the first byte" if store["latency"] else ""
