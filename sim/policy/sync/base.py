"""How new weights come from a trainer to the engines, after every version: what is sent which way, and who stands still meanwhile.

A kind of sync decides without a clock. It is told who sends and who receives, and plans: what the trainer does before anything moves, what
coordination costs, how bytes travel, and what the engines need to take them in. Its `blocking` says who waits for what:

    blocking    engines stand still from when the trainer has its weights together to the end of the sync
    in_flight   they go on while bytes move, and stand still for `load` alone
    pull        the trainer goes on once it has handed the weights to a relay beside it, whence engines fetch them

Seconds rest on stated rates and on costs of single messages and tensors (`sim.physics.weight_sync`): most ways come nowhere near the rate
of the line. Weights are quantised on the way where engines keep fewer bits, at the speed of memory, which is left out.
"""
from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

Blocking = Literal["blocking", "in_flight", "pull"]


class Ends(NamedTuple):
    """Who sends and who receives. Rates are bytes/s one way, of one GPU.

    `weights`: bytes of the model as the trainer has it, in 16 bits; `served`: of one replica, in its engine's precision; `tensors`: named
    parameters; `gather`: seconds for the trainer to bring them together. `replicas` of `gpus` each; on as many nodes as said. `nic`: the
    slower of the network cards of both ends, as `pcie` and `nvlink` are of those links, 0: none. `colocated`: both are the same GPUs;
    `same_node`: they are different GPUs of one node.
    """

    weights: float
    served: float
    tensors: int
    gather: float
    senders: int
    sender_nodes: int
    replicas: int
    gpus: int
    receiver_nodes: int
    nic: float
    pcie: float
    nvlink: float
    colocated: bool
    same_node: bool = False

    @property
    def receivers(self) -> int:
        return self.replicas * self.gpus


class Order(NamedTuple):
    """What a `sim.core.transfer.Transfer` is made of: its algorithm, bytes of a piece (None: one piece), bytes to each replica."""

    algorithm: str
    chunk: float | None
    size: float | None


class Plan(NamedTuple):
    """Seconds of one sync. `gather`: the trainer stands still before anything moves, for what is not hidden behind the move; where engines
    pull, it hands over in it. `fixed`: coordination, before the move. `move`: on the wire and through hosts, where the scenario has no
    network. `order`: with one, the flows that take the place of `move`; None: `move` holds there too, as it does not enter the network of
    the scenario. `load`: each engine takes the weights in.
    """

    gather: float
    move: float
    order: Order | None
    load: float
    fixed: float

    @property
    def seconds(self) -> float:
        """From the trainer's last step to engines that serve the new version, all else waiting."""
        return self.gather + self.fixed + self.move + self.load


class Sync(Protocol):
    """What is not said below holds for kinds that leave no choice."""

    @property
    def blocking(self) -> Blocking:
        return "blocking"

    @property
    def store(self) -> str:
        """The store of the network, by name, that `order` goes to from the trainer, and from there to each replica; empty: none."""
        return ""

    def plan(self, ends: Ends) -> Plan:
        """What one sync takes. Raises BadInput, at the path `sync.kind`, where these ends cannot do it this way."""
        ...
