"""YAML into plain data that remembers where every key and value was written.

Scalars follow the YAML 1.2 core rules, not PyYAML's 1.1: `1e6` is a number, `yes` and `on` are text, `010` is ten, `1:30` is text.
Anchors, aliases and `<<` work; a duplicate key, a foreign tag, and a document that unfolds into too much are errors. Keys are always text.
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sim.core.errors import BadInput, Problem

MAX_BYTES = 10_000_000
MAX_NODES = 100_000
MAX_DEPTH = 64

Route = tuple[str | int, ...]


class Place(NamedTuple):
    """Where a key and its value were written: lines are 1-based (0: no lines there), `folder` is what paths in it are relative to."""

    file: str
    key: int
    value: int
    folder: Path


class Document(NamedTuple):
    """Plain data and the place of each of its parts by route, `()` being the whole."""

    data: Any
    places: dict[Route, Place]


class _Rules:
    """Which plain scalars are something other than text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Loader(_Rules, yaml.CSafeLoader):
    pass


class Dumper(_Rules, yaml.SafeDumper):
    """Writes text so that it reads back as text here; small flat mappings and lists on one line."""

    def represent_scalar(self, tag: str, value: Any, style: str | None = None) -> Any:
        # Outside double quotes PyYAML folds these line breaks into spaces.
        return super().represent_scalar(tag, value, '"' if any(mark in value for mark in "\x85\u2028\u2029") else style)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        return self._compact(super().represent_mapping(tag, mapping, flow_style))

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return self._compact(super().represent_sequence(tag, sequence, flow_style))

    def _compact(self, node: Any) -> Any:
        parts = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        flat = all(isinstance(part, yaml.ScalarNode) for part in parts)
        node.flow_style = flat and sum(len(part.value) + 2 for part in parts) <= 72
        return node

    def ignore_aliases(self, data: Any) -> bool:
        return True


