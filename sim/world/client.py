"""The world as one workload sees it: what it may send, ask for, move and note, and whose luck it has."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from simpy import Event

from sim.core.content import Content
from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.request import Request
from sim.core.transfer import Transfer
from sim.policy.ends import ends
from sim.policy.sync.base import Ends
from sim.world.colocated import Hybrid, hybrid
from sim.world.control import Control, controlled
from sim.world.sandboxes.lease import Ask
from sim.world.sharing import Sharing, shared
from sim.world.trainer import Trainer

if TYPE_CHECKING:
    from sim.world.cluster import World

# Sessions that one workload may have; numbers of different ones do not meet.
SESSIONS = 10**9


class Client:
    """The world as one workload sees it; its random streams are its own."""

    __slots__ = (
        "_adapters", "_named", "_number", "_prefix", "_priority", "_tables", "_world", "call", "env", "keys", "name", "pool", "submit",
    )  # fmt: skip

    def __init__(self, world: World, who: tuple[int, str], pools: Sequence[str]):
        self._world = world
        self._number, self.name = number, name = who
        door = world.attempts.get(number) or world.chains.get(number, world.door)
        self.env, self.submit, self.call, self.keys = world.env, door.submit, door.call, world.keys
        self.pool = pools[0] if len(pools) == 1 else ""
        self._adapters = world.adapters(number, name, pools)
        self._tables, self._named = world.recorder.tables, number * SESSIONS
        workload = world.workloads[number]
        self._priority, length = workload.priority, workload.shared_prefix
        self._prefix = Content((self.keys(1),), (length,), length) if length else None

    @property
    def where(self) -> str:
        """The dotted key of this workload in the scenario."""
        return f"workloads.{self._number}"

    def rng(self, name: str) -> np.random.Generator:
        return self._world.rng(f"{self.name}.{name}")

    def number(self) -> int:
        """A number for a session or an agent that none of another workload has: they count from a billion times the workload's own."""
        self._named += 1
        return self._named - 1

    def service(self, model: str) -> int:
        """The `service` of requests that ask for one of the workload's further `models`."""
        return self._world.service(self._number, model)

    def cancel(self, request: Request, reason: str = "cancelled") -> None:
        """The request is not wanted any more: it leaves, wherever it is, and fails for that reason, unless it has ended."""
        self._world.door.cancel(request, reason)

    def note(self, table: str, row: tuple[Any, ...]) -> None:
        """Add a row to a table of facts: something has happened, so that the run goes on at least to now."""
        self._tables[table].append(row)
        recorder = self._world.recorder
        recorder.last = max(recorder.last, self.env._now)

    def label(self, table: str, column: str, text: str) -> int:
        """The code of a category of a table of facts."""
        return self._tables[table].label(column, text)

    def sandbox(self, pool: str, image: int = 0) -> Ask:
        """Ask for a sandbox of a pool; `image` numbers what it is for, such as a task. The event succeeds with a `Lease` when it is ready,
        or with a `Refusal`. Raises BadInput when there is no such pool.
        """
        return self._world.sandboxes.ask(pool, image, (self._number, self.name))

    def closing(self, call: Callable[[], None]) -> None:
        """Have something done when the clock has stopped."""
        self._world.closing.append(call)

    def control(self, pool: str) -> Control:
        """What a workload that trains may do to the replicas of a pool. Raises BadInput where it may not."""
        return controlled(self._world, self._number, pool, self.transfer)

    def sharing(self, pool: str) -> Sharing:
        """How a workload that trains lends the GPUs of a pool that shares them, and takes them back. Raises BadInput where it may not."""
        return shared(self._world, self._number, pool)

    def trainer(self, name: str) -> Trainer:
        """A trainer of the cluster, the only one where the name is empty. Raises BadInput when there is none."""
        known = self._world.trainers
        if name not in known and (name or len(known) != 1):
            near = did_you_mean(name, known) if known else "write cluster.trainers"
            raise BadInput([Problem(f"no trainer is named '{name}'; {near}", f"workloads.{self._number}.trainer")])
        found = known[name] if name else next(iter(known.values()))
        found.driver = found.driver or self.name
        return found

    @property
    def networked(self) -> bool:
        """Whether bytes that are moved take links of a network."""
        return self._world.deliveries is not None

    def ends(self, trainer: Trainer, pool: str) -> Ends:
        """A trainer and the replicas of a pool, as ends of a weight sync."""
        opened = next(one.opened for one in self._world.lifecycles if one.pool.name == pool)
        return ends(trainer.model, opened.pool, opened.pool.replicas, trainer.spec.shares == pool)

    def remark(self, text: str) -> None:
        """Something that the result says of the run, beside its figures."""
        self._world.remarks.append(f"{self.name}: {text}")

    def hybrid(self, name: str) -> Hybrid:
        """How GPUs change hands between a trainer that shares those of a pool and its engines. Raises BadInput where it shares none."""
        return hybrid(self._world, self.trainer(name), self.control)

    def transfer(self, order: Transfer) -> Event:
        """Move bytes over the network; the event succeeds when all receivers have them. Raises BadInput without a network."""
        if self._world.deliveries is None:
            raise BadInput([Problem("there is no network to move bytes over; write cluster.network", f"workloads.{self._number}")])
        return self._world.deliveries.begin(self.name, order)

    def request(
        self, prompt: int, output: int, session: int = -1, content: Content | None = None, reply: int = 0
    ) -> Request:
        request = Request(-1, self.env._now, prompt, output, self._number, session)
        if content is not None:
            request.content, request.reply = content, reply
        elif self._prefix is not None:
            whole = self._prefix
            request.content = whole if whole.common <= prompt else Content(whole.keys, (prompt,), prompt)
        if self._priority:
            request.priority = self._priority
        if self._adapters is not None:
            self._adapters.put_on(request)
        return request
