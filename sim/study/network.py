"""What moved over the network, how busy its links were and which of them held transfers back; and the audit of it (I7)."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.record import Table
from sim.study.congestion import delivered, slowdown
from sim.study.facts import Tables
from sim.study.spread import distribution
from sim.study.tiers import links as tiers

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SHOWN = 10
# Ends are told on the whole nanosecond after the last byte is in.
LATE = 2e-9


def network(facts: Facts) -> dict[str, Any] | None:
    """Transfers by kind, the busiest links, and the links that held transfers back; None without a network.

    Seconds are from asked for to arrived, latency included, of transfers that arrived. `mean` is over the run, `peak` over bins of `bin_s`
    seconds. `binding`: transfers and their seconds by the link that was the bottleneck for most of their time, the most seconds first; the
    empty name stands for those that were held back by no link, but by a limit of their own. `deliveries` and `collective_slowdown` are
    explained where they are computed (`study/congestion.py`).
    """
    links, flows = (_table(facts, name) for name in ("links", "flows"))
    if links is None:
        return None
    used = _peaks(facts, len(links))
    mean = links["bytes"] / (links["capacity"] * facts.end) if facts.end > 0 else np.zeros(len(links))
    busiest = [number for number in np.argsort(-mean, kind="stable")[:SHOWN].tolist() if links["bytes"][number]]
    names, kinds = links.labels["link"], links.labels["kind"]
    usage = _table(facts, "usage")
    return {
        "transfers": _by_kind(flows) if flows is not None else {},
        "links": len(links),
        "busiest": [
            {"link": names[links["link"][number]], "kind": kinds[links["kind"][number]], "bytes": float(links["bytes"][number]),
             "mean": float(mean[number]), "peak": float(used[number]), "busy_s": float(links["busy"][number]),
             "full_s": float(links["full"][number])} for number in busiest
        ],
        "bin_s": float(usage["seconds"].max()) if usage is not None else None,
        "binding": _binding(flows) if flows is not None else [],
        "deliveries": delivered(facts),
        "collective_slowdown": slowdown(facts),
    }  # fmt: skip


def _by_kind(flows: Table) -> dict[str, Any]:
    kind, found = flows["kind"], {}
    for code, name in enumerate(flows.labels["kind"]):
        mine = kind == code
        seconds = (flows["end"] - flows["start"])[mine]
        arrived = ~np.isnan(seconds)
        found[name] = {"count": int(mine.sum()), "bytes": float(flows["moved"][mine].sum()), "cut_off": int((~arrived).sum()),
                       "seconds": distribution(seconds[arrived])}  # fmt: skip
    return found


def _binding(flows: Table) -> list[dict[str, Any]]:
    names, bound = flows.labels["bound"], flows["bound"]
    seconds = np.bincount(bound, np.nan_to_num(flows["end"] - flows["start"]), len(names))
    counts = np.bincount(bound, minlength=len(names))
    order = np.argsort(-seconds, kind="stable")[:SHOWN].tolist()
    return [{"link": names[code], "count": int(counts[code]), "seconds": float(seconds[code])} for code in order if counts[code]]


def _peaks(tables: Tables, count: int) -> np.ndarray:
    """Of each link, the largest share of its capacity in any bin."""
    peaks = np.zeros(count)
    usage, capacity = _table(tables, "usage"), tables.result.tables["links"]["capacity"]
    for page in usage.pages() if usage is not None else ():
        link, seconds = page["link"], page["seconds"]
        np.maximum.at(peaks, link[seconds > LATE], (page["bytes"] / np.maximum(capacity[link] * seconds, 1e-300))[seconds > LATE])
    return peaks


def moves(tables: Tables) -> tuple[int, list[str]]:
    """I7: what `flows` and lower KV tiers say. Returns the rows looked at, and what is wrong."""
    (some, faults), (more, others) = flows(tables), tiers(tables)
    return some + more, faults + others


def flows(tables: Tables) -> tuple[int, list[str]]:
    """I7 for the network: what arrived is what was sent, nothing moved more than its size, no link carried more than it can in any bin of
    time, and its bins, its sum and its busy and full seconds agree.
    """
    sent, links, usage = (_table(tables, name) for name in ("flows", "links", "usage"))
    checked, faults = 0, []
    if sent is not None:
        checked += len(sent)
        size, moved, waited = sent["bytes"], sent["moved"], sent["end"] - sent["start"]
        for what, bad in (("arrived without all of its bytes", ~np.isnan(waited) & (moved != size)), ("ended before it began", waited < 0),
                          ("moved more than its bytes, or less than none", (moved > size) | (moved < 0))):  # fmt: skip
            if bad.any():
                faults.append(f"a flow {what}: {int(bad.sum())} rows of flows, first row {int(np.argmax(bad))}")
    if links is None:
        return checked, faults
    checked += len(links)
    capacity, carried, busy, full = (links[name] for name in ("capacity", "bytes", "busy", "full"))
    spare = LATE * (1 + (len(sent) if sent is not None else 0))
    sums, last = np.zeros(len(links)), tables.end
    for page in usage.pages() if usage is not None else ():
        link, most = page["link"], capacity[page["link"]] * (page["seconds"] * (1 + 1e-9) + LATE)
        sums += np.bincount(link, page["bytes"], len(links))
        checked += len(page)
        last = max(last, float((page["start"] + page["seconds"]).max()))
        if (page["bytes"] > most).any():
            row = int(np.argmax(page["bytes"] > most))
            faults.append(f"{links.labels['link'][links['link'][link[row]]]} carried more than it can: row {page.first + row} of usage")
    for what, bad in (("is not the sum of its bins", np.abs(sums - carried) > 1e-9 * carried),
                      ("is more than it can carry while busy", carried > capacity * (busy * (1 + 1e-9) + LATE)),
                      ("is less than it carries while full", carried < capacity * (full * (1 - 1e-8) - spare))):  # fmt: skip
        if bad.any():
            faults.append(f"what a link carried {what}: {int(bad.sum())} rows of links, first {links.labels['link'][int(np.argmax(bad))]}")
    if (full > busy + spare).any() or (busy > last + spare).any():
        faults.append("a link is full for longer than it is busy, or busy for longer than the run")
    return checked, faults


def _table(tables: Tables, name: str) -> Table | None:
    table = tables.result.tables.get(name)
    return table if table is not None and len(table) else None
