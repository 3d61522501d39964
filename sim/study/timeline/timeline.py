"""The timeline of a run as one file for Perfetto: who did what when, in a stated number of events however long the run.

Tables are read by pages and events written as they are made, so that memory does not grow with requests and stretches; only replicas, their
pauses and some columns of agents are held whole. Each kind of thing has its share of the limit, and takes rows evenly where it has more of
them than room; engines come last and have all that is left. What was left out is said in the names of the viewer and, as numbers, in
`otherData` of the file.

Not drawn are tables that say how requests belong together (`attempts`, `stages`) and those of which others tell more (`slowdowns`,
`rl_samples`, `places`, `losses`, `requeues`).
"""
from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from sim.core.errors import BadInput
from sim.study.facts import Tables
from sim.study.result import Result
from sim.study.timeline.agents import agents
from sim.study.timeline.calls import requests
from sim.study.timeline.engines import Engines, Seats, stages
from sim.study.timeline.fleet import sandboxes, scaling
from sim.study.timeline.links import moves
from sim.study.timeline.sizes import Sizes
from sim.study.timeline.stream import Trace
from sim.study.timeline.training import training


def save(result: Result, path: Path, sizes: Sizes | None = None) -> dict[str, Any]:
    """Write the timeline, whole or not at all; returns what it says of itself: events, and what was shown of how much.

    Raises BadInput when `sizes` allow too little to be seen, or when the file cannot be written.
    """
    sizes = sizes or Sizes()
    sizes.check()
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file, Trace(file, float(result.meta["sim_s"])) as trace:
            _draw(trace, Tables(result), sizes)
        aside.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return trace.notes | {"events": trace.events}


def _draw(trace: Trace, tables: Tables, sizes: Sizes) -> None:
    meta, share = tables.meta, sizes.events // 8
    trace.notes |= {
        "scenario": tables.result.scenario.name, "version": meta["version"], "seed": meta["seed"], "digest": meta["digest"],
        "simulated_s": trace.end, "events_at_most": sizes.events,
    }  # fmt: skip
    seats = Seats(trace, tables)
    requests(trace, tables, seats.names, sizes.requests, share)
    agents(trace, tables, sizes.requests, share)
    training(trace, tables, seats, share)
    sandboxes(trace, tables, sizes.requests, share)
    scaling(trace, tables, seats.process, seats.names, share // 2)
    moves(trace, tables, seats.names, share)
    stages(trace, tables, seats, share)
    Engines(trace, tables, seats, sizes.events - trace.events).draw()
