"""What YAML says of the loop of reinforcement learning, beside rollouts, rewards and gates: publications, updates, stated times.

Seconds, versions and groups. A key left out means that there is nothing of the kind, or that the physics says it.
"""
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.core.units import Seconds
from sim.spec.frozen import Spec
from sim.spec.law import Times

Some = Annotated[int, Field(ge=1, le=10**6)]
Stated = Annotated[Seconds, Field(ge=0, le=10**6)]


class Interrupt(Spec):
    """What a publication does to rollouts under way. `wait`: engines stop at the end of the step in flight (none), when they have finished
    the calls they have (calls), or when all groups that have begun are complete (drain). `kv`: caches of the old weights are kept, or
    computed anew. `abort`: samples are not stopped (never), or called off and go on where they were, begin again, or are dropped.
    """

    wait: Literal["none", "calls", "drain"] = "none"
    kv: Literal["keep", "recompute"] = "recompute"
    abort: Literal["never", "resume", "restart", "drop"] = "never"


class Updates(Spec):
    """How the trainer uses a batch. `trigger` local updates make a version, each on a part of its groups, `epochs` times in `mini_batches`
    steps of the optimizer. `stream`: gradients are summed up as soon as so many groups are ready, while others still run.
    """

    trigger: Some = 1
    epochs: Some = 1
    mini_batches: Some = 1
    stream: Some | None = None

    @model_validator(mode="after")
    def _whole(self) -> Updates:
        if self.stream is not None and (self.epochs > 1 or self.mini_batches > 1):
            raise ValueError("with stream a batch is seen once, as it comes: leave epochs and mini_batches at 1, or stream out")
        return self


class Taking(Spec):
    """Stated seconds of a local update, or of log-probabilities of a batch, in place of what the kernels say: such as measured ones.

    FLOP are still those of the samples, so that an MFU follows.
    """

    update: Times | None = None
    logprob: Times | None = None
    reference: Times | None = None


class Validation(Spec):
    """One after `every` so many versions, which stops trainer and rollouts for `time`."""

    every: Some
    time: Times


class Switch(Spec):
    """Stated seconds for GPUs that trainer and rollouts share to change hands, in place of what the physics says."""

    to_train: Stated | None = None
    to_rollout: Stated | None = None


class BufferOptions(Spec):
    """Of groups that were accepted: in which `order` the trainer takes them, and how many there may be (`cap`, 0: any number)."""

    order: Literal["fifo", "fresh"] = "fifo"
    cap: Annotated[int, Field(ge=0, le=10**9)] = 0
