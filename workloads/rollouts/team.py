"""Agents as rollouts: what YAML says of them, and what is wrong with it. The keys are those of `kind: agents` and `kind: evals`.

A trajectory is one agent that is asked its prompt and ends with its answer, so that nobody comes back with further messages. How long
prompts are is said by the `task` (or `message`) of the kind of agent that trajectories begin with.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sim.core.errors import BadInput
from sim.spec.law import Law
from workloads.programs import checks, presets
from workloads.programs.base import Program
from workloads.programs.checks import Whole
from workloads.programs.declared import Declared
from workloads.programs.options import ONE, Kind, Quota, Tool
from workloads.rollouts.environment import Environment

PRESET = "agents_preset"
KEYS = ("agents", "tools", "apis")
RESET = "reset"
Stepping = Literal["trajectory", "batch"]


class Team(NamedTuple):
    """`agent`: the kind that a trajectory begins with, None: the first. `environment`: what has to be made ready before it works, with the
    chance of a failure for each (`Environment.among`); None: nothing. `rollout`: name of the pool that has the policy, which agents ask
    that name no model, or this one. `stepping`: whether trajectories go on one by one, or all of them turn by turn.
    """

    agents: Mapping[str, Kind]
    agent: str | None
    tools: Mapping[str, Tool]
    apis: Mapping[str, Quota]
    environment: Environment | None = None
    rollout: str = ""
    stepping: Stepping = "trajectory"

    @property
    def first(self) -> str:
        """The kind of agent that trajectories begin with."""
        return self.agent if self.agent is not None else next(iter(self.agents))

    @property
    def task(self) -> Law:
        """Tokens of a prompt."""
        kind = self.agents[self.first]
        return kind.task or kind.message or ONE

    @property
    def models(self) -> Mapping[str, str]:
        """Models that agents name, by the key that does."""
        return {f"agents.{name}.model": kind.model for name, kind in self.agents.items() if kind.model}

    @property
    def sandboxes(self) -> Mapping[str, str]:
        """Pools of sandboxes that agents work in, by the key that says so."""
        return {f"agents.{name}.sandbox.pool": kind.sandbox.pool for name, kind in self.agents.items() if kind.sandbox is not None}

    @property
    def programs(self) -> dict[str, Program]:
        """What agents of each kind do."""
        return {name: Declared(name, self.agents, self.tools) for name in self.agents}


def complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with agents, tools and services of `agents_preset` below them, which is then done with; a preset's turns are left out.

    Raises BadInput for an unknown preset.
    """
    name = options.get(PRESET)
    if not isinstance(name, str):
        return dict(options)
    try:
        found = presets.load(name)
    except BadInput as error:
        raise BadInput([problem._replace(path=PRESET) for problem in error.problems]) from None
    said = {key: options[key] for key in KEYS if options.get(key)}
    kinds = said.get("agents", {})
    whole = presets.merged({key: found[key] for key in (*KEYS, "mix") if key in found}, said)
    whole = presets.alone(whole, options.get("agent"), kinds)
    whole["agents"] = {name: presets.once(kind, kinds.get(name) or {}) for name, kind in whole["agents"].items()}
    return {key: value for key, value in options.items() if key != PRESET} | whole


def problems(team: Team) -> Iterator[tuple[str, str]]:
    """(path, message) of each thing that is wrong; without agents, of what is said of them all the same."""
    if not team.agents:
        for key, given in (("agent", team.agent), ("tools", team.tools), ("apis", team.apis), ("environment", team.environment)):
            if given:
                yield key, "not used here: an answer is one call of the model; say agents, or leave it out"
        if team.stepping != "trajectory":
            yield "stepping", "not used here: an answer is one call of the model, and there are no turns; say agents, or leave it out"
        return
    yield from checks.problems(Whole(team.first, team.agents, team.tools, team.apis))
    if team.first in team.agents and team.agents[team.first].turns is not None:
        yield f"agents.{team.first}.turns", "not used here: nobody comes back, so that a trajectory has one message"
    if team.environment is not None and RESET in team.tools:
        yield f"tools.{RESET}", "this name stands for the resets of environments; give the tool another one"
    if team.stepping == "batch":
        yield from _in_step(team)


def _in_step(team: Team) -> Iterator[tuple[str, str]]:
    """A batch that is stepped has one agent for each trajectory."""
    for what, there in (
        *((f"agents.{name} has spawns", bool(kind.spawns)) for name, kind in team.agents.items()),
        *((f"tools.{name} asks an agent", tool.model is not None) for name, tool in team.tools.items()),
    ):
        if there:
            yield "stepping", f"found batch, but {what}: a batch that is stepped has one agent for each trajectory; take trajectory"
