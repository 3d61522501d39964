"""Who was served where: requests by the region they came from and the one that served them, and how long each origin waited."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.request import COMPLETED
from sim.study.measures import MEASURES
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def regions(facts: Facts) -> dict[str, Any] | None:
    """{origin: {requests, served: {region: requests}, spilled, ttft_s, e2e_s}}; None where no workload says its region.

    `requests` counts all that came from there, `served` those that had a replica, `spilled` the share of these in another region. Latencies
    are of completed requests, the way there and back included.
    """
    origins = [options.get("region", "") for options in facts.result.scenario.workloads]
    if not any(origins):
        return None
    home = {pool.name: pool.region for pool in facts.result.scenario.cluster.pools}
    names = list(dict.fromkeys([*origins, *home.values()]))
    # The last entry is of replica -1: none.
    of_replica = np.array([*(names.index(home[pool]) for pool in facts.pool_of_replica), len(names)])
    of_workload = np.array([names.index(origin) for origin in origins])
    counts = np.zeros((len(names), len(names) + 1), dtype="i8")
    times: dict[tuple[int, str], list[np.ndarray]] = {}
    for page in facts.requests():
        origin, place = of_workload[page["workload"]], of_replica[page["replica"]]
        np.add.at(counts, (origin, place), 1)
        done = page["status"] == COMPLETED
        for measure in ("ttft", "e2e"):
            seconds = MEASURES[measure](page)
            for number in np.unique(origin[done]).tolist():
                times.setdefault((number, measure), []).append(seconds[done & (origin == number)])
    found = {}
    for name in dict.fromkeys(origin for origin in origins if origin):
        number = names.index(name)
        served = counts[number, :-1]
        total = int(served.sum())
        latencies = {f"{m}_s": distribution(np.concatenate(times[number, m])) if (number, m) in times else None for m in ("ttft", "e2e")}
        found[name] = {
            "requests": int(counts[number].sum()),
            "served": {region: int(count) for region, count in zip(names, served, strict=True) if count},
            "spilled": 1 - int(served[number]) / total if total else None,
            **latencies,
        }
    return found
