"""Kinds of agents ready made, one YAML file each in `workloads/presets/agents/`: the keys of `kind: agents`, and `source` for people.

What a workload says itself goes before what its preset says, key by key: of the workload, of each agent, tool and service, and of an
agent's context, budget, sandbox and retries. Laws and lists are replaced as a whole.
"""
from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from sim.core.errors import BadInput, Problem, did_you_mean

FOLDER = Path(__file__).parents[1] / "presets" / "agents"
# What is merged and not replaced, by the keys that lead there; None: any name.
MERGED = (("agents",), ("agents", None), ("tools",), ("tools", None), ("apis",), ("apis", None),
          *(("agents", None, part) for part in ("context", "budget", "sandbox", "retries", "tools")))  # fmt: skip


def names(folder: Path = FOLDER) -> list[str]:
    """Every preset of a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The keys of a preset. Raises BadInput naming the nearest presets."""
    import yaml

    if name not in names(folder):
        raise BadInput([Problem(f"unknown preset '{name}'; {did_you_mean(name, names(folder))}", "preset")])
    content: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key != "source"}


def alone(content: Mapping[str, Any], first: str | None, kept: Container[str] = ()) -> dict[str, Any]:
    """The same where all begins with one kind of agent, by default the first: without `mix` and the other kinds in it that are not `kept`.

    >>> alone({"mix": {"a": 1, "b": 2}, "agents": {"a": 1, "b": 2, "c": 3}}, "b")
    {'agents': {'b': 2, 'c': 3}}
    """
    mix, kinds = content.get("mix", {}), content.get("agents", {})
    if first is None:
        first = next(iter(kinds), "")
    left = {name: kind for name, kind in kinds.items() if name == first or name not in mix or name in kept}
    return {key: left if key == "agents" else value for key, value in content.items() if key != "mix"}


def once(kind: Any, said: Container[str]) -> Any:
    """A preset's kind of agent without its turns, unless who uses it `said` some itself: for work to which nobody comes back.

    >>> once({"turns": 3, "output": 5}, ())
    {'output': 5}
    """
    return {key: value for key, value in kind.items() if key != "turns" or key in said} if isinstance(kind, Mapping) else kind


def merged(below: Mapping[str, Any], above: Mapping[str, Any], way: tuple[str, ...] = ()) -> dict[str, Any]:
    """Both in one, `above` where both say something.

    >>> merged({"turns": 2, "agents": {"a": {"system": 5, "output": 7}}}, {"agents": {"a": {"output": {"mean": 3}}}})
    {'turns': 2, 'agents': {'a': {'system': 5, 'output': {'mean': 3}}}}
    """
    both = dict(below)
    for key, value in above.items():
        here = (*way, key)
        deep = any(len(here) == len(known) and all(one in (None, part) for one, part in zip(known, here, strict=True)) for known in MERGED)
        mappings = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value, here) if deep and mappings else value
    return both
