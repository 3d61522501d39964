"""Pools of sandboxes: CPU nodes, and the containers or microVMs on them in which agents run their commands.

A sandbox holds memory from the moment it is placed until it is given back, busy or not; cores it needs only while commands run. What its
node reserves for it is `limit` where there is one, else `memory.base`, over `oversubscription.memory`, and `cores` over
`oversubscription.cpu`. Measured anchors of the guide to agents: images of 2.9 to 17.3 GB, half of them up to 3.5 GB; 185 MB of memory with
bursts of 0.5 to 4 GB for 1-2 s; 8-13 % of a core (AgentCgroup); 2-3 s to restore a snapshot (rLLM); 16 boots at a time (slime).
"""
from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sim.core.errors import BadInput, Problem
from sim.core.rng import Luck, mix
from sim.core.units import Bytes, Seconds, Speed
from sim.spec import tenants
from sim.spec.cpu_node import CpuNode, Size, large, preset
from sim.spec.frozen import Spec
from sim.spec.law import Law, Sizes, Times
from sim.spec.prices import book
from sim.spec.profile import Figure
from sim.spec.scaling import Autoscale

if TYPE_CHECKING:
    from sim.spec.scenario import Scenario

Count = Annotated[int, Field(ge=1, le=100_000)]
Most = Annotated[int, Field(ge=1, le=1_000_000)]
OrNone = Annotated[int, Field(ge=0, le=1_000_000)]
Limit = Annotated[Seconds, Field(gt=0)]
Factor = Annotated[float, Field(ge=1, le=1000)]
Share = Annotated[float, Field(gt=0, lt=1)]
NOTHING = Law(value=0.0)
# The three figures measured; between them a judgement.
MEASURED = Law(dist="quantiles", points=((0.0, 2.9e9), (0.5, 3.5e9), (1.0, 17.3e9)))


class Memory(Spec):
    """Of one sandbox, in bytes. A plain size is all it ever takes: `memory: 512MB`."""

    base: Size = Field(description="held from its placing to its end, busy or idle")
    burst: Sizes = Field(NOTHING, description="what a command takes beside it, from its begin on")
    burst_time: Times | None = Field(None, description="for so long; default: as long as the command runs")

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | Memory) else {"base": value}

    @model_validator(mode="after")
    def _used(self) -> Memory:
        if self.burst_time is not None and self.burst == NOTHING:
            raise ValueError("burst_time is given, but no burst; say how much memory a command takes, such as burst: 800MB")
        return self


class Images(Spec):
    """Root file systems of sandboxes. A node that has pulled one keeps it, up to `cache` of its disk; the one unused longest goes first.

    `zipf`: the image that is n-th in popularity is asked for in proportion to n^-zipf; 0: numbers are taken as they come, in turn.
    """

    count: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    size: Sizes = MEASURED
    zipf: Annotated[float, Field(ge=0, le=5)] = 0.0
    store: str | None = Field(None, description="store of the network that they come from; default: from beside the node")
    bandwidth: Speed = Field(1e9, description="bytes/s that one node pulls and unpacks, shared by its pulls; default: 1GB/s, a judgement")
    cache: Share = Field(0.5, description="of a node's disk")

    @model_validator(mode="after")
    def _several(self) -> Images:
        if self.zipf and self.count == 1:
            raise ValueError("zipf says which of several images are popular, but there is one; give a count, or leave it out")
        return self

    def sizes(self, key: int) -> list[float]:
        """Bytes of each image; `key` is the pool's luck."""
        return [self.size.at(Luck(mix(key ^ 0x1111, number)).next()) for number in range(self.count)]

    def number(self, key: int, wanted: int) -> int:
        """Which image somebody means by a number >= 0, such as that of a task."""
        if not self.zipf:
            return wanted % self.count
        return self.at(Luck(mix(key ^ 0x2222, wanted)).next())

    def at(self, share: float) -> int:
        """The image that this share of all that is asked for stays within, the most popular first."""
        return bisect_left(self._ends, share * self._ends[-1])

    @cached_property
    def _ends(self) -> list[float]:
        return list(accumulate((rank + 1) ** -self.zipf for rank in range(self.count)))


class Snapshot(Spec):
    """A sandbox that pauses is written to its node's disk, and gives back memory and cores; `restore` brings it back."""

    restore: Times
    save: Times = NOTHING


