"""Dynamic sampling (DAPO): groups whose answers are all right or all wrong have no gradient, and others are generated in their place.

`batch`, as in verl: whole batches of prompts, one after the other, until enough groups are valid; what is beyond that is discarded.
`stream`, as in slime: so many groups are kept running, the invalid are dropped as they end, and all that run are aborted once there are
enough. Asynchronous loops have it easier (SkyRL's `sample_full_batch`, AReaL): who is rejected makes room under the gate; `spent` is for
them.

A filter that accepts nothing must not run for ever: after `max_num_gen_batches` it is over, and that is said.
"""
from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from sim.core.rollout import Group
from sim.spec.frozen import Spec


class More(NamedTuple):
    """So many groups are to be launched now; `spent`: none are, there are not enough, and the bound forbids more."""

    groups: int
    spent: bool


class DynamicSampling(Spec):
    """A batch has `gen_batch_factor` times the groups wanted, rounded up, and as many run in a stream. `surplus` says what becomes of
    groups that are valid and not needed, `rest` of those in a stream that run when there are enough.
    """

    style: Literal["batch", "stream"] = "batch"
    gen_batch_factor: Annotated[float, Field(ge=1, le=1000)] = 3.0
    max_num_gen_batches: Annotated[int, Field(ge=1, le=10**6)] = 10
    surplus: Literal["discard", "keep"] = "discard"
    rest: Literal["drop", "resume"] = "drop"

    @model_validator(mode="after")
    def _used(self) -> DynamicSampling:
        if self.style == "batch" and self.rest == "resume":
            raise ValueError("rest says what becomes of groups that still run, and with style batch none does: take style stream")
        return self

    def gen_batch(self, wanted: int) -> int:
        """Groups launched at a time, where the trainer wants so many."""
        return math.ceil(self.gen_batch_factor * wanted - 1e-9)

    def accepts(self, group: Group) -> bool:
        """Whether a group that is scored has anything to teach: rewards that differ, of those that are not masked."""
        rewards = [one.reward for one in group.kept if not one.masked]
        return len(set(rewards)) > 1

    def more(self, wanted: int, valid: int, running: int, launched: int) -> More:
        """What to launch for a step that wants so many groups, of those `valid`, those `running` and those `launched` for it so far."""
        if valid >= wanted:
            return More(0, False)
        size = self.gen_batch(wanted)
        left = self.max_num_gen_batches * size - launched
        groups = min(size - running, left) if self.style == "stream" else min(size, left) if not running else 0
        return More(max(groups, 0), not running and groups <= 0)

    def spent(self, wanted: int, valid: int, started: int) -> bool:
        """Whether an asynchronous loop, which started so many groups since the trainer got its last, is to give up."""
        return valid < wanted and started >= self.max_num_gen_batches * self.gen_batch(wanted)

    def why(self, wanted: int, valid: int, launched: int) -> str:
        """What to say then."""
        return (
            f"dynamic sampling gave up: of {launched} groups {valid} were neither all right nor all wrong, and {wanted} are wanted "
            f"(max_num_gen_batches {self.max_num_gen_batches}, of {self.gen_batch(wanted)} groups each)"
        )

    def batches(self, wanted: int, share: float) -> float:
        """Mean number of batches until enough groups are valid or the bound is reached, where each is with this chance: the sum over k
        of P(Binomial(k size, share) < wanted).
        """
        return 1.0 + sum(self._short(wanted, share, k) for k in range(1, self.max_num_gen_batches))

    def gives_up(self, wanted: int, share: float) -> float:
        """The chance that the bound is reached with too few."""
        return self._short(wanted, share, self.max_num_gen_batches)

    def generated(self, wanted: int, share: float) -> float:
        """Mean groups launched per step: in batches, whole ones; in a stream of equal lengths, the wanted / share that must end and those
        that still run then. The bound, and groups that were kept, are left out of the latter.
        """
        if self.style == "batch":
            return self.batches(wanted, share) * self.gen_batch(wanted)
        return wanted / share + self.gen_batch(wanted) - 1.0 if share else math.inf

    def _short(self, wanted: int, share: float, batches: int) -> float:
        from scipy import special

        return float(special.bdtr(wanted - 1, batches * self.gen_batch(wanted), share))
