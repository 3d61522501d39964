"""Scenarios with two pools on the same GPUs, and somebody who lends them."""
from __future__ import annotations

from unittest import mock

from tests.trained import run
from workloads.poisson import Poisson

MODEL = "meta-llama/Llama-3.1-8B"


def poisson(pool, rate, count, **more):
    lengths = {"kind": "uniform", "input": [50, 400], "output": [20, 300]}
    return {"kind": "poisson", "name": f"to_{pool}", "model": pool, "rate": rate, "num_requests": count, "lengths": lengths} | more


def scenario(shares="serve", replicas=(3, 2), loads=((30, 150), (10, 50)), cluster=None, **engine):
    """Pools serve and night, the latter on GPUs of the former, and so many requests a second to each."""
    options = {"gpu": "h100_sxm", "engine": {"max_num_seqs": 16} | engine}
    pools = [
        {"name": "serve", "replicas": replicas[0]} | options,
        {"name": "night", "replicas": replicas[1], "shares": shares} | options,
    ]
    workloads = [poisson(name, *load) for name, load in zip(("serve", "night"), loads, strict=True) if load]
    return {"model": MODEL, "seed": 3, "cluster": {"pools": pools} | (cluster or {}), "workloads": workloads}


def driven(base, drive):
    """The result of a scenario in which somebody lends, as a workload that trains would."""
    with mock.patch.object(Poisson, "trains", True):
        return run(base, drive)
