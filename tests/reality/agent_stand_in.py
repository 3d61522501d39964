"""Presets of agents driven through a world without engines, where models and sandboxes answer at once: what is drawn, and nothing lost."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import simpy

from tests.unit.driven import World, driven


class Lease:
    """A sandbox in which commands take the time they take."""

    open = True

    def __init__(self, env):
        self.env = env

    def run(self, seconds, cores, timeout):
        outcome = "ok" if timeout is None or seconds <= timeout else "timeout"
        return self.env.timeout(min(seconds, timeout or seconds), SimpleNamespace(outcome=outcome, queued=0.0))

    def hang(self, timeout):
        return self.env.timeout(timeout, SimpleNamespace(outcome="timeout", queued=0.0))

    def pause(self):
        pass

    def release(self):
        pass


class Ask(simpy.Event):
    def withdraw(self):
        pass


class Drawn:
    """`calls`, `agents` and `tools` of so many sessions of a preset, each a frame; labels are words."""

    def __init__(self, preset, sessions, seed=1, pool="swe"):
        world = World(seed=seed, service=lambda request: 0.01)
        world.pools[pool] = lambda image: Ask(world.env).succeed(Lease(world.env))
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
