"""Read a scenario: YAML in, a complete and checked `Scenario` out, or every problem at once with its file and line.

Two passes: the schema checks the frame, and each pluggable part is checked against the fields of its kind, which fills its defaults in.
Paths come out absolute. `dump` writes a scenario so that `load` reads an equal one.
"""
from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from sim.core.errors import BadInput, Problem
from sim.core.explain import show, validate
from sim.core.registry import ADMISSIONS, AUTOSCALERS, BATCHERS, GATES, PLACERS, RETENTIONS, ROUTERS, WORKLOADS, Family, hints
from sim.spec import compose, ladder, lending, outside, sandboxes, training, unused
from sim.spec.engine import EngineOptions
from sim.spec.network import Network
from sim.spec.scenario import Cluster, Scenario
from sim.spec.yaml_marks import Document, Dumper, Place, Route

Sets = Sequence[str] | Mapping[str, Any]
# Whose schema holds a kind that may be left to its default; else the cluster.
OWNERS: dict[str, type[BaseModel]] = {"batcher": EngineOptions, "retention": EngineOptions, "placement": Network}


def load(path: str | Path, sets: Sets = (), *, lookup: bool = True) -> Scenario:
    """The scenario in a YAML file, with `sets` (`a.b=value` texts, or a mapping of dotted keys to values) put over it.

    `lookup=False` leaves out what lies outside the file: catalogue names, and whether the files it names are there. Raises BadInput.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise BadInput(f"found {show(path)}; the path of a YAML file is wanted (`loads` takes a mapping)")
    return whole(compose.change(compose.from_file(Path(path)), sets), lookup)


def loads(mapping: Mapping[str, Any], sets: Sets = (), *, lookup: bool = True) -> Scenario:
    """The scenario in a mapping, as `load` gives it; paths are relative to the working folder. Raises BadInput."""
    if not isinstance(mapping, Mapping):
        raise BadInput(f"found {show(mapping)}; a scenario is a mapping with the keys model, cluster and workloads")
    return whole(compose.change(compose.from_mapping(mapping), sets), lookup)


def dump(scenario: Scenario) -> str:
    """YAML of the whole scenario, defaults included, in SI units; `load` reads an equal scenario back."""
    body = yaml.dump(plain(scenario), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=140)
    return "# Complete and resolved: seconds, bytes, dollars, tokens. Run it again with `burstsim run`.\n" + body


def steps(scenario: Scenario) -> list[Scenario]:
    """What each step of the scenario's ladder makes of it, complete; its name and reason become those of the scenario."""
    document, made = compose.from_mapping(_start(scenario)), []
    for rung in scenario.ladder:
        step = compose.change(document, rung.set)
        words = {"name": f"{scenario.name}: {rung.name}", "description": rung.why or scenario.description}
        made.append(_scenario(step, False).model_copy(update=words))
        document = step if rung.kept else document
    return made


def whole(document: Document, lookup: bool = True) -> Scenario:
    """The scenario in a document, and of its ladder what every step changes. A slip in one step shows in all that follow, and is said once.

    `lookup` as for `load`. Raises BadInput.
    """
    scenario = _scenario(document, lookup)
    if not scenario.ladder:
        return scenario
    wrong = list(ladder.check(scenario.ladder))
    if wrong:
        raise BadInput(_placed(wrong, document.places))
    made: list[Scenario] = []
    problems: dict[Problem, Problem] = {}
    for rung, step in zip(scenario.ladder, ladder.documents(document, scenario.ladder), strict=True):
        try:
            made.append(_scenario(step, lookup))
        except BadInput as error:
            for problem in error.problems:
                problems.setdefault(problem, problem._replace(message=f"{problem.message} (step '{rung.name}' of the ladder)"))
    if problems:
        raise BadInput(list(problems.values()))
    return scenario.model_copy(update={"ladder": ladder.completed(scenario.ladder, [_start(step) for step in made], _start(scenario))})


def _start(scenario: Scenario) -> dict[str, Any]:
    """A scenario without its ladder, complete and plain."""
    found: dict[str, Any] = plain(scenario)
    return {key: value for key, value in found.items() if key != "ladder"}


def _scenario(document: Document, lookup: bool) -> Scenario:
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else f"holds {show(document.data)}"
        message = f"{what}; a scenario is a mapping with the keys model, cluster and workloads"
        raise BadInput([Problem(message, "", document.places[()].file)])
    raw = outside.absolute(document)
    problems: list[Problem] = []
    _last_as_long(raw)
    for route, family in sites(raw):
        checked, wrong = family.check(_get(raw, route))
        problems += [p._replace(path=".".join([*map(str, route), *([p.path] if p.path else [])])) for p in wrong]
        _put(raw, route, {} if wrong else checked)
    scenario, more = validate(Scenario, raw, "the scenario")
    problems += more
    if scenario is not None:
        problems += unused.problems(scenario)
        problems += training.problems(scenario)
        problems += lending.problems(scenario)
    if lookup:
        problems += outside.problems(raw)
        problems += sandboxes.problems(scenario) if scenario is not None else ()
    if scenario is None or problems:
        raise BadInput(_placed(problems, document.places))
    scenario._places = document.places
    return scenario


