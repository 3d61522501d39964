"""What a comparison of scenarios found: the difference of each figure, how sure it is, which are more than chance, and what was changed.

Differences have paired Student intervals where replications share their luck, else Welch's; which are significant is decided over all
figures shown together (Holm).
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import sim
from sim.core import display
from sim.core.errors import BadInput
from sim.spec.load import dump
from sim.study.compare.change import Change
from sim.study.compare.waterfall import Waterfall
from sim.study.figures import known, main
from sim.study.replicate.interval import LEVEL, Interval, apart, holm, p_value, student, welch
from sim.study.replicate.replications import Replications
from sim.study.saved import mapping_of, rows_of
from sim.study.shelf import put
from sim.study.validate.store import program

SAVED, TABLE = "comparison.json", "comparison.parquet"
KEYS = ("version", "program", "level", "paired", "figure", "scenarios", "changes", "differences", "waterfalls", "remarks")

# What rows under some of them have at least.
ROWS = {
    "scenarios": ("name", "of", "seed", "n", "warmup", "verdicts", "slo_met", "audit_ok", "scenario"), "changes": ("scenario", "keys"),
    "differences": ("scenario", "figure", "base", "mean", "difference", "interval", "adjusted", "significant"),
    "waterfalls": ("scenario", "figure", "before", "after", "parts", "remark"),
}  # fmt: skip


class Difference(NamedTuple):
    """A figure of the first scenario, `base`, against that of another: means, their difference with its interval (None: one run each),
    how likely it is by chance, that raised for the number of questions asked, and whether it is then below 5 %.
    """

    scenario: str
    figure: str
    base: float
    mean: float
    difference: float
    interval: Interval | None
    p: float | None
    adjusted: float | None
    significant: bool | None


@dataclass(frozen=True)
class Comparison:
    """`runs` by the names of the scenarios, the first of which the others are compared with; the keys in which each of those differs from
    it; `paired`: whether replications share their luck; a waterfall for each where a figure was asked for.
    """

    runs: dict[str, Replications]
    changes: dict[str, list[Change]]
    paired: bool
    waterfalls: dict[str, Waterfall]
    figure: str | None
    remarks: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The figures that are shown: those people look at first, of those that every replication has."""
        first, *others = (run.full for run in self.runs.values())
        there = [name for name in first if all(name in other for other in others)]
        return list(dict.fromkeys([*([self.figure] if self.figure in there else []), *main(there)]))

    def difference(self, figure: str, scenario: str | None = None, level: float = LEVEL) -> Interval:
        """Of a figure, that of a scenario (by default the second) less that of the first. Raises BadInput for unknown names, and where
        there are fewer than two replications.
        """
        names = list(self.runs)
        name = names[1] if scenario is None else scenario
        if name not in names[1:]:
            raise BadInput(f"found '{name}'; one of {', '.join(names[1:])} is wanted")
        one, other = (run.values(known(figure, run.names)).astype(float).to_numpy() for run in (self.runs[names[0]], self.runs[name]))
        if not self.paired:
            return welch(one, other, level)[0]
        n = min(len(one), len(other))
        return student(apart(one[:n], other[:n]), level, "pairs")

    @property
    def differences(self) -> list[Difference]:
        """Each figure shown of each other scenario against the first."""
        (_, base), *others = self.runs.items()
        found = [(label, name, *self._compared(base.values(name), run.values(name))) for label, run in others for name in self.names]
        values = [p for *_, p in found if p is not None]
        adjusted = iter(holm(values))
        rows = []
        for label, name, one, other, interval, p in found:
            raised = next(adjusted) if p is not None else None
            significant = None if raised is None else raised < 1 - LEVEL
            rows.append(Difference(label, name, one, other, interval.mean if interval else other - one, interval, p, raised, significant))
        return rows

    def _compared(self, first: pd.Series[Any], second: pd.Series[Any]) -> tuple[float, float, Interval | None, float | None]:
        one, other = first.astype(float).to_numpy(), second.astype(float).to_numpy()
        if not self.paired and min(len(one), len(other)) > 1:
            interval, p = welch(one, other)
            return float(one.mean()), float(other.mean()), interval, p
        n = min(len(one), len(other))
        one, other = one[:n], other[:n]
        if n < 2:
            return float(one.mean()), float(other.mean()), None, None
        far = apart(one, other)
        return float(one.mean()), float(other.mean()), student(far, method="pairs"), p_value(far)

    @property
    def table(self) -> pd.DataFrame:
        """The differences as a table."""
        rows = []
        for one in self.differences:
            low, high = (one.interval.low, one.interval.high) if one.interval else (np.nan, np.nan)
            relative = one.difference / abs(one.base) if one.base else np.nan
            rows.append((one.scenario, one.figure, one.base, one.mean, one.difference, low, high, relative, one.p, one.adjusted,
                         one.significant))  # fmt: skip
        columns = ["scenario", "figure", "base", "mean", "difference", "low", "high", "relative", "p", "p_holm", "significant"]
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        first, *others = self.runs
        return f"Comparison({', '.join(others)} against {first})"

    def _repr_html_(self) -> str:
        keys = [f"{label}: {'; '.join(map(str, some)) or 'the same scenario'}" for label, some in self.changes.items()]
        table = display.table(list(self.table), self.table.astype(object).to_numpy().tolist())
        return display.shown("comparison with", next(iter(self.runs)), display.listed(keys), table, *map(display.said, self.remarks))

    def save(self, folder: Path) -> None:
        """Write comparison.json and comparison.parquet into a folder that is there, each whole or not at all."""
        put(folder, {TABLE: self.table.to_parquet(), SAVED: json.dumps(self.report(), indent=2) + "\n"})

    def report(self) -> dict[str, Any]:
        """What `comparison.json` holds, from which the page is written."""
        return {
            "version": sim.__version__, "program": program(), "level": LEVEL, "paired": self.paired, "figure": self.figure,
            "scenarios": [_scenario(label, run) for label, run in self.runs.items()],
            "changes": [{"scenario": label, "keys": [_change(one) for one in some]} for label, some in self.changes.items()],
            "differences": [_difference(one) for one in self.differences],
            "waterfalls": [{"scenario": label} | _waterfall(one) for label, one in self.waterfalls.items()],
            "remarks": list(self.remarks),
        }  # fmt: skip


