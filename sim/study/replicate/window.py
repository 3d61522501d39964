"""The part of a run that lies between two times, as tables of their own: what is left after a warm-up, or a batch of a long run.

Of requests those that arrive in it are kept, with all that became of them later; engine steps are cut at its edges; replicas stay as
they are, for their lives are measured against the window. The figures of GROUPS are then computed as for any run. What is
told by tasks, training steps or machines beside the engines is not cut, and stays that of the whole run: with trainers or sandboxes also
GPUs, money and energy, which are shared with them.

Tables are cut as they are read, a page at a time, so that a long run does not fill the memory, and a run without a warm-up costs nothing.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from sim.core.errors import BadInput
from sim.core.record import Page, Table
from sim.study.facts import Bins, Tables
from sim.study.measures import MEASURES
from sim.study.replicate.interval import mser
from sim.study.result import Result

REQUESTS = ("requests", "ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s", "throughput", "slo", "pools")
KV = ("kv.mean_fraction", "kv.prefix_hit_rate", "kv.prefix_hits", "kv.moved", "kv.internal_fragmentation", "kv.external_fragmentation")
GPUS = ("gpu", "cost", "energy", "carbon")
GROUPS = (*REQUESTS, *KV, *GPUS)
BINS = 500  # of time, for the warm-up of how busy GPUs are
MSER = "mser"
Warmup = float | str | None  # seconds, "mser" or nothing


class Cut(Table):
    """A table seen through a function that says which of a page's rows are kept, with columns in place of some."""

    def __init__(self, table: Table, keep: Callable[[Page], tuple[np.ndarray, Mapping[str, np.ndarray]]]):
        super().__init__(table.name, table.columns)
        self.labels = table.labels
        self._table, self._keep = table, keep

    def pages(self) -> Iterator[Page]:
        first = 0
        for page in self._table.pages():
            rows, new = self._keep(page)
            if len(rows):
                yield Page(first, len(rows), lambda name, page=page, rows=rows, new=new: new[name] if name in new else page[name][rows])  # type: ignore[misc]
                first += len(rows)

    def __len__(self) -> int:
        return sum(len(page) for page in self.pages())


def window(result: Result, begin: float, end: float) -> Result:
    """The part of a run from `begin` to `end`, seconds; the scenario and the pools are those of the run."""

    def by(column: str) -> Callable[[Page], tuple[np.ndarray, dict[str, np.ndarray]]]:
        return lambda page: (np.flatnonzero((page[column] >= begin) & (page[column] < end)), {})

    tables = dict(result.tables)
    for name, column in (("requests", "arrival"), ("stalls", "start"), ("transfers", "start")):
        if name in tables:
            tables[name] = Cut(tables[name], by(column))
    tables["stretches"] = Cut(tables["stretches"], lambda page: _steps(page, begin, end))
    until = min(end, float(result.meta["sim_s"]))
    return Result(result.scenario, tables, {**result.meta, "begin": begin, "sim_s": until, "warmup": None})


