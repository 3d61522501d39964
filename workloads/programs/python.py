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
import traceback
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simpy import Event, Interrupt

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.explain import validate
from sim.core.registry import model
from workloads.programs.base import Over, Role

if TYPE_CHECKING:
    from workloads.programs.agent import Agent

MODULES = "burstsim_program_"
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


def made(program: str, options: Mapping[str, Any]) -> Written:
    """The program with its options. Raises BadInput with all that is wrong with them."""
    cls, path = found(program), program.rpartition(":")[0]
    values, problems = validate(model(cls), options, cls.__name__)
    if values is None:
        raise BadInput([problem._replace(path=f"options.{problem.path}".rstrip(".")) for problem in problems])
    try:
        whole = cls(**dict(values))
        role = whole.role if hasattr(whole, "role") else Role(name=cls.__name__.lower())
    except ValueError as error:  # how a class says that its options do not go together
        raise BadInput([Problem(str(error), "options")]) from None
    except Exception as error:  # whatever a person's class may raise
        raise BadInput([_raised(cls.__name__, error, path, "options")]) from None
    if not isinstance(role, Role):
        message = f"its role is {role!r:.60}; a Role of workloads.programs.base is wanted, such as Role(name='reviewer', system=500)"
        raise BadInput([Problem(message, "program")])
    return Written(cls.__name__, path, whole, role)


def guarded(program: Any) -> Any:
    """A program that another one made; of a person's file, told apart from our own by the name of its module."""
    cls = type(program)
    if not cls.__module__.startswith(MODULES):
        return program
    role = program.role if hasattr(program, "role") else Role(name=cls.__name__.lower())
    return Written(cls.__name__, inspect.getsourcefile(cls) or "", program, role)


class Written:
    """A program in somebody's file. What goes wrong in it in mid-run is told with its file and line, as BadInput."""

    def __init__(self, name: str, path: str, program: Any, role: Role):
        self._name, self._path, self._program = name, path, program
        self.role = role

    def run(self, agent: Agent) -> Generator[Any, Any, None]:
        steps = self._program.run(agent)
        value: Any = None
        thrown: BaseException | None = None
        while True:
            try:
                event = steps.send(value) if thrown is None else steps.throw(thrown)
            except StopIteration:
                return
            except (Over, Interrupt):
                raise
            except (Exception, SystemExit) as error:  # whatever a person's program may raise
                raise BadInput(self._told(error)) from error
            if not isinstance(event, Event):
                line = _at(steps, self._path)
                message = f"{self._name} yields {event!r:.60}; only what waits can be: yield from agent.call(300), or an event of agent.env"
                steps.close()
                raise BadInput([Problem(message, "program", self._path, line)])
            value, thrown = None, None
            try:
                value = yield event
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # handed on to the program, which may have a use for it
                thrown = error

    def _told(self, error: BaseException) -> list[Problem]:
        if not isinstance(error, BadInput):
            return [_raised(self._name, error, self._path, "program")]
        line = _line(error, self._path)
        return [problem if problem.file else problem._replace(path="program", file=self._path, line=line) for problem in error.problems]


def _raised(name: str, error: BaseException, path: str, key: str) -> Problem:
    words = f": {error}" if str(error) else ""
    return Problem(f"{name} raises {type(error).__name__}{words}", key, path, _line(error, path))


def _line(error: BaseException, path: str) -> int:
    """Where in a file something was raised, or what it called raised it; 0: not there."""
    return next((place.lineno or 0 for place in reversed(traceback.extract_tb(error.__traceback__)) if place.filename == path), 0)


def _at(steps: Any, path: str) -> int:
    """The line of a file at which a generator, or the one it waits for, has stopped; 0: not there."""
    line = 0
    while steps is not None and inspect.isgenerator(steps):
        frame = steps.gi_frame
        line = frame.f_lineno if frame is not None and frame.f_code.co_filename == path else line
        steps = steps.gi_yieldfrom
    return line


def _module(path: str) -> Any:
    """The module in a file; each file has a name of its own, under which its dataclasses find their annotations."""
    name = f"{MODULES}{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a person's file may raise
        line = _line(error, path)
        where = f" in line {line}" if line else ""
        raise BadInput([Problem(f"{path} cannot be loaded: {type(error).__name__}{where}: {error}", "program")]) from None
    return module
