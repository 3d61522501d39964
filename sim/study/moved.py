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
    pages = list(table.pages()) if table is not None else []
    for code, kind in enumerate(table.labels["kind"] if table is not None else ()):
        rows = [page["kind"] == code for page in pages]
        if any(mask.any() for mask in rows):
            sizes, waits = (
                np.concatenate([column(page)[mask] for page, mask in zip(pages, rows, strict=True)])
                for column in (lambda page: page["bytes"], lambda page: page["end"] - page["start"])
            )
            found[kind] = {"count": len(sizes), "bytes": float(sizes.sum()), "seconds": distribution(waits) if kind != "offload" else None}
    return found
