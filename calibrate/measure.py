"""Time the kernels of a grid on a real device: `burstsim calibrate measure`, and the same on a machine that holds only torch.

    python -m calibrate.measure --device cuda --grid calibrate/calib_grid.csv -o raw.parquet

The table has the columns of published kernel tables, so `calibrate fit` reads it like any other; versions, clocks and whatever was left out
go to a .json beside it. Points run in a fixed shuffled order, so a run cut short leaves a fair sample. Every point is appended to
`<out>.partial` as it ends: the same command continues after a kill, and refuses to mix devices, versions or grids.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from calibrate.bench import grid as grids
from calibrate.bench.journal import Journal, differs
from sim.core.errors import BadInput, Problem

if TYPE_CHECKING:
    from calibrate.bench.device import Bench, Clocks

GRID = Path(__file__).with_name("calib_grid.csv")
LIMIT = 600.0
CPU_SCALE = 1 / 32
FORM = 1  # of the procedure; measurements of another are not continued
MICRO = 1e6

COLUMNS = (
    "gpu", "source", "op", "dtype", "kv_dtype", "kernel", "layout", "batch", "seqlen_q", "seqlen_kv", "n_heads", "n_kv_heads", "head_dim",
    "window", "m", "n", "k", "num_tokens", "hidden", "inter", "layers", "message_bytes", "prefill_chunk", "kv_prefill", "n_decode",
    "kv_decode", "mix", "model", "tp", "kv_tokens", "latency_us", "min_us", "std_us", "samples", "launches", "bytes", "role", "cold",
    "clock_mhz", "when", "point",
)  # fmt: skip
WORDS = {"gpu", "source", "op", "dtype", "kv_dtype", "kernel", "layout", "mix", "model", "role", "cold", "when", "point"}
FRACTIONS = {"latency_us", "min_us", "std_us", "clock_mhz"}

Progress = Callable[[int, int, str], None]


def measure(
    device: str, grid: Path = GRID, out: Path = Path("raw.parquet"), *, limit_s: float = LIMIT, resume: bool = True,
    progress: Progress | None = None, scale: float | None = None,
) -> Path:  # fmt: skip
    """Time the points of `grid` on `device` (cuda, cuda:N, cpu) for at most `limit_s` seconds and write `out` (.csv or .parquet).

    `scale` multiplies every size: 1 on a GPU, 1/32 on a CPU unless said. `progress(done, of, point)` is called before each point.
    `resume=False` starts afresh over whatever is there. Returns `out`; `sidecar(out)` tells versions, clocks and what was skipped and why.
    BadInput: a bad grid, no device, other measurements in the way, nothing that could be measured, a device that failed midway (what was
    measured is kept). KeyboardInterrupt: the same, after writing what is there.
    """
    begun = time.monotonic()
    _writable(out)
    every = grids.read(grid)
    bench = _bench(device, scale)
    every = grids.scaled(every, bench.scale)
    facts = bench.facts()
    identity = {
        "form": FORM, "scale": bench.scale, "grid": grids.digest(every),
        **{key: facts[key] for key in ("gpu", "torch", "cuda", "driver")},
    }  # fmt: skip
    if _complete(out, identity, resume):
        return out
    with Journal(_partial(out), identity, resume) as journal:
        run = _Run(bench, every, journal, facts | {"identity": identity, "args": {"device": device, "grid": grid.name, "limit_s": limit_s}})
        try:
            run.go(begun + limit_s, progress)
        finally:
            if journal.rows:
                run.write(out)
    if run.complete or not journal.rows:
        _partial(out).unlink()
    if not journal.rows:
        first = next(iter(journal.skipped.items()), ("every point", "the time limit came first"))
        raise BadInput(f"{device}: nothing could be measured on {bench.gpu}; {first[0]}: {first[1]}")
    return out


def sidecar(out: Path) -> Path:
    return out.with_name(out.name + ".json")


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _writable(out: Path) -> None:
    if out.suffix not in (".csv", ".parquet"):
        raise BadInput([Problem(f"a table ends in .csv or .parquet, not {out.suffix!r}", file=str(out))])
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise BadInput([Problem("writing parquet needs pyarrow, which is not installed here; name a .csv", file=str(out))])
    if not out.parent.is_dir():
        raise BadInput([Problem(f"the folder {out.parent} does not exist", file=str(out))])


def _bench(device: str, scale: float | None) -> Bench:
    try:
        from calibrate.bench.device import Bench
    except ImportError as error:
        raise BadInput(f"measuring needs torch ({error}); pip install 'burstsim[calibrate]'") from None
    if scale is None:
        scale = CPU_SCALE if device == "cpu" else 1.0
    if not 0 < scale <= 1:
        raise BadInput(f"scale is {scale}; it multiplies the sizes of the grid and lies in (0, 1]")
    return Bench(device, scale)


def _complete(out: Path, identity: dict[str, Any], resume: bool) -> bool:
    """Whether `out` already holds all of this very measurement. BadInput when it holds another."""
    if not resume or not out.exists() or _partial(out).exists():
        return False
    try:
        there = json.loads(sidecar(out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = {}
    if there.get("identity") == identity and there.get("complete"):
        return True
    why = differs(there.get("identity"), identity)
    raise BadInput([Problem(f"is in the way: {why}; name another file, or start afresh", file=str(out))])


class _Run:
    """One pass over the points not yet in the journal."""

    def __init__(self, bench: Bench, every: list[grids.Point], journal: Journal, facts: dict[str, Any]):
        self.bench, self.every, self.journal, self.facts = bench, every, journal, facts
        self.names = grids.names(every)
        self.started = _now()
        self.clocks: list[str] = []

    @property
    def complete(self) -> bool:
        return len(self.journal.rows) + len(self.journal.skipped) == len(self.every)

    def go(self, until: float, progress: Progress | None) -> None:
        from calibrate.bench.device import Clocks

        done = {*self.journal.rows, *self.journal.skipped}
        with Clocks(self.bench) as clocks:
            self.clocks = clocks.log
            for i in grids.shuffled(self.every):
                name = self.names[i]
                if name in done:
                    continue
                if time.monotonic() >= until:
                    return
                if progress:
                    progress(len(self.journal.rows) + len(self.journal.skipped), len(self.every), name)
                self._point(self.every[i], name, clocks)

    def _point(self, point: grids.Point, name: str, clocks: Clocks) -> None:
        from calibrate.bench.device import TooLarge, Unsupported

        try:
            row, log = _timed(point, self.bench, clocks)
        except (TooLarge, Unsupported) as error:
            self.journal.add({"skipped": name, "why": str(error)})
        except (RuntimeError, TypeError, ValueError) as error:  # torch raises these for a kernel that cannot run; out of memory is one
            why = (str(error).splitlines() or [type(error).__name__])[0]
            self.journal.add({"skipped": name, "why": why})
            try:
                self.bench.settle()
            except RuntimeError as lost:
                kept = len(self.journal.rows)
                raise BadInput(
                    f"{self.bench.gpu} failed at {name}: {why} ({str(lost).splitlines()[0]}); the {kept} points measured before are "
                    "kept, and the same command goes on without this one"
                ) from None
        else:
            gpu, torch = self.facts["gpu"], self.facts["torch"]
            entry = {"gpu": gpu, "source": f"burstsim:torch/{torch}", "role": point.role, "when": _now(), "point": name, **row}
            self.journal.add({"row": entry, "log": log})

    def write(self, out: Path) -> None:
        """The table and its sidecar, each in one piece."""
        rows = self.journal.rows
        ordered = [rows[name] for name in self.names if name in rows]
        fresh = out.with_name(out.name + ".new")
        _table(ordered, out.suffix == ".csv", fresh)
        left = [name for name in self.names if name not in rows and name not in self.journal.skipped]
        about = self.facts | {
            "started": self.started, "finished": _now(), "points": len(self.every), "measured": len(ordered), "complete": self.complete,
            "skipped": [{"point": name, "why": why} for name, why in self.journal.skipped.items()],
            "left": left, "attention": {str(dtype): kernel and kernel.name for dtype, kernel in self.bench.kernels.items()},
            "refused": self.bench.refused, "noise": noise(ordered),
            "clocks": {"columns": "SM MHz, memory MHz, degrees C, W", "first": self.clocks[:1], "last": self.clocks[-1:]},
            "sustained": self.journal.log,
        }  # fmt: skip
        beside = sidecar(out).with_name(sidecar(out).name + ".new")
        beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        fresh.replace(out)
        beside.replace(sidecar(out))


def _timed(point: grids.Point, bench: Bench, clocks: Clocks) -> tuple[dict[str, Any], list[dict[str, float | None]] | None]:
    """A row of the table, its times included, and the log of a sustained load."""
    from calibrate.bench import attention, elementwise, gemm, stack, timing, transfer

    log: list[dict[str, float | None]] | None = None
    if point.kind == "throttle":
        found: Any
        found, log = gemm.sustained(point, bench, clocks)
    else:
        prepare: Callable[[grids.Point, Bench], Any] = {
            "gemm": gemm.task, "elementwise": elementwise.task, "memcpy": transfer.copy, "launch": transfer.launch,
            "layer_stack": stack.task,
        }.get(point.kind, attention.task)  # fmt: skip
        found = prepare(point, bench)
    if isinstance(found, timing.Task):
        row = {**found.row, "bytes": found.size, "cold": found.cold}
        taken = timing.measure(found, bench)
    else:
        row = dict(found)
        taken = timing.Timing(**row.pop("timing"))
    if not (taken.median > 0 and math.isfinite(taken.median)):
        raise ValueError(f"the time came out as {taken.median}")
    row |= {"latency_us": taken.median * MICRO, "min_us": taken.least * MICRO, "std_us": taken.std * MICRO}
    row |= {"samples": taken.samples, "launches": taken.launches, "clock_mhz": clocks.now()}
    return row, log


def _table(rows: list[dict[str, Any]], text: bool, path: Path) -> None:
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in COLUMNS:
        if column == "cold":
            table[column] = table[column].fillna(False).astype(bool)
        elif column in WORDS:
            table[column] = table[column].astype(object)
        else:
            table[column] = pd.to_numeric(table[column]).astype(float)
            if text and column not in FRACTIONS:
                table[column] = table[column].astype("Int64")
    if text:
        table.to_csv(path, index=False, float_format="%.6g")
    else:
        table.to_parquet(path, index=False)


def noise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far repeats of one point lie from the first draw of it: the floor of any model's error, as a fraction."""
    first = {_same(row): row["latency_us"] for row in rows if row["role"] == "fit"}
    apart = [abs(row["latency_us"] / first[_same(row)] - 1) for row in rows if row["role"] == "repeat" and _same(row) in first]
    if not apart:
        return {"n": 0}
    return {"n": len(apart), "median": float(np.median(apart)), "p95": float(np.quantile(apart, 0.95))}


