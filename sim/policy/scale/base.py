"""How many replicas a pool should have. An autoscaler looks at what a scrape tells about one pool and returns a number of replicas.

It keeps what it remembers (windows, seasons) itself; bounds, and what a replica is, are not its business: whoever asks clips the answer.
Every pool has an autoscaler of its own.
"""
from __future__ import annotations

from typing import NamedTuple, Protocol


class Seen(NamedTuple):
    """A pool at `time` (s), as a scrape saw it. Means are over ready replicas, rates over the time since the scrape before.

    `in_flight` and `queued` count all requests at ready replicas (queued: of them, not admitted yet); `held` waits at the front door for
    want of a ready replica. `kv` is the mean share of KV blocks in use, `busy` the mean share of time in steps since the last scrape.
    `arrivals` counts requests sent to the pool since then (those held included), `ended` those completed, `late` of the completed those
    beyond the scenario's SLO on a single request (0 without one). `ttft` and `tpot` are means over those completed, s (NaN: none).
    `kvs` and `queues` are the share of KV blocks and the requests queued of each ready replica. What the autoscaler does not say that it
    `sees` is not looked at: `kv` and `busy` are NaN then, `kvs` and `queues` empty.
    """

    time: float
    ready: int
    starting: int
    in_flight: int
    queued: int
    held: int
    kv: float
    busy: float
    arrivals: int
    ended: int
    late: int
    ttft: float
    tpot: float
    kvs: tuple[float, ...] = ()
    queues: tuple[int, ...] = ()

    @property
    def current(self) -> int:
        """Replicas there are, those that are starting included."""
        return self.ready + self.starting


class Autoscaler(Protocol):
    """A scrape costs what it looks at, which `sees` says: "counts" are the requests and their latencies; "use" has `kv` and `busy` too, and
    "replicas" has everything, each replica by itself.
    """

    @property
    def sees(self) -> str: ...

    def want(self, seen: Seen) -> int:
        """Replicas the pool should have, starting ones included; it may be 0. Called once per scrape, in order of time."""
