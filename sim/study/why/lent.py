"""Requests that were held until a pool had GPUs that another one had of those they share: a reason beside those of `study/why/why.py`.

Shares are of the time from arrivals to last tokens, over all completed requests.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sim.core.request import COMPLETED
from sim.spec.lending import lenders
from sim.study.why.reason import Reason, lasting

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def reasons(facts: Facts, e2e: float) -> Iterator[Reason]:
    """Of each pool that shares GPUs; `e2e`: seconds of all completed requests."""
    table, owners = facts.result.tables["held"], lenders(facts.result.scenario.cluster)
    if not owners or not len(table) or not e2e:
        return
    order = np.argsort(table["request"], kind="stable")
    requests, seconds = table["request"][order], np.nan_to_num((table["end"] - table["start"])[order])
    total = np.concatenate([[0.0], np.cumsum(seconds)])
    pools, waits = np.array(facts.pool_of_replica), dict[str, list[np.ndarray]]()
    for page in facts.requests():
        done = np.flatnonzero((page["status"] == COMPLETED) & np.isin(page["request"], requests))
        # Who is sent on may be held again: each time counts.
        first, last = (np.searchsorted(requests, page["request"][done], side=side) for side in ("left", "right"))
        of = pools[page["replica"][done]]
        for name in np.unique(of).tolist():
            waits.setdefault(name, []).append((total[last] - total[first])[of == name])
    for borrower, owner in owners.items():
        for name, other in ((borrower, owner.name), (owner.name, borrower)):
            held = np.concatenate(waits.get(name, [np.empty(0)]))
            if held.sum():
                share = min(float(held.sum()) / e2e, 1.0)
                yield Reason("lent", share, (
                    f"No GPUs: {len(held):,} requests were held for {name}, {lasting(float(held.mean()))} on average, until {other} gave "
                    f"up GPUs that the two share: {share:.0%} of the requests' time."
                ))  # fmt: skip
