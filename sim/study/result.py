"""What a run leaves behind: the scenario, tables of facts, and remarks about the run itself. Saved whole or not at all.

How a result looks, drawn or in a notebook, is known to `report`, a room above this one. `Result.plot` and `_repr_html_` find it by the name
that the package `sim` has for it, which alone knows all rooms: nothing here depends on a drawing, and matplotlib is imported when one is
asked for, as the accessors of pandas have it.
"""
from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sim
from sim.core.errors import BadInput, Problem
from sim.core.record import Table
from sim.core.tables import TABLES
from sim.core.tables import tables as empty
from sim.spec.scenario import Scenario
from sim.study.saved import check_version
from sim.study.timeline.sizes import EVENTS, REQUESTS, Sizes

if TYPE_CHECKING:
    from sim import RunPlots

ALWAYS = ("requests", "stretches", "replicas")  # further tables are saved when they have rows
LISTS = ("tables", "remarks", "pools")
META = ("tables", "version", "seed", "digest", "sim_s", "cpu_s", "events", "arrived", "arrivals_end", "closed_loop", "remarks", "pools")


@dataclasses.dataclass
class Result:
    """`tables` by name (`core/record.py` says what they hold); `meta` is the run's own record: seed, version, digest, sim_s, cpu_s, events,
    remarks, arrivals_end (time of the last arrival), and per pool its GPUs, prices and roofline.
    """

    scenario: Scenario
    tables: dict[str, Table]
    meta: dict[str, Any]

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of DESIGN.md section 6, by the definitions of `study/metrics.py`."""
        from sim.study.metrics import summarise

        return summarise(self)

    @functools.cached_property
    def requests(self) -> Any:
        """One row per request as a DataFrame, in order of arrival, with the derived columns ttft, tpot, e2e and queue (seconds)."""
        from sim.study.measures import request_columns

        frame = self.tables["requests"].to_pandas().assign(**request_columns(self.tables["requests"]))
        return frame.sort_values("request", ignore_index=True)

    @functools.cached_property
    def plot(self) -> RunPlots:
        """Drawings with matplotlib: `result.plot()` is an overview, `result.plot.latency()` one of those that `dir(result.plot)` lists;
        each takes `axes` and returns the Axes. Raises BadInput where the run has no data for one.
        """
        return sim.RunPlots(self)

    def __repr__(self) -> str:
        return f"Result({self.scenario.name}: {self.meta['arrived']:,} requests in {self.meta['sim_s']:,.1f} s, seed {self.meta['seed']})"

    def _repr_html_(self) -> str:
        return sim.result_html(self)

    def save(
        self, folder: str | Path, force: bool = False, pages: Mapping[str, Callable[[Result], str]] | None = None,
        files: Mapping[str, Callable[[Result, Path], object]] | None = None,
    ) -> Path:  # fmt: skip
        """Write everything aside, then rename: a folder of that name is whole or not there.

        `pages` are further files by name, each with the function that makes its text: `{"report.html": sim.report.page.render}`; `files`
        are others, each with the function that writes it to a path.
        Raises BadInput when the folder exists and `force` is not given, or cannot be written.
        """
        folder = Path(folder)
        check_writable(folder, force)
        # Only a resolved path has a name to put something beside: `..` has none, and a link is not to be replaced by a folder.
        folder = folder.resolve()
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        made = [parent for parent in folder.parents if not parent.exists()]
        try:
            aside.mkdir(parents=True)
            self._write(aside, pages or {}, files or {})
            _swap(aside, folder, force)
        except OSError as error:
            raise BadInput(f"cannot write {folder}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            for parent in made if not folder.exists() else ():
                with contextlib.suppress(OSError):
                    parent.rmdir()
        return folder

    def trace(self, path: str | Path, *, events: int = EVENTS, requests: int = REQUESTS) -> Path:
        """Write a timeline for Perfetto (ui.perfetto.dev) of at most so many events, with at most so many requests, sessions of agents and
        sandboxes, evenly from all. Raises BadInput when that shows nothing, or the file cannot be written.
        """
        from sim.study.timeline.timeline import save

        save(self, Path(path), Sizes(events, requests))
        return Path(path)

    def _write(
        self, folder: Path, pages: Mapping[str, Callable[[Result], str]], files: Mapping[str, Callable[[Result, Path], object]]
    ) -> None:
        from sim.spec.load import dump

        (folder / "scenario.yaml").write_text(dump(self.scenario), encoding="utf-8")
        (folder / "summary.json").write_text(json.dumps(self.summary, indent=2) + "\n", encoding="utf-8")
        filled = [name for name, table in self.tables.items() if len(table) or name in ALWAYS]
        (folder / "meta.json").write_text(json.dumps(self.meta | {"tables": filled}, indent=2) + "\n", encoding="utf-8")
        for name in filled:
            self.tables[name].save(folder / f"{name}.parquet")
        for name, render in pages.items():
            (folder / name).write_text(render(self), encoding="utf-8")
        for name, write in files.items():
            write(self, folder / name)

    @classmethod
    def open(cls, folder: str | Path) -> Result:
        """A saved result. Raises BadInput when the folder holds none."""
        from sim.spec.load import load

        folder = Path(folder)
        path = folder / "meta.json"
        try:
            if not path.is_file():
                lacking = "it is a file" if folder.is_file() else "meta.json is missing"
                raise BadInput(f"{folder} holds no result: {lacking}; a folder written by `burstsim run -o` is wanted")
            meta = json.loads(path.read_text(encoding="utf-8"))
            check_version(meta.get("version") if isinstance(meta, dict) else None, path)
            # Beside the tables of the run may lie those of studies over several runs.
            tables = {}
            for path in [one for one in sorted(folder.glob("*.parquet")) if one.stem in TABLES]:
                tables[path.stem] = Table.open(path)
        except (OSError, ValueError) as error:  # most of pyarrow's errors are ValueErrors
            why = error.strerror or error if isinstance(error, OSError) else error
            raise BadInput([Problem(f"is of a damaged result: {why}; run its scenario again", file=str(path))]) from error
        lacking = list(_lacking(tables, meta))
        if lacking:
            shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
            raise BadInput(f"{folder} holds no whole result of this version, without {shown}; run its scenario.yaml again")
        # What the run read may have moved since; the result must open all the same.
        del meta["tables"]
        return cls(load(folder / "scenario.yaml", lookup=False), empty() | tables, meta)


def _lacking(tables: Mapping[str, Table], meta: Any) -> Iterator[str]:
    """What a result needs and this one has not: keys of meta.json, tables, columns."""
    missing = [key for key in META if not isinstance(meta, dict) or key not in meta]
    missing = missing or [f"lists as {key}" for key in LISTS if not isinstance(meta[key], list)]
    missing = missing or ["figures of each pool"] * (not all(isinstance(pool, dict) for pool in meta["pools"]))
    if missing:
        yield from (f"{key} of meta.json" for key in missing)
        return
    for name, columns in TABLES.items():
        if name not in tables and name in meta["tables"]:
            yield f"{name}.parquet"
        elif name in tables:
            have = [column.name for column in tables[name].columns]
            yield from (f"{column.name} of {name}.parquet" for column in columns if column.name not in have)


def check_writable(folder: Path, force: bool) -> None:
    """Raise BadInput when a result could not be put there: said before a long run, not after it.

    A folder that holds something else than a result is never replaced, `force` or not.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"cannot write to {folder}: it is a file; name a folder")
        filled = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error
    if filled and not force:
        raise BadInput(f"{folder} exists and is not empty; choose another folder, or give --force to replace it")
    if filled and not (folder / "meta.json").is_file():
        raise BadInput(f"{folder} is not empty and holds no result, so --force does not replace it; choose another folder")
    folder = folder.resolve()
    if Path.cwd().resolve().is_relative_to(folder):
        raise BadInput(f"cannot write to {folder}: the working folder is in it; name another")
    if folder.is_mount():
        raise BadInput(f"cannot write to {folder}: it is a mount point, which cannot be replaced as a whole; name a folder in it")
    parent = folder.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise BadInput(f"cannot write to {folder}: {parent} is not a folder that can be written")


def _swap(new: Path, folder: Path, force: bool) -> None:
    """Put `new` in the place of `folder`, which comes back if that fails. Without `force` only an empty folder is replaced."""
    if not force and folder.exists():
        folder.rmdir()  # fails when another run has filled it meanwhile
    if not folder.exists():
        new.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if not folder.exists():
            old.rename(folder)
        raise
    finally:
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
