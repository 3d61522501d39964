"""Folders of studies and their pages, each made once for all tests, also where several processes run them: the first that wants one makes
it, and the others wait for it.
"""
from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner
from every_page import KINDS, REPORTED

from sim.cli import main


class Reported(NamedTuple):
    """A folder in which `burstsim report` was, and the files that it says it wrote."""

    folder: Path
    written: list[Path]


class Studies:
    """What is in a `room`, by kind. Nothing is to be written there by tests."""

    def __init__(self, room):
        self.room = room
        room.mkdir(exist_ok=True)

    def folder(self, kind):
        """As its study leaves it, without a page."""
        self._once(kind, self._make)
        return self.room / kind / kind

    def reported(self, kind):
        """A copy of it with its page in HTML and in Markdown."""
        folder = self.folder(kind)
        self._once(kind, self._report, "reported")
        said = json.loads((self.room / kind / "said.json").read_text("utf-8"))
        return Reported(folder.parent / "reported" / kind, [Path(path) for path in said["written"]])

    def page(self, kind):
        """Its page in HTML."""
        page = self.reported(kind).folder / "report.html" if kind in REPORTED else self.folder(kind).parent / "page.html"
        return page.read_text("utf-8")

    def _make(self, kind):
        page = KINDS[kind](self.room / kind / kind)
        if kind not in REPORTED:
            (self.room / kind / "page.html").write_text(page, "utf-8")

    def _report(self, kind):
        copy = shutil.copytree(self.room / kind / kind, self.room / kind / "reported" / kind)
        done = CliRunner().invoke(main, ["report", str(copy), "--format", "md", "--format", "html", "--json"])
        assert done.exit_code == 0, (done.output, done.exception)
        (self.room / kind / "said.json").write_text(done.stdout, "utf-8")

    def _once(self, kind, make, what="made"):
        place = self.room / kind
        place.mkdir(exist_ok=True)
        with (place / f"{what}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / f"{what}.done").exists():
                make(kind)
                (place / f"{what}.done").touch()
