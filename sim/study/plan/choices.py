"""Values among the choices of a plan that no scenario can have, found before anything is run: a GPU nobody knows, tp 0, engines with -1.

Each is put into the scenario on its own. Only what is wrong with the value itself counts, by the schema and the catalogue: what does not go
with the rest of the scenario may go with another choice.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sim.core.errors import BadInput, Problem
from sim.core.explain import validate
from sim.spec import compose, outside
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.plan import Search
from sim.spec.prices import book
from sim.spec.scenario import Scenario
from sim.spec.sweep import Axis
from sim.spec.yaml_marks import Document

LOOKED_UP: Mapping[str, Callable[[str], object]] = {"gpu": gpu, "model": llm, "book": book}  # keys whose values are names of the catalogue


def misfits(document: Document, sets: Mapping[str, Any], at: str) -> Iterator[Problem]:
    """What is wrong with values put over a document of their own; `at` is where they were written."""
    _, problems = validate(Scenario, outside.absolute(compose.change(document, sets)), "the scenario")
    for problem in problems:
        key = next((key for key in sets if problem.path == key or problem.path.startswith(f"{key}.")), None)
        if key is not None:
            yield Problem(problem.message, f"{at}{problem.path.removeprefix(key)}")
    for key, value in sets.items():
        known = LOOKED_UP.get(key.rpartition(".")[2])
        try:
            _ = known(value) if known is not None and isinstance(value, str) else None
        except BadInput as error:
            yield from (Problem(problem.message, at, problem.file, problem.line) for problem in error.problems)


def of_axis(document: Document, key: str, axis: Axis, values: tuple[Any, ...], at: str) -> Iterator[Problem]:
    """The misfits of an axis: of each of its choices, of a range of its ends."""
    if axis.choices is None:
        for value in dict.fromkeys((values[0], values[-1])):
            yield from misfits(document, {key: value}, at)
        return
    for number, value in enumerate(values):
        yield from misfits(document, {key: value}, f"{at}.{number}")


def home(data: Mapping[str, Any], search: Search, name: str) -> str:
    """Where the choices of an axis were written: `plan.gpu`, or `plan.gpu.choices`."""
    at = f"plan.vary.{name}" if name in search.vary else f"plan.{name}"
    said: Any = data.get("plan") or {}
    for part in ("vary", name) if name in search.vary else name.split("."):
        said = said[part]
    return f"{at}.choices" if isinstance(said, Mapping) and "choices" in said else at
