"""What the agents of one workload have in common: the world they are in, the programs and tools there are, and the tables they fill."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sim.core.content import Content
from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.request import Request
from sim.core.rng import Luck, mix
from workloads._prefixes import NOTHING
from workloads.programs.agent import NOTHING as NO_STATE
from workloads.programs.agent import Agent
from workloads.programs.apis import Api
from workloads.programs.base import Program, Role
from workloads.programs.options import Quota, Tool
from workloads.programs.python import guarded
from workloads.programs.tools import Bench

if TYPE_CHECKING:
    from workloads.base import Client


class Shared:
    """One for a run of a workload. `programs`: kinds of agents by name; `living`: agents that have not ended, by number.

    `pause`: how long tools take on average, what a cache policy is told where a program says nothing better, s.
    """

    def __init__(self, client: Client, programs: Mapping[str, Program], tools: Mapping[str, Tool], apis: Mapping[str, Quota]):
        self.client, self.env, self.programs = client, client.env, programs
        self.apis = {name: Api(client.env, quota) for name, quota in apis.items()}
        self.tools = {
            name: Bench(name, tool, client.label("tool_calls", "tool", name), self.apis[tool.api] if tool.api else None)
            for name, tool in tools.items()
        }
        self.pause = math.fsum(tool.time.average for tool in tools.values()) / len(tools) if tools else 0.0
        self.living: dict[int, Agent] = {}
        self._systems: dict[str, Content] = {}
        self._seed = int(client.rng("agents").integers(2**63))
        self._workload = client.label("agents", "workload", client.name)
        self._codes: dict[str, dict[str, int]] = {"cause": {}, "outcome": {}}
        client.closing(self._close)

    def begin(self, number: int, program: Program, task: int | None = None) -> Agent:
        """Session number `number` of the workload begins now: its root agent. The same number has the same luck on any cluster.

        `task`: which task it works at, where that is not a task of its own.
        """
        return Agent(self, program, self.luck(number), None, number if task is None else task)

    def luck(self, number: int) -> Luck:
        """The luck of a session."""
        return Luck(mix(self._seed, number))

    def program(self, kind: str | Program) -> Program:
        """A kind of agent by its name. Raises BadInput when there is none."""
        if not isinstance(kind, str):
            return guarded(kind)
        if kind not in self.programs:
            raise BadInput([Problem(f"there is no agent '{kind}'; {did_you_mean(kind, self.programs)}", "agents")])
        return self.programs[kind]

    def bench(self, tool: str) -> Bench:
        """A tool by its name. Raises BadInput when there is none."""
        if tool not in self.tools:
            near = did_you_mean(tool, self.tools) if self.tools else "the workload has no tools"
            raise BadInput([Problem(f"there is no tool '{tool}'; {near}", "tools")])
        return self.tools[tool]

    def system(self, role: Role) -> Content:
        """The system prompt of all agents of a role, which no other workload has."""
        if role.name not in self._systems:
            key = self.client.keys(1)
            self._systems[role.name] = Content((key,), (role.system,), role.system) if role.system else NOTHING
        return self._systems[role.name]

    def request(self, agent: Agent, output: int, model: str) -> Request:
        """A request over an agent's whole context; the tokens it answers have a key of their own."""
        context = agent.context
        request = self.client.request(context.tokens, output, agent.number, context.prompt(), self.client.keys(1))
        request.program = agent.program
        if model:
            request.service, request.adapter = self.client.service(model), -1
        return request

    def call(self, agent: Agent, request: Request) -> Any:
        """Send an agent's request; the event succeeds when it has ended."""
        return self.client.call(request)

    def sandbox(self, agent: Agent) -> Callable[[str, int], Any]:
        """How an agent asks for the sandbox it works in, of a pool and for an image."""
        return self.client.sandbox

    def held(self, agent: Agent) -> Any:
        """What an agent has to wait for before it makes a call: an event, or None."""
        return None

    def put_by(self, request: Request) -> bool:
        """Whether a call that was not answered in full was put by: the rest of it is asked for later."""
        return False

    def goes_on(self, agent: Agent) -> bool:
        """Asked when a call was answered: where not, the session of the agent is called off."""
        return True

    def give_back(self, held: Any) -> None:
        """Return a lease, or what was asked for and has not come."""
        if hasattr(held, "release"):
            held.release()
        else:
            held.withdraw()

    # -- tables ------------------------------------------------------------
    def sent(self, request: Request, agent: int, what: tuple[int, str, int, float]) -> None:
        """A call was made: `what` is its turn, its cause, tokens that are new in its prompt, and seconds since the call before it."""
        turn, cause, new, gap = what
        self.client.note("turns", (request.id, agent, turn, self._code("turns", "cause", cause), request.prompt, new, gap))

    def used(self, agent: int, tool: int, what: tuple[float, float, float, str, int, int]) -> None:
        """A tool call is over: when it began, what of it was waiting, when it ended, its outcome, tries, and tokens it said."""
        start, queued, end, outcome, tries, observation = what
        code = self._code("tool_calls", "outcome", outcome)
        self.client.note("tool_calls", (agent, tool, start, queued, end, code, tries, observation))

    def ended(self, agent: Agent, status: str, end: float) -> None:
        """An agent is over, `end` NaN: by the end of the run."""
        label, spent = self.client.label, agent.spent
        del self.living[agent.number]
        self.client.note("agents", (
            agent.number, agent.program, -1 if agent.parent is None else agent.parent.number, agent.depth, self._workload,
            label("agents", "kind", agent.role.name), agent.started, end, label("agents", "status", status), spent.calls, spent.tools,
            spent.prompt, spent.output, spent.compactions, *agent.seconds[:NO_STATE],
        ))  # fmt: skip

    def _code(self, table: str, column: str, text: str) -> int:
        codes = self._codes[column]
        if text not in codes:
            codes[text] = self.client.label(table, column, text)
        return codes[text]

    def _close(self) -> None:
        for agent in list(self.living.values()):
            agent.settle()
            self.ended(agent, "unfinished", math.nan)
