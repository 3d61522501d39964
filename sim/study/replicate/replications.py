"""The figures of a scenario run several times over, or of one long run cut into batches: a row each, and how sure their means are.

Saved beside the result of the first replication, which is an ordinary one: `replications.parquet` has the rows, `replications.json` the
intervals, what was asked for, and of what scenario and program they are.
"""
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import sim
from sim.core import display
from sim.core.errors import BadInput, Problem
from sim.spec.load import dump, load
from sim.spec.scenario import Scenario
from sim.study.figures import findings, known, main
from sim.study.replicate.interval import BATCHES, LEVEL, REPLICATIONS, Interval, around, share, student
from sim.study.replicate.window import MSER, Warmup
from sim.study.saved import mapping_of
from sim.study.shelf import put
from sim.study.validate.store import program

SAVED, TABLE = "replications.json", "replications.parquet"
# Columns of a row that are no figures.
ABOUT = ("replication", "seed", "verdict", "audit_ok")
KEYS = ("version", "program", "key", "n", "wanted", "level", "method", "warmup", "precision", "whole", "remarks")
PERCENTILE = re.compile(r"p\d+")


@dataclass(frozen=True)
class Replications:
    """`table` has one row per replication, or batch: its number, seed, verdict, whether its audit holds, and each figure by its dotted
    name, missing where that one has none. `wanted`: how many there are to be, as far as that is known. `precision`: figures and their
    wanted relative half-widths. `whole`: of batches, the figures of all of them together. `remarks`: what to know before trusting them.
    """

    scenario: Scenario
    table: pd.DataFrame
    wanted: int
    warmup: Warmup = None
    precision: tuple[tuple[str, float], ...] = ()
    method: str = REPLICATIONS
    whole: dict[str, float] | None = None
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def names(self) -> list[str]:
        """Every figure that some replication has."""
        return [name for name in self.table.columns if name not in ABOUT]

    @property
    def missing(self) -> dict[str, int]:
        """Figures that not all replications have, with how many lack each: no interval can be given of them."""
        lacking = self.table[self.names].isna().sum()
        return {str(name): int(count) for name, count in lacking[lacking > 0].items()}

    @property
    def full(self) -> dict[str, None]:
        """Figures that every replication has, as keys in their order."""
        missing = self.missing
        return dict.fromkeys(name for name in self.names if name not in missing)

    def values(self, name: str) -> pd.Series[Any]:
        """A figure of every replication. Raises BadInput for one that is not known, or that some do not have."""
        column = self.table[known(name, self.names)]
        lacking = self.table.loc[column.isna(), "replication"].tolist()
        if lacking:
            shown = ", ".join(map(str, lacking[:5])) + (" and others" if len(lacking) > 5 else "")
            raise BadInput(f"{name} is undefined in {len(lacking)} of {len(column)} replications ({shown}): it has no mean over them")
        return column

    def interval(self, name: str, level: float = LEVEL) -> Interval:
        """The mean of a figure and how sure it is. Of a yes-or-no it is how often it is true.

        Percentiles of batches are given about that of the whole run, which is what they are biased estimates of. Raises BadInput as
        `values` does, and with fewer than two replications.
        """
        column = self.values(name)
        if column.map(lambda value: isinstance(value, bool)).all():
            return share(column.astype(bool).to_numpy(), level, self.method)
        values = column.astype(float).to_numpy()
        if self.whole is not None and PERCENTILE.fullmatch(name.rpartition(".")[2]):
            return around(values, self.whole[name], level, self.method)
        return student(values, level, self.method)

    def intervals(self, level: float = LEVEL) -> dict[str, Interval]:
        """The interval of each figure that every replication has."""
        return {name: self.interval(name, level) for name in findings(self.full)}

    def main(self, level: float = LEVEL) -> pd.DataFrame:
        """The figures that people look at first: mean, half-width, low, high and relative half-width of each."""
        names = main(self.full) if len(self) > 1 else []
        rows = [(one.mean, one.half, one.low, one.high, one.relative) for one in (self.interval(name, level) for name in names)]
        return pd.DataFrame(rows, index=pd.Index(names, name="figure"), columns=["mean", "half", "low", "high", "relative"])

    @property
    def words(self) -> str:
        """What the intervals are of, in one line."""
        if self.method == BATCHES:
            return f"One run of {self.scenario.name} in {len(self)} batches; {LEVEL:.0%} intervals by {self.method}."
        seeds = f"{len(self)} replications of {self.scenario.name}, seeds of {self.scenario.seed}"
        left = "" if self.warmup is None else f", a warm-up {'by MSER-5' if self.warmup == MSER else f'of {self.warmup:g} s'} left out"
        return f"{seeds}{left}; {LEVEL:.0%} intervals (Student's t)."

    def __repr__(self) -> str:
        return f"Replications({self.words.removesuffix('.')})"

    def _repr_html_(self) -> str:
        rows = self.main().reset_index()
        table = display.table(list(rows), rows.to_numpy().tolist())
        return display.shown("replications", self.scenario.name, display.said(self.words), table, *map(display.said, self.remarks))

    def report(self) -> dict[str, Any]:
        """What `replications.json` holds: intervals of every figure and what they are of."""
        able = len(self) > 1
        return {
            "version": sim.__version__, "program": program(), "key": key(self.scenario, self.warmup), "n": len(self), "wanted": self.wanted,
            "level": LEVEL, "method": self.method, "warmup": self.warmup, "precision": dict(self.precision),
            "seeds": self.table["seed"].tolist(), "verdicts": self.table["verdict"].value_counts().to_dict(),
            "intervals": {name: _plain(one) for name, one in self.intervals().items()} if able else {},
            "missing": self.missing, "whole": self.whole, "remarks": list(self.remarks),
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write both files into a folder that is there, each whole or not at all."""
        put(folder, {TABLE: self.table.to_parquet(), SAVED: json.dumps(self.report(), indent=2) + "\n"})

    @classmethod
    def open(cls, folder: str | Path) -> Replications:
        """Those saved in a folder. Raises BadInput where there are none, or not whole, or of another version."""
        folder = Path(folder)
        said, table = saved(folder)
        if said["version"] != sim.__version__:
            raise BadInput(f"{folder} holds replications by burstsim {said['version']}, and this is {sim.__version__}; run them again")
        precision = tuple((str(name), float(bound)) for name, bound in said["precision"].items())
        scenario = load(folder / "scenario.yaml", lookup=False)
        whole, remarks = said["whole"], tuple(said["remarks"])
        return cls(scenario, table, said["wanted"], said["warmup"], precision, said["method"], whole, remarks)


def key(scenario: Scenario, warmup: Warmup) -> str:
    """A digest of what decides the figures of a replication, but for the program."""
    return hashlib.sha256(f"{dump(scenario)}{warmup}".encode()).hexdigest()[:24]


def saved(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """What replications.json says, and the rows. Raises BadInput when they cannot be read."""
    if not (folder / SAVED).is_file():
        raise BadInput(f"{folder} holds no replications: {SAVED} is missing; a folder of `burstsim run --replications N -o` is wanted")
    again = "run the scenario again with --force"
    said = mapping_of(folder / SAVED, "replications", again, KEYS)
    try:
        table = pd.read_parquet(folder / TABLE)
        lacking = [name for name in ABOUT if name not in table.columns]
        if lacking or len(table) != said["n"]:
            raise ValueError(f"it lacks {', '.join(lacking)}" if lacking else f"{len(table)} rows in place of {said['n']}")
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        why = "no such file" if isinstance(error, FileNotFoundError) else f"holds damaged replications: {error}"
        raise BadInput([Problem(f"{why}; {again}", file=str(folder / TABLE))]) from error
    return said, table


def table_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows of ABOUT and `figures` as a table, in the order of their numbers."""
    flat = [{name: row[name] for name in ABOUT} | row["figures"] for row in sorted(rows, key=lambda row: int(row["replication"]))]
    return pd.DataFrame(flat)


def _plain(one: Interval) -> dict[str, Any]:
    return {"mean": one.mean, "half": one.half, "low": one.low, "high": one.high}
