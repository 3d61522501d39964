"""What lower KV tiers gave and took, what was kept for sessions, and whether their links carried no more than they can (I7)."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.spec.hardware import gpu
from sim.study.facts import Tables
from sim.study.idle import SLACK

if TYPE_CHECKING:
    from sim.spec.scenario import Pool
    from sim.study.metrics import Facts


def tiers(facts: Facts) -> dict[str, Any] | None:
    """Tokens and bytes by tier, and blocks kept for sessions; None where there is neither a tier nor retention.

    `found_tokens` are prompt tokens found when requests were first admitted, in the GPU or in a tier; reloads after a preemption count too
    among `reloaded_bytes`. `kept_mean_blocks` is over the lives of all replicas together.
    """
    pools = facts.result.scenario.cluster.pools
    if not any(pool.engine.kv_tiers or pool.engine.retention["kind"] != "lru" for pool in pools):
        return None
    table, replicas = facts.result.tables["transfers"], facts.replicas
    kinds, names = table.labels["kind"], table.labels["tier"]
    found, reloaded, offloaded = (dict.fromkeys(names[1:], 0.0) for _ in range(3))
    seen: set[tuple[int, int]] = set()
    for page in table.pages():
        for kind, sums in (("reload", reloaded), ("offload", offloaded)):
            rows = page["kind"] == kinds.index(kind)
            for code, size in enumerate(np.bincount(page["tier"][rows], page["bytes"][rows], len(names))[1:], 1):
                sums[names[code]] += float(size)
        for row in np.flatnonzero(page["kind"] == kinds.index("reload")):
            key = int(page["request"][row]), int(page["tier"][row])
            if key not in seen:
                seen.add(key)
                found[names[key[1]]] += int(page["tokens"][row])
    total = sum(int(page["cached_tokens"].sum(dtype="i8")) for page in facts.requests())
    lives = float(facts.lifetimes.sum())
    return {
        "found_tokens": {"gpu": total - int(sum(found.values())), **{name: int(tokens) for name, tokens in found.items()}},
        "reloaded_bytes": reloaded, "offloaded_bytes": offloaded,
        "kept_peak_blocks": int(replicas["kept_peak_blocks"].max(initial=0)),
        "kept_mean_blocks": float(replicas["kept_block_seconds"].sum()) / lives if lives else 0.0,
    }  # fmt: skip


def links(tables: Tables) -> tuple[int, list[str]]:
    """I7 for lower tiers: no finished transfer faster than its link, and no link busy for less than its bytes take.

    Returns the transfers looked at, and what is wrong. Hand-ons are left out: a part of their bytes leaves before they are asked for. So
    are tiers without figures of their own where there is a network, whose links are looked at in its own tables.
    """
    table = tables.result.tables.get("transfers")
    if table is None or not len(table):
        return 0, []
    names, source, label = table.labels["tier"], table["source"], table["tier"]
    start, end, size = (table[name] for name in ("start", "end", "bytes"))
    pools = {pool.name: pool for pool in tables.result.scenario.cluster.pools}
    shared = tables.result.scenario.cluster.network is not None
    checked, faults = 0, []
    for replica, name in enumerate(tables.pool_of_replica):
        for tier in pools[name].engine.kv_tiers:
            if shared and (tier.store is not None or not (tier.bandwidth or tier.latency)):
                continue
            rows = np.flatnonzero((source == replica) & (label == names.index(tier.kind)))
            rows = rows[np.argsort(start[rows], kind="stable")]
            bandwidth, checked = tier.bandwidth or _host(pools[name]), checked + len(rows)
            if np.any(end[rows] - start[rows] < tier.latency + size[rows] / bandwidth - SLACK):
                faults.append(f"replica {replica}: a transfer from or to {tier.kind} is faster than {bandwidth:.4g} B/s")
            reached = np.maximum.accumulate(end[rows])
            idle = np.maximum(start[rows][1:] - reached[:-1], 0.0).sum()
            if len(rows) and size[rows].sum() > bandwidth * (reached[-1] - start[rows][0] - idle + SLACK):
                faults.append(f"replica {replica}: {tier.kind} moved more than {bandwidth:.4g} B/s")
    return checked, faults


def _host(pool: Pool) -> float:
    return gpu(pool.gpu).pcie * pool.parallel.tp * pool.parallel.pp
