"""Check a mapping against a pydantic model, and say what is wrong with it in our words.

Pydantic finds the errors; here they get the dotted path as the user wrote it, what was found there, what would be right, and the nearest
valid name. Pydantic takes `true` for 1 where a number is wanted; that is an error here.
"""
from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from sim.core.errors import Problem, did_you_mean
from sim.core.habits import KEYS, VALUES, spelled

Model = typing.TypeVar("Model", bound=BaseModel)
Loc = tuple[str | int, ...]

WANTED = {
    "int_type": "an integer is wanted",
    "int_parsing": "an integer is wanted",
    "int_parsing_size": "a smaller integer is wanted",
    "int_from_float": "an integer is wanted",
    "float_type": "a number is wanted",
    "float_parsing": "a number is wanted",
    "finite_number": "a finite number is wanted",
    "string_type": "text is wanted",
    "bool_type": "true or false is wanted",
    "bool_parsing": "true or false is wanted",
    "greater_than": "a value above {gt} is wanted",
    "greater_than_equal": "a value of at least {ge} is wanted",
    "less_than": "a value below {lt} is wanted",
    "less_than_equal": "a value of at most {le} is wanted",
    "string_too_short": "a name of at least {min_length} character is wanted",
    "too_short": "at least {min_length} is wanted",
    "too_long": "at most {max_length} are wanted",
    "tuple_type": "a list is wanted",
    "list_type": "a list is wanted",
    "dict_type": "a mapping is wanted",
    "mapping_type": "a mapping is wanted",
    "model_type": "a mapping is wanted",
    "model_attributes_type": "a mapping is wanted",
    "dataclass_type": "a mapping is wanted",
    "literal_error": "{expected} is wanted",
}
_NUMBER = re.compile(r"\s*\$?(\d+(?:\.\d+)?)\s*([kKM]?\b|)")
HOMES = 3  # named of the places where a key is known
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
# Of unions whose members a key `kind` tells apart.
TAGS = ("union_tag_not_found", "union_tag_invalid")


def validate(model: type[Model], raw: Mapping[str, Any], owner: str) -> tuple[Model | None, list[Problem]]:
    """The model made from `raw`, or None and every problem. `owner` is what errors call the mapping itself, such as `the scenario`."""
    found = {loc: Problem(f"found {show(value)}; a number is wanted", _dotted(loc)) for loc, value in _flags(raw, model, ())}
    value = None
    try:
        value = model.model_validate(raw)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            if item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]:
                continue  # Pydantic leaves items with errors of their own out of its count.
            loc = _written(item["loc"], raw, item["type"] in ("missing", "missing_argument"))
            found.setdefault(loc, Problem(_message(item, loc, model, owner), _dotted(loc)))
    return (None if found else value), list(found.values())


