"""The facts of one run of reinforcement learning: its rows of the tables, and the time that figures are over.

Figures leave out the warm-up, in which engines fill up and no version is stale yet: the first step, or the first three versions where
generation never pauses for training. What comes after the last step, when asynchronous rollouts go on for nothing, is left out too. A run
with no more steps than that counts them all. Books that have no times (waste, and what became of groups) are of the whole run.
"""
from __future__ import annotations

import functools
from typing import Any

import numpy as np

from sim.core.record import Table
from sim.study.facts import Tables

WARM_UP = {"async": 3}
PARTS = ("reward", "logprob", "reference", "update", "sync", "switch", "checkpoint", "validation", "data")


class Rows:
    """Rows of a table that belong to one workload: columns as arrays, in order of the table."""

    def __init__(self, table: Table, name: str):
        self.labels = table.labels
        self._table = table
        known = table.labels["workload"]
        self._which = None if known == [name] else table["workload"] == (known.index(name) if name in known else -1)

    def __len__(self) -> int:
        return len(self._table) if self._which is None else int(self._which.sum())

    def __getitem__(self, column: str) -> np.ndarray:
        values: np.ndarray = self._table[column]
        return values if self._which is None else values[self._which]

    def code(self, column: str, text: str) -> int:
        """The code of a category's value, -1 where it does not occur."""
        return self.labels[column].index(text) if text in self.labels[column] else -1


class Run:
    """`one` is its entry of `meta["rl"]`. Of steps, those from number `skipped` on are counted; `begin` to `end` is the time they take,
    s.
    """

    def __init__(self, facts: Tables, one: dict[str, Any]):
        self.facts, self.one, self.name = facts, one, str(one["name"])
        self.steps, self.groups, self.samples = self.rows("rl_steps"), self.rows("rl_groups"), self.rows("rl_samples")
        made, warm = len(self.steps), WARM_UP.get(one["mode"], 1)
        self.skipped = warm if made > warm else 0
        self.begin = float(self.steps["start"][self.skipped]) if made else 0.0
        self.end = float(self.steps["end"][-1]) if made else 0.0

    def rows(self, table: str) -> Rows:
        """Its rows of a table."""
        return Rows(self.facts.result.tables[table], self.name)

    def column(self, name: str) -> np.ndarray:
        """A column of the steps that count."""
        return self.steps[name][self.skipped :]

    @property
    def count(self) -> int:
        """Steps that count."""
        return len(self.steps) - self.skipped

    @property
    def seconds(self) -> float:
        """What they take together."""
        return self.end - self.begin

    @functools.cached_property
    def took(self) -> np.ndarray:
        """Seconds of each step that counts."""
        taken: np.ndarray = self.column("end") - self.column("start")
        return taken

    @property
    def gpus(self) -> int:
        """GPUs of both roles, once each."""
        rollout, train = self.one["gpus_rollout"], self.one["gpus_train"]
        return int(max(rollout, train) if self.one["colocated"] else rollout + train)

    @functools.cached_property
    def version(self) -> np.ndarray:
        """The version that each sample was trained on for, -1: none. Of samples that are kept and not masked."""
        by_group = np.full(int(self.groups["group"].max(initial=-1)) + 1, -1, dtype="i8")
        trained = self.groups["trained"]
        by_group[self.groups["group"]] = np.where(trained >= 0, trained + 1, -1)
        used = (self.samples["kept"] == 1) & (self.samples["masked"] == 0)
        return np.where(used, by_group[self.samples["group"]], -1)

    @functools.cached_property
    def trained(self) -> np.ndarray:
        """Which samples were trained on in a step that counts."""
        if not self.count:
            return np.zeros(len(self.samples), dtype=bool)
        found: np.ndarray = self.version >= int(self.column("version")[0])
        return found

    @functools.cached_property
    def generated(self) -> np.ndarray:
        """Which samples came to their end in the time that counts, wanted or not."""
        done = self.samples["done"]
        found: np.ndarray = (done > self.begin) & (done <= self.end)
        return found

    @functools.cached_property
    def differs(self) -> np.ndarray:
        """Which samples that were trained on belong to a group with rewards that differ: the others have no advantage."""
        used = self.version >= 0
        groups, rewards = self.samples["group"][used], self.samples["reward"][used]
        size = int(self.groups["group"].max(initial=-1)) + 1
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(low, groups, rewards)
        np.maximum.at(high, groups, rewards)
        apart = low < high
        found: np.ndarray = used & apart[self.samples["group"]]
        return found

    @functools.cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """Seconds of each step that counts, by what the trainer did or waited for; they sum to the step. `generate`: it waited for answers;
        `other`: what no column says.
        """
        found = {"generate": self.column("wait")} | {part: self.column(part) for part in PARTS}
        rest = self.took - sum(found.values())
        return found | {"other": np.where(np.abs(rest) < 1e-9 * np.maximum(self.took, 1.0), 0.0, rest)}


def runs(tables: Tables) -> list[Run]:
    """All runs of reinforcement learning of a result, in the order of its workloads."""
    return [Run(tables, one) for one in tables.meta.get("rl", [])]
