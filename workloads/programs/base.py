"""What an agent does, written as a program: a generator that calls models, uses tools and has other agents work for it.

A program is code without state of its own: all that one agent has (its context, its luck, its budget) is on the `Agent` it is given, so
that one program serves any number of agents. Waiting is `yield from agent.call(300)`. Seconds and tokens.
"""
from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sim.spec.law import Law
from workloads.programs.options import Budget, CallRetries, ContextLimit, Home

if TYPE_CHECKING:
    from workloads.programs.agent import Agent


class Over(Exception):
    """The agent has to end, and `reason` is what becomes its status. A program may catch it to do something else first."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Used(NamedTuple):
    """What became of a tool call: `outcome` as in table `tool_calls`, seconds from start to end, tokens of what it said."""

    outcome: str
    seconds: float
    observation: int


class Ended(NamedTuple):
    """What became of an agent: its number, its status as in table `agents`, and the tokens of the result it hands up (0: none)."""

    agent: int
    status: str
    result: int


@dataclass(frozen=True, kw_only=True)
class Role:
    """What surrounds a program. `system`: tokens of system prompt and tool schema, the same for all agents of this name in a workload.

    `model`: the pool or model it asks, by default the workload's. `task`: tokens it is told when another agent begins it.
    """

    name: str
    system: int = 0
    context: ContextLimit = field(default_factory=ContextLimit)
    budget: Budget = field(default_factory=Budget)
    sandbox: Home | None = None
    retries: CallRetries = field(default_factory=CallRetries)
    model: str = ""
    task: Law | int | None = None


class Program(Protocol):
    """A kind of agent."""

    @property
    def role(self) -> Role: ...

    def run(self, agent: Agent) -> Generator[Any, Any, None]:
        """All that an agent does, from its first message to its end. What it was asked by another agent is in its context already; a root
        begins with nothing but its system prompt.
        """
