"""Kinds found by their file, checked by their fields."""
from __future__ import annotations

import importlib
import sys

import pytest

from sim.core import registry
from sim.core.errors import BadInput
from sim.core.registry import FAMILIES, Family

LENGTHS = '''
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Fixed:
    """Always the same."""
    input: int
    output: int = 1
'''
BURST = '''
"""Requests in bursts. And more."""
from __future__ import annotations
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from pydantic import Field
from sim.core.registry import FILE
from sim.core.units import Seconds
from plug_in_kinds.families import SHAPES
@dataclass
class BigBurst:
    size: Annotated[int, Field(ge=1)]
    every: Seconds = 60.0
    path: Annotated[str | None, FILE] = None
    more: Annotated[str, FILE] | None = None
    many: tuple[Annotated[str, FILE], ...] = ()
    shape: Annotated[Any, SHAPES] = field(default_factory=lambda: {"kind": "fixed", "input": 7})
    spare: Annotated[Any, SHAPES] = None
    mode: Literal["open", "closed"] = "open"
    on: bool = True
    _left: int = field(default=0, init=False)
    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["size"] == 13:
            yield "size", "13 is bad luck"
'''


@pytest.fixture
def bursts(tmp_path, monkeypatch):
    """A family of one kind, `big_burst`, with a nested family of one kind, `fixed`."""
    root = tmp_path / "plug_in_kinds"
    for folder in (root, root / "shapes", root / "bursts"):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    (root / "families.py").write_text("from sim.core.registry import Family\nSHAPES = Family('shape', 'plug_in_kinds.shapes')\n")
    (root / "shapes" / "fixed.py").write_text(LENGTHS)
    (root / "bursts" / "big_burst.py").write_text(BURST)
    (root / "bursts" / "base.py").write_text("")
    (root / "bursts" / "_private.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry._modules.cache_clear()
    yield Family("burst", "plug_in_kinds.bursts")
    registry._modules.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plug_in_kinds")]:
        del sys.modules[name]


def test_a_file_is_a_kind(bursts):
    assert bursts.names() == ["big_burst"]
    assert bursts.find("big_burst").__name__ == "BigBurst"


def test_check_fills_in_and_converts(bursts):
    options, problems = bursts.check({"kind": "big_burst", "size": "4", "every": "2m"})
    assert problems == []
    assert options == {
        "kind": "big_burst", "size": 4, "every": 120.0, "path": None, "more": None, "many": (),
        "shape": {"kind": "fixed", "input": 7, "output": 1}, "spare": None, "mode": "open", "on": True,
    }
    assert bursts.check(options) == (options, [])


def test_make_builds_nested_kinds_afresh(bursts):
    options, _ = bursts.check({"kind": "big_burst", "size": 4})
    one, two = bursts.make(options), bursts.make(options)
    assert one.shape.input == 7
    assert one.spare is None
    assert one.shape is not two.shape
    assert one._left == 0


@pytest.mark.parametrize(("options", "path", "fragment"), [
    ("big_burst", "", "such as {kind: big_burst}"),
    (None, "", "found null"),
    (["big_burst"], "", "a mapping with a key 'kind' is wanted"),
    ({}, "", "no 'kind' given; known: big_burst"),
    ({"kind": "big_burts"}, "kind", "unknown burst kind 'big_burts'; did you mean big_burst?"),
    ({"kind": None}, "kind", "found null; the name of a kind is wanted"),
    ({"kind": "base"}, "kind", "unknown burst kind 'base'"),
    ({"kind": "_private"}, "kind", "unknown burst kind"),
    ({"kind": "big_burst"}, "size", "missing; kind 'big_burst' needs it"),
    ({"kind": "big_burst", "size": 0}, "size", "found 0; a value of at least 1 is wanted"),
    ({"kind": "big_burst", "size": True}, "size", "found true; a number is wanted"),
    ({"kind": "big_burst", "size": 1.5}, "size", "found 1.5; an integer is wanted"),
    ({"kind": "big_burst", "size": None}, "size", "found null; an integer is wanted"),
    ({"kind": "big_burst", "size": 13}, "size", "13 is bad luck"),
    ({"kind": "big_burst", "size": 1, "every": "3GB"}, "every", "'3GB' is a size; a duration is wanted"),
    ({"kind": "big_burst", "size": 1, "evry": 3}, "evry", "unknown key of kind 'big_burst'; did you mean every?"),
    ({"kind": "big_burst", "size": 1, "_left": 3}, "_left", "unknown key"),
    ({"kind": "big_burst", "size": 1, "mode": "opne"}, "mode", "did you mean open?"),
    ({"kind": "big_burst", "size": 1, "on": 7}, "on", "found 7; true or false is wanted"),
    ({"kind": "big_burst", "size": 1, "shape": {"kind": "fixde"}}, "shape.kind", "unknown shape kind 'fixde'; did you mean fixed?"),
    ({"kind": "big_burst", "size": 1, "shape": {"kind": "fixed"}}, "shape.input", "missing; kind 'fixed' needs it"),
    ({"kind": "big_burst", "size": 1, "spare": 3}, "spare", "found 3; a mapping with a key 'kind'"),
])
def test_what_is_wrong_is_said(bursts, options, path, fragment):
    _, problems = bursts.check(options)
    assert [problem.path for problem in problems] == [path]
    assert fragment in problems[0].message


def test_all_at_once(bursts):
    _, problems = bursts.check({"kind": "big_burst", "size": 0, "evry": 1, "shape": {"kind": "fixed", "input": "x", "oops": 1}})
    assert {problem.path for problem in problems} == {"size", "evry", "shape.input", "shape.oops"}


def test_marks(bursts):
    cls = bursts.find("big_burst")
    assert registry.files(cls) == ["path", "more", "many"]
    assert [(key, family.name) for key, family in registry.families(cls).items()] == [("shape", "shape"), ("spare", "shape")]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_kind_of_the_house_can_be_described(family):
    assert family.names(), f"{family.package} holds no kind"
    for name in family.names():
        cls = family.find(name)
        assert set(registry.hints(cls)) == set(registry.model(cls).model_fields)
        registry.model(cls).model_json_schema()


def test_find_raises():
    with pytest.raises(BadInput, match="least_loaded"):
        registry.ROUTERS.find("least_load")
