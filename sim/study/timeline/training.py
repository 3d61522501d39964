"""Trainers, and runs of reinforcement learning: states and updates, steps and publications, groups by where they are, grades.

An arrow leads from a publication to each replica that stood still for it, `ARROWS` of each publication at most.
"""
from __future__ import annotations

import numpy as np

from sim.core.record import Table
from sim.study.facts import Tables
from sim.study.timeline.engines import Seats
from sim.study.timeline.level import Lanes, Level
from sim.study.timeline.stream import Trace, names, said, thinned

ARROWS = 16
SHARE = 10  # of the room, for each of what is drawn
UPDATE = ("workload", "samples", "tokens", "micro_batches", "forward", "backward", "recompute", "network", "launch", "imbalance", "bubble",
          "gradients", "optimizer", "offload", "overhead")  # fmt: skip
STEP = ("wait", "reward", "data", "logprob", "reference", "update", "sync", "switch", "checkpoint", "validation", "generate", "groups",
        "samples", "tokens", "useful", "queued")  # fmt: skip
GROUPS = (("running", "begun", "done"), ("being scored", "done", "scored"), ("waiting for the trainer", "scored", "ended"))


def training(trace: Trace, tables: Tables, seats: Seats, room: int) -> None:
    """In at most `room` events."""
    facts = tables.result.tables
    trainers = {name: trace.process(f"trainer {name}") for name in _known(tables)}
    for name, what in (("train_states", "states"), ("train_steps", "updates")):
        _by_trainer(trace, facts[name], trainers, what, room // SHARE)
    runs = {name: trace.process(f"reinforcement learning: {name}") for name in facts["rl_steps"].labels["workload"]}
    lanes = {name: (Lanes(trace, process, "steps"), Lanes(trace, process, "publications")) for name, process in runs.items()}
    _steps(trace, facts["rl_steps"], lanes, room // SHARE)
    _publications(trace, tables, lanes, seats, 3 * room // SHARE)
    most = room // SHARE // max(len(runs), 1)
    for code, name in enumerate(facts["rl_groups"].labels["workload"]):
        for words, begin, end in GROUPS:
            _count(trace, facts["rl_groups"], ("workload", code), (begin, end, ""), (runs[name], f"groups {words}", most))
    graders = facts["rl_grades"].labels["grader"]
    process = trace.process("graders") if graders else 0
    for code, name in enumerate(graders):
        for words, queued in (("asked", ""), ("at work", "queued")):
            _count(trace, facts["rl_grades"], ("grader", code), ("start", "end", queued), (process, f"{name}: {words}", most))


def _known(tables: Tables) -> list[str]:
    facts = tables.result.tables
    return list(dict.fromkeys([*facts["train_states"].labels["trainer"], *facts["train_steps"].labels["trainer"]]))


def _by_trainer(trace: Trace, table: Table, trainers: dict[str, int], what: str, room: int) -> None:
    """States as slices by their names, or updates by their numbers; each of a trainer follows the one before."""
    if not len(table):
        return
    lanes = [Lanes(trace, trainers[name], what) for name in table.labels["trainer"]]
    titles, shown = names(table, "state") if what == "states" else [], 0
    for page, rows in thinned(table, room):
        columns = {} if what == "states" else {name: page[name][rows].tolist() for name in UPDATE}
        if columns:
            columns["workload"] = [table.labels["workload"][code] for code in columns["workload"]]
        end = np.where(np.isnan(page["end"][rows]), trace.end, page["end"][rows])
        ends = zip(*trace.spans(page["start"][rows], end), strict=True)
        kinds = page["state" if what == "states" else "step"][rows].tolist()
        for place, (span, trainer, kind) in enumerate(zip(ends, page["trainer"][rows].tolist(), kinds, strict=True)):
            args = said(**{key: values[place] or None for key, values in columns.items()}) if columns else ""
            trace.slice(lanes[trainer].place(*span), titles[kind] if what == "states" else f'"update {kind}"', span, args)
            shown += 1
    trace.notes[table.name] = {"shown": shown, "of": len(table)}


def _steps(trace: Trace, table: Table, lanes: dict[str, tuple[Lanes, Lanes]], room: int) -> None:
    shown = 0
    for page, rows in thinned(table, room):
        columns = {name: page[name][rows].tolist() for name in STEP}
        spans = zip(*trace.spans(page["start"][rows], page["end"][rows]), strict=True)
        which = zip(spans, page["workload"][rows].tolist(), page["version"][rows].tolist(), strict=True)
        for place, (span, code, version) in enumerate(which):
            at = lanes[table.labels["workload"][code]][0].place(*span)
            trace.slice(at, f'"version {version}"', span, said(**{name: values[place] or None for name, values in columns.items()}))
            shown += 1
    if shown:
        trace.notes["rl_steps"] = {"shown": shown, "of": len(table)}


def _publications(trace: Trace, tables: Tables, lanes: dict[str, tuple[Lanes, Lanes]], seats: Seats, room: int) -> None:
    """From when weights are ready to be sent to when engines and the trainer go on; moments between as instants on the same thread."""
    table, pauses = tables.result.tables["rl_syncs"], tables.result.tables["pauses"]
    if not len(table):
        return
    mine = np.flatnonzero(pauses["why"] == pauses.labels["why"].index("update"))
    mine = mine[np.argsort(pauses["start"][mine], kind="stable")]
    began, replica, pools = pauses["start"][mine], pauses["replica"][mine], np.array(tables.pool_of_replica)
    rollouts = {run["name"]: run["pool"] for run in tables.meta["rl"]}
    shown = 0
    for page, rows in thinned(table, room // (4 + 2 * ARROWS)):
        stop = np.fmax(page["resumed"][rows], page["released"][rows])
        stop = np.where(np.isnan(stop), trace.end, stop)
        spans = zip(*trace.spans(page["start"][rows], stop), strict=True)
        for row, span, end in zip(rows.tolist(), spans, stop.tolist(), strict=True):
            name, start = table.labels["workload"][page["workload"][row]], float(page["start"][row])
            at = lanes[name][1].place(*span)
            trace.slice(at, f'"version {int(page["version"][row])} goes out"', span, said(
                bytes=float(page["bytes"][row]), running=int(page["running"][row]), stopped=int(page["stopped"][row])))
            for moment in ("gathered", "paused", "moved"):
                if not np.isnan(page[moment][row]):
                    [time] = trace.times(page[moment][row : row + 1])
                    trace.instant(at, f'"{moment}"', min(max(time, span[0]), span[1]))
            low, high = np.searchsorted(began, [start, end])
            reached = [place for place in range(low, high) if pools[replica[place]] == rollouts[name]][:ARROWS]
            for place, time in zip(reached, trace.spans(began[reached], began[reached])[0], strict=True):
                trace.arrow('"weights"', (*at, span[0]), (*seats.steps[int(replica[place])], time))
            shown += 1
    trace.notes["rl_syncs"] = {"shown": shown, "of": len(table), "arrows_each": ARROWS}


def _count(trace: Trace, table: Table, which: tuple[str, int], span: tuple[str, str, str], shown: tuple[int, str, int]) -> None:
    """How many rows there are at a time, from one column to another, the third added to the first."""
    begin, end, later = span
    level = Level(trace.end, sum(int((page[which[0]] == which[1]).sum()) for page in table.pages()), shown[2])
    for page in table.pages():
        mine = page[which[0]] == which[1]
        start = page[begin][mine] + (page[later][mine] if later else 0.0)
        level.add(start, page[end][mine])
    level.draw(trace, shown[0], shown[1])
