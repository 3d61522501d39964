"""Dotted keys of a scenario, such as `cluster.pools.0.replicas`: whether there is such a key, and what it takes.

The JSON schema is the one place that knows every key of every kind. Where what is written names its kind, only that kind's keys count,
unless the kind is to be changed as well. The schema of all kinds takes half a second, of one that is met a few milliseconds: definitions
are made as they are met. Shorthand, which only lets words stand for mappings and numbers, says nothing about keys.
"""
from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.registry import FAMILIES

Schema = Mapping[str, Any]
STUDIES = ("extends", "ladder", "curve", "sweep", "plan")  # what is done with a scenario is no part of what is run


class Keys:
    """The keys of one scenario, `data` as it was written, of which those in `changed` are going to be given other values."""

    def __init__(self, data: Mapping[str, Any], changed: Collection[str] = ()):
        self.schema, self.data, self.changed = _schema(), data, changed
        self._definitions: dict[str, Schema] = dict(self.schema["$defs"])

    def whole(self, key: str) -> bool:
        """Whether a key takes integers only. Raises BadInput where there is no such key, with the nearest ones."""
        names = key.split(".")
        if names[0] in STUDIES or not all(names):
            raise BadInput([Problem("a key of what is run is wanted, such as cluster.pools.0.replicas", key)])
        here: list[Schema] = [self.schema]
        held: Any = self.data
        for depth, name in enumerate(names):
            way = ".".join(names[:depth])
            kind = held.get("kind") if isinstance(held, Mapping) and not self._replaced(way) else None
            members = [one for schema in here for one in self._members(schema, kind)]
            members = [one for one in members if kind is None or one.get("properties", {}).get("kind", {}).get("const", kind) == kind]
            here = [inner for one in members for inner in _below(one, name)]
            if not here and members:
                raise BadInput([Problem(f"unknown key '{name}' of {way or 'the scenario'}; {_near(name, members, way)}", key)])
            held = _part(held, name)
        return _types([one for schema in here for one in self._members(schema)]) == {"integer"}

    def _replaced(self, way: str) -> bool:
        """Whether a mapping is going to be of another kind."""
        return any(key in (way, f"{way}.kind") or way.startswith(f"{key}.") for key in self.changed)

    def _members(self, schema: Schema, kind: Any = None) -> Iterator[Schema]:
        """What a schema may be, references followed, but for those to kinds other than `kind` where that is known."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            family, _, its = name.partition(".")
            if not its or kind is None or its == kind:
                yield from self._members(self._defined(name, family, its), kind)
            return
        unions = [one for word in ("anyOf", "oneOf", "allOf") for one in schema.get(word, ())]
        for one in unions:
            yield from self._members(one, kind)
        if not unions or "type" in schema or "properties" in schema:
            yield schema


    def _defined(self, name: str, family: str, kind: str) -> Schema:
        if name not in self._definitions:
            from sim.spec.schema import of_kind

            self._definitions.update(of_kind(FAMILIES[family], kind))
        return self._definitions[name]


@functools.cache
def _schema() -> Schema:
    from sim.spec.schema import without_kinds

    return without_kinds()


def _near(name: str, members: list[Schema], way: str) -> str:
    known = {word for one in members for word in one.get("properties", {})} - (set() if way else set(STUDIES))
    if not known:
        listed = any(one.get("type") == "array" for one in members)
        return "its items go by their numbers, from 0" if listed else "it is one value and has no keys"
    return did_you_mean(name, known)


def _below(schema: Schema, name: str) -> Iterator[Schema]:
    """What a key, or the index of an item, leads to."""
    if name in schema.get("properties", {}):
        yield schema["properties"][name]
    elif isinstance(schema.get("additionalProperties"), Mapping):
        yield schema["additionalProperties"]
    elif schema.get("additionalProperties") is True or not schema.keys() - {"title", "description", "default"}:
        yield {}
    if name.isdecimal() and schema.get("type") == "array":
        places = schema.get("prefixItems", ())
        yield places[int(name)] if int(name) < len(places) else schema.get("items", {})


def _part(held: Any, name: str) -> Any:
    if isinstance(held, Mapping):
        return held.get(name)
    return held[int(name)] if isinstance(held, list | tuple) and name.isdecimal() and int(name) < len(held) else None


def _types(schemas: list[Schema]) -> set[str]:
    """The JSON types a value may have, null left out; of a value without a type, `any`."""
    found: set[str] = set()
    for schema in schemas:
        kinds = schema.get("type", "any" if "const" not in schema and "enum" not in schema else "string")
        found |= {kinds} if isinstance(kinds, str) else set(kinds)
    return found - {"null"}