class Exec(Spec):
    """How commands get into sandboxes. The default overhead is a judgement; `kubectl exec` was seen to take 2.5 s at thousands of them."""

    slots: Count | None = Field(None, description="commands of a node at a time; default: no limit")
    overhead: Seconds = Field(0.05, ge=0, le=3600, description="before each command begins; it has a slot meanwhile")


class Oversubscription(Spec):
    """What may be reserved on a node, over what it has. Memory that is used never exceeds the node's: who would exceed it is killed."""

    cpu: Factor = 1.0
    memory: Factor = 1.0


class NodeScale(Autoscale):
    """Nodes that come and go. The policy sees sandboxes: `in_flight` are placed, `held` wait for a place; `kv` is the share of memory
    reserved, `busy` that of cores at work. A node goes when its last sandbox has ended.
    """

    provision: Times = Field(NOTHING, description="from wanted, and paid, to ready")


class SandboxPool(Spec):
    """Sandboxes that are alike, on nodes that are alike. Those who find no place wait in line."""

    name: Annotated[str, Field(min_length=1)] = "sandboxes"
    nodes: Count | None = Field(None, description="how many; or say autoscale")
    autoscale: NodeScale | None = None
    node: CpuNode
    kind: Literal["container", "microvm"] = Field("container", description="a microvm keeps memory that a burst took, until its end")
    cores: Annotated[float, Field(ge=0, le=100_000)] = Field(1.0, description="requested; a command may use more or less")
    memory: Memory
    limit: Size | None = Field(None, description="most memory of one: a command that wants more is killed")
    disk: Annotated[Bytes, Field(ge=0), AfterValidator(large)] = Field(0.0, description="what it may write beside its image")
    images: Images | None = Field(None, description="default: every node has all there are")
    boot: Times = Field(description="from the image being there to being ready")
    boot_concurrency: Count = Field(16, description="boots of a node at a time")
    boot_timeout: Limit | None = Field(None, description="from its placing; beyond, it is given up")
    fail: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of boots that come to nothing: seen at the time-out, if any")
    snapshot: Snapshot | None = None
    warm: OrNone = Field(0, description="sandboxes kept ready beside those asked for, refilled in the background")
    exec: Exec = Exec()
    idle_timeout: Limit | None = Field(None, description="without a command; then it is paused where there are snapshots, else taken away")
    crash: Annotated[float, Field(ge=0, le=3600)] = Field(0.0, description="crashes per hour of a sandbox")
    oversubscription: Oversubscription = Oversubscription()
    quota: dict[str, Most] = Field(default_factory=dict, description="most sandboxes of a workload at a time; more are refused")
    max_queue: OrNone | None = Field(None, description="sandboxes that wait for a place; more are refused; default: no limit")
    place: Literal["bin_pack", "spread", "image"] = Field("bin_pack", description="image: a node that has it, else the emptiest")
    price_per_hour: Annotated[float, Field(ge=0, le=1e6)] | None = Field(None, description="dollars per node; default: the price book's")

    @property
    def reserved(self) -> float:
        """Bytes of memory that a node reserves for one sandbox."""
        return self.limit or self.memory.base

    @property
    def storage(self) -> float:
        """Bytes of a node's disk for what sandboxes write and for snapshots: what images leave."""
        return self.node.disk * (1.0 - (self.images.cache if self.images else 0.0))

    @property
    def slots(self) -> int:
        """Sandboxes that a node has room for."""
        over, node = self.oversubscription, self.node
        parts = [node.memory * over.memory / self.reserved, node.memory / self.memory.base]
        parts += [node.cores * over.cpu / self.cores] if self.cores else []
        parts += [self.storage / self.disk] if self.disk else []
        return math.floor(min(parts) * (1 + 1e-9))

    def key(self, seed: int) -> int:
        """What its luck derives from."""
        return int.from_bytes(hashlib.sha256(f"{seed} sandboxes.{self.name}".encode()).digest()[:8], "little")

    @model_validator(mode="after")
    def _starts(self) -> SandboxPool:
        if self.boot_timeout is not None and self.boot.at(0.0) >= self.boot_timeout:
            raise ValueError(f"a boot takes at least {self.boot.at(0.0):g} s, so that each ends at boot_timeout ({self.boot_timeout:g} s)")
        takes = self.memory.base + self.memory.burst.at(0.0)
        if self.limit is not None and takes > self.limit >= self.memory.base:
            raise ValueError(f"limit ({self.limit:g} bytes) is below memory.base and burst together ({takes:g}): every command is killed")
        return self

    @model_validator(mode="after")
    def _sized(self) -> SandboxPool:
        if (self.nodes is None) == (self.autoscale is None):
            raise ValueError("give nodes, how many there are, or autoscale, one of the two")
        if self.limit is not None and self.limit < self.memory.base:
            raise ValueError(f"limit ({self.limit:g} bytes) is below memory.base ({self.memory.base:g} bytes): it would never start")
        node, over = self.node, self.oversubscription
        for what, needs, has in (
            ("cores", self.cores, node.cores * over.cpu), ("bytes of memory", self.reserved, node.memory * over.memory),
            ("bytes of memory", self.memory.base, node.memory), ("bytes of disk", self.disk, self.storage),
        ):  # fmt: skip
            if needs > has * (1 + 1e-9):
                raise ValueError(f"a node is smaller than one sandbox: it has {has:g} {what} for sandboxes, and one needs {needs:g}")
        most = self.slots * (self.nodes or (self.autoscale.max if self.autoscale else 0))
        if self.warm > most:
            raise ValueError(f"warm ({self.warm}) is more than the {most} sandboxes that all nodes have room for")
        if self.place == "image" and self.images is None:
            raise ValueError("place image prefers nodes that have the image, but there are no images to pull; add images, or leave it out")
        return self


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise ValueError("found a mapping; a list of pools is wanted, such as sandboxes: [{name: swe, nodes: 4, ...}]")
    return value


