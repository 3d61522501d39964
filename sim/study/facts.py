"""The tables of a run read as arrays: what was computed, by whom, and over which time. Metrics, the verdict, the audit and the plots all
start here, so that none of them derives a step's work a second time.

Seconds, tokens, FLOP, bytes and watts. A stretch of k steps with B decoders that held H tokens at its start does, in step j = 0..k-1,
H + B (j + 1) query-key pairs and reads H + B j tokens of keys and values; the sums below are those series in closed form.
"""
from __future__ import annotations

import functools
from typing import Any

import numpy as np

from sim.core.record import Table
from sim.core.request import COMPLETED, UNFINISHED
from sim.study.result import Result

SUB_RUNS = 8
ALIKE = 1e-3


class Tables:
    """Arrays of one result, derived when first asked for. `meta["pools"]` gives the roofline, price and watts of each pool."""

    def __init__(self, result: Result):
        self.result = result
        self.meta = result.meta
        self.pools: dict[str, dict[str, Any]] = {pool["name"]: pool for pool in result.meta["pools"]}
        self._columns: dict[tuple[str, str], np.ndarray] = {}

    def col(self, table: str, name: str) -> np.ndarray:
        """A column, read once; an empty array when the run has no such table."""
        key = (table, name)
        if key not in self._columns:
            known = self.result.tables
            self._columns[key] = known[table][name] if table in known else np.empty(0)
        return self._columns[key]

    @functools.cached_property
    def completed(self) -> np.ndarray:
        """Which requests completed, as a mask."""
        return self.col("requests", "status") == COMPLETED

    @functools.cached_property
    def begin(self) -> float:
        """Time of the first arrival; 0 when nothing arrived."""
        arrival = self.col("requests", "arrival")
        return float(arrival.min()) if len(arrival) else 0.0

    @functools.cached_property
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
        replicas: Table = self.result.tables["replicas"]
        return [replicas.labels["pool"][code] for code in replicas["pool"]]

    def per_replica(self, key: str) -> np.ndarray:
        """A figure of `meta["pools"]` for each replica; NaN where the pool has none."""
        values = [self.pools[name][key] for name in self.pool_of_replica]
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    def per_stretch(self, key: str) -> np.ndarray:
        """A figure of `meta["pools"]` for each stretch."""
        return self.per_replica(key)[self.col("stretches", "replica")]

    @functools.cached_property
    def lifetimes(self) -> np.ndarray:
        """Seconds each replica existed between the first arrival and the end of the run."""
        start, end = self.col("replicas", "start"), self.col("replicas", "end")
        end = np.where(np.isnan(end), self.end, end)
        return np.maximum(np.minimum(end, self.end) - np.maximum(start, self.begin), 0.0)

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """Tokens computed in each stretch, prompts and recomputation included."""
        return self.col("stretches", "decoders") * self.col("stretches", "steps").astype("i8") + self.col("stretches", "prefill_tokens")

    @functools.cached_property
    def flops(self) -> np.ndarray:
        """Model FLOP of each stretch: linear layers per token and attention per query-key pair."""
        steps, decoders = self.col("stretches", "steps").astype(float), self.col("stretches", "decoders")
        pairs = steps * self.col("stretches", "held") + decoders * steps * (steps + 1) / 2 + self.col("stretches", "prefill_pairs")
        return self.per_stretch("flops_per_token") * self.tokens + self.per_stretch("flops_per_pair") * pairs

    @functools.cached_property
    def kv_read(self) -> np.ndarray:
        """Bytes of keys and values the decoders of each stretch read; what prompt chunks read again is not counted."""
        steps = self.col("stretches", "steps").astype(float)
        held = steps * self.col("stretches", "held") + self.col("stretches", "decoders") * steps * (steps - 1) / 2
        return self.per_stretch("kv_bytes_per_token") * held

    @functools.cached_property
    def bytes_moved(self) -> np.ndarray:
        """Bytes of each stretch: the weights once per step, and the decoders' keys and values."""
        return self.per_stretch("weight_bytes") * self.col("stretches", "steps") + self.kv_read

    @functools.cached_property
    def stretch_gpus(self) -> np.ndarray:
        """GPUs busy in each stretch."""
        return self.col("replicas", "gpus")[self.col("stretches", "replica")].astype(float)

    @functools.cached_property
    def waits(self) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end of each wait for a first admission; never-admitted requests wait to the end of the run unless they were lost."""
        arrival, admitted = self.col("requests", "arrival"), self.col("requests", "admitted")
        never = np.where(self.col("requests", "status") == UNFINISHED, self.end, arrival)
        return arrival, np.where(np.isnan(admitted), np.maximum(never, arrival), admitted)

    def gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Inter-token gaps as (seconds, how many), run-length coded: a value per stretch, or up to `SUB_RUNS` where its steps differ by more
        than `ALIKE`, and one per stall.

        Step lengths grow linearly within a stretch and sum to its seconds, so the weighted mean is exact.
        """
        seconds, first = self.col("stretches", "seconds"), self.col("stretches", "first_step")
        steps, decoders = self.col("stretches", "steps").astype("i8"), self.col("stretches", "decoders").astype("i8")
        slope = np.where(steps > 1, 2 * (seconds - steps * first) / np.maximum(steps * (steps - 1), 1), 0.0)
        values, weights = [], []
        spread = slope * (steps - 1) / np.maximum(first, 1e-300)
        runs = np.minimum(steps, np.clip(np.ceil(spread / ALIKE), 1, SUB_RUNS).astype("i8"))
        for part in range(SUB_RUNS):
            rows = np.flatnonzero((part < runs) & (decoders > 0))
            low, high = steps[rows] * part // runs[rows], steps[rows] * (part + 1) // runs[rows]
            whole = runs[rows] == 1
            mean = seconds[rows] / steps[rows]
            values.append(np.where(whole, mean, first[rows] + slope[rows] * (low + high - 1) / 2))
            weights.append(decoders[rows] * (high - low))
        stalls = self.col("stalls", "end") - self.col("stalls", "start")
        return np.concatenate([*values, stalls]), np.concatenate([*weights, np.ones(len(stalls), dtype="i8")])


def integral(start: np.ndarray, end: np.ndarray, weight: np.ndarray | float, at: np.ndarray) -> np.ndarray:
    """The integral, from the beginning of time to each of `at`, of the sum of `weight` over the intervals that cover an instant.

    Exact: the sum is a step function, so its integral is piecewise linear.
    """
    if not len(start):
        return np.zeros(len(at))
    weight = np.broadcast_to(np.asarray(weight, dtype=float), start.shape)
    times, jumps = np.concatenate([start, end]), np.concatenate([weight, -weight])
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(jumps[order])
    total = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(times))])
    return np.interp(at, times, total)


def mean_in_bins(start: np.ndarray, end: np.ndarray, weight: np.ndarray | float, edges: np.ndarray) -> np.ndarray:
    """Time average in each bin (len(edges) - 1) of the sum of `weight` over the intervals that cover an instant."""
    return np.diff(integral(start, end, weight, edges)) / np.diff(edges)
