"""The options of a timeline, for the verbs that write one."""
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from sim.core.errors import BadInput
from sim.study.timeline.sizes import EVENTS, REQUESTS, Sizes

FILE = "trace.json.gz"
STUDIES: Mapping[str, str] = MappingProxyType({
    "ladder.json": "ladder", "curve.json": "curve", "journal.jsonl": "sweep", "comparison.json": "comparison", "plan.json": "plan",
    "capacity.json": "capacity", "pareto.json": "frontier",
})  # fmt: skip


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--trace` and how much of it, handed to a command as one `trace`: None when it is not wanted."""

    @click.option("--trace", is_flag=True, help=f"Write {FILE} too: a timeline to be opened at ui.perfetto.dev.")
    @click.option("--trace-requests", type=int, metavar="N",
                  help=f"At most so many requests, sessions of agents, and sandboxes in it, evenly.  [default: {REQUESTS:,}]")
    @click.option("--trace-limit", type=int, metavar="N", help=f"At most so many events in it.  [default: {EVENTS:,}]")
    @functools.wraps(command)
    def with_trace(*, trace: bool, trace_requests: int | None, trace_limit: int | None, **rest: Any) -> Any:
        if not trace and (trace_requests, trace_limit) != (None, None):
            given = "--trace-requests" if trace_requests is not None else "--trace-limit"
            raise BadInput(f"{given} says how much of a timeline is written; give --trace as well")
        sizes = Sizes(EVENTS if trace_limit is None else trace_limit, REQUESTS if trace_requests is None else trace_requests)
        sizes.check()
        return command(trace=sizes if trace else None, **rest)

    return with_trace


def files(sizes: Sizes | None) -> dict[str, Any]:
    """What `Result.save` writes for it beside its tables."""
    if sizes is None:
        return {}
    from sim.study.timeline.timeline import save

    return {FILE: functools.partial(save, sizes=sizes)}


def check(folder: Path) -> None:
    """Raises BadInput for a folder that holds more than one run."""
    for name, what in STUDIES.items():
        if (folder / name).is_file():
            raise BadInput(f"{folder} holds a {what}; a timeline is of one run: name the folder of one")


def again(folder: Path, sizes: Sizes) -> None:
    """Write the timeline of a saved result anew, in its folder."""
    from sim.study.result import Result

    Result.open(folder).trace(folder / FILE, events=sizes.events, requests=sizes.requests)
