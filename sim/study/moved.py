"""What keys and values were moved, why, and how long those who waited for them did."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def moved(facts: Facts) -> dict[str, Any]:
    """{kind: {count, bytes, seconds: {mean, p50, ...}}} of the kinds of transfers that happened; `seconds` from asked for to arrived.

    Transfers that nobody waits for (offload) have no seconds. Swapping out is paid for in the step that preempts, and has no rows.
    """
    found: dict[str, Any] = {}
    table = facts.result.tables.get("transfers")
    if table is None:
        return found
    rows: dict[int, list[np.ndarray]] = {}
    for page in table.pages():
        kinds, both = page["kind"], np.stack([page["bytes"], page["end"] - page["start"]])
        for code in np.unique(kinds).tolist():
            rows.setdefault(code, []).append(both[:, kinds == code])
    for code in sorted(rows):
        kind, (sizes, waits) = table.labels["kind"][code], np.concatenate(rows[code], axis=1)
        found[kind] = {"count": len(sizes), "bytes": float(sizes.sum()), "seconds": distribution(waits) if kind != "offload" else None}
    return found
