"""What has been measured so far, on disk as it happens, so that a killed run can go on where it was."""
from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import IO, Any

from sim.core.errors import BadInput, Problem

SYNC = 5.0  # seconds between forced writes: a killed process loses nothing, a crashed machine this much


class Journal:
    """Finished points, one JSON line each after a first line that says what they were measured with. Lost of a kill: the last line."""

    def __init__(self, path: Path, identity: dict[str, Any], resume: bool):
        self.path, self.identity = path, identity
        self.rows: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self.log: list[dict[str, float | None]] = []
        self._file: IO[str] | None = None
        self._synced = 0.0
        if resume and path.exists():
            self._read()
        else:
            self._replace([{"identity": identity}])

    def _read(self) -> None:
        whole = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # what follows the last line end was cut off
        try:
            entries = [json.loads(line) for line in whole]
            there = entries[0]["identity"] if entries else None
        except (ValueError, KeyError, TypeError):
            raise BadInput([Problem("is no list of measured points; remove it, or start afresh", file=str(self.path))]) from None
        if entries and there != self.identity:
            raise BadInput([Problem(f"cannot be continued: {differs(there, self.identity)}; start afresh", file=str(self.path))])
        self._replace(entries or [{"identity": self.identity}])
        for entry in entries[1:]:
            self._keep(entry)

    def _replace(self, entries: list[dict[str, Any]]) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
        fresh.replace(self.path)

    def _keep(self, entry: dict[str, Any]) -> None:
        if "row" in entry:
            self.rows[entry["row"]["point"]] = entry["row"]
            self.log += entry.get("log") or []
        else:
            self.skipped[entry["skipped"]] = entry["why"]

    def __enter__(self) -> Journal:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def add(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        self._keep(entry)
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        if time.monotonic() - self._synced > SYNC:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def differs(there: Any, identity: dict[str, Any]) -> str:
    if not isinstance(there, dict):
        return "it does not say what it was measured with"
    other = [f"{key} {there.get(key)} there, {value} now" for key, value in identity.items() if there.get(key) != value]
    return "another measurement, " + "; ".join(other) if other else "it is unfinished, and the file that would continue it is gone"
