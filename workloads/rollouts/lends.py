"""GPUs of rollouts that serve others between two rounds: while rewards are in and the trainer works, engines would stand idle.

The pool of the rollouts shares its GPUs with another one (`shares` in the scenario's pools, on either side). It gives them up when a round
is over, and has them back before a new version goes out, so that all its replicas get that. What the other pool takes to give them up is
part of the step, as `switch`. After the last version the GPUs stay with the other pool.

A round ends in a long tail. With `tail`, replicas that idle in it are given up one by one, all but the last (RollPacker hands such GPUs to
the trainer); answers that are under way stay where they are.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sim.core.ledger import Ledger
from sim.spec.frozen import Spec
from workloads.rollouts.options import Some

if TYPE_CHECKING:
    from workloads.rl import Rl
    from workloads.rollouts.learner import Learner
    from workloads.rollouts.rounds import Exchange

Steps = Generator[Any, Any, None]


class Lends(Spec):
    """So many `replicas` of those that the pool shares are given up between rounds, or earlier: from when no more than a share `tail` of a
    batch's groups are still generated.
    """

    replicas: Some | None = Field(None, description="default: all that are shared")
    tail: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="default: none before the round is over")


class Lent:
    """What goes on between trainer and engines (`exchange`), with GPUs given up meanwhile; `shared`: the sharing of a pool, its name."""

    def __init__(self, run: Rl, learner: Learner, ledger: Ledger, exchange: Exchange, shared: tuple[Any, str]):
        assert run.lends is not None
        self._run, self._learner, self._exchange = run, learner, exchange
        self._sharing, self._pool = sharing, pool = shared
        borrows = sharing.borrower.pool.name == pool
        self._give, self._get = (sharing.take_back, sharing.lend) if borrows else (sharing.lend, sharing.take_back)
        if borrows:
            self._get()
        self._all: int = sharing.has(pool)
        self._count: int = min(run.lends.replicas or self._all, self._all)
        if run.lends.tail is not None:
            most = run.lends.tail * run.prompts
            sharing.idles = lambda of: of == pool and ledger.running <= most and self._left > 0

    @property
    def _left(self) -> int:
        """Replicas that are still to be given up."""
        has: int = self._sharing.has(self._pool)
        return self._count - (self._all - has)

    def to_train(self) -> Steps:
        """The round is over: others may use the GPUs of its engines."""
        yield from self._exchange.to_train()
        self._give(self._left)

    def publish(self) -> Steps:
        """Engines have their GPUs back and a new version; after the last one others have them for good."""
        yield from self._learner.spent("switch", self._back())
        yield from self._exchange.publish()
        if self._learner.step.version >= self._run.steps:
            self._give(self._left)

    def _back(self) -> Steps:
        yield self._get()
