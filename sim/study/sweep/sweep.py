"""Run a scenario at many points: every combination of some values, points drawn from ranges, or a list.

A point is the scenario as it was written with values put over it, as `--set` does; a replication of it differs in its seed alone, and all
points share their seeds, so that they share their luck. What a point cannot be run for is its row's error, and the others go on.
"""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import sim
from sim.core.errors import BadInput, Problem, did_you_mean
from sim.spec import compose, load, outside
from sim.spec.keys import STUDIES
from sim.spec.scenario import Scenario
from sim.spec.yaml_marks import Document, Dumper, Place
from sim.study.figures import findings, flat
from sim.study.journal import Journal, Row, decided, read
from sim.study.replicate.replicate import seeded
from sim.study.run import run
from sim.study.shelf import put
from sim.study.sweep.result import Sweep, save
from sim.study.sweep.space import PATH, Point, changed, points
from sim.study.validate.store import program
from sim.study.workers import Crew


class Order(NamedTuple):
    """What is to be run: `document` is the scenario as written, without studies, and `places` says where the values of a key were."""

    scenario: Scenario
    document: Document
    points: list[Point]
    places: dict[str, Place]

    @property
    def runs(self) -> int:
        """Points times replications."""
        assert self.scenario.sweep is not None
        return len(self.points) * self.scenario.sweep.replications


class Task(NamedTuple):
    """One run, for whoever does it: `data` is a whole scenario, or None with the `error` for which there is none.

    `program`: the digest of the program that the worker must be of too; empty where it cannot be another one.
    """

    point: int
    replication: int
    settings: Point
    data: dict[str, Any] | None
    error: str
    figures: tuple[str, ...]
    program: str


def sweep(
    scenario: Scenario | Mapping[str, Any] | str | Path, space: Mapping[str, Any] | None = None, folder: str | Path | None = None, *,
    crew: Crew | int | None = None, force: bool = False, **settings: Any,
) -> Sweep:  # fmt: skip
    """Run a scenario (or the path of one, or a mapping) at every point of its sweep.

    `space` adds keys with their values, such as {"workloads.0.rate": [1, 2, 4]}, and `settings` are further keys of a sweep: method,
    points, replications, figures, list, seed. `folder` keeps what is done, and is gone on with. `crew`: who runs it, by default all cores
    of this machine; a number is so many processes. Raises BadInput for a sweep that cannot be, and for a folder of another one.
    """
    found = order(with_settings(given(scenario), space or {}, settings))
    crew = crew if isinstance(crew, Crew) else Crew(jobs=crew)
    *_, done = sweeping(found, Path(folder) if folder is not None else None, crew, force=force)
    return done


def given(scenario: Scenario | Mapping[str, Any] | str | Path) -> Document:
    """What was written. Of a Scenario object the defaults are filled in, and stay when a key that they came from is varied."""
    if isinstance(scenario, str | Path):
        return compose.from_file(Path(scenario))
    return compose.from_mapping(load.plain(scenario) if isinstance(scenario, Scenario) else scenario)


def with_settings(document: Document, space: Mapping[str, Any], settings: Mapping[str, Any], source: str = "") -> Document:
    """The document with axes and settings added to its sweep; `source` is what errors call the place they come from."""
    data, place = document.data if isinstance(document.data, dict) else {}, Place(source, 0, 0, Path())
    old = data.get("sweep") or {}
    if not (space or settings) or not isinstance(old, dict):
        return document
    new = {**old, **({"space": {**(old.get("space") or {}), **space}} if space else {}), **settings}
    fresh = [("sweep", key) for key in settings] + [("sweep", "space", key) for key in space]
    places = {route: at for route, at in document.places.items() if not any(route[: len(one)] == one for one in fresh)}
    return Document({**data, "sweep": new}, {("sweep",): place} | places | dict.fromkeys(fresh, place))


def order(document: Document) -> Order:
    """What the sweep of a document comes to. Raises BadInput for a scenario that cannot stand alone, and for an impossible sweep."""
    scenario = load.whole(document)
    if scenario.sweep is None:
        raise BadInput(f"{scenario.name} has no sweep; give one, such as sweep: {{space: {{workloads.0.rate: [1, 2, 4]}}}}, or --over")
    found = points(scenario.sweep, scenario, outside.absolute(document))
    plain = Document({key: value for key, value in document.data.items() if key not in STUDIES}, document.places)
    places = {key: _place(document.places, key) for key in scenario.sweep.keys}
    try:
        changed(plain, found[0], places)
    except BadInput as error:
        # A key that leads nowhere in the first point leads nowhere in all.
        home = f"{PATH}.{'list.0' if scenario.sweep.list else 'space'}"
        wrong = [Problem(problem.message, f"{home}.{problem.path}") for problem in error.problems]
        raise BadInput(load.located(wrong, scenario)) from None
    return Order(scenario, plain, found, places)


