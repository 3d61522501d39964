"""Pools as processes, replicas as threads: runs of steps, pauses, stages of starts, adapters; counters of batch, queue and KV cache.

A stretch is a slice: `prefill`, `decode`, or `mixed` where a step did both. Where there are more than there is room for, those of a replica
that begin in the same bin of time become one slice, which says how many they were and how long it worked; its counters are the largest of
them. Counters change at begins of slices: `kv` is the share of blocks in use when the slice before ended, `batch` requests in its steps,
`running` those and requests that stood still for prompts of others, `waiting` the queue of the replica. While a replica stands still
nobody counts its requests: `running` and `waiting` stay what they were.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sim.core.record import Page
from sim.study.facts import Bins, Tables
from sim.study.timeline.stream import Trace, evenly, names, quoted, said, thinned

RATES = 500  # bins of tokens per second
PER_SLICE = 3  # a slice, and counters at its begin and at its end
NAMES = ('"idle"', '"decode"', '"prefill"', '"mixed"')


class Seats:
    """Where replicas are shown: `process` by pool; `names` and `steps`, (process, thread), by replica."""

    def __init__(self, trace: Trace, tables: Tables):
        self._trace = trace
        self.process = {name: trace.process(f"pool {name}") for name in tables.pools}
        self.names: list[str] = []
        self.steps: list[tuple[int, int]] = []
        counts = dict.fromkeys(tables.pools, 0)
        self._lives: dict[int, tuple[int, int]] = {}
        staged = set(np.unique(tables.result.tables["starts"]["replica"]).tolist())
        for replica, pool in enumerate(tables.pool_of_replica):
            name = f"{pool} {counts[pool]}"
            counts[pool] += 1
            self.names.append(name)
            self.steps.append((self.process[pool], trace.thread(self.process[pool], name)))
            if replica in staged:
                self._lives[replica] = self.process[pool], trace.thread(self.process[pool], f"{name} start and end")

    def life(self, replica: int) -> tuple[int, int]:
        """The thread of a replica's stages; it has some."""
        return self._lives[replica]


class Run(NamedTuple):
    """Stretches of one replica drawn as one slice, times in microseconds; `kv` is the most blocks in use at the end of any of them."""

    start: int
    end: int
    bin: int
    many: int
    steps: int
    busy: float
    batch: int
    decoders: int
    paused: int
    waiting: int
    kv: int
    prompts: int
    tokens: float

    def joined(self, other: Run) -> Run:
        """Both as one; `other` is the later."""
        return Run(
            self.start, other.end, self.bin, self.many + other.many, self.steps + other.steps, self.busy + other.busy,
            max(self.batch, other.batch), max(self.decoders, other.decoders), max(self.paused, other.paused),
            max(self.waiting, other.waiting), max(self.kv, other.kv), self.prompts + other.prompts, self.tokens + other.tokens,
        )  # fmt: skip