def _apart(pools: tuple[SandboxPool, ...]) -> tuple[SandboxPool, ...]:
    names = [pool.name for pool in pools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two pools of sandboxes are named {', '.join(twice)}; their names must differ")
    return pools


Pools = Annotated[tuple[SandboxPool, ...], BeforeValidator(_listed), AfterValidator(_apart)]


def problems(scenario: Scenario) -> Iterator[Problem]:
    """What is wrong between pools of sandboxes and the rest: stores there are not, images larger than any node keeps."""
    yield from tenants.problems(scenario)
    network = scenario.cluster.network
    for number, pool in enumerate(scenario.cluster.sandboxes):
        here, images = f"cluster.sandboxes.{number}", pool.images
        yield from _unpriced(scenario, pool, here)
        if images is None:
            continue
        if images.store is not None and network is None:
            message = f"found '{images.store}', but there is no network; write cluster.network with this store, or leave it out"
            yield Problem(message, f"{here}.images.store")
        elif images.store is not None and network is not None:
            try:
                network.store(images.store)
            except BadInput as error:
                yield from (problem._replace(path=f"{here}.images.store") for problem in error.problems)
        sizes, room = images.sizes(pool.key(scenario.seed)), pool.node.disk * images.cache
        if (largest := max(sizes)) > room:
            what = f"image {sizes.index(largest)} of {images.count} is {largest:.4g} bytes, larger than any node's disk has room for"
            yield Problem(f"{what}: images have {room:.4g} bytes of it (cache {images.cache:g})", f"{here}.images.size")


BOOKED = ("vcpu_hour", "ram_gb_hour")


def node_price(scenario: Scenario, pool: SandboxPool) -> tuple[float | None, dict[str, Figure]]:
    """Dollars per node-hour and where they come from: the pool's own price, the book's for cores and memory, or the node's of the
    catalogue; None where nobody says. Raises BadInput for a book that is not there.
    """
    if pool.price_per_hour is not None:
        return pool.price_per_hour, {}
    if scenario.prices is not None:
        known = book(scenario.prices.book)
        vcpu, ram = (known.others.get(key) for key in BOOKED)
        price = None if vcpu is None or ram is None else vcpu * pool.node.cores + ram * pool.node.memory / 1e9
        return price, {key: known.figures[key] for key in BOOKED if key in known.others}
    if pool.node.preset is None:
        return None, {}
    listed = preset(pool.node.preset)
    return listed.price_per_hour, {"price_per_hour": listed.figures["price_per_hour"]}


def _unpriced(scenario: Scenario, pool: SandboxPool, here: str) -> Iterator[Problem]:
    if scenario.prices is None or pool.price_per_hour is not None:
        return
    try:
        known = book(scenario.prices.book)
    except BadInput:
        return
    lacking = [key for key in BOOKED if key not in known.others]
    if lacking:
        message = f"price book {known.name} has no {' and no '.join(lacking)}, and this pool runs on CPU nodes"
        yield Problem(f"{message}; add {{value: dollars, source: ...}} to it, or give the pool a price_per_hour, in dollars per node", here)
