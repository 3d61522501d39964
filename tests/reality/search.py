"""The highest rate at which a study still keeps a limit, as papers on serving define capacity; and a study with changes."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import sim
from sim.study.result import Result

STUDIES = Path(__file__).resolve().parents[2] / "configs" / "studies"
POOL, ENGINE, TRAFFIC = "cluster.pools.0", "cluster.pools.0.engine", "workloads.0"


def study(name: str, *sets: str) -> Result:
    """Run configs/studies/<name>.yaml with `a.b=c` changes."""
    return sim.run(sim.load(STUDIES / f"{name}.yaml", sets))


def capacity(keeps: Callable[[float], bool], low: float, high: float, within: float = 0.03) -> float:
    """The largest rate between `low`, which must keep the limit, and `high`, which must not, to a factor of 1 + `within`.

    Bisection on the logarithm: valid where keeping it is monotone in the rate, as with common random numbers it is but for grain.
    """
    assert keeps(low), f"the limit is not even kept at {low:g}"
    assert not keeps(high), f"the limit is still kept at {high:g}"
    while high / low > 1.0 + within:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def normalised(result: Result) -> np.ndarray:
    """E2E latency per output token of each request, s: the normalised latency of Orca and of the PagedAttention paper."""
    frame = result.requests
    return (frame["e2e"] / frame["output_tokens"]).to_numpy()


def mean_batch(result: Result, until: float) -> float:
    """Requests decoding on average over the steps that began before `until`, s."""
    frame = result.tables["stretches"].to_pandas()
    frame = frame[frame["start"] < until]
    return float((frame["decoders"] * frame["seconds"]).sum() / frame["seconds"].sum())


def output_rate(result: Result) -> float:
    """Output tokens per second over the whole run."""
    return float(result.requests["output_tokens"].sum() / result.meta["sim_s"])