def _steps(page: Page, begin: float, end: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The stretches of a page that reach into the window; of those at its edges the share of steps, tokens and time that lies in it, so
    that windows side by side add up to the whole.
    """
    start, seconds = page["start"], page["seconds"]
    rows = np.flatnonzero((start + seconds > begin) & (start < end))
    start, seconds = start[rows], seconds[rows]
    if not ((start < begin) | (start + seconds > end)).any():
        return rows, {}
    since, until = np.maximum(start, begin), np.minimum(start + seconds, end)
    part, gone = (until - since) / seconds, (since - start) / seconds
    new: dict[str, np.ndarray] = {name: page[name][rows] * part for name in ("steps", "tokens", "prefill_tokens", "prefill_pairs")}
    new |= {"start": since, "seconds": seconds * part, "held": page["held"][rows] + page["decoders"][rows] * page["steps"][rows] * gone}
    return rows, new


def cut_figures(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures, by the begin of their names, that a warm-up is left out of in such a run. Requests of reinforcement learning are
    counted against what it plans, which is of the whole run.
    """
    requests = REQUESTS[1:] if meta.get("rl") else REQUESTS
    shared = meta.get("trainers") or meta.get("sandboxes") or meta.get("other_prices", {}).get("egress_gb")
    return (*requests, *KV) if shared else (*requests, *KV, *GPUS)


def is_cut(name: str, groups: tuple[str, ...]) -> bool:
    """Whether a figure of that dotted name is one of the groups.

    >>> is_cut("ttft_s.p99", GROUPS), is_cut("kv.peak_fraction", GROUPS), is_cut("costly", GROUPS)
    (True, False, False)
    """
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def warmed(result: Result, warmup: Warmup) -> Result:
    """The run with its warm-up left out of its figures: so many seconds, or as MSER finds it. What was cut, and what was not, is said in
    `summary["warmup"]` and in the remarks.

    MSER looks at each measure of the requests, in order of arrival, and at how busy the GPUs are; the latest end counts. Raises BadInput
    for a warm-up after which nothing arrives.
    """
    if warmup is None:
        return result
    tables = Tables(result)
    if not tables.counts.sum():
        raise BadInput("no request arrives in this run, and a warm-up is that of requests; leave it out")
    found = _ends(tables) if warmup == MSER else {}
    # Of a run that begins late, such as a piece of a trace, the clock's zero is of no interest.
    cut = max([end for end, _ in found.values()], default=tables.begin) if warmup == MSER else tables.begin + float(warmup)
    if cut > tables.arrivals[1]:
        lasts = tables.arrivals[1] - tables.begin
        message = f"the warm-up of {cut - tables.begin:g} s is longer than requests arrive ({lasts:.4g} s)"
        raise BadInput(f"{message}; give a shorter one, or run longer")
    gone = sum(int((page["arrival"] < cut).sum()) for page in tables.requests())
    groups = cut_figures(result.meta)
    said = {
        "seconds": cut - tables.begin if warmup == MSER else float(warmup),
        "method": "MSER-5" if warmup == MSER else "given", "requests": gone,
        "of_requests": int(tables.counts.sum()), "until": {name: end - tables.begin for name, (end, _) in found.items()},
        "settled": {name: settled for name, (_, settled) in found.items()}, "figures": list(groups), "begin": cut,
    }  # fmt: skip
    return Result(result.scenario, result.tables, {**result.meta, "warmup": said, "remarks": [*result.meta["remarks"], *remarks(said)]})


def remarks(said: Mapping[str, Any]) -> list[str]:
    """What was cut, in words."""
    how = "as MSER-5 finds it" if said["method"] == "MSER-5" else "as given"
    lines = [
        f"The first {said['seconds']:.4g} s, a warm-up {how}, and the {said['requests']:,} of {said['of_requests']:,} requests that came "
        f"in it are left out of {', '.join(said['figures'])}; other figures, the verdict, the checks and the plots are of the whole run."
    ]
    moving = [name for name, settled in said["settled"].items() if not settled]
    if moving:
        lines.append(f"The run is too short to tell where the warm-up of {', '.join(moving)} ends: no steady state was seen; run longer.")
    return lines


def _ends(tables: Tables) -> dict[str, tuple[float, bool]]:
    """By series, when its warm-up ends by MSER-5, and whether it has settled."""
    arrivals = np.concatenate([page["arrival"] for page in tables.requests()])
    order = np.argsort(arrivals, kind="stable")
    found = {}
    for name, of in MEASURES.items():
        values = np.concatenate([of(page) for page in tables.requests()])[order]
        there = ~np.isnan(values)
        if there.any():
            end = mser(values[there])
            # The first request that is kept ends the warm-up.
            found[name] = (float(arrivals[order][there][min(end.cut, end.n - 1)]) if end.cut else tables.begin, end.settled)
    edges = np.linspace(*tables.arrivals, BINS + 1)
    if edges[0] < edges[-1]:
        busy = Bins(edges)
        for page in tables.stretches():
            busy.add(page["start"], page.end, page.gpus)
        end = mser(busy.means())
        found["busy"] = (float(edges[end.cut]), end.settled)
    return found
