"""Keys of pools and trainers where an alternative of a plan has other ones.

`cluster.pools.1.parallel` was written of the pool that is second in the scenario. An alternative may replace all pools or trainers. Of what
it has, the key is that of the one with the same name, wherever it stands; where none has that name, the choice is no choice.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sim.spec.scenario import Pool, Scenario
from sim.spec.trainer import Trainer

REPLACED = ("cluster", "cluster.pools", "cluster.trainers")  # keys that bring other pools or trainers
_NAMES = {"pools": Pool.model_fields["name"].default, "trainers": Trainer.model_fields["name"].default}


def place(data: Mapping[str, Any], many: str, name: str) -> int | None:
    """Where the pool or trainer (`many`: pools, trainers) of a name stands in a scenario as it would be written; None where it does not."""
    cluster = data.get("cluster")
    found = cluster.get(many) if isinstance(cluster, Mapping) else None
    names = [one.get("name", _NAMES[many]) if isinstance(one, Mapping) else None for one in found or ()]
    return names.index(name) if name in names else None


def counterpart(key: str, scenario: Scenario, data: Mapping[str, Any]) -> str | None:
    """A key of the scenario in what became of it; None where its pool or trainer is gone."""
    found = re.fullmatch(r"cluster\.(pools|trainers)\.(\d+)\.(.+)", key)
    if found is None:
        return key
    many: Sequence[Pool | Trainer] = scenario.cluster.pools if found[1] == "pools" else scenario.cluster.trainers
    at = place(data, found[1], many[int(found[2])].name)
    return None if at is None else f"cluster.{found[1]}.{at}.{found[3]}"
