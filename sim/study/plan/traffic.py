"""The same scenario under more or less traffic, or longer and shorter requests: what capacity, growth and sensitivity ask for.

More traffic is a higher rate, more clients at a time, or a trace replayed faster; how many requests there are grows with it, so that the
time they take stays. Fewer requests of the same traffic make a shorter run. What cannot be scaled is left as it is, and `scales` tells.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.core.errors import BadInput, Problem
from sim.core.registry import WORKLOADS
from sim.spec.load import located, plain
from sim.spec.scenario import Scenario

Options = dict[str, Any]
COUNTS = ("num_requests", "num_sessions", "tasks")


def busier(scenario: Scenario, times: float) -> Scenario:
    """So many times the traffic, in the same time. Raises BadInput when a workload names no rate although its kind has one."""
    return scenario if times == 1 else _each(scenario, lambda options, path: _busier(options, times, path))


def shorter(scenario: Scenario, share: float) -> Scenario:
    """The first part of the traffic, by requests or by time."""
    if share >= 1:
        return scenario
    found = _each(scenario, lambda options, path: _counted(options, share) | _lasting(options, share))
    return found if found.duration is None else found.model_copy(update={"duration": found.duration * share})


def longer(scenario: Scenario, times: float) -> Scenario:
    """Prompts and answers so many times as long, where their lengths are a law."""
    return _each(scenario, lambda options, path: _longer(options, times))


def scales(scenario: Scenario, change: Callable[[Scenario, float], Scenario]) -> bool:
    """Whether a change by a factor changes anything."""
    return change(scenario, 2.0).workloads != scenario.workloads


def _each(scenario: Scenario, change: Callable[[Options, str], Options]) -> Scenario:
    made, problems = [], []
    for number, options in enumerate(scenario.workloads):
        path = f"workloads.{number}"
        try:
            checked, wrong = WORKLOADS.check(change(plain(options), path))
        except BadInput as error:
            checked, wrong = {}, error.problems
            problems += wrong
            continue
        problems += [problem._replace(path=f"{path}.{problem.path}".rstrip(".")) for problem in wrong]
        made.append(checked)
    if problems:
        raise BadInput(located(problems, scenario))
    return scenario.model_copy(update={"workloads": tuple(made)})


def _busier(options: Options, times: float, path: str) -> Options:
    told = [key for key in ("rate", "concurrency") if options.get(key) is not None]
    if told:
        scaled = {told[0]: options[told[0]] * times}
        if told[0] == "concurrency":
            scaled = {"concurrency": max(1, round(options["concurrency"] * times))}
    elif options.get("rate_scale") is not None:
        return options | {"rate_scale": options["rate_scale"] * times}  # the requests are those of the file
    elif options.get("states"):
        scaled = {"states": [{**state, "rate": state["rate"] * times} for state in options["states"]]}
    elif options["kind"] == "evals":
        scaled = {}
    elif "rate" in options:
        raise BadInput([Problem("missing; its own rate has to be written for it to be scaled, such as rate: 12", f"{path}.rate")])
    else:
        return options
    return _counted(options, times) | scaled


def _counted(options: Options, times: float) -> Options:
    counts = {key: max(1, round(options[key] * times)) for key in COUNTS if options.get(key) is not None}
    limit = {"limit": max(1, round(options["limit"] * times))} if options["kind"] == "trace" and options["limit"] is not None else {}
    steps = {"steps": max(2, round(options["steps"] * times))} if options["kind"] == "rl" and times < 1 else {}
    return options | counts | limit | steps


def _lasting(options: Options, share: float) -> Options:
    return {"duration": options["duration"] * share} if options.get("duration") is not None else {}


def _longer(options: Options, times: float) -> Options:
    if options.get("lengths") is not None:
        return options | {"lengths": {"kind": "scaled", "lengths": options["lengths"], "input": times, "output": times}}
    if "input_scale" in options:
        return options | {key: options[key] * times for key in ("input_scale", "output_scale")}
    if options["kind"] == "rl" and options.get("answers") is not None:
        return options | {"answers": {**options["answers"], "scale": options["answers"]["scale"] * times}}
    return options
