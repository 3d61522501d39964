"""The tables of a run read page by page: what was computed, by whom, and over which time. Metrics, the verdict, the audit and the plots all
start here, so that none of them derives a step's work a second time, and none holds a long run in memory.

Seconds, tokens, FLOP, bytes and watts. A stretch of k steps with B decoders that held H tokens at its start does, in step j = 0..k-1,
H + B (j + 1) query-key pairs and reads H + B j tokens of keys and values; the sums below are those series in closed form.
"""
from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.core.record import Page, Table
from sim.core.request import FAILED, STATUSES, UNFINISHED
from sim.spec.regions import ways
from sim.study.result import Result


class Tables:
    """The tables of one result and what is small enough to keep. `meta["pools"]` gives the roofline, price and watts of each pool."""

    def __init__(self, result: Result):
        self.result = result
        self.meta = result.meta
        self.pools: dict[str, dict[str, Any]] = {pool["name"]: pool for pool in result.meta["pools"]}
        self.replicas: Table = result.tables["replicas"]
        self._figures: dict[str, np.ndarray] = {}

    def requests(self) -> Iterator[Page]:
        return self.result.tables["requests"].pages()

    def stretches(self) -> Iterator[Stretches]:
        return (Stretches(page, self) for page in self.result.tables["stretches"].pages())

    def stalls(self) -> Iterator[np.ndarray]:
        """Seconds of each preemption stall, a page at a time."""
        table = self.result.tables.get("stalls")
        return (page["end"] - page["start"] for page in table.pages()) if table else iter(())

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Requests by status."""
        return sum((np.array([(page["status"] == code).sum() for code in range(len(STATUSES))]) for page in self.requests()),
                   np.zeros(len(STATUSES), dtype="i8"))  # fmt: skip

    @functools.cached_property
    def arrivals(self) -> tuple[float, float]:
        """Times of the first and the last arrival; 0 when nothing arrived."""
        ends = [(page["arrival"].min(), page["arrival"].max()) for page in self.requests()]
        return (float(min(ends)[0]), float(max(last for _, last in ends))) if ends else (0.0, 0.0)

    @functools.cached_property
    def away(self) -> np.ndarray:
        """Seconds, one way, from the region of each workload (row) to each replica (column)."""
        cluster, workloads = self.result.scenario.cluster, self.result.scenario.workloads
        between = ways(cluster)
        home = {pool.name: pool.region for pool in cluster.pools}
        origins = [options.get("region", "") for options in workloads]
        return np.array([[between.get((origin, home[pool]), 0.0) for pool in self.pool_of_replica] for origin in origins])

    @functools.cached_property
    def drafted(self) -> int:
        """Most tokens any pool drafts ahead; 0 without speculation."""
        configs = [pool.engine.speculative_config for pool in self.result.scenario.cluster.pools]
        return max((config.num_speculative_tokens for config in configs if config), default=0)

    @functools.cached_property
    def spare_copies(self) -> int:
        """Failed requests whose answer nobody missed: their caller got it from another copy, waited for others and had enough, or trains
        and lets what is left go on as another request.
        """
        labels = self.result.tables["requests"].labels["reason"]
        codes = [code for code, text in enumerate(labels) if text in ("hedged", "cancelled", "aborted")]
        if not self.counts[FAILED] or not codes:
            return 0
        return sum(int(np.isin(page["reason"], codes).sum()) for page in self.requests())

    @functools.cached_property
    def losses(self) -> Losses:
        """When requests that failed left."""
        return Losses(self.result.tables["losses"])

    def in_role(self, role: str) -> np.ndarray:
        """Which replicas belong to pools of a role."""
        roles = {pool.name: pool.role for pool in self.result.scenario.cluster.pools}
        return np.array([roles[name] == role for name in self.pool_of_replica], dtype=bool)

    @functools.cached_property
    def brings(self) -> np.ndarray:
        """Which replicas bring keys and values back from their host's memory or other lower tiers."""
        pools = self.result.scenario.cluster.pools
        names = {pool.name for pool in pools if pool.engine.kv_tiers or pool.engine.preemption_mode == "swap"}
        return np.array([name in names for name in self.pool_of_replica], dtype=bool)

    @functools.cached_property
    def intervals(self) -> np.ndarray:
        """Tokens that each replica sends on at a time."""
        each = {pool.name: pool.engine.stream_interval for pool in self.result.scenario.cluster.pools}
        return np.array([each[name] for name in self.pool_of_replica], dtype="i8")

    @property
    def begin(self) -> float:
        """The first arrival; of a part of a run (`study/replicate/window.py`) where it begins."""
        return float(self.meta["begin"]) if "begin" in self.meta else self.arrivals[0]

    @property
    def end(self) -> float:
        """The clock at the end of the run."""
        return float(self.meta["sim_s"])

    @property
    def span(self) -> float:
        """Seconds from the first arrival to the end: the denominator of every rate."""
        return max(self.end - self.begin, 0.0)

    @functools.cached_property
    def pool_of_replica(self) -> list[str]:
        """Pool name of each row of `replicas`."""
        return [self.replicas.labels["pool"][code] for code in self.replicas["pool"]]

    def per_replica(self, key: str) -> np.ndarray:
        """A figure of `meta["pools"]` for each replica; NaN where the pool has none."""
        if key not in self._figures:
            values = [self.pools[name][key] for name in self.pool_of_replica]
            self._figures[key] = np.array([np.nan if value is None else value for value in values], dtype=float)
        return self._figures[key]

    def weights_read(self, replicas: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Bytes of weights that steps of so many tokens read, on these replicas (rows of `replicas`)."""
        read = self.per_replica("weight_bytes")[replicas]
        for name, pool in self.pools.items():
            # Results saved before experts were told apart count them all.
            experts = pool.get("experts_read")
            if experts is not None:
                here = np.array([other == name for other in self.pool_of_replica])[replicas]
                read[here] -= experts["bytes"][-1] - np.interp(tokens[here], experts["tokens"], experts["bytes"])
        return read

    @functools.cached_property
    def gpus(self) -> np.ndarray:
        """GPUs of each replica."""
        return self.replicas["gpus"].astype(float)

    @functools.cached_property
    def lifetimes(self) -> np.ndarray:
        """Seconds each replica existed between the first arrival and the end of the run."""
        start, end = self.replicas["start"], self.replicas["end"]
        end = np.where(np.isnan(end), self.end, end)
        return np.maximum(np.minimum(end, self.end) - np.maximum(start, self.begin), 0.0)

    def admissions(self, page: Page) -> np.ndarray:
        """When each wait for a first admission ended; who was never admitted waited until called off, or to the end of the run, and not
        at all when turned away.
        """
        return self._until(page, page["admitted"])

    def departures(self, page: Page) -> np.ndarray:
        """When each request left; unfinished ones stay to the end of the run, those turned away never came in."""
        return self._until(page, page["last_token"])

    def _until(self, page: Page, times: np.ndarray) -> np.ndarray:
        arrival = page["arrival"]
        never = np.where(page["status"] == UNFINISHED, np.maximum(self.end, arrival), arrival)
        failed = page["status"] == FAILED
        if failed.any():
            never[failed] = self.losses.left(page["request"][failed])
        return np.where(np.isnan(times), never, times)


class Losses:
    """Requests that failed after they were let in."""

    def __init__(self, table: Table):
        order = np.argsort(table["request"])
        self._request, self._time, self._stalled = (table[name][order] for name in ("request", "time", "stalled"))
        self._computed = table["computed"][order]

    def left(self, requests: np.ndarray) -> np.ndarray:
        """When each of these left, s."""
        return self._of(self._time, requests)

    def decoding_until(self, requests: np.ndarray) -> np.ndarray:
        """When each of these, which had a first token, last was a decoder, s."""
        stalled = self._of(self._stalled, requests)
        return np.where(np.isnan(stalled), self.left(requests), stalled)

    def computed(self, requests: np.ndarray) -> np.ndarray:
        """Tokens of each in the KV cache when it left."""
        return self._of(self._computed, requests)

    def _of(self, values: np.ndarray, requests: np.ndarray) -> np.ndarray:
        found: np.ndarray = values[np.searchsorted(self._request, requests)]
        return found


class Stretches:
    """A page of stretches and what was computed in each of them, derived when first asked for."""

    def __init__(self, page: Page, tables: Tables):
        self.first, self._page, self._tables = page.first, page, tables

    def __getitem__(self, name: str) -> np.ndarray:
        return self._page[name]

    def per_pool(self, key: str) -> np.ndarray:
        """A figure of `meta["pools"]` for each stretch."""
        return self._tables.per_replica(key)[self["replica"]]

    @property
    def end(self) -> np.ndarray:
        return self["start"] + self["seconds"]

    @functools.cached_property
    def gpus(self) -> np.ndarray:
        """GPUs busy in each stretch."""
        return self._tables.gpus[self["replica"]]

    @functools.cached_property
    def decoded(self) -> np.ndarray:
        """Tokens the decoders emitted: with speculation at the expected pace, but for a request's last step."""
        return self["tokens"]

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """Tokens computed, prompts and recomputation included."""
        return self.decoded + self["prefill_tokens"]

    @functools.cached_property
    def _held(self) -> np.ndarray:
        """Tokens of keys and values the decoders read, summed over the steps."""
        steps = self["steps"].astype(float)
        return steps * self["held"] + self.decoded * (steps - 1) / 2

    @functools.cached_property
    def flops(self) -> np.ndarray:
        """Model FLOP: linear layers per token and attention per query-key pair. A decoder's new token is a pair beyond those it held."""
        pairs = self._held + self.decoded + self["prefill_pairs"]
        return self.per_pool("flops_per_token") * self.tokens + self.per_pool("flops_per_pair") * pairs

    @functools.cached_property
    def kv_read(self) -> np.ndarray:
        """Bytes of keys and values the decoders read; what prompt chunks read again is not counted."""
        return self.per_pool("kv_bytes_per_token") * self._held

    @functools.cached_property
    def bytes_moved(self) -> np.ndarray:
        """Bytes: the weights once per step, of routed experts those that its tokens are expected to reach, and the decoders' keys and
        values.
        """
        return self._tables.weights_read(self["replica"], self.tokens / self["steps"]) * self["steps"] + self.kv_read


class Bins:
    """Time averages in bins, between `edges` (seconds, rising), of the sum of weights over intervals, which come in any order, some at a
    time. Exact: an interval end adds to its own bin the part of the bin behind it, and counts in full in every later bin.
    """

    def __init__(self, edges: np.ndarray):
        self.edges = edges
        self._level, self._partial = np.zeros(len(edges) + 1), np.zeros(len(edges) + 1)

    def add(self, start: np.ndarray, end: np.ndarray, weight: np.ndarray | float = 1.0) -> Bins:
        """Intervals from `start` to `end`, seconds; all weigh the same when `weight` is a number."""
        for times, weights in ((start, weight), (end, -weight)):
            bins = np.searchsorted(self.edges, times, side="right")
            behind = self.edges[np.minimum(bins, len(self.edges) - 1)] - times
            self._level += np.bincount(bins, np.broadcast_to(weights, times.shape), len(self._level))
            self._partial += np.bincount(bins, weights * behind, len(self._level))
        return self

    def means(self) -> np.ndarray:
        """One value per bin (len(edges) - 1)."""
        return np.cumsum(self._level)[:-2] + self._partial[1:-1] / np.diff(self.edges)
