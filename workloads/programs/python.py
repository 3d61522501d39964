"""A program as a class in a Python file: `program: agents/reviewer.py:Reviewer`.

The class is a dataclass whose public fields are its `options`, checked like the keys of any kind. It has a generator `run(self, agent)`,
and may have a `role`; without one its name is that of the class, and nothing limits it.
"""
from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.explain import validate
from sim.core.registry import model
from workloads.programs.base import Role

WANTED = "the path of a Python file and a class in it are wanted, such as reviewer.py:Reviewer"


def found(program: str) -> type:
    """The class that `path.py:Class` names. Raises BadInput when there is none that can be used."""
    path, _, name = program.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise BadInput([Problem(f"found '{program}'; {WANTED}", "program")])
    if not Path(path).is_file():
        raise BadInput([Problem(f"no such file: {path}", "program")])
    known = vars(_module(path))
    cls = known.get(name)
    if not isinstance(cls, type):
        classes = [key for key, value in known.items() if isinstance(value, type) and value.__module__ == known["__name__"]]
        raise BadInput([Problem(f"{path} has no class {name}; {did_you_mean(name, classes)}", "program")])
    if not dataclasses.is_dataclass(cls):
        raise BadInput([Problem(f"{name} is no dataclass; put @dataclass over it: its fields are the options", "program")])
    if not inspect.isgeneratorfunction(vars(cls).get("run")):
        message = f"{name} has no generator run(self, agent): a method in which `yield from agent.call(300)` waits for an answer"
        raise BadInput([Problem(message, "program")])
    return cls


def made(program: str, options: Mapping[str, Any]) -> Any:
    """The program with its options. Raises BadInput with all that is wrong with them."""
    cls = found(program)
    values, problems = validate(model(cls), options, cls.__name__)
    if values is None:
        raise BadInput([problem._replace(path=f"options.{problem.path}".rstrip(".")) for problem in problems])
    try:
        whole = cls(**dict(values))
    except ValueError as error:
        raise BadInput([Problem(str(error), "options")]) from None
    if not hasattr(whole, "role"):
        whole.role = Role(name=cls.__name__.lower())
    return whole


def _module(path: str) -> Any:
    """The module in a file; each file has a name of its own, under which its dataclasses find their annotations."""
    name = f"burstsim_program_{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a person's file may raise
        raise BadInput([Problem(f"{path} cannot be loaded: {type(error).__name__}: {error}", "program")]) from None
    return module
