"""What a scenario may say, for editors and people: a JSON schema with every kind in its place, and a list of the kinds."""
from __future__ import annotations

import dataclasses
import inspect
import typing
from importlib.resources import files
from typing import Any, NamedTuple

from pydantic import BaseModel

from sim.core import registry
from sim.core.registry import AGENT_FORMATS, FAMILIES, Family
from sim.spec.cpu_node import preset as cpu_node
from sim.spec.cpu_node import preset_names as cpu_nodes
from sim.spec.law import Law
from sim.spec.network import preset_names
from sim.spec.scenario import Scenario

# Where the schema leaves a plain mapping for a kind: definition (None: the scenario itself), key, family, whether it is a list.
PLUGS = (
    ("Cluster", "router", registry.ROUTERS, False),
    ("Cluster", "admission", registry.ADMISSIONS, False),
    ("Cluster", "gate", registry.GATES, False),
    ("Network", "placement", registry.PLACERS, False),
    ("EngineOptions", "batcher", registry.BATCHERS, False),
    ("EngineOptions", "retention", registry.RETENTIONS, False),
    ("Autoscale", "policy", registry.AUTOSCALERS, False),
    ("NodeScale", "policy", registry.AUTOSCALERS, False),
    (None, "workloads", registry.WORKLOADS, True),
)


CATALOGUE = ("gpu", "node", "cpu_node", "model", "prices", "grid", "agent_preset", "agent_format", "rl_preset")
PRESETS = {"agent_preset": "agents", "rl_preset": "rl"}


class Option(NamedTuple):
    """A key of a kind. `default` is None as well when there is none; then `required` is true."""

    name: str
    type: str
    default: Any
    required: bool


class Kind(NamedTuple):
    """A kind as users see it: `doc` is the first sentence of its module."""

    family: str
    kind: str
    doc: str
    options: tuple[Option, ...]


def kinds(family: str | None = None) -> list[Kind]:
    """Every kind of one family or of all."""
    return [_kind(home, name) for home in FAMILIES.values() if family in (None, home.name) for name in home.names()]


def catalogue(family: str) -> list[Kind]:
    """The names that may stand for a GPU, a node, a model, a price book or a grid; agents and frameworks ready made, formats of traces."""
    from sim.spec import hardware, llm, power, prices

    if family == "prices":
        return [Kind(family, name, prices.book(name).title, ()) for name in prices.book_names()]
    if family == "grid":
        return [Kind(family, name, power.grid(name).title, ()) for name in power.grid_names()]
    if family == "cpu_node":
        return [Kind(family, name, cpu_node(name).title, ()) for name in cpu_nodes()]
    if family in PRESETS:
        return [Kind(family, path.name[:-5], _comment(path), ()) for path in _presets(family)]
    if family == "agent_format":
        return [Kind(family, name, _sentence(AGENT_FORMATS.find(name)), ()) for name in AGENT_FORMATS.names()]
    if family == "model":
        return [Kind(family, name, "", ()) for name in llm.llm_names()]
    if family == "gpu":
        return [Kind(family, name, hardware.gpu(name).title, ()) for name in hardware.gpu_names()]
    return [Kind(family, name, hardware.node(name).title, ()) for name in hardware.node_names()]


def _presets(family: str) -> list[Any]:
    """Files of what is ready made, by name."""
    found = files("workloads").joinpath("presets", PRESETS[family]).iterdir()
    return sorted((path for path in found if path.name.endswith(".yaml")), key=lambda path: path.name)


