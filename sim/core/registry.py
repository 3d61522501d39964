"""Every pluggable kind, found by its file: `policy/route/least_loaded.py` holds `class LeastLoaded` and is the router `least_loaded`.

A kind is one dataclass: its public fields are its YAML keys, with their defaults, its private fields its state. Dropping in a file
registers it; another distribution adds one through an entry point in the group `burstsim.<family>`. Kinds are imported when asked for.
A field whose annotation carries a `Family` holds a nested kind: `lengths: Annotated[Lengths, LENGTHS]`.
"""
from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import pkgutil
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.habits import KINDS, spelled


@dataclasses.dataclass(frozen=True)
class Family:
    """A folder of interchangeable kinds: the name users see and the package that holds one module per kind."""

    name: str
    package: str

    def names(self) -> list[str]:
        """Every kind, sorted: the modules of the package (except `base` and those starting with `_`) and installed plug-ins."""
        return sorted(set(_modules(self.package)) | set(_plugins(self.name)))

    def find(self, kind: str) -> type:
        """The dataclass of a kind. Raises BadInput naming the nearest kinds when there is none."""
        if kind in _modules(self.package):
            module = importlib.import_module(f"{self.package}.{kind}")
            return typing.cast(type, vars(module)["".join(word.capitalize() for word in kind.split("_"))])
        if kind in _plugins(self.name):
            return typing.cast(type, _plugins(self.name)[kind].load())
        usual = KINDS.get(spelled(kind), "")
        near = f"did you mean {usual}?" if usual in self.names() else did_you_mean(kind, self.names())
        raise BadInput([Problem(f"unknown {self.name} kind '{kind}'; {near}", "kind")])

    def check(self, options: Any) -> tuple[dict[str, Any], list[Problem]]:
        """The options of one kind, complete and converted, and what is wrong with them (paths relative to the options)."""
        if not isinstance(options, Mapping):
            from sim.core.explain import show

            kind = options if options in self.names() else self.names()[0]
            return {}, [Problem(f"found {show(options)}; a mapping with a key 'kind' is wanted, such as {{kind: {kind}}}")]
        if "kind" not in options:
            fitting = [kind for kind in self.names() if not _validate(self.find(kind), kind, dict(options))[1]]
            guess = f"did you mean kind: {' or '.join(fitting)}?" if fitting else f"known: {', '.join(self.names())}"
            return {}, [Problem(f"no 'kind' given; {guess}")]
        if not isinstance(options["kind"], str):
            from sim.core.explain import show

            return {}, [Problem(f"found {show(options['kind'])}; the name of a kind is wanted: {', '.join(self.names())}", "kind")]
        try:
            cls = self.find(options["kind"])
        except BadInput as error:
            return {}, error.problems
        return _validate(cls, options["kind"], {key: value for key, value in options.items() if key != "kind"})

    def make(self, options: Mapping[str, Any]) -> Any:
        """A fresh object of the kind, from options as `check` returns them."""
        cls = self.find(options["kind"])
        nested = families(cls)
        values = {key: value for key, value in options.items() if key != "kind"}
        for key, family in nested.items():
            if values.get(key) is not None:
                values[key] = family.make(values[key])
        return cls(**values)


class FileMark:
    """Marks a field that holds a path: `path: Annotated[str, FILE]`. The loader takes it relative to the file that names it."""


FILE = FileMark()
ROUTERS = Family("router", "sim.policy.route")
ADMISSIONS = Family("admission", "sim.policy.admit")
GATES = Family("gate", "sim.policy.gate")
BATCHERS = Family("batcher", "sim.policy.batch")
ORDERS = Family("order", "sim.policy.order")
RETENTIONS = Family("retention", "sim.policy.retain")
PLACERS = Family("placer", "sim.policy.place")
STALENESS = Family("staleness", "sim.policy.stale")
TAILS = Family("tail", "sim.policy.tail")
SYNCS = Family("sync", "sim.policy.sync")
AUTOSCALERS = Family("autoscaler", "sim.policy.scale")
WORKLOADS = Family("workload", "workloads")
LENGTHS = Family("lengths", "workloads.lengths")
FORMATS = Family("format", "workloads.formats")
AGENT_FORMATS = Family("agent trace format", "workloads.programs.readers")
FAMILIES = {
    family.name: family
    for family in (
        ROUTERS, ADMISSIONS, GATES, BATCHERS, ORDERS, RETENTIONS, PLACERS, AUTOSCALERS, STALENESS, TAILS, SYNCS, WORKLOADS, LENGTHS,
        FORMATS,
    )
}


@functools.cache
def _modules(package: str) -> tuple[str, ...]:
    path = importlib.import_module(package).__path__
    return tuple(m.name for m in pkgutil.iter_modules(path) if not m.ispkg and m.name != "base" and not m.name.startswith("_"))


@functools.cache
def _plugins(name: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=f"burstsim.{name}")}


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Annotations of a kind's public fields, resolved, in the order they are declared."""
    resolved = typing.get_type_hints(cls, include_extras=True)
    return {f.name: resolved[f.name] for f in dataclasses.fields(cls) if f.init and not f.name.startswith("_")}


def families(cls: type) -> dict[str, Family]:
    """The fields of a kind that hold a nested kind, and of which family."""
    marked = {name: [mark for mark in _marks(hint) if isinstance(mark, Family)] for name, hint in hints(cls).items()}
    return {name: marks[0] for name, marks in marked.items() if marks}


def files(cls: type) -> list[str]:
    """The fields of a kind that hold a path."""
    return [name for name, hint in hints(cls).items() if any(mark is FILE for mark in _marks(hint))]


def _marks(hint: Any) -> Iterator[Any]:
    """What `Annotated` says about a field, also inside `... | None` and `tuple[...]`."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *marks = typing.get_args(hint)
        yield from marks
        yield from _marks(inner)
    else:
        for part in typing.get_args(hint):
            yield from _marks(part)


@functools.cache
def model(cls: type) -> Any:
    """A pydantic model with the fields of a kind: unknown keys are errors, units are read, defaults filled in."""
    from pydantic import ConfigDict, Field, create_model

    nested = families(cls)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name not in hints(cls):
            continue
        hint = Any if field.name in nested else hints(cls)[field.name]
        if field.default is not dataclasses.MISSING:
            fields[field.name] = (hint, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            fields[field.name] = (hint, Field(default_factory=field.default_factory))
        else:
            fields[field.name] = (hint, ...)
    return create_model(cls.__name__, __config__=ConfigDict(extra="forbid", strict=False, allow_inf_nan=False), **fields)


def _default(cls: type, name: str) -> Any:
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)


def _validate(cls: type, kind: str, options: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    from sim.core.explain import validate

    if hasattr(cls, "complete"):
        try:
            options = cls.complete(options)
        except BadInput as error:
            return {"kind": kind, **options}, error.problems
    found, problems = validate(model(cls), options, f"kind '{kind}'")
    values = dict(found) if found is not None else {}
    for key, family in families(cls).items():
        inner = values.get(key, options.get(key))
        if inner is None and (key not in options or _default(cls, key) is None):
            continue
        checked, wrong = family.check(inner)
        values[key] = checked
        problems += [problem._replace(path=f"{key}.{problem.path}".rstrip(".")) for problem in wrong]
    if not problems and hasattr(cls, "check"):
        problems = [Problem(message, path) for path, message in cls.check(values)]
    return {"kind": kind, **values}, problems
