"""The figures of each pool, where there are several: what was sent there, how quickly it was served, and what the pool cost."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.request import COMPLETED
from sim.study.measures import MEASURES
from sim.study.money import pool_usd
from sim.study.spread import distribution
from sim.study.starts import most_at_once
from sim.study.training import passing

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def by_pool(facts: Facts) -> dict[str, dict[str, Any]] | None:
    """{pool: figures}, named as those of the whole run; None with one pool. A request belongs to the pool that served it last: with
    prefill and decode apart, to the decode pool.

    Rates divide by the span; money is the pool's price over the span, idle or not, None where a pool has no price.
    """
    if len(facts.pools) < 2:
        return None
    names = list(facts.pools)
    of_replica = np.array([names.index(name) for name in facts.pool_of_replica])
    busy, handed = _busy(facts, of_replica, len(names)), _handed(facts, of_replica, len(names))
    time, spent = facts.gpus * facts.lifetimes, pool_usd(facts)
    found = {}
    for number, name in enumerate(names):
        mine = of_replica == number
        usd = float(spent[number])
        found[name] = _pool(facts, of_replica, number) | {
            "gpus": int(most_at_once(facts.replicas["start"][mine], facts.replicas["end"][mine], facts.gpus[mine])),
            "busy_fraction": _ratio(busy[number] + passing(facts, name), float(time[mine].sum())),
            "usd_total": usd,
            "handed_on": int(handed[number]),
        }
        tokens = found[name].pop("output_tokens")
        found[name]["output_tokens_per_s"] = _ratio(tokens, facts.span)
        found[name]["usd_per_million_output_tokens"] = _ratio(usd * 1e6, tokens)
    return found


def _pool(facts: Facts, of_replica: np.ndarray, number: int) -> dict[str, Any]:
    """Counts and latencies of the requests of one pool."""
    sent = completed = tokens = 0
    times: dict[str, list[np.ndarray]] = {measure: [] for measure in MEASURES}
    for page in facts.requests():
        replica = page["replica"]
        mine = (replica >= 0) & (of_replica[replica] == number)
        done = mine & (page["status"] == COMPLETED)
        sent, completed = sent + int(mine.sum()), completed + int(done.sum())
        tokens += int(page["output_tokens"][done].sum(dtype="i8"))
        for measure, of in MEASURES.items():
            seconds = of(page)[done]
            times[measure].append(seconds[~np.isnan(seconds)])
    latencies = {f"{measure}_s": distribution(np.concatenate(parts)) if parts else None for measure, parts in times.items()}
    return {"requests": sent, "completed": completed, "output_tokens": tokens, "requests_per_s": _ratio(completed, facts.span), **latencies}


def _busy(facts: Facts, of_replica: np.ndarray, pools: int) -> np.ndarray:
    """GPU-seconds inside engine steps, of each pool."""
    busy = np.zeros(pools)
    for page in facts.stretches():
        busy += np.bincount(of_replica[page["replica"]], page["seconds"] * page.gpus, pools)
    return busy


def _handed(facts: Facts, of_replica: np.ndarray, pools: int) -> np.ndarray:
    """Prompts that each pool computed and handed on to another."""
    handed, table = np.zeros(pools, dtype="i8"), facts.result.tables.get("transfers")
    for page in table.pages() if table is not None else ():
        rows = page["kind"] == table.labels["kind"].index("handoff")
        handed += np.bincount(of_replica[page["source"][rows]], minlength=pools)
    return handed


def _ratio(top: float, bottom: float) -> float | None:
    return float(top) / float(bottom) if bottom > 0 else None
