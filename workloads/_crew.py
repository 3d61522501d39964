"""What workloads made of agents say of them: kinds of agents, their tools, and services outside."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from workloads.base import Traffic
from workloads.programs import presets
from workloads.programs.options import Kind, Quota, Tool

OWN = "the agents' own system prompts are what sessions share; write system in each agent, and leave it out"


@dataclass(kw_only=True)
class Crew(Traffic):
    """`agent`: the kind that work begins with, by default the first of `agents`. `tools` that these have, and services outside (`apis`)
    with a quota that tools go through. `preset`: all of that ready made; what is written here goes before it.
    """

    programs: ClassVar[bool] = True
    # What an agent will still generate hangs on sub-agents, budgets and compactions, so that no request of it says so.
    foresees: ClassVar[bool] = False
    preset: str | None = None
    agent: str | None = None
    agents: dict[str, Kind] = field(default_factory=dict)
    tools: dict[str, Tool] = field(default_factory=dict)
    apis: dict[str, Quota] = field(default_factory=dict)

    @classmethod
    def complete(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with those of the preset below them, which is then done with. Raises BadInput for an unknown preset."""
        name = options.get("preset")
        if not isinstance(name, str):
            return dict(options)
        return {key: value for key, value in presets.merged(presets.load(name), options).items() if key != "preset"}

    @property
    def first(self) -> str:
        """The kind of agent that work begins with."""
        return self.agent if self.agent is not None else next(iter(self.agents))

    @property
    def models(self) -> Mapping[str, str]:
        return {f"agents.{name}.model": kind.model for name, kind in self.agents.items() if kind.model}

    @property
    def sandboxes(self) -> Mapping[str, str]:
        return {f"agents.{name}.sandbox.pool": kind.sandbox.pool for name, kind in self.agents.items() if kind.sandbox is not None}

    def prepare(self) -> list[str]:
        return []

    def expected(self) -> int | None:
        return None


def needless(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What other traffic may say, and agents say themselves."""
    if values["client"] is not None:
        yield "client", "agents call models themselves: say retries, and a budget of time, in each agent, and leave it out"
    for key in ("shared_prefix", "prefixes"):
        if values[key]:
            yield key, OWN
