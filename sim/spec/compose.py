"""One document out of several: a scenario file, the files it extends, and what `--set` changes. Every value keeps its own place.

`extends: base.yaml` is relative to the file that says it. Mappings merge deep and lists are replaced. A mapping that names another `kind`
is replaced too, for the options of one kind mean nothing to another.
"""
from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.core.errors import BadInput, Problem
from sim.core.explain import show
from sim.spec.yaml_marks import Document, Place, Route, parse, read

SET = "--set"


def from_file(path: Path) -> Document:
    """The document in a file with all it extends merged in. Raises BadInput."""
    return _extended(read(path), (path,))


def from_mapping(mapping: Mapping[str, Any]) -> Document:
    """A document made in Python; paths in it are relative to the working folder."""
    return _extended(Document(copy.deepcopy(dict(mapping)), {(): Place("", 0, 0, Path())}), ())


def change(document: Document, sets: Sequence[str] | Mapping[str, Any]) -> Document:
    """The document with values replaced: texts such as `cluster.pools.0.replicas=4`, or a mapping of dotted keys to plain values.

    Missing mapping keys are made on the way. Raises BadInput listing every change that cannot be done.
    """
    data, places = copy.deepcopy(document.data), dict(document.places)
    problems: list[Problem] = []
    for item in sets.items() if isinstance(sets, Mapping) else sets:
        try:
            route, value = _assignment(item) if isinstance(item, str) else (tuple(item[0].split(".")), _given(item[1]))
            put(data, places, route, value)
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
    return Document(data, places)


def _extended(document: Document, chain: tuple[Path, ...]) -> Document:
    data, places = document
    if not isinstance(data, dict) or "extends" not in data:
        return document
    place = places.get(("extends",), places[()])
    name = data["extends"]
    if not isinstance(name, (str, os.PathLike)):
        raise BadInput([Problem(f"found {show(name)}; the path of a YAML file is wanted", "extends", place.file, place.value)])
    base = Path(os.path.normpath(place.folder / Path(name).expanduser()))
    if base.resolve() in [path.resolve() for path in chain]:
        circle = " -> ".join(str(path) for path in (*chain, base))
        raise BadInput([Problem(f"the files extend each other in a circle: {circle}", "extends", place.file, place.value)])
    below = _extended(_read_base(base, place), (*chain, base))
    if not isinstance(below.data, dict):
        raise BadInput([Problem(f"{base} holds {show(below.data)}; a mapping is wanted", "extends", place.file, place.value)])
    rest = {key: value for key, value in data.items() if key != "extends"}
    return _merge(below, Document(rest, {route: at for route, at in places.items() if route[:1] != ("extends",)}))


def _read_base(base: Path, place: Place) -> Document:
    try:
        return read(base)
    except BadInput as error:
        # Without a line the file itself is at fault, and the place to mend is the one that names it.
        raise BadInput([
            p if p.line else Problem(f"{base}: {p.message}", "extends", place.file, place.value) for p in error.problems
        ]) from None


def _merge(low: Document, high: Document) -> Document:
    places = dict(low.places)

    def merged(below: Any, above: Any, route: Route) -> Any:
        if isinstance(below, dict) and isinstance(above, dict) and above.get("kind", below.get("kind")) == below.get("kind"):
            places.update({route: high.places[route]} if route in high.places else {})
            both = {key: merged(value, above[key], (*route, key)) if key in above else value for key, value in below.items()}
            new = {key: value for key, value in above.items() if key not in below}
            for key in new:
                places.update(_below(high.places, (*route, key)))
            return both | new
        for old in list(_below(places, route)):
            del places[old]
        places.update(_below(high.places, route))
        return above

    return Document(merged(low.data, high.data, ()), places)


def _below(places: Mapping[Route, Place], route: Route) -> dict[Route, Place]:
    return {at: place for at, place in places.items() if at[: len(route)] == route}


def _assignment(text: str) -> tuple[tuple[str, ...], Document]:
    key, equals, value = text.partition("=")
    route = tuple(key.strip().split("."))
    if "[" in key:
        mended = re.sub(r"\[(\w+)\]", r".\1", key)
        raise BadInput([Problem(f"found '{text}'; dots lead to the items of a list: {mended}{equals}{value}", "", SET)])
    if not equals or not all(route):
        raise BadInput([Problem(f"found '{text}'; KEY=VALUE is wanted, such as cluster.pools.0.replicas=4", "", SET)])
    try:
        return route, parse(value, SET, Path(), lines=False)
    except BadInput as error:
        raise BadInput([problem._replace(path=f"{key}.{problem.path}".rstrip(".")) for problem in error.problems]) from None


def _given(value: Any) -> Document:
    return Document(copy.deepcopy(value), {(): Place(SET, 0, 0, Path())})


def put(data: Any, places: dict[Route, Place], names: Sequence[str], value: Document) -> None:
    """Put a value, with its places, where the dotted `names` lead; raises BadInput when they lead nowhere.

    Checks the whole way first, so that a change is done or leaves nothing half made.
    """
    here, route = data, _way(data, names)
    for depth, key in enumerate(route[:-1]):
        if isinstance(here, dict) and here.get(key) is None:
            here[key] = {}
            places[route[: depth + 1]] = value.places[()]
        here = here[key]
    here[route[-1]] = value.data
    for old in list(_below(places, route)):
        del places[old]
    places.update({(*route, *at): place for at, place in value.places.items()})


def _way(data: Any, names: Sequence[str]) -> Route:
    return tuple(_steps(data, names))


def _steps(here: Any, names: Sequence[str]) -> Iterator[str | int]:
    for depth, name in enumerate(names):
        path, parent = ".".join(names), ".".join(names[:depth]) or "the scenario"
        if isinstance(here, list):
            if not name.isdecimal() or int(name) >= len(here):
                what = f"an index from 0 to {len(here) - 1} is wanted" if here else "the list is empty"
                what += "; to add an item, set the whole list" if name == str(len(here)) else ""
                raise BadInput([Problem(f"{parent} has no item '{name}'; {what}", path, SET)])
            yield int(name)
            here = here[int(name)]
        elif isinstance(here, dict) or here is None:
            yield name
            here = here.get(name) if here else None
        else:
            raise BadInput([Problem(f"{parent} is {show(here)}, not a mapping; set it as a whole", path, SET)])
