"""What a sweep found: a tidy table, one row per run, and what can be read from it."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sim.core import display
from sim.core.errors import BadInput, Problem, did_you_mean
from sim.spec import load
from sim.spec.scenario import Scenario
from sim.study import journal
from sim.study.figures import known, main
from sim.study.journal import Row
from sim.study.saved import DAMAGED
from sim.study.shelf import put

TABLE = "points.parquet"
ABOUT = ("verdict", "audit_ok", "seconds", "error")  # columns of a row that are neither keys nor figures
ROW = ("point", "replication", "settings", "figures", *ABOUT)
LINES = 8  # combinations of the other keys that a plot tells apart


@dataclass
class Sweep:
    """`rows`, one per finished run: point, replication, `settings` by key, `figures` by dotted name, verdict, audit_ok, seconds (of the
    wall), error (None, or why there are no figures). `wanted`: how many runs there are. `keys`: what is varied.
    """

    scenario: Scenario
    keys: tuple[str, ...]
    wanted: int
    rows: list[Row] = field(default_factory=list)

    @property
    def figures(self) -> list[str]:
        """The names of the figures that some run has."""
        return list(dict.fromkeys(name for row in self.rows for name in row["figures"]))

    @property
    def failed(self) -> int:
        """Runs that ended in an error."""
        return sum(row["error"] is not None for row in self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per run, by point and replication: point, replication, each key, verdict, each figure, audit_ok, seconds, error."""
        rows = sorted(self.rows, key=lambda row: (row["point"], row["replication"]))
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in ("point", "replication")}
        columns |= {key: _column([row["settings"].get(key) for row in rows]) for key in self.keys}
        columns["verdict"] = [row["verdict"] for row in rows]
        columns |= {name: [row["figures"].get(name) for row in rows] for name in self.figures}
        columns |= {name: [row[name] for row in rows] for name in ABOUT[1:]}
        return pd.DataFrame(columns)

    def means(self, names: list[str] | None = None) -> pd.DataFrame:
        """One row per point: its number, keys, the mean of each figure over the replications that have it, and `runs` without an error."""
        frame = self.frame
        wanted = self.figures if names is None else [known(name, self.figures) for name in names]
        by = frame.groupby("point")
        numbers = {name: frame[name].astype(float).groupby(frame["point"]).mean() for name in wanted}
        whole = frame["error"].isna().groupby(frame["point"]).sum()
        return pd.DataFrame({**{key: by[key].first() for key in self.keys}, **numbers, "runs": whole})

    def plot(self, figure: str | None = None, against: str | None = None, axes: Any = None) -> Any:
        """Draw a figure (by default the first that people look at) against a key (by default the first), means over replications; a line
        for each combination of the other keys. Returns the Axes. Raises BadInput for unknown names.
        """
        figure = known(figure or [*main(self.figures), *self.figures][0], self.figures)
        against = against or self.keys[0]
        if against not in self.keys:
            raise BadInput(f"unknown key '{against}'; {did_you_mean(against, self.keys)}")
        table, others = self.means([figure]), [key for key in self.keys if key != against]
        # What is not a number has no place of its own on an axis.
        table = table.sort_values(against, kind="stable") if pd.api.types.is_numeric_dtype(table[against]) else table
        lines = list(table.groupby(others, sort=False)) if others else [((), table)]
        for names, line in lines if len(lines) <= LINES else [((), table)]:
            style = "o-" if len(lines) <= LINES else "o"
            axes = line.plot(x=against, y=figure, style=style, label=", ".join(map(str, names)) or None, legend=bool(names), ax=axes)
        axes.set_ylabel(figure)
        return axes

    def __repr__(self) -> str:
        return f"Sweep({self.scenario.name}: {len(self.rows)} of {self.wanted} runs, {', '.join(self.keys)})"

    def _repr_html_(self) -> str:
        failed = f", {self.failed} without figures" if self.failed else ""
        said = f"{len(self.rows)} of {self.wanted} runs of {self.scenario.name}{failed}"
        means = self.means(main(self.figures)).reset_index()
        return display.shown("sweep", self.scenario.name, display.said(f"{said}."), display.table(list(means), means.to_numpy().tolist()))


def read(folder: Path) -> Sweep:
    """A sweep in a folder, as far as it is finished. Raises BadInput where there is none, or no run of it is finished yet."""
    (said, rows), path = journal.read(folder), f"{folder / journal.NAME}"
    if not rows:
        raise BadInput([Problem("holds a sweep of which no run is finished yet; the command that began it goes on from there", file=path)])
    for number, row in enumerate(rows, 2):
        lacking = [key for key in ROW if key not in row]
        if lacking:
            raise BadInput([Problem(f"lacks {', '.join(lacking)}: {DAMAGED}", "", path, number)])
    try:
        scenario = load.loads({**said["scenario"], "sweep": said["sweep"]}, lookup=False)
        assert scenario.sweep is not None
        return Sweep(scenario, scenario.sweep.keys, said["runs"], rows)
    except KeyError as error:
        raise BadInput(f"{folder} holds a sweep without {error} in its first line; run it again with --force") from None


def save(found: Sweep, folder: Path) -> None:
    """Write points.parquet, whole or not at all; nothing where no run is finished."""
    if found.rows:
        put(folder, {TABLE: found.frame.to_parquet(index=False)})


def _column(values: list[Any]) -> list[Any]:
    """Values as a table's column takes them: texts, where they are not all numbers, all texts or all yes-or-no."""
    kinds = {float if type(value) is int else type(value) for value in values if value is not None}
    if len(kinds) <= 1 and kinds <= {float, str, bool}:
        return values
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
