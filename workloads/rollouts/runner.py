"""Who brings trajectories to their ends: begins one, tells how far it is, calls it off, and lets it go on.

An end is told by a callback that the runner is built with, after `length`, `turns`, `cut` and `masked` of the trajectory have been set, and
not at all for what was called off. Trajectories are data; a runner keeps what it needs of one in its `work`.
"""
from __future__ import annotations

from typing import Protocol

from sim.core.rollout import Prompt, Trajectory


class Runner(Protocol):
    """Runs trajectories of one workload."""

    def begin(self, trajectory: Trajectory, prompt: Prompt) -> None:
        """Start it now, from nothing."""

    def progress(self, trajectory: Trajectory) -> int:
        """Tokens generated for it by now, since it last began; also just when it has ended."""

    def stop(self, trajectory: Trajectory) -> None:
        """It is called off, or not wanted any more where it was put by: its end is not told, and nothing of it is kept."""

    def park(self, trajectory: Trajectory) -> None:
        """It is put by, and may go on later: what is under way is called off, its end is not told."""

    def resume(self, trajectory: Trajectory) -> bool:
        """Go on where it was put by; False, and nothing happens, where it was not."""

    def close(self) -> None:
        """The clock has stopped: tell of tokens that came out of steps in flight, and nobody heard of by then."""

    def running(self) -> int:
        """Trajectories under way."""
