"""Scenarios in which somebody trains: a process beside the workloads pauses pools, changes their weights and puts them to sleep."""
from __future__ import annotations

from unittest import mock

import sim
from sim.study.result import Result
from sim.world.cluster import World
from sim.world.control import Control


class Trained(World):
    """A world with a process of its own: `drive(world, controls)` gets the control of each pool."""

    drive = None

    def start(self):
        remarks = super().start()
        controls = [Control(self, lifecycle, self._moved) for lifecycle in self.lifecycles]
        self.controls = {pool.name: (0, control) for pool, control in zip(self.scenario.cluster.pools, controls, strict=True)}
        self.env.process(type(self).drive(self, controls))
        return remarks

    def _moved(self, order):
        return self.deliveries.begin("trainer", order)


def run(scenario, drive) -> Result:
    """The result of a scenario while `drive` goes on beside it."""
    with mock.patch("sim.study.run.World", type("Trained", (Trained,), {"drive": staticmethod(drive)})):
        return sim.run(scenario)
