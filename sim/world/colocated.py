"""GPUs that a trainer shares with the engines of a pool, and how they change hands.

    engines serve -> pause -> asleep | onload -> passes of the trainer -> offload -> publish -> offload | engines awake -> serve

The trainer is `asleep` for exactly as long as the engines are not: what of the switch nobody can work in counts as its `onload` and
`offload`. Requests under way when engines go to sleep wait, and are computed again; who wants them called off does so before.
"""
from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.core.errors import BadInput, Problem
from sim.physics.hybrid import Switch, switch
from sim.world.control import Control
from sim.world.trainer import Trainer

if TYPE_CHECKING:
    from sim.world.cluster import World


class Handed(NamedTuple):
    """Seconds that the GPUs changed hands for, nobody working: `switch`, and `publish` for weights on their way into the engines."""

    switch: float
    publish: float = 0.0


class Hybrid:
    """A trainer and the pool that it shares its GPUs with. `costs` are what the physics says of a switch."""

    def __init__(self, trainer: Trainer, control: Control, costs: Switch):
        self.trainer, self.control, self.costs = trainer, control, costs

    def to_train(self, seconds: float | None = None) -> Generator[Any, Any, Handed]:
        """Have the engines sleep when their steps in flight have ended, and the trainer awake; it waits for work then. The engines may have
        been paused before, and stand still. `seconds`: what the switch takes from there, in place of the physics.
        """
        assert self.trainer.asleep, "the trainer has the GPUs already"
        yield self.control.sleep()
        self.trainer.rouse()
        found = Handed(self.costs.to_train if seconds is None else seconds)
        yield from self.trainer.spend("onload", found.switch)
        return found

    def to_rollout(self, publish: float = 0.0, seconds: float | None = None) -> Generator[Any, Any, Handed]:
        """Have the trainer asleep, and the engines awake with its weights, which takes `publish` seconds; they serve then. `seconds`: what
        all of it takes, published weights included, in place of the physics and of `publish`.
        """
        assert not self.trainer.asleep, "the engines have the GPUs already"
        if seconds is not None:
            found = Handed(seconds)
            yield from self.trainer.spend("offload", seconds)
        else:
            costs, found = self.costs, Handed(self.costs.to_rollout, publish)
            yield from self.trainer.spend("offload", costs.offload + costs.weights)
            yield from self.trainer.spend("publish", publish)
            yield from self.trainer.spend("offload", costs.kv)
        self.trainer.rest()
        self.control.wake()
        self.control.resume()
        return found


def hybrid(world: World, trainer: Trainer, control: Callable[[str], Control]) -> Hybrid:
    """The hand-over of a trainer's GPUs; `control` gives that of a pool. Raises BadInput for a trainer with GPUs of its own."""
    shares = trainer.spec.shares
    if shares is None:
        what = f"trainer {trainer.spec.name} has GPUs of its own, which do not change hands; write shares: POOL"
        raise BadInput([Problem(what, "cluster.trainers")])
    weights = next(one.opened.memory.weights for one in world.lifecycles if one.pool.name == shares)
    return Hybrid(trainer, control(shares), switch(trainer.model, weights))
