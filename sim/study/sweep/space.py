"""The points of a sweep: which values its keys take together, worked out before anything is run.

Draws come from one named stream for each key, so that a further key does not move the others. Random points are distinct: one that comes
up again is drawn again. A Latin hypercube cuts each axis into as many parts as there are points and meets each part once, in an order
shuffled for each key (McKay, Beckman and Conover 1979).
"""
from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from sim.core.errors import BadInput, Problem
from sim.core.rng import stream
from sim.spec import compose, load, outside
from sim.spec.keys import STUDIES, Keys
from sim.spec.load import located
from sim.spec.scenario import Scenario
from sim.spec.sweep import MOST, Axis, Sweep
from sim.spec.yaml_marks import Document, Place

Point = dict[str, Any]  # keys and their values
TRIES = 50  # draws for each point before a space is called too small
PATH = "sweep"


def points(sweep: Sweep, scenario: Scenario, data: Mapping[str, Any]) -> list[Point]:
    """Every point, in the order in which they are run. `data` is the scenario's mapping as it was written.

    Raises BadInput, at the file and line of what was written, for an empty or contradictory space and for keys that there are not.
    """
    problems = list(sweep.problems(PATH))
    known, whole = Keys(data, sweep.keys), {}
    home = f"{PATH}.list" if sweep.way == "list" else f"{PATH}.space"
    for key in sweep.keys:
        above = next((other for other in sweep.keys if key.startswith(f"{other}.")), None)
        try:
            whole[key] = known.whole(key)
        except BadInput as error:
            problems += [problem._replace(path=_home(sweep, home, key)) for problem in error.problems]
        if above is not None and sweep.way != "list":
            problems.append(Problem(f"lies within {above}, which has values of its own; leave one of them out", f"{home}.{key}"))
    axes = {key: axis for key, axis in sweep.space.items() if key in whole}
    for key, axis in axes.items():
        problems += [Problem(message, f"{home}.{key}") for message in _wrong(sweep, axis, whole[key])]
    size = math.prod(len(values(axis, whole[key])) for key, axis in axes.items()) if not problems and sweep.way == "grid" else 0
    if size > MOST:
        problems.append(Problem(f"the grid has {size:,} points; {MOST:,} are the most; take fewer values, or method latin_hypercube", home))
    if problems:
        raise BadInput(located(problems, scenario))
    if sweep.way == "list":
        return [dict(point) for point in sweep.list]
    if sweep.way == "grid":
        return [dict(zip(axes, row, strict=True)) for row in itertools.product(*(values(axis, whole[key]) for key, axis in axes.items()))]
    return _drawn(sweep, scenario, whole)


def values(axis: Axis, whole: bool = False) -> tuple[Any, ...]:
    """The values of an axis in a grid; `whole`: integers only, to which steps between them are rounded.

    >>> values(Axis(range={"min": 1, "max": 4}), whole=True), values(Axis(range={"min": 1, "max": 4, "step": 1.5, "scale": "log"}), True)
    ((1, 2, 3, 4), (1, 2, 3))
    """
    if axis.choices is not None:
        return axis.choices
    assert axis.range is not None
    if whole and axis.range.step is None:
        return tuple(range(math.ceil(axis.range.min), math.floor(axis.range.max) + 1))
    found = axis.range.values()
    return tuple(dict.fromkeys(round(value) for value in found)) if whole else found


def at(axis: Axis, share: float, whole: bool = False) -> Any:
    """The value at a share in [0, 1) of an axis."""
    if axis.choices is not None:
        return axis.choices[int(share * len(axis.choices))]
    assert axis.range is not None
    value = axis.range.at(share, whole)
    return round(value) if whole else value


def changed(document: Document, point: Point, places: Mapping[str, Place]) -> dict[str, Any]:
    """The mapping of a scenario with a point put over it as `--set` does; paths come out absolute.

    `places`: where each key's values were written. Raises BadInput where a key leads nowhere.
    """
    data, known = copy.deepcopy(document.data), dict(document.places)
    for key, value in point.items():
        compose.put(data, known, key.split("."), Document(copy.deepcopy(value), {(): places[key]}))
    return outside.absolute(Document(data, known))


def plain(scenario: Scenario) -> dict[str, Any]:
    """A scenario as a complete mapping, without the studies that can be made of it."""
    return {key: value for key, value in load.plain(scenario).items() if key not in STUDIES}


def _home(sweep: Sweep, home: str, key: str) -> str:
    """Where a key was written."""
    return next((f"{home}.{number}.{key}" for number, point in enumerate(sweep.list) if key in point), f"{home}.{key}")


def _wrong(sweep: Sweep, axis: Axis, whole: bool) -> Iterator[str]:
    scale = axis.range
    if scale is None:
        return
    if whole and math.ceil(scale.min) > math.floor(scale.max):
        yield f"takes integers, and there is none from {scale.min:g} to {scale.max:g}"
    elif sweep.way == "grid" and scale.step is None and not whole:
        yield "a grid needs to know the step; give one, such as step: 1, or step: 2 with scale: log"
    elif whole and scale.step is None and scale.max - scale.min > MOST:
        yield f"from {scale.min:g} to {scale.max:g} are more than {MOST:,} values; give a step"


def _drawn(sweep: Sweep, scenario: Scenario, whole: Mapping[str, bool]) -> list[Point]:
    seed, count = scenario.seed if sweep.seed is None else sweep.seed, sweep.points or 0
    streams = {key: stream(seed, f"sweep {key}") for key in sweep.space}
    found: list[Point] = []
    seen: dict[str, None] = {}
    if sweep.way == "latin_hypercube":
        parts = {key: rng.permutation(count) for key, rng in streams.items()}
        for number in range(count):
            shares = {key: (parts[key][number] + rng.random()) / count for key, rng in streams.items()}
            _add({key: at(axis, shares[key], whole[key]) for key, axis in sweep.space.items()}, found, seen)
    # Where parts of an axis share a value, points may coincide; others, at random, make up for them.
    for _ in range(TRIES * count):
        if len(found) == count:
            return found
        _add({key: at(axis, float(streams[key].random()), whole[key]) for key, axis in sweep.space.items()}, found, seen)
    message = f"asks for {count:,} points, and {len(found):,} different ones were found; take fewer points, or method grid"
    raise BadInput(located([Problem(message, f"{PATH}.points")], scenario))


def _add(point: Point, found: list[Point], seen: dict[str, None]) -> None:
    name = repr(point)
    if name not in seen:
        seen[name] = None
        found.append(point)
