"""The runs of a study that gives one answer, each made once: by this process, or by one before it that was ended before it had the answer.

Such a study decides what to run next by what it found, so that what is kept is not how far it came but what each run gave: it is gone
through again from its beginning, and finds in its folder what was run already. What a run gives is decided by the scenario, so that the
answer is, to the byte, that of a study nobody interrupted. The journal (`study/journal.py`) goes once the answer is saved.
"""
from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sim.core.errors import BadInput, Problem
from sim.spec.scenario import Scenario
from sim.study.journal import Journal, Kind
from sim.study.plan.bounds import Demand, demand
from sim.study.plan.trial import Trial, trial, trials
from sim.study.run import run

Key = tuple[Any, ...]  # of texts and numbers, as JSON gives them back
Progress = Callable[..., None]


class Ledger:
    """What is known of runs by key, kept in a `journal` if there is one. `jobs`: processes where there is much to do at a time.

    `progress(done, total, what)` is told of every run; `total` is None, or what was put into it.
    """

    def __init__(self, journal: Journal | None = None, jobs: int = 1, progress: Progress | None = None):
        """Raises BadInput for a journal with a row that is no run."""
        self.jobs, self.total = jobs, None
        self._journal, self._progress = journal, progress
        self._known: dict[str, Any] = dict(_rows(journal)) if journal is not None else {}
        spent = max((float(row["seconds"]) for row in journal.rows), default=0.0) if journal is not None else 0.0
        self._began = time.perf_counter() - spent

    @property
    def seconds(self) -> float:
        """How long the study has taken, what came before an interruption included as far as its last run."""
        return time.perf_counter() - self._began

    def one(self, key: Key, scenario: Callable[[], Scenario]) -> Trial:
        """The trial of a scenario."""
        if _name(key) not in self._known:
            self._keep(key, trial=trial(scenario()))
        found: Trial = self._known[_name(key)]
        return found

    def many(self, keys: Sequence[Key], scenario: Callable[[Key], Scenario]) -> list[Trial]:
        """The trials of several scenarios, each kept as it ends."""
        missing = [key for key in keys if _name(key) not in self._known]
        with contextlib.closing(trials([scenario(key) for key in missing], self.jobs)) as made:
            for place, found in made:
                self._keep(missing[place], trial=found)
        return [self._known[_name(key)] for key in keys]

    def demand(self, key: Key, scenario: Callable[[], Scenario]) -> Demand | None:
        """What the traffic of a scenario asks for, by a run of it; None where that depends on who serves it. Raises BadInput as it does."""
        if _name(key) not in self._known:
            self._keep(key, demand=demand(run(scenario())))
        found: Demand | None = self._known[_name(key)]
        return found

    def _keep(self, key: Key, **found: Trial | Demand | None) -> None:
        [(what, one)] = found.items()
        if self._journal is not None:
            self._journal.put({"key": key, what: one and one._asdict(), "seconds": round(self.seconds, 3)})
        self._known[_name(key)] = one
        if self._progress is not None:
            self._progress(len(self._known), self.total, "runs")


class Question(NamedTuple):
    """A study to be made: `kind` of its journal, what decides (`decides`) its runs, how the answer is found, and how it is saved."""

    kind: Kind
    decides: Mapping[str, Any]
    find: Callable[[Ledger], Any]
    save: Callable[[Any, Path], None]

    def answer(
        self, folder: Path | None = None, *, jobs: int = 1, force: bool = False, progress: Progress | None = None,
        pages: Callable[[Any, Path], None] | None = None,
    ) -> Any:  # fmt: skip
        """What is found. With a folder every run is kept in it until the answer is saved there, and `pages` have written what they add.

        Raises BadInput for a folder of something else, one that another process writes, and, but for `force`, a complete one.
        """
        if folder is None:
            return self.find(Ledger(None, jobs, progress))
        with Journal(folder, {"study": self.kind.word, **self.decides}, force, self.kind) as journal:
            found = self.find(Ledger(journal, jobs, progress))
            self.save(found, folder)
            if pages is not None:
                pages(found, folder)
            journal.remove()
        return found


def _rows(journal: Journal) -> Iterator[tuple[str, Trial | Demand | None]]:
    for number, row in enumerate(journal.rows, 2):
        try:
            float(row["seconds"])
            if "trial" in row:
                said = row["trial"]
                yield _name(row["key"]), Trial(**said | {"limits": tuple(said["limits"]), "why": tuple(said["why"])})
            else:
                said = row["demand"]
                tokens = {name: {int(at): value for at, value in said[name].items()} for name in ("prompts", "answers")} if said else {}
                yield _name(row["key"]), Demand(**said | tokens) if said else None
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            message = f"holds no run ({error}); begin anew with --force"
            raise BadInput([Problem(message, "", str(journal.path), number)]) from error


def _name(key: Sequence[Any]) -> str:
    return json.dumps(list(key))