def stages(trace: Trace, tables: Tables, seats: Seats, room: int) -> None:
    """Stages of starts and ends, pauses, and adapters that had to be brought, in at most `room` events."""
    facts = tables.result.tables
    whys = [quoted("asleep" if why == "sleep" else f"paused: {why}") for why in facts["pauses"].labels["why"]]
    _slices(trace, tables, "starts", ("stage", "bytes", "source"), (names(facts["starts"], "stage"), seats.life), room // 3)
    _slices(trace, tables, "pauses", ("why", "standing", "forgotten"), (whys, seats.steps.__getitem__), room // 3)
    _adapters(trace, tables, seats, room // 3)


def _slices(trace: Trace, tables: Tables, name: str, columns: tuple[str, ...],
            where: tuple[Sequence[str], Callable[[int], tuple[int, int]]], room: int) -> None:  # fmt: skip
    """Rows of a table as slices of their replica's thread: the first of `columns` names them, in the words given, the others are told."""
    table, (words, place), shown = tables.result.tables[name], where, 0
    for page, rows in thinned(table, room):
        replica = page["replica"][rows]
        until = np.where(np.isnan(page["end"][rows]), tables.replicas["end"][replica], page["end"][rows])
        values = zip(*(page[column][rows].tolist() for column in columns), strict=True)
        for who, begin, end, (code, *others) in zip(replica.tolist(), *trace.spans(page["start"][rows], until), values, strict=True):
            told = {key: table.labels[key][value] if key in table.labels else value for key, value in zip(columns[1:], others, strict=True)}
            trace.slice(place(who), words[code], (begin, end), said(**{key: value or None for key, value in told.items()}))
            shown += 1
    _note(trace, name, shown, len(table))


def _adapters(trace: Trace, tables: Tables, seats: Seats, room: int) -> None:
    table = tables.result.tables["adapters"]
    slot, shown = table.labels["source"].index("slot"), 0
    for page, rows in thinned(table, room):
        mine = rows[page["source"][rows] != slot]
        columns = [page[name][mine].tolist() for name in ("replica", "adapter", "source", "seconds")]
        for time, replica, adapter, source, waited in zip(trace.times(page["time"][mine]), *columns, strict=True):
            name = quoted(f"adapter {table.labels['adapter'][adapter]}")
            trace.instant(seats.steps[replica], name, time, said(source=table.labels["source"][source], waited_s=waited))
            shown += 1
    _note(trace, "adapters", shown, len(table))


def _note(trace: Trace, name: str, shown: int, of: int) -> None:
    if of:
        trace.notes[name] = {"shown": shown, "of": of}


class Engines:
    """Draws the stretches of a run, page by page, in at most `room` events."""

    def __init__(self, trace: Trace, tables: Tables, seats: Seats, room: int):
        self._trace, self._tables, self._seats = trace, tables, seats
        replicas, count = len(tables.replicas), len(tables.result.tables["stretches"])
        # Bins of tokens per second are told at most, and every replica needs a slice.
        self._rates = max(min(RATES, room // (4 * max(len(tables.pools), 1))), 1)
        slices = max((room - self._rates * len(tables.pools)) // PER_SLICE, 1)
        self._every = evenly(replicas, slices)
        bins = max(slices // max(-(-replicas // self._every), 1), 1)
        self.width = 0.0 if count <= slices and self._every == 1 else max(trace.end / bins, 1e-6)
        self._bins = bins
        self._blocks = np.maximum(tables.replicas["blocks"], 1).tolist()
        self._pending: dict[int, Run] = {}
        self._last: dict[int, tuple[int, int]] = {}  # of each replica, the end of its last slice and the blocks then in use
        self._told: dict[int, str] = {}
        self._stands = Stands(trace, tables)

    def draw(self) -> None:
        """Everything; says in the notes how slices were merged."""
        trace, tables = self._trace, self._tables
        edges = np.linspace(0.0, max(trace.end, 1e-9), self._rates + 1)
        pools = list(tables.pools)
        rates = [(Bins(edges), Bins(edges)) for _ in pools]
        code = np.array([pools.index(name) for name in tables.pool_of_replica])
        shown = 0
        for page in tables.result.tables["stretches"].pages():
            of, start, seconds = code[page["replica"]], page["start"], page["seconds"]
            lasting = np.maximum(seconds, 1e-12)
            for number in np.unique(of).tolist():
                mine = of == number
                for bins, column in zip(rates[number], ("tokens", "prefill_tokens"), strict=True):
                    bins.add(start[mine], start[mine] + lasting[mine], page[column][mine] / lasting[mine])
            for replica, run in self._runs(page):
                shown += self._take(replica, run)
        for replica in sorted(self._pending):
            shown += self._slice(replica, self._pending.pop(replica))
        for replica in sorted(self._last):
            self._rest(replica)
        for name, (output, prompt) in zip(pools, rates, strict=True):
            both = np.column_stack([output.means(), prompt.means()])
            for time, (out, into) in zip(trace.times(edges[:-1]), np.round(both, 2).tolist(), strict=True):
                trace.counter(self._seats.process[name], '"tokens/s"', time, f'{{"output":{out},"prompt":{into}}}')
        count = len(tables.result.tables["stretches"])
        trace.notes["stretches"] = {"shown": shown, "of": count, "merged_over_s": self.width or None, "one_replica_in": self._every}

    def _runs(self, page: Page) -> Iterator[tuple[int, Run]]:
        """(replica, run) of a page, those of one replica in order of time."""
        get = page.__getitem__
        order = np.argsort(get("replica"), kind="stable")
        if self._every > 1:
            order = order[get("replica")[order] % self._every == 0]
        if not len(order):
            return
        replica, start, seconds = (get(name)[order] for name in ("replica", "start", "seconds"))
        place = np.minimum(start / self.width, self._bins - 1).astype("i8") if self.width else np.arange(len(order))
        first = np.flatnonzero(np.append(True, (replica[1:] != replica[:-1]) | (place[1:] != place[:-1])))
        last = np.append(first[1:], len(order)) - 1
        decoders, paused = (get(name)[order] for name in ("decoders", "paused"))
        begin, until = self._trace.spans(start[first], (start + seconds)[last])
        columns = (
            last - first + 1, np.add.reduceat(get("steps")[order].astype("i8"), first), np.add.reduceat(seconds, first),
            np.maximum.reduceat(decoders + get("prefills")[order], first), np.maximum.reduceat(decoders, first),
            np.maximum.reduceat(paused, first), np.maximum.reduceat(get("waiting")[order], first),
            np.maximum.reduceat(get("blocks")[order], first), np.add.reduceat(get("prefill_tokens")[order].astype("i8"), first),
            np.add.reduceat(get("tokens")[order], first),
        )  # fmt: skip
        values = zip(begin, until, place[first].tolist(), *(column.tolist() for column in columns), strict=True)
        for who, row in zip(replica[first].tolist(), values, strict=True):
            yield who, Run(*row)

    def _take(self, replica: int, run: Run) -> int:
        """Slices drawn: a run is kept until it is known that the next of its replica is not in its bin."""
        if not self.width:
            return self._slice(replica, run)
        before = self._pending.get(replica)
        if before is not None and before.bin == run.bin:
            self._pending[replica] = before.joined(run)
            return 0
        self._pending[replica] = run
        return self._slice(replica, before) if before is not None else 0

    def _slice(self, replica: int, run: Run) -> int:
        if replica in self._last and run.start > self._last[replica][0] + 1:
            self._rest(replica)
        kv = self._last[replica][1] if replica in self._last else 0
        self._count(replica, run.start, kv, f'"batch":{run.batch},"running":{run.batch + run.paused},"waiting":{run.waiting}')
        args = f'"steps":{run.steps},"batch":{run.batch}'
        if run.decoders:
            args += f',"tokens":{run.tokens:.10g}'
        if run.prompts:
            args += f',"prompt_tokens":{run.prompts}'
        if run.many > 1:
            args += f',"stretches":{run.many},"busy_s":{run.busy:.6g}'
        name = NAMES[(1 if run.decoders else 0) + (2 if run.prompts else 0)]
        process, thread = self._seats.steps[replica]
        self._trace.add(f'{{"ph":"X","pid":{process},"tid":{thread},"ts":{run.start},"dur":{run.end - run.start},"name":{name},'
                        f'"args":{{{args}}}}}')  # fmt: skip
        self._last[replica] = run.end, run.kv
        return 1

    def _rest(self, replica: int) -> None:
        """After the last slice of a replica there is a while without one."""
        time, kv = self._last[replica]
        self._count(replica, time, kv, '"batch":0' if self._stands.at(replica, time + 1) else '"batch":0,"running":0,"waiting":0')

    def _count(self, replica: int, time: int, kv: int, rest: str) -> None:
        args = f'{{"kv":{round(kv / self._blocks[replica], 5)},{rest}}}'
        if self._told.get(replica) != args:
            self._told[replica] = args
            self._trace.add(f'{{"ph":"C","pid":{self._seats.steps[replica][0]},"tid":0,"ts":{time},'
                            f'"name":{quoted(self._seats.names[replica])},"args":{args}}}')  # fmt: skip


class Stands:
    """When replicas were paused."""

    def __init__(self, trace: Trace, tables: Tables):
        table = tables.result.tables["pauses"]
        until = np.where(np.isnan(table["end"]), tables.replicas["end"][table["replica"]], table["end"])
        order = np.lexsort((table["start"], table["replica"]))
        self._begin, self._until = (np.array(times, dtype="i8")[order] for times in trace.spans(table["start"], until))
        self._first = np.searchsorted(table["replica"][order], np.arange(len(tables.replicas) + 1))

    def at(self, replica: int, time: int) -> bool:
        """Whether it stood still then, a microsecond."""
        low, high = self._first[replica], self._first[replica + 1]
        before = low + int(np.searchsorted(self._begin[low:high], time, side="right")) - 1 if high > low else low - 1
        return bool(before >= low and self._until[before] > time)
