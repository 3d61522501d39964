"""What pools of replicas and of sandboxes have and want, as counters; sandboxes themselves and GPUs that change hands as slices."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.study.facts import Tables
from sim.study.timeline.level import Level
from sim.study.timeline.spells import Spells, draw
from sim.study.timeline.stream import Trace, thinned

LENDINGS = Spells("GPUs that change hands", "kind", ("owner", "borrower", "how", "giver", "taker", "sent_on", "called_off"),
                  span=("start", "served"), moments=("empty",), replicas=("giver", "taker"))  # fmt: skip
SANDBOXES = Spells("sandboxes, one by one", "pool", ("sandbox", "node", "workload", "outcome", "hit", "warm", "execs", "killed", "busy_s"),
                   span=("asked", "released"), moments=("placed", "booted", "granted"))  # fmt: skip
LOOKS = {"replicas": ("ready", "starting", "draining", "wanted"), "requests at the autoscaler's look": ("in_flight", "queued")}


def scaling(trace: Trace, tables: Tables, processes: dict[str, int], seats: Sequence[str], room: int) -> None:
    """What autoscalers saw and wanted, and lendings, in at most `room` events."""
    table, shown = tables.result.tables["scaling"], 0
    for page, rows in thinned(table, room // 4):
        columns = [[page[name][rows].tolist() for name in look] for look in LOOKS.values()]
        for place, (time, code) in enumerate(zip(trace.times(page["time"][rows]), page["pool"][rows].tolist(), strict=True)):
            process = processes[table.labels["pool"][code]]
            for (title, look), values in zip(LOOKS.items(), columns, strict=True):
                args = ",".join(f'"{name}":{value[place]}' for name, value in zip(look, values, strict=True))
                trace.counter(process, f'"{title}"', time, f"{{{args}}}")
            shown += 1
    if shown:
        trace.notes["scaling"] = {"shown": shown, "of": len(table)}
    draw(trace, tables.result.tables["lendings"], LENDINGS, room // 4, seats=seats)


def sandboxes(trace: Trace, tables: Tables, most: int, room: int) -> None:
    """At most `most` sandboxes as slices, and counters of all, in at most `room` events."""
    table, nodes = tables.result.tables["sandboxes"], tables.result.tables["sandbox_nodes"]
    pools = table.labels["pool"]
    share = room // (2 * 4 * max(len(pools), 1))
    for code, name in enumerate(pools):
        process = trace.process(f"sandboxes {name}")
        count = sum(int((page["pool"] == code).sum()) for page in table.pages())
        levels = {words: Level(trace.end, count, share) for words in ("waited for", "booting", "held")}
        for page in table.pages():
            mine = page["pool"] == code
            asked, placed, booted, granted, released = (page[key][mine] for key in ("asked", "placed", "booted", "granted", "released"))
            own = page["warm"][mine] == 0
            levels["waited for"].add(asked[own], np.where(np.isnan(granted), released, granted)[own])
            levels["booting"].add(placed, np.where(np.isnan(booted), released, booted))
            levels["held"].add(granted, released)
        for words, level in levels.items():
            level.draw(trace, process, words)
        mine = nodes["pool"] == nodes.labels["pool"].index(name) if name in nodes.labels["pool"] else np.zeros(len(nodes), dtype=bool)
        there = Level(trace.end, int(mine.sum()), share)
        there.add(nodes["start"][mine], nodes["end"][mine])
        there.draw(trace, process, "nodes")
    draw(trace, table, SANDBOXES, min(5 * most, room // 2))
