"""A replica's step model while other traffic is on the links of its collectives.

Collectives stay closed form; they are no flows. Where flows take the share x of a link that they use, what is left carries them: the part
of a step that is network takes 1 / (1 - x) times as long, x being the largest share of any of their links. Beside n flows a collective is
one more flow, so x is at most n / (n + 1). The reverse does not hold: flows do not feel collectives, whose bytes are a small part of a
step. A change of x counts from the next step on; a stretch under way ends with the step in flight.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simpy import Environment

from sim.core.record import Table
from sim.core.request import Request
from sim.physics.base import Cost, Work
from sim.physics.step import EngineStep
from sim.physics.topology import Gpus, Topology
from sim.policy.place.base import Slot
from sim.spec.layout import Parallel

if TYPE_CHECKING:
    from sim.world.engine import Engine
    from sim.world.exact import ExactEngine


class Congestion:
    """The step model of one replica, `engine`, while other traffic is there; else it has `model` itself, as at the beginning. Each stretch
    that is slowed down has a row in `record`.
    """

    def __init__(self, env: Environment, index: int, model: EngineStep, record: Table):
        self._env, self._index, self._model, self._record = env, index, model, record
        self.pace = model.pace
        self.engine: Engine | ExactEngine | None = None
        self._share = 0.0

    def changed(self, share: float) -> None:
        """From now on flows take this share of a link of its collectives."""
        self._share = share
        assert self.engine is not None
        self.engine.model = self if share else self._model
        self.engine.poke()

    def step(self, work: Work) -> Cost:
        cost = self._model.step(work)
        more = self._more(cost.network)
        return cost._replace(seconds=cost.seconds + more, network=cost.network + more)

    def line(self, decoders: int, held: int) -> tuple[float, float, int]:
        seconds, slope, steps = self._model.line(decoders, held)
        return seconds + self._more(self._model.network(decoders, ())), slope, steps

    def mixed(self, decoders: int, held: int, chunks: Sequence[tuple[Request, int]]) -> float:
        seconds = self._model.mixed(decoders, held, chunks)
        return seconds + self._more(self._model.network(decoders, [(n, request.computed) for request, n in chunks]))

    def _more(self, network: float) -> float:
        """Seconds that a step takes longer, of which so many are collectives."""
        more = network * self._share / (1.0 - self._share)
        self._record.append((self._index, self._env.now, self._share, more))
        return more


def links(topology: Topology, slots: Sequence[Slot], parallel: Parallel, experts: bool) -> tuple[int, ...]:
    """The links that collectives of a replica on these GPUs keep busy, ascending: of each tensor-parallel group, of the stages of a
    pipeline among each other, and of all GPUs where `experts` are spread over attention groups. None at all on one GPU.
    """
    if experts and parallel.dp > 1:
        return topology.collective(Gpus(tuple(slots)))
    size = parallel.tp * (parallel.pp if parallel.pp > 1 else 1)
    groups = [Gpus(tuple(slots[at : at + size])) for at in range(0, len(slots), size)]
    return tuple(sorted({link for group in groups for link in topology.collective(group)}))
