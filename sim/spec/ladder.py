"""A ladder: one scenario changed step by step, each step on top of those before it, so that what each is worth can be told.

A step is written as `--set` is: dotted keys and their new values, put over the YAML as it stands, so that what is left to its default may
change with them. Loading completes `set` to everything that then differs from the step before: a ladder that was saved, with every default
filled in, climbs the same steps.
"""
from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from sim.core.errors import BadInput, Problem
from sim.spec import compose
from sim.spec.frozen import Spec
from sim.spec.yaml_marks import Document, Route

Name = Annotated[str, Field(min_length=1, max_length=60)]


class Rung(Spec):
    """One step. Only the first may leave `set` empty: it is the scenario as it stands. With `kept: false` it is tried and left again."""

    name: Name
    why: str = ""
    set: dict[str, Any] = Field(default_factory=dict, description="dotted keys, such as cluster.pools.0.engine.paged, and their new values")
    kept: bool = Field(True, description="false: the next step is put on the one before this, not on this")


def check(rungs: Sequence[Rung]) -> Iterator[Problem]:
    """What is wrong with a ladder apart from the values it sets."""
    for number, rung in enumerate(rungs):
        if rung.name in [before.name for before in rungs[:number]]:
            yield Problem(f"two steps are named '{rung.name}'; names of steps must differ", f"ladder.{number}.name")
        if number and not rung.set:
            yield Problem("missing; only the first step may set nothing, every other needs a key and its new value", f"ladder.{number}.set")
        if not number and not rung.kept:
            yield Problem("found false; the first step is what the others are put on", f"ladder.{number}.kept")
        for key in rung.set:
            if key.partition(".")[0] in ("ladder", "extends"):
                yield Problem(f"found '{key}'; a step cannot change the ladder or what the file extends", f"ladder.{number}.set")


def documents(document: Document, rungs: Sequence[Rung]) -> Iterator[Document]:
    """What each step says as a whole, the ladder left out. Raises BadInput for a key that leads nowhere, at its file and line."""
    data = copy.deepcopy({key: value for key, value in document.data.items() if key != "ladder"})
    places = {at: place for at, place in document.places.items() if at[:1] != ("ladder",)}
    for number, rung in enumerate(rungs):
        step, at = copy.deepcopy(data), dict(places)
        for key in rung.set:
            value = _written(document, ("ladder", number, "set", key))
            try:
                compose.put(step, at, tuple(key.split(".")), value)
            except BadInput as error:
                place = value.places[()]
                raise BadInput([problem._replace(file=place.file, line=place.key) for problem in error.problems]) from None
        data, places = (step, at) if rung.kept else (data, places)
        yield Document(step, at)


def differences(before: Mapping[Any, Any], after: Mapping[Any, Any], way: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that make `after` of `before`; a key that is gone becomes null.

    >>> dict(differences({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [1, 2]}))
    {'a.b': 3, 'a.c': None, 'd': [1, 2]}
    """
    for key in dict.fromkeys([*before, *after]):
        old, new, at = before.get(key), after.get(key), f"{way}{key}"
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old.get("kind") == new.get("kind"):
            yield from differences(old, new, f"{at}.")
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and all(isinstance(one, dict) for one in old + new):
            yield from differences(dict(enumerate(old)), dict(enumerate(new)), f"{at}.")
        else:
            yield at, new


def completed(rungs: Sequence[Rung], scenarios: Sequence[Mapping[str, Any]], start: Mapping[str, Any]) -> tuple[Rung, ...]:
    """The steps with everything they change, from what each makes of the scenario (`start`: as it stands), plain and complete."""
    done, below = [], start
    for rung, made in zip(rungs, scenarios, strict=True):
        done.append(rung.model_copy(update={"set": dict(differences(below, made))}))
        below = made if rung.kept else below
    return tuple(done)


def _written(document: Document, route: Route) -> Document:
    """A value of the document with the places of its parts, as if it stood alone."""
    value = document.data
    for part in route:
        value = value[part]
    places = {at[len(route) :]: place for at, place in document.places.items() if at[: len(route)] == route}
    known = route
    while known not in document.places:
        known = known[:-1]
    return Document(copy.deepcopy(value), places | {(): places.get((), document.places[known])})