def _scenario(label: str, run: Replications) -> dict[str, Any]:
    met = run.table["slo.met"].dropna() if "slo.met" in run.table else []
    return {
        "name": label, "of": run.scenario.name, "seed": run.scenario.seed, "n": len(run), "warmup": run.warmup,
        "verdicts": run.table["verdict"].value_counts().to_dict(), "slo_met": int(sum(map(bool, met))) if len(met) else None,
        "audit_ok": bool(run.table["audit_ok"].astype(bool).all()), "scenario": dump(run.scenario),
    }  # fmt: skip


def _difference(one: Difference) -> dict[str, Any]:
    interval = {"low": one.interval.low, "high": one.interval.high, "half": one.interval.half} if one.interval else None
    return one._asdict() | {"interval": interval}


def _change(one: Change) -> dict[str, Any]:
    return {**one._asdict(), "text": str(one)}


def _waterfall(one: Waterfall) -> dict[str, Any]:
    parts = [{"changes": [str(change) for change in part.changes], "added": part.added._asdict(), "p": part.p,
              "average": part.average._asdict() if part.average else None} for part in one.parts]  # fmt: skip
    return {**one._asdict(), "parts": parts}


def read(folder: Path) -> dict[str, Any]:
    """The report of a comparison that was saved. Raises BadInput when the folder holds none, or not a whole one of this version."""
    said = mapping_of(folder / SAVED, "finished comparison", "compare again", KEYS)
    for name, keys in ROWS.items():
        rows_of(said, name, folder / SAVED, keys)
    return said
