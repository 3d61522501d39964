"""Bytes that are moved while requests are served: weights to replicas after each update, checkpoints to a store, any copy.

It sends no requests. A transfer begins every so often, or when the one before it is complete if that is later; engines go on meanwhile and
feel it only on the links that they share. What spreads over many receivers is told by `algorithm` (`world/broadcast.py`).
"""
from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from sim.core.transfer import Transfer
from sim.core.units import Bytes, Speed, parse
from sim.spec.patience import Patience
from workloads._adapters import Adapters
from workloads.base import Client, Count, NonNegativeSeconds, PositiveSeconds

CHUNK, FANOUT = 64e6, 2
MOST, PIECES = 1e18, 10**6
# Of what `weights` means, whose size is not known here.
LARGEST_MODEL = 4e12


def _size(value: Any) -> Any:
    if value == "weights":
        return value
    size = parse(value, "size")
    if size <= 0:
        raise ValueError(f"found {value!r}; a size above 0 is wanted, such as 16GB, or `weights`")
    if size > MOST:
        raise ValueError(f"found {value!r}; a size of at most {MOST:g} bytes is wanted, the most that is simulated")
    return size


Size = Annotated[float | Literal["weights"], BeforeValidator(_size)]
End = Annotated[str, Field(min_length=1)]


@dataclass(kw_only=True)
class Transfers:
    """From `source` to `target`, each the name of a pool or of a store of the network: the first ready replica of a pool sends, and all its
    ready replicas receive. `bytes` to each of them: a size, or `weights` of the receiving pool's model (or the sending one's).

    `times` in all, or as many as begin in [start, start + duration), one `every` so often. `algorithm`: direct, to all at once; tree, to
    `fanout` at a time who then hand it on; binomial, to one after another; pipeline, along a chain. All but direct go in pieces of `chunk`
    bytes. `weight` and `priority` are those of its flows beside others, and `bandwidth` the most that one of them gets.
    """

    closed_loop: ClassVar[bool] = True
    sends: ClassVar[bool] = False
    programs: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    shared_prefix: ClassVar[int] = 0
    model: ClassVar[str] = ""
    adapters: ClassVar[Adapters | None] = None
    region: ClassVar[str] = ""
    client: ClassVar[Patience | None] = None
    name: str = ""
    source: End
    target: End
    what: Literal["weight_sync", "checkpoint", "copy"] = "weight_sync"
    bytes: Size = "weights"
    start: NonNegativeSeconds = 0.0
    every: PositiveSeconds | None = None
    times: Count | None = None
    duration: PositiveSeconds | None = None
    algorithm: Literal["direct", "tree", "binomial", "pipeline"] = "direct"
    chunk: Annotated[Bytes, Field(gt=0)] | None = None
    fanout: Annotated[int, Field(ge=1, le=1000)] | None = None
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    bandwidth: Speed | None = None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["source"] == values["target"] and values["what"] == "checkpoint":
            yield "target", f"found '{values['target']}', where it comes from too; a checkpoint goes to a store"
        if values["every"] is None:
            for key in ("times", "duration"):
                if values[key] is not None:
                    yield key, "not used here: without `every` there is one transfer; say how often one begins, such as every: 60s"
        elif values["times"] is None and values["duration"] is None:
            yield "", "neither times nor duration is given, so this traffic would never end; give one of them (or both)"
        if values["algorithm"] == "direct" and values["chunk"] is not None:
            yield "chunk", "not used here: algorithm direct sends everything in one piece; tree, binomial and pipeline have chunks"
        if values["algorithm"] != "tree" and values["fanout"] is not None:
            yield "fanout", f"not used here: algorithm {values['algorithm']} has none; of a tree it is how many a place sends to at a time"
        size, chunk = LARGEST_MODEL if values["bytes"] == "weights" else values["bytes"], values["chunk"] or CHUNK
        if values["algorithm"] != "direct" and size / chunk > PIECES:
            yield "chunk", f"found {chunk:g} bytes; at least {size / PIECES:g} is wanted, or there may be more than {PIECES} pieces"

    def prepare(self) -> list[str]:
        return []

    def expected(self) -> int | None:
        return 0

    def order(self) -> Transfer:
        """One of them."""
        size = None if self.bytes == "weights" else float(self.bytes)
        chunk = None if self.algorithm == "direct" else float(self.chunk or CHUNK)
        limit = self.bandwidth or math.inf
        return Transfer(self.what, self.source, self.target, size, self.algorithm, chunk, self.fanout or FANOUT, self.weight, self.priority,
                        limit)  # fmt: skip

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        env, begun = world.env, 0
        while self.times is None or begun < self.times:
            at = self.start + begun * (self.every or 0.0)
            if self.duration is not None and at >= self.start + self.duration:
                return
            if at > env.now:
                yield env.timeout(at - env.now)
            begun += 1
            yield world.transfer(self.order())
            if self.every is None:
                return