def located(problems: Sequence[Problem], scenario: Scenario) -> list[Problem]:
    """Problems found after loading, addressed by their keys, with the file and line of what was written there."""
    return _placed(problems, scenario._places) if scenario._places else list(problems)


def _last_as_long(raw: dict[str, Any]) -> None:
    """A workload that does not say when it ends lasts as long as the scenario."""
    for workload in _list(raw.get("workloads")) if raw.get("duration") is not None else []:
        if isinstance(workload, dict) and workload.get("kind") in WORKLOADS.names():
            known = hints(WORKLOADS.find(workload["kind"]))
            counted = any(workload.get(key) is not None for key in ("num_requests", "num_sessions", "times"))
            counted = counted or ("every" in known and workload.get("every") is None)  # it happens once
            if "duration" in known and workload.get("duration") is None and not counted:
                workload["duration"] = raw["duration"]


def sites(raw: Mapping[str, Any]) -> Iterator[tuple[Route, Family]]:
    """Where a scenario's mapping holds a kind, also where it only could: `cluster.router` is there even when it is left to its default."""
    cluster = raw.get("cluster")
    if isinstance(cluster, dict):
        yield ("cluster", "router"), ROUTERS
        yield ("cluster", "admission"), ADMISSIONS
        if cluster.get("gate") is not None:
            yield ("cluster", "gate"), GATES
        if isinstance(cluster.get("network"), dict):
            yield ("cluster", "network", "placement"), PLACERS
        for index, pool in enumerate(_list(cluster.get("sandboxes"))):
            if isinstance(pool, dict) and isinstance(pool.get("autoscale"), dict) and "policy" in pool["autoscale"]:
                yield ("cluster", "sandboxes", index, "autoscale", "policy"), AUTOSCALERS
        for index, pool in enumerate(_list(cluster.get("pools"))):
            if isinstance(pool, dict) and isinstance(pool.get("engine", {}), dict):
                yield ("cluster", "pools", index, "engine", "batcher"), BATCHERS
                yield ("cluster", "pools", index, "engine", "retention"), RETENTIONS
            if isinstance(pool, dict) and isinstance(pool.get("autoscale"), dict) and "policy" in pool["autoscale"]:
                yield ("cluster", "pools", index, "autoscale", "policy"), AUTOSCALERS
    for index, _ in enumerate(_list(raw.get("workloads"))):
        yield ("workloads", index), WORKLOADS


@functools.cache
def _default(owner: type[BaseModel], name: str) -> Any:
    return owner.model_fields[name].get_default(call_default_factory=True)


def _get(raw: Any, route: Route) -> Any:
    *way, last = route
    for part in way:
        raw = raw.get(part, {}) if isinstance(raw, dict) else raw[part]
    if isinstance(raw, dict) and last not in raw:
        return _default(OWNERS.get(str(last), Cluster), str(last))
    return raw[last]


def _put(raw: Any, route: Route, value: Any) -> None:
    for part in route[:-1]:
        raw = raw.setdefault(part, {}) if isinstance(raw, dict) else raw[part]
    raw[route[-1]] = value


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _placed(problems: Sequence[Problem], places: Mapping[Route, Place]) -> list[Problem]:
    """Each problem with the file and line of the nearest thing that was written, in the order of the files."""
    dotted = {".".join(map(str, route)): place for route, place in places.items()}
    order = {place.file: index for index, place in reversed(list(enumerate(places.values())))}
    placed = []
    for problem in problems:
        if problem.file:
            placed.append(problem)
            continue
        path = problem.path
        while path not in dotted:
            path = path.rpartition(".")[0]
        place = dotted[path]
        line = place.key if problem.message.startswith("unknown key") else place.value
        placed.append(problem._replace(file=place.file, line=line))
    return sorted(placed, key=lambda problem: (order.get(problem.file, len(order)), problem.line))


def plain(value: Any) -> Any:
    """What was read, such as a scenario or the options of a kind, as mappings, lists and plain values again."""
    # A schema's own None always means "left to its default" and says nothing; a kind's None may be a choice.
    if isinstance(value, BaseModel):
        # What it has worked out for itself is kept beside its fields.
        return {name: plain(vars(value)[name]) for name in type(value).model_fields if vars(value)[name] is not None}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(vars(value)[field.name]) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, PurePath) else value