def _same(row: dict[str, Any]) -> str:
    return str(row["point"]).split(" #")[0]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibrate.measure", description="Time the kernels of a grid on a real device.")
    parser.add_argument("--device", required=True, help="cuda, cuda:N or cpu")
    parser.add_argument("--grid", type=Path, default=GRID, help="the points to time (default: the shipped grid)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the table to write, .csv or .parquet")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="stop after so long (default: %(default)g)")
    parser.add_argument("--scale", type=float, help="times every size, at most 1 (default: 1; on a CPU 1/32)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is already there")
    given = parser.parse_args(argv)

    def progress(done: int, of: int, name: str) -> None:
        print(f"\r{done}/{of} {name:<80.80}", end="", file=sys.stderr, flush=True)

    try:
        shown = progress if sys.stderr.isatty() else None
        out = measure(
            given.device, given.grid, given.out, limit_s=given.limit, resume=not given.fresh, progress=shown, scale=given.scale
        )  # fmt: skip
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; what was measured is in {given.out}, and the same command goes on from there", file=sys.stderr)
        return 130
    about = json.loads(sidecar(out).read_text(encoding="utf-8"))
    print(f"{about['measured']} of {about['points']} points measured on {about['gpu']}: {out}")
    reasons: dict[str, list[str]] = {}
    for entry in about["skipped"]:
        reasons.setdefault(entry["why"], []).append(entry["point"])
    for why, points in reasons.items():
        print(f"skipped ({len(points)}), {why}: {'; '.join(points)}")
    if about["left"]:
        print(f"left for want of time ({len(about['left'])}); the same command goes on: {', '.join(about['left'][:5])}, ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
