"""Checkpoints of a trainer: copied out of the GPUs while it stands still, and then on their way to a store, with it waiting or not."""
from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from sim.core.transfer import Transfer
from sim.core.units import Seconds
from sim.spec.frozen import Spec

if TYPE_CHECKING:
    from workloads.base import Client


class Checkpoint(Spec):
    """One after `every` so many steps. `time`: how long the trainer stands still for its copy, by default as long as it takes over PCIe.

    To a `store` of the network it then travels: `asynchronous`, behind the next steps, at most one at a time; else the trainer waits.
    """

    every: Annotated[int, Field(ge=1, le=10**9)]
    time: Annotated[Seconds, Field(ge=0)] | None = None
    store: str = ""
    asynchronous: bool = False

    @model_validator(mode="after")
    def _sent(self) -> Checkpoint:
        if self.asynchronous and not self.store:
            raise ValueError("asynchronous is how a checkpoint goes to a store; name one, or give time for what stops the trainer")
        return self


def written(world: Client, trainer: Any, wanted: Checkpoint, before: Any) -> Generator[Any, Any, Any]:
    """Write a checkpoint, once the one `before` is there (an event, or None); the event of what is still under way then."""
    trainer.enter("checkpoint")
    if before is not None and not before.processed:
        yield before
    pause = wanted.time if wanted.time is not None else trainer.model.checkpoint_seconds()
    if pause:
        yield world.env.timeout(pause)
    if not wanted.store:
        return None
    sent = world.transfer(Transfer("checkpoint", trainer.spec.name, wanted.store, trainer.model.checkpoint_bytes()))
    if not wanted.asynchronous:
        yield sent
        return None
    return sent
