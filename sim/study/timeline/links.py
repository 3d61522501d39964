"""What moves between machines: keys and values, transfers over the network and deliveries as asynchronous slices, its links as counters."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.study.facts import Tables
from sim.study.timeline.spells import Spells, draw
from sim.study.timeline.stream import Trace, names

MOVES = {
    "transfers": Spells("keys and values on their way", "kind", ("request", "source", "target", "bytes", "tokens", "tier"),
                        replicas=("source", "target")),
    "flows": Spells("transfers over the network", "kind", ("source", "target", "bytes", "moved", "bound", "priority")),
    "deliveries": Spells("weights, checkpoints and copies", "what", ("workload", "bytes", "receivers", "algorithm")),
}  # fmt: skip
LATE = 2e-9  # bins shorter than this are ends of the run


def moves(trace: Trace, tables: Tables, seats: Sequence[str], room: int) -> None:
    """In at most `room` events, half of them of links."""
    for name, spells in MOVES.items():
        draw(trace, tables.result.tables[name], spells, room // 6, seats=seats)
    _links(trace, tables, room // 2)


def _links(trace: Trace, tables: Tables, room: int) -> None:
    """The use of links, percent of what each can carry, in the bins in which it was recorded; of those that carried most, where there are
    too many.
    """
    usage, links = tables.result.tables["usage"], tables.result.tables["links"]
    if not len(usage):
        return
    bins = np.zeros(len(links), dtype="i8")
    for page in usage.pages():
        bins += np.bincount(page["link"], minlength=len(links))
    # A bin is one event, and one more where the next bin is not the one behind it.
    order = np.argsort(-links["bytes"], kind="stable")
    order = order[bins[order] > 0]
    chosen = order[np.cumsum(2 * bins[order]) <= room]
    shown = np.zeros(len(links), dtype=bool)
    shown[chosen] = True
    process = trace.process(f"network links, the {len(chosen)} that carried most of {len(order)}" if len(chosen) < len(order) else
                            "network links")  # fmt: skip
    titles, capacity = names(links, "link"), links["capacity"]
    title = [titles[code] for code in links["link"].tolist()]
    last: dict[int, int] = {}
    for page in usage.pages():
        mine = shown[page["link"]] & (page["seconds"] > LATE)
        link, start, seconds = (page[name][mine] for name in ("link", "start", "seconds"))
        used = np.round(100 * page["bytes"][mine] / (capacity[link] * seconds), 3)
        for number, begin, end, value in zip(link.tolist(), trace.times(start), trace.times(start + seconds), used.tolist(), strict=True):
            if last.get(number, begin) < begin - 1:
                trace.counter(process, title[number], last[number], '{"%":0}')
            trace.counter(process, title[number], begin, f'{{"%":{value}}}')
            last[number] = end
    for number, time in sorted(last.items()):
        trace.counter(process, title[number], time, '{"%":0}')
    trace.notes["links"] = {"shown": len(chosen), "of": len(links)}
