"""What workloads had moved, and what traffic on their links cost the collectives of replicas."""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.study.facts import Tables
from sim.study.spread import distribution


def delivered(tables: Tables) -> dict[str, Any]:
    """Weight syncs, checkpoints and copies, by what they are: how many, those cut off or in vain (nobody to send or to receive), bytes that
    receivers got, seconds of those complete, and bytes per second that each receiver got while one was under way (`bytes_per_s`).
    """
    table = tables.result.tables.get("deliveries")
    found: dict[str, Any] = {}
    for code, name in enumerate(table.labels["what"] if table is not None else ()):
        assert table is not None
        rows = table["what"] == code
        if not rows.any():
            continue
        receivers, size, seconds = table["receivers"][rows], table["bytes"][rows], (table["end"] - table["start"])[rows]
        complete = ~np.isnan(seconds) & (receivers > 0)
        spent = float(seconds[complete].sum())
        found[name] = {
            "count": int(rows.sum()), "cut_off": int(np.isnan(seconds).sum()), "in_vain": int((receivers == 0).sum()),
            "bytes": float((size * receivers)[complete].sum()), "seconds": distribution(seconds[complete]),
            "bytes_per_s": float(size[complete].sum()) / spent if spent > 0 else None,
        }  # fmt: skip
    return found


def slowdown(tables: Tables) -> dict[str, Any]:
    """Seconds that steps took longer because other traffic was on the links of their collectives, of how many replicas, and as a share of
    all seconds that those replicas worked.
    """
    table = tables.result.tables.get("slowdowns")
    if table is None or not len(table):
        return {"seconds": 0.0, "replicas": 0, "share": None}
    replicas = np.unique(table["replica"])
    start, more, of = table["start"], table["seconds"], table["replica"]
    slowed = {replica: (start[of == replica], more[of == replica]) for replica in replicas.tolist()}
    seconds = worked = 0.0
    for page in tables.stretches():
        for replica in np.intersect1d(page["replica"], replicas).tolist():
            mine = page["replica"] == replica
            start, steps = page["start"][mine], page["steps"][mine]
            begins, more = slowed[replica]
            # A stretch is slowed from its very beginning or not at all, so their beginnings are equal to the last bit.
            at = np.minimum(np.searchsorted(begins, start), len(begins) - 1)
            hit = begins[at] == start
            seconds += float((more[at] * steps)[hit].sum())
            worked += float(page["seconds"][mine].sum())
    return {"seconds": seconds, "replicas": len(replicas), "share": seconds / worked if worked else None}
