"""Frameworks ready made, one YAML file each in `workloads/presets/rl/`: the keys of `kind: rl` as they have them by default, and `source`.

What a workload says itself goes before what its preset says, key by key, also within groups of keys; a kind of gate, tail or sync, laws and
lists are replaced as a whole. In another mode than that of its preset, what the preset says of its own is left out. What a mode leaves no
choice of is filled in after that.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workloads.programs import presets as agents
from workloads.rollouts import team

FOLDER = Path(__file__).parents[1] / "presets" / "rl"
# Ways of weights that are fetched by engines unless said otherwise.
PULLS = ("delta", "object_store")
MERGED = ("interrupt", "updates", "times", "buffer", "switch", "dynamic_sampling", "validation")
# What belongs to a mode, and what to having rounds or none.
OF_A_MODE = ("staleness", "sync", "switch")
OF_ROUNDS = ("interrupt", "redundant", "tail", "reward_at")


def names() -> list[str]:
    """Every preset, sorted."""
    return agents.names(FOLDER)


def load(name: str) -> dict[str, Any]:
    """The keys of a preset. Raises BadInput naming the nearest presets."""
    return agents.load(name, FOLDER)


def complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run with those of its presets below them. Raises BadInput for unknown presets."""
    found = dict(options)
    if isinstance(found.get("preset"), str):
        below = load(found.pop("preset"))
        mode, usual = str(found.get("mode", below["mode"])), below["mode"]
        if mode != usual:
            left = OF_A_MODE if mode.startswith("sync") == usual.startswith("sync") else (*OF_A_MODE, *OF_ROUNDS)
            below = {key: value for key, value in below.items() if key not in left}
        both = {**below, **found}
        for key in MERGED:
            if isinstance(below.get(key), Mapping) and isinstance(found.get(key), Mapping):
                both[key] = {**below[key], **found[key]}
        found = both
    found = team.complete(found)
    mode = str(found.get("mode", ""))
    if mode.startswith("sync"):
        found.setdefault("tail", {"kind": "wait_all"})
    if mode:
        found.setdefault("sync", {"kind": "ipc" if mode == "sync_colocated" else "bucketed"})
    if mode.startswith("sync") and isinstance(found["sync"], Mapping) and found["sync"].get("kind") in PULLS:
        # Between rounds nobody works while weights go out.
        found["sync"] = {"blocking": "blocking", **found["sync"]}
    return found