_PLAIN = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)
for _name, _pattern, _firsts in _PLAIN:
    for _first in [*_firsts, ""] if _name == "null" else _firsts:
        _Rules.yaml_implicit_resolvers.setdefault(_first, []).append((f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z")))


def read(path: Path) -> Document:
    """The document in a file. Raises BadInput naming the file, and the line when there is one."""
    name = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        inner = path / "scenario.yaml"
        hint = f"; did you mean {inner}?" if inner.is_file() else ""
        raise BadInput([Problem(f"is a folder; a YAML file is wanted{hint}", "", name)]) from None
    except FileNotFoundError:
        raise BadInput([Problem(f"no such file{_nearby(path)}", "", name)]) from None
    except (OSError, ValueError) as error:
        raise BadInput([Problem(f"cannot be read: {error.strerror if isinstance(error, OSError) else error}", "", name)]) from None
    if len(raw) > MAX_BYTES:
        raise BadInput([Problem(f"is larger than {MAX_BYTES // 1_000_000} MB; keep long data in a trace file", "", name)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput([Problem(f"is not UTF-8 text (byte 0x{raw[error.start]:02x}); save it as UTF-8", "", name, line)]) from None
    return parse(text, name, path.parent)


def parse(text: str, file: str, folder: Path, lines: bool = True) -> Document:
    """The document in a text; an empty text is None. `lines=False` leaves line numbers out, for a value from the command line."""
    try:
        _check_depth(text, file, lines)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise BadInput([_syntax(error, text, file, lines)]) from None
    build = _Build(file, folder, lines)
    build.places[()] = Place(file, 0, 0, folder)
    data = build.value(node, (), 0) if node is not None else None
    if build.problems:
        raise BadInput(build.problems)
    return Document(data, build.places)


def _check_depth(text: str, file: str, lines: bool) -> None:
    # The C composer recurses without a limit and takes the process down with it; the parser's events do not.
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if lines and event.start_mark else 0
            raise BadInput([Problem(f"is nested more than {MAX_DEPTH} levels deep", "", file, line)])


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, sorted(other.name for other in path.parent.glob("*.y*ml")), n=3)
    return f"; did you mean {' or '.join(str(path.with_name(name)) for name in near)}?" if near else ""


def _syntax(error: yaml.YAMLError, text: str, file: str, lines: bool) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        at = error.problem_mark.line
        rows = text.splitlines()
        hint = "; indent with spaces, not tabs" if "\t" in "".join(rows[at : at + 1]) else ""
        context = f" {error.context}" if error.context else ""
        return Problem(f"not valid YAML: {error.problem}{context}{hint}", "", file, at + 1 if lines else 0)
    line = text.count("\n", 0, error.position) + 1 if isinstance(error, yaml.reader.ReaderError) else 1
    reason = error.reason if isinstance(error, yaml.reader.ReaderError) else str(error)
    return Problem(f"not valid YAML: {reason}", "", file, line if lines else 0)


class _Build:
    """One document's data from its nodes, gathering problems on the way."""

    def __init__(self, file: str, folder: Path, lines: bool):
        self.file = file
        self.folder = folder
        self.lines = lines
        self.nodes = 0
        self.places: dict[Route, Place] = {}
        self.problems: list[Problem] = []

    def value(self, node: Any, route: Route, key: int) -> Any:
        """Data of a node; `key` is the line of the key that names it, 0 for none."""
        self.nodes += 1
        line = self._line(node)
        if self.nodes > MAX_NODES:
            raise BadInput([Problem(f"unfolds into more than {MAX_NODES} values; are aliases nested in aliases?", "", self.file, line)])
        if len(route) > MAX_DEPTH:
            raise BadInput([Problem(f"is nested more than {MAX_DEPTH} levels deep", _dotted(route[:3]) + "...", self.file, line)])
        scalar = isinstance(node, yaml.ScalarNode)
        self.places[route] = Place(self.file, key or line, line if scalar else key or line, self.folder)
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, route)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(item, (*route, index), 0) for index, item in enumerate(node.value)]
        if not scalar or kind not in _SCALARS:
            self._problem(f"the tag '{node.tag}' is not allowed; plain YAML is wanted", route, line)
            return None
        try:
            return _SCALARS[kind](node.value)
        except ValueError:
            self._problem(f"found '{node.value[:40]}', which is not a valid {kind}", route, line)
            return None

    def _mapping(self, node: Any, route: Route) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[Any] = []
        for key, value in node.value:
            line = self._line(key)
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif not isinstance(key, yaml.ScalarNode):
                self._problem("a key must be text, not a mapping or a list", route, line)
            elif key.value in data:
                first = self.places[(*route, key.value)].key
                self._problem(f"the key is given twice; first on line {first}", (*route, key.value), line)
            else:
                data[key.value] = self.value(value, (*route, key.value), line)
        for part in merged:
            self._merge(part, data, route)
        return data

    def _merge(self, node: Any, data: dict[str, Any], route: Route) -> None:
        # What is merged in is built at the same route, so its places must not overwrite those of the keys that win.
        kept = dict(self.places)
        more = self.value(node, route, 0)
        if not isinstance(more, dict):
            self._problem("'<<' takes a mapping or a list of mappings", route, self._line(node))
            more = {}
        for at, place in kept.items():
            if len(at) <= len(route) or at[len(route)] in data or at[: len(route)] != route:
                self.places[at] = place
        data.update({key: value for key, value in more.items() if key not in data})

    def _line(self, node: Any) -> int:
        return node.start_mark.line + 1 if self.lines else 0

    def _problem(self, message: str, route: Route, line: int) -> None:
        self.problems.append(Problem(message, _dotted(route), self.file, line))


def _integer(text: str) -> int:
    text = text.replace("_", "")
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    return float(plain.replace(".", "") if plain.endswith(("inf", "nan")) else plain)


def _dotted(route: Route) -> str:
    return ".".join(map(str, route))


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _float,
}
