"""What workloads ask of pools of sandboxes, and which nobody asks for."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.registry import WORKLOADS

if TYPE_CHECKING:
    from sim.spec.scenario import Scenario


def problems(scenario: Scenario) -> Iterator[Problem]:
    """Pools there are not, and commands that want more cores than a node has. Dotted keys."""
    pools = {pool.name: pool for pool in scenario.cluster.sandboxes}
    for number, options in enumerate(scenario.workloads):
        here, wanted = f"workloads.{number}", _wanted(options)
        for where, name in wanted.items():
            if name not in pools:
                near = did_you_mean(name, pools) if pools else "cluster.sandboxes has none"
                yield Problem(f"no pool of sandboxes is named '{name}'; {near}", f"{here}.{where}")
        nodes = {name: pools[name].node.cores for name in wanted.values() if name in pools}
        largest = max(nodes, key=lambda name: nodes[name], default="")
        for name, tool in (options.get("tools", {}) if largest else {}).items():
            if tool.sandbox and tool.cores > nodes[largest]:
                message = f"found {tool.cores:g}; a node of pool {largest} has {nodes[largest]:g} cores"
                yield Problem(message, f"{here}.tools.{name}.cores")


def unasked(scenario: Scenario) -> list[str]:
    """Names of pools that no workload asks for; what a program asks for shows when it runs, so that it may be any."""
    if any(options.get("program") is not None for options in scenario.workloads):
        return []
    asked = {name for options in scenario.workloads for name in _wanted(options).values()}
    return [pool.name for pool in scenario.cluster.sandboxes if pool.name not in asked]


def _wanted(options: Mapping[str, Any]) -> Mapping[str, str]:
    """Names of pools by the keys that ask for them; of a workload that could not be read, none."""
    if "kind" not in options:
        return {}
    try:
        workload = WORKLOADS.make(options)
        wanted: Mapping[str, str] = workload.sandboxes if workload.sends else {}
    except BadInput:
        return {}
    return wanted
