"""Finished rows on disk, one JSON object a line, written as each ends: an interrupted validation goes on from there.

A row is found again by its key, a digest of all that decides its figures: the scenario, what is compared, and the program itself with its
hardware profiles. So a changed profile or a changed formula starts its rows afresh, and nothing else does.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from sim.core.errors import BadInput
from sim.study.validate.scenario_of import Case

PROGRAM = (("sim", ".py"), ("workloads", ".py"), ("hardware_profiles", ".yaml"))
ROWS = "rows.jsonl"


class Store:
    """The rows of one folder. Raises BadInput when the folder cannot be used; `force` forgets what is there."""

    def __init__(self, folder: Path, force: bool):
        self.path = folder / ROWS
        try:
            if folder.is_dir() and any(folder.iterdir()) and not self.path.is_file():
                raise BadInput(f"{folder} is not empty and holds no validation ({ROWS}); choose another folder")
            folder.mkdir(parents=True, exist_ok=True)
            if force or not self.path.is_file():
                self.path.write_text("", encoding="utf-8")
            self._rows = {row["key"]: row for row in self._read()}
        except OSError as error:
            raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error

    def get(self, key: str) -> dict[str, Any] | None:
        return self._rows.get(key)

    def put(self, row: dict[str, Any]) -> None:
        """Keep a row that has its `key`, at once."""
        self._rows[row["key"]] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _read(self) -> list[dict[str, Any]]:
        """Whole lines; one cut off by a kill is dropped from the file too, or the next would be written behind it."""
        rows, text = [], self.path.read_text("utf-8")
        for line in text.splitlines(keepends=True):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "key" in row and line.endswith("\n"):
                rows.append(row)
        if len(rows) != text.count("\n") or not text.endswith("\n"):
            self.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return rows


def key_of(case: Case, constants: Mapping[str, float] | None = None) -> str:
    """What decides the figures of a case, as a digest."""
    said = json.dumps([dataclasses.asdict(case), dict(constants or {}), _contents(case), program()], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:24]


@cache
def program() -> str:
    """A digest of the program's sources and of the hardware profiles."""
    digest = hashlib.sha256()
    for package, suffix in PROGRAM:
        for path in sorted(Path(str(files(package))).rglob(f"*{suffix}")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _contents(case: Case) -> list[str]:
    """Digests of the files a case reads."""
    paths = [load["path"] for load in case.scenario["workloads"] if "path" in load]
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] for path in [*paths, *([case.requests] if case.requests else [])]]