def sweeping(
    order: Order, folder: Path | None = None, crew: Crew | None = None, *, progress: Callable[..., None] | None = None, force: bool = False,
) -> Iterator[Sweep]:  # fmt: skip
    """As `sweep`; yields the same Sweep after each run with one more row. `progress(done, total, ...)` is for the whole.

    With a folder each row is on the disk before the next is awaited, rows that are there already are not run again, and the table is
    written when it ends, however that is. Raises BadInput as `sweep` does.
    """
    crew, spec = crew or Crew(), order.scenario.sweep
    assert spec is not None
    crew.check()
    found = Sweep(order.scenario, spec.keys, order.runs)
    with contextlib.ExitStack() as stack:
        keep: Callable[[Row], None] = found.rows.append
        if folder is not None:
            journal = stack.enter_context(Journal(folder, header(order), force))
            found.rows, keep = journal.rows, journal.put
            put(folder, {"scenario.yaml": _text(order)})
            stack.callback(_close, found, folder)
        done = dict.fromkeys((row["point"], row["replication"]) for row in found.rows)
        if progress is not None:
            progress(len(found.rows), found.wanted, f"{len(found.rows):,} of {found.wanted:,} runs")
        yield found
        tasks = (task for task in _tasks(order, crew) if (task.point, task.replication) not in done) if len(done) < order.runs else ()
        work = stack.enter_context(contextlib.closing(crew.each(one, tasks)))
        for row in work:
            unknown = row.pop("unknown")
            if unknown and not any(other["error"] is None for other in found.rows):
                raise BadInput(load.located([Problem(message, f"{PATH}.figures") for message in unknown], order.scenario))
            keep(row)
            if progress is not None:
                progress(len(found.rows), found.wanted, f"{len(found.rows):,} of {found.wanted:,} runs")
            yield found


def _close(found: Sweep, folder: Path) -> None:
    """Write the table of all rows that are on the disk: an interrupt may have come between a row's writing and its counting."""
    found.rows = read(folder)[1]
    save(found, folder)


def one(task: Task) -> Row:
    """The row of one run; `unknown`: what is wrong with the names of figures. Raises BadInput only where the program is another one."""
    if task.program and task.program != program():
        raise BadInput(f"a worker has another burstsim (version {sim.__version__}, or other sources) than this one; install the same there")
    row = {"point": task.point, "replication": task.replication, "settings": task.settings, "verdict": None, "audit_ok": None,
           "seconds": 0.0, "error": task.error or None, "figures": {}, "unknown": []}  # fmt: skip
    if task.data is None:
        return row
    began = time.perf_counter()
    try:
        summary = run(seeded(load.loads(task.data), task.replication)).summary
    except BadInput as error:
        row["error"] = "; ".join(map(str, error.problems))
    except Exception as error:  # A fault of one point in a hundred must not cost the others.
        row["error"] = f"{type(error).__name__}: {error}"
    else:
        figures = flat(summary)
        row["figures"] = {name: figures[name] for name in task.figures or findings(figures) if name in figures}
        row["unknown"] = [f"unknown figure '{name}'; {did_you_mean(name, findings(figures))}"
                          for name in task.figures if name not in figures and not _undefined(summary, name)]  # fmt: skip
        row["verdict"], row["audit_ok"] = summary["verdict"], all(entry["ok"] for entry in summary["audit"].values())
    row["seconds"] = round(time.perf_counter() - began, 6)
    return row


def header(order: Order) -> dict[str, Any]:
    """What decides the rows of a sweep, the program and the files it reads among it."""
    return {**decided(outside.absolute(order.document)), "runs": order.runs, "sweep": load.plain(order.scenario.sweep)}


def _tasks(order: Order, crew: Crew) -> Iterator[Task]:
    """Every run, those of one replication of all points before those of the next."""
    spec = order.scenario.sweep
    assert spec is not None
    same = program() if crew.backend != "loky" else ""
    for replication in range(spec.replications):
        for number, point in enumerate(order.points):
            data, error = None, ""
            try:
                data = changed(order.document, point, order.places)
            except BadInput as wrong:
                error = "; ".join(f"{problem.path}: {problem.message}" for problem in wrong.problems)
            yield Task(number, replication, point, data, error, spec.figures, same)


def _undefined(summary: Any, name: str) -> bool:
    """Whether a figure is one that this run only has no value of."""
    for key in name.split("."):
        if not isinstance(summary, Mapping) or key not in summary:
            return False
        summary = summary[key]
        if summary is None:
            return True
    return False


def _place(places: Mapping[Any, Place], key: str) -> Place:
    """Where the values of a key were written."""
    written = (place for route, place in places.items() if route[:1] == ("sweep",) and route[-1] == key)
    return next(written, places[()])


def _text(order: Order) -> str:
    """The scenario with its sweep as it was written, paths absolute."""
    said = {**outside.absolute(order.document), "sweep": load.plain(order.scenario.sweep)}
    body = yaml.dump(said, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=140)
    return f"# As it was swept; do so again with `burstsim sweep`.\n{body}"