def show(value: Any) -> str:
    """What was found, as YAML would write it, short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}...'"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, Sequence):
        return "a list" if value else "an empty list"
    return repr(value)


def keys(hint: Any) -> list[str]:
    """The keys of the mapping that an annotation holds; none when it holds any."""
    model = _mapping_in(hint)
    return list(_fields(model)) if model else []


def _message(item: Any, loc: Loc, model: type[BaseModel], owner: str) -> str:
    kind, value = item["type"], item["input"]
    if kind in UNKNOWN:
        parent = _dotted(loc[:-1]) or owner
        known = keys(_hint_at(model, item["loc"][:-1])) or keys(_hint_at(model, loc[:-1]))
        return f"unknown key of {parent}; {_suggest(str(loc[-1]), known, model)}"
    if kind in TAGS:
        names = [tag for member in _members(_hint_at(model, loc)) for tag in _tags(member)]
        tag = item["ctx"].get("tag")
        return f"no 'kind' given; known: {', '.join(names)}" if tag is None else f"unknown kind '{tag}'; {did_you_mean(tag, names)}"
    if kind in ("missing", "missing_argument"):
        return f"missing; {_dotted(loc[:-1]) or owner} needs it"
    if kind == "literal_error":
        expected = str(item["ctx"]["expected"])
        names = [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")]
        if len(names) == 1:
            return f"found {show(value)}; anything but {names[0].lower()} is not modelled yet"
        usual = VALUES.get(str(value).lower(), "")
        near = f"did you mean {usual}?" if usual in names else did_you_mean(str(value), names)
        return f"found {show(value)}; {expected} is wanted" + (f"; {near}" if near.startswith("did") else "")
    if kind in WANTED:
        limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in item.get("ctx", {}).items()}
        return f"found {show(value)}; {WANTED[kind].format(**limits)}{_hint(kind, value, limits)}"
    text = str(item["msg"]).removeprefix("Value error, ")
    plain = isinstance(value, (Mapping, Sequence)) and not isinstance(value, str)
    found = "" if plain or text.startswith(("found", "'")) else f"found {show(value)}; "
    return found + text[:1].lower() + text[1:]


def _hint(kind: str, value: Any, limits: Mapping[str, Any]) -> str:
    if kind == "string_type" and isinstance(value, (int, float)):
        return "; put it in quotes"
    if kind == "less_than_equal" and float(limits["le"]) > 1000:
        return ", the most that is simulated"
    number = _NUMBER.match(value.replace(",", "")) if kind in ("int_parsing", "float_parsing") and isinstance(value, str) else None
    if number:
        return f", such as {float(number[1]) * {'k': 1e3, 'm': 1e6}.get(number[2].lower(), 1):.15g}"
    return ""


def _suggest(key: str, known: Sequence[str], model: type[BaseModel]) -> str:
    if spelled(key) not in known and spelled(key) in KEYS:
        return KEYS[spelled(key)]
    nearest = did_you_mean(key, known)
    homes = [] if nearest.startswith("did") else [_dotted(home) or "the top level" for home in _homes(model, key, ())]
    more = [f"{len(homes) - HOMES} more"] if len(homes) > HOMES else []
    return f"it belongs to {' or '.join([*homes[:HOMES], *more])}" if homes else nearest


def _homes(model: Any, key: str, loc: Loc, above: tuple[Any, ...] = ()) -> Iterator[Loc]:
    """Where the key is known; a model that holds itself, `above`, is looked at once."""
    for name, hint in _fields(model).items():
        inner = _mapping_in(hint)
        if name == key:
            yield loc
        if inner and inner not in above:
            yield from _homes(inner, key, (*loc, name), (*above, inner))


def _written(loc: Loc, raw: Any, missing: bool) -> Loc:
    """The part of pydantic's location that the user wrote: it also names members of unions and fields that a validator filled in."""
    kept: list[str | int] = []
    for index, part in enumerate(loc):
        in_list = isinstance(raw, (list, tuple)) and isinstance(part, int) and part < len(raw)
        inside = in_list or (isinstance(raw, Mapping) and part in raw)
        if not inside and not (missing and index == len(loc) - 1):
            continue
        kept.append(part)
        raw = raw[part] if inside else None
    return tuple(kept)


def _flags(raw: Any, hint: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Where `true` or `false` stands for a number."""
    if isinstance(raw, bool):
        leaves = set(_leaves(hint))
        if leaves & {int, float} and not leaves & {bool, Any}:
            yield loc, raw
    elif isinstance(raw, Mapping):
        model = _mapping_in(hint, raw.get("kind"))
        fields = _fields(model) if model else {}
        for key, value in raw.items():
            if _named(hint) is not None:
                yield from _flags(value, _named(hint), (*loc, key))
            elif key in fields or not model:
                yield from _flags(value, fields.get(key, hint), (*loc, key))
    elif isinstance(raw, (list, tuple)):
        for index, value in enumerate(raw):
            yield from _flags(value, hint, (*loc, index))


def _leaves(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) is typing.Literal:
        yield from map(type, typing.get_args(hint))
        return
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        parts = parts[:1]
    for part in parts:
        yield from _leaves(part)
    if not parts:
        yield hint


def _mapping_in(hint: Any, kind: Any = None) -> type | None:
    """The model or dataclass an annotation speaks of, also inside a list or an optional; of several, the first, or that of a `kind`."""
    members = _members(hint)
    return next((member for member in members if kind in _tags(member)), members[0] if members else None)


def _members(hint: Any) -> list[type]:
    """The models or dataclasses an annotation speaks of: more than one where it is a union of them."""
    return [leaf for leaf in _leaves(hint) if isinstance(leaf, type) and _fields(leaf)]


def _tags(model: type) -> tuple[Any, ...]:
    """The kinds that a model stands for, where a key `kind` tells it from others."""
    hint = _fields(model).get("kind")
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _fields(model: Any) -> dict[str, Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {name: field.annotation for name, field in model.model_fields.items()}
    if isinstance(model, type) and dataclasses.is_dataclass(model):
        return {field.name: typing.get_type_hints(model)[field.name] for field in dataclasses.fields(model)}
    return {}


def _hint_at(model: Any, loc: Loc) -> Any:
    hint = model
    for part in loc:
        if isinstance(part, str):
            named, member = _named(hint), _mapping_in(hint, part)
            if named is None and member is not None and part in _tags(member):
                hint = member  # Pydantic's locations name the member of a union.
                continue
            hint = _fields(member).get(part) if named is None else named
    return hint


def _named(hint: Any) -> Any:
    """What the values are of an annotation that is a mapping of names; None where it is none."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (dict, Mapping):
        return parts[1]
    if origin is typing.Annotated or type(None) in parts:
        return next((found for part in parts for found in [_named(part)] if found is not None), None)
    return None


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))
