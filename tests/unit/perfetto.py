"""A plain reader of timelines: what the format asks of every event, and what viewers do with them, held against the file."""
from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

Event = dict[str, Any]
KEYS = {
    "X": {"pid", "tid", "ts", "dur", "name"}, "i": {"pid", "tid", "ts", "name", "s"}, "C": {"pid", "ts", "name", "args"},
    "b": {"pid", "cat", "id2", "ts", "name"}, "n": {"pid", "cat", "id2", "ts", "name"}, "e": {"pid", "cat", "id2", "ts", "name"},
    "s": {"pid", "tid", "ts", "id", "cat", "name"}, "f": {"pid", "tid", "ts", "id", "cat", "name", "bp"}, "M": {"pid", "name", "args"},
}  # fmt: skip


class Timeline:
    """Events of a file by where they are shown: by the names of process and thread (slices, instants), process, counter and key
    (`counters`: lists of (time, value)), or process (`spells`: lists of events of one asynchronous slice).
    """

    def __init__(self, path: Path):
        whole = json.loads(gzip.decompress(path.read_bytes()), parse_constant=lambda word: 1 / 0)
        self.events: list[Event] = whole["traceEvents"]
        self.notes: dict[str, Any] = whole["otherData"]
        self.processes = {e["pid"]: e["args"]["name"] for e in self.events if e["name"] == "process_name"}
        self.threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in self.events if e["name"] == "thread_name"}
        self.slices: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self.instants: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self.counters: dict[tuple[str, str, str], list[tuple[int, float]]] = defaultdict(list)
        self.spells: dict[str, list[list[Event]]] = defaultdict(list)
        self.arrows: dict[str, list[Event]] = defaultdict(list)
        spells: dict[tuple[int, str, str], list[Event]] = {}
        for event in self.events:
            process = self.processes[event["pid"]]
            if event["ph"] in "Xi":
                kind = self.slices if event["ph"] == "X" else self.instants
                kind[process, self.threads[event["pid"], event["tid"]]].append(event)
            elif event["ph"] == "C":
                for key, value in event["args"].items():
                    self.counters[process, event["name"], key].append((event["ts"], value))
            elif event["ph"] in "bne":
                known = event["pid"], event["cat"], event["id2"]["local"]
                if known not in spells:
                    self.spells[process].append(spells.setdefault(known, []))
                spells[known].append(event)
            elif event["ph"] in "sf":
                self.arrows[event["id"]].append(event)

    def check(self) -> None:
        """Raises AssertionError where a viewer would drop or misplace an event."""
        end = int(self.notes["simulated_s"] * 1e6)
        assert self.notes["events"] == sum(event["ph"] != "M" for event in self.events)
        for event in self.events:
            assert KEYS[event["ph"]] <= event.keys(), event
            if event["ph"] != "M":
                assert type(event["ts"]) is int, event
                assert 0 <= event["ts"] <= event["ts"] + event.get("dur", 0) <= end, event
            if event["ph"] == "C":
                assert {type(value) for value in event["args"].values()} <= {int, float}, event
        for slices in self.slices.values():
            _nest(slices)
        for counter in self.counters.values():
            assert [time for time, _ in counter] == sorted(time for time, _ in counter)
        for spells in self.spells.values():
            for spell in spells:
                _close(spell)
        by_place = {(e["pid"], e["tid"]): slices for slices in self.slices.values() for e in slices[:1]}
        for arrow in self.arrows.values():
            assert [event["ph"] for event in arrow] == ["s", "f"]
            assert arrow[0]["ts"] <= arrow[1]["ts"]
            for event in arrow:
                slices = by_place[event["pid"], event["tid"]]
                assert any(one["ts"] <= event["ts"] <= one["ts"] + one["dur"] for one in slices), event


def _nest(slices: list[Event]) -> None:
    """Slices of one thread, taken by time and then by their order in the file, lie within each other or apart."""
    open_ = []
    for event in sorted(slices, key=lambda event: event["ts"]):
        while open_ and open_[-1] <= event["ts"]:
            open_.pop()
        end = event["ts"] + event["dur"]
        assert not open_ or end <= open_[-1], event
        open_.append(end)


def _close(spell: list[Event]) -> None:
    """The events of one asynchronous slice are in order of time, and what begins last ends first."""
    assert [event["ts"] for event in spell] == sorted(event["ts"] for event in spell), spell
    open_ = []
    for event in spell:
        if event["ph"] == "b":
            open_.append(event["name"])
        elif event["ph"] == "e":
            assert open_, spell
            assert open_.pop() == event["name"], spell
        else:
            assert open_, spell
    assert not open_, spell
