"""Presets of agents driven through a world without engines, where models and sandboxes answer at once: what is drawn, and nothing lost."""
from __future__ import annotations

import numpy as np
import pandas as pd

from tests.unit.driven import World, driven
from workloads.fitting.stand_in import granted


class Drawn:
    """`calls`, `agents` and `tools` of so many sessions of a preset, each a frame; labels are words."""

    def __init__(self, preset, sessions, seed=1, pool="swe"):
        world = World(seed=seed, service=lambda request: 0.01)
        world.pools[pool] = lambda image: granted(world.env)
        driven({"kind": "agents", "name": "x", "preset": preset, "rate": 1, "num_sessions": sessions}, world)
        self.agents, calls, self.tools = (self.frame(world.tables[name]) for name in ("agents", "turns", "tool_calls"))
        calls["output"] = [world.requests[number].output for number in calls["request"]]
        calls["root"] = [world.requests[number].program for number in calls["request"]]
        self.calls = calls.sort_values(["agent", "request"])
        self.tools["seconds"] = self.tools["end"] - self.tools["start"]

    def frame(self, table):
        return pd.DataFrame({
            column.name: [table.labels[column.name][code] for code in table[column.name]] if column.name in table.labels
            else np.asarray(table[column.name]) for column in table.columns
        })  # fmt: skip