def _comment(path: Any) -> str:
    """The first line of a file, where that is a comment."""
    line = path.read_text(encoding="utf-8").partition("\n")[0]
    return str(line.removeprefix("#").strip().rstrip(".")) if line.startswith("#") else ""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file. Each kind is a definition `<family>.<kind>`, told from its siblings by a constant `kind`."""
    schema = without_kinds()
    definitions = schema["$defs"]
    for family in FAMILIES.values():
        for name in family.names():
            definitions.update(of_kind(family, name))
    for name, key in (("agents", "preset"), ("evals", "preset"), ("rl", "agents_preset"), ("rl", "preset")):
        which = "rl_preset" if (name, key) == ("rl", "preset") else "agent_preset"
        definitions[f"workload.{name}"]["properties"][key]["anyOf"][0] = {"enum": [path.name[:-5] for path in _presets(which)]}
    definitions["workload.agent_trace"]["properties"]["format"]["enum"] = ["auto", *AGENT_FORMATS.names()]
    schema["properties"]["extends"] = {"type": "string", "description": "another scenario file that this one is put over"}
    _accept_shorthand(schema)
    return schema


def without_kinds() -> dict[str, Any]:
    """The schema with references to kinds, which are not defined in it, and without shorthand."""
    schema = Scenario.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for owner, key, family, many in PLUGS:
        properties = (definitions[owner] if owner else schema)["properties"]
        if many:
            properties[key]["items"] = _one_of(family)
        else:
            properties[key] = _one_of(family) | {"default": properties[key].get("default", {"kind": family.names()[:1]})}
    return schema


def _one_of(family: Family) -> dict[str, Any]:
    return {"oneOf": [{"$ref": f"#/$defs/{family.name}.{name}"} for name in family.names()]}


def of_kind(family: Family, name: str) -> dict[str, Any]:
    """The definition of a kind and those that it refers to, by name, but for other kinds."""
    cls = family.find(name)
    own = registry.model(cls).model_json_schema(ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = own.pop("$defs", {})
    properties = {"kind": {"const": name}} | own.get("properties", {})
    for key, nested in registry.families(cls).items():
        kept = {word: value for word, value in properties[key].items() if word in ("default", "description")}
        none = [{"type": "null"}] if key not in own.get("required", []) and kept.get("default", 0) is None else []
        properties[key] = {**_one_of(nested), **kept}
        properties[key]["oneOf"] += none
    return definitions | {f"{family.name}.{name}": {
        "type": "object",
        "description": inspect.getdoc(cls) or "",
        "properties": properties,
        "required": ["kind", *own.get("required", [])],
        "additionalProperties": False,
    }}  # fmt: skip


def _accept_shorthand(schema: dict[str, Any]) -> None:
    """One word stands for a precision, a fabric or whose GPUs are shared, a time for how it varies; what `extends` brings in cannot be
    required of a file.
    """
    precision = schema["$defs"]["Precision"]
    words = precision["properties"]["attention"]["enum"]
    schema["$defs"]["Precision"] = {"anyOf": [{"enum": words}, precision], "description": precision.pop("description", "")}
    fabric = schema["$defs"]["Fabric"]
    # Of the keys of a fabric, a preset brings those that are left out.
    fabric["anyOf"] = [{"required": fabric.pop("required")}, {"required": ["preset"]}]
    schema["$defs"]["Fabric"] = {"anyOf": [{"enum": preset_names()}, fabric], "description": fabric.pop("description", "")}
    node = schema["$defs"]["CpuNode"]
    node["anyOf"] = [{"required": node.pop("required")}, {"required": ["preset"]}]
    schema["$defs"]["CpuNode"] = {"anyOf": [{"enum": cpu_nodes()}, node], "description": node.pop("description", "")}
    shares = schema["$defs"]["Shares"]
    schema["$defs"]["Shares"] = {"anyOf": [{"type": "string"}, shares], "description": shares.pop("description", "")}
    for name in ("Law", "Part"):
        for key in ("value", "mean", "median", "sd", "p90", "p95", "p99", "min", "max"):
            schema["$defs"][name]["properties"][key]["anyOf"].insert(0, {"type": "string"})
    for name in ("Spread", "Image", "Weights", "Law", "Memory", "Wait"):
        schema["$defs"][name] = {"anyOf": [{"type": ["number", "string"]}, schema["$defs"][name]]}
    for name in ("min", "max", "step"):
        schema["$defs"]["Range"]["properties"][name] = {"anyOf": [{"type": "string"}, schema["$defs"]["Range"]["properties"][name]]}
    schema["$defs"]["Axis"] = {"anyOf": [{"type": "array", "minItems": 1}, schema["$defs"]["Axis"]]}
    rl = schema["$defs"]["workload.rl"]
    rl["anyOf"] = [{"required": [key for key in rl["required"] if key != "kind"]}, {"required": ["preset"]}]
    rl["required"] = ["kind"]
    required = schema.pop("required")
    schema["anyOf"] = [{"required": required}, {"required": ["extends"]}]


def _kind(family: Family, name: str) -> Kind:
    cls = family.find(name)
    shown = registry.hints(cls)
    options = []
    for field in dataclasses.fields(cls):
        if field.name in shown:
            made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            required = made is dataclasses.MISSING
            options.append(Option(field.name, _words(shown[field.name]), None if required else _said(made), required))
    return Kind(family.name, name, _sentence(cls), tuple(options))


def _sentence(cls: type) -> str:
    """The first sentence of the module of a kind."""
    doc = inspect.getdoc(inspect.getmodule(cls)) or inspect.getdoc(cls) or ""
    return " ".join(doc.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def _said(value: Any) -> Any:
    """A default as a file would say it."""
    if isinstance(value, Law) and not value.varies:
        return value.at(0.5)
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def _words(hint: Any) -> str:
    """An annotation as a reader wants it: `duration`, `a path`, `one of a, b`, the family of a nested kind."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        for mark in parts[1:]:
            if isinstance(mark, Family):
                return f"{mark.name} kind"
            if mark is registry.FILE:
                return "path"
            schema = getattr(mark, "json_schema", None)
            if isinstance(schema, dict) and "description" in schema:
                return str(schema["description"]).partition(":")[0]
        return _words(parts[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    if parts:
        inner = [_words(part) for part in parts if part not in (type(None), ...)]
        return f"{origin.__name__} of {', '.join(inner)}" if origin in (list, tuple, dict) else " or ".join(inner)
    if hint is Law:
        return "number or distribution"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"{{{', '.join(hint.model_fields)}}}"
    if dataclasses.is_dataclass(hint):
        return f"{{{', '.join(field.name for field in dataclasses.fields(hint))}}}"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(hint, getattr(hint, "__name__", str(hint)))
