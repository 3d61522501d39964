"""One sample of a task of an evaluation: asked what all samples of the task are asked, and graded when it is done.

A harness grades what there is: also the work of an agent whose budget of calls, tokens or time is spent, though not that of one whose calls
failed or that got no sandbox. Its grade is no part of that budget.
"""
from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from simpy import Interrupt

from workloads.programs.agent import Agent
from workloads.programs.base import Over, Program, Role

GRADED = ("calls", "tokens", "time", "context")


@dataclass(frozen=True, slots=True)
class Once:
    """A single answer of `output` tokens."""

    role: Role
    output: int

    def run(self, agent: Agent) -> Generator[Any, Any, None]:
        yield from agent.call(self.output, pause=math.nan)


@dataclass(frozen=True, slots=True)
class Sample:
    """`work` is done by an agent that is asked `tokens` under the task's `key`. `tool` grades it (empty: nothing does), `clean`: in a
    sandbox of its own.
    """

    work: Program
    key: int
    tokens: int
    tool: str
    clean: bool

    @property
    def role(self) -> Role:
        return self.work.role

    def run(self, agent: Agent) -> Generator[Any, Any, None]:
        agent.asked(self.key, self.tokens)
        spent = ""
        try:
            yield from self.work.run(agent)
        except Over as over:
            spent = over.reason
        except Interrupt as why:
            spent = str(why.cause)
            agent.drop(spent)
        if self.tool and (not spent or spent in GRADED):
            agent.unlimited()
            if self.clean:
                agent.renew()
            yield from agent.use(self.tool)
        if spent:
            raise Over(spent)
