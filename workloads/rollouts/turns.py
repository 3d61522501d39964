"""Trajectories of many turns: each is an agent with its tools, its sandbox and the agents that work for it (`workloads/programs`).

All samples of a prompt are asked the same, so that they share its cache, and in sandboxes of the same image. What else a sample does is its
own: its luck is that of its prompt, of which time it is asked, and of its number, whatever the cluster does. While engines stand still for
new weights tools go on, and calls in flight do afterwards: then a trajectory is of several versions. One that is parked keeps its sandbox
and its context; tools end, no call is made, and of an answer under way the rest is asked for when it goes on (partial rollout), as a call
like any other to its budget, whose time goes on meanwhile. Each goes on by itself, or with `stepping: batch` all turn by turn (`stepping`).

How it ends says what it is worth. Who runs out of calls or tokens, or of context, is cut, also where no replica could hold the next prompt.
Who runs out of time, whose calls failed, or who has no sandbox or no environment that works is masked: nothing is known of the policy then.

Tokens are those that the policy generated in all calls of all of its agents, in vain or not. Its length is that of all token streams that
come of it, as sub-agents and compactions begin new ones (slime trains on each): the contexts at their ends, and what is in none.
"""
from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.core.content import Content
from sim.core.errors import BadInput, Problem
from sim.core.request import Request
from sim.core.rng import Luck, mix
from sim.core.rollout import Group, Prompt, Trajectory
from workloads.programs.agent import Agent
from workloads.programs.base import Over, Program, Role
from workloads.programs.shared import Shared
from workloads.rollouts.calls import refused
from workloads.rollouts.environment import Environment
from workloads.rollouts.stepping import Step
from workloads.rollouts.team import RESET, Team

if TYPE_CHECKING:
    from workloads.base import Client

CUT = ("calls", "tokens", "context")
NEVER_FIT = ("max_model_len", "kv_capacity")
# Seconds until it is noticed that a trajectory came to nothing at once.
BACK = 1.0
# Parts of luck: another try of one sample, and the reset of its environment.
TRY, ENVIRONMENT = 1 << 20, 6_000_000


class Told(NamedTuple):
    """Who is told that a trajectory has ended; that it has ended a turn, and says whether it goes on; and that tokens came out of a step in
    flight when it had ended or been stopped.
    """

    ended: Callable[[Trajectory], None]
    turned: Callable[[Trajectory], bool]
    late: Callable[[Trajectory, int], None]


class Work:
    """What a trajectory has: its root agent while it runs; calls under way; tokens `made` in those that are over, or, when it runs no more,
    in all; its `length` as far as its agents have ended; how often it began before; and whether no replica could hold what it asked next.

    `gate` is what its agents wait for while it is parked, and `fate` how it ended then.
    """

    __slots__ = ("again", "agent", "fate", "full", "gate", "length", "made", "open", "trajectory", "turns")

    def __init__(self, trajectory: Trajectory, again: int):
        self.trajectory, self.again = trajectory, again
        self.agent: Agent | None = None
        self.open: dict[int, Request] = {}
        self.made = self.length = self.turns = 0
        self.full = False
        self.gate: Any = None
        self.fate = ""


class Turns:
    """A runner of agents. `control` is that of the pool that has the policy; `content` says what samples of a prompt have in common."""

    def __init__(self, client: Client, control: Any, team: Team, content: Callable[[Prompt], Content], told: Told):
        self._client, self._control, self._content, self._told, self._team = client, control, content, told, team
        self._step = Step(client.env) if team.stepping == "batch" else None
        self._crowd = Crowd(client, team, self)
        self._policy = frozenset(client.service(name) for name in team.models.values() if name == team.rollout)
        self._reset = client.label("tool_calls", "tool", RESET) if team.environment is not None else -1
        self._work = self._crowd.programs[team.first]
        self._key = int(client.rng("rollouts").integers(2**63))
        self._works: dict[int, Work] = {}
        self._calls: dict[int, tuple[Work, int]] = {}
        self._visits: dict[int, int] = {}
        self._asked: dict[int, tuple[int, int]] = {}
        self._put_by: dict[int, bool] = {}

    # -- what a runner does ------------------------------------------------------------
    def begin(self, trajectory: Trajectory, prompt: Prompt) -> None:
        """Start it now, from nothing."""
        before: Work | None = trajectory.work
        work = Work(trajectory, 0 if before is None else before.again + 1)
        luck = Luck(mix(self._key, prompt.id)).part(self._visit(trajectory.group, prompt)).part(trajectory.number + TRY * work.again)
        episode = Episode(self._work, self._content(prompt).keys[0], prompt.tokens, self._team.environment, self._reset)
        work.agent = Agent(self._crowd, episode, luck, None, prompt.image if prompt.image >= 0 else prompt.id)
        self._works[work.agent.number] = work
        if self._step is not None:
            self._step.began(work.agent.number)
        trajectory.work = work

    def progress(self, trajectory: Trajectory) -> int:
        """Tokens generated for it by now, since it last began; also when it has ended."""
        work: Work = trajectory.work
        under_way: int = sum(self._control.progress(request) for request in work.open.values())
        return work.made + under_way

    def stop(self, trajectory: Trajectory) -> None:
        """It is called off, and gives back what it holds: its end is not told."""
        work: Work = trajectory.work
        agent = work.agent
        if agent is None:
            return
        self._close(work)
        # Who asks for it in its own turn is answered, and ends then.
        if agent.process is not agent.env.active_process:
            agent.stop("cancelled")

    def park(self, trajectory: Trajectory) -> None:
        """It is put by, and may go on later: calls are called off, tools come to their ends, and what it holds is kept."""
        work: Work = trajectory.work
        if work.agent is None or work.gate is not None:
            return
        work.gate = work.agent.env.event()
        if self._step is not None:
            self._step.away(work.agent.number)
        for number, request in work.open.items():
            self._calls[number] = work, self._control.progress(request)
            self._put_by[number] = True
            self._client.cancel(request)

    def resume(self, trajectory: Trajectory) -> bool:
        """Go on where it was parked. What was stopped has given back its sandbox: it can only begin again."""
        work: Work = trajectory.work
        if work.agent is None or work.gate is None:
            return False
        gate, work.gate = work.gate, None
        gate.succeed()
        if self._step is not None:
            self._step.back(work.agent.number)
        if work.fate:
            work.agent.env.timeout(0.0).callbacks.append(lambda _: self._end(work, work.fate))
        return True

    def close(self) -> None:
        return

    def running(self) -> int:
        """Trajectories under way, those that are parked included."""
        return len(self._works)

    # -- what its agents do ------------------------------------------------------------
    def sent(self, request: Request, event: Any) -> None:
        """A call was made by an agent."""
        work = self._works.get(request.program)
        if work is not None and (request.service == request.workload or request.service in self._policy):
            work.open[request.id] = request
            self._calls[request.id] = work, 0
            event.callbacks.append(self._over)

    def held(self, agent: Agent) -> Any:
        """What an agent waits for before it calls."""
        work = self._works.get(agent.program)
        if work is None or work.gate is not None or self._step is None:
            return None if work is None else work.gate
        return self._step.held(agent.number)

    def asked(self, agent: Agent, asked: Any) -> None:
        """An agent has asked for a sandbox. The others could wait for ever for one that waits for theirs."""
        if self._step is not None and asked.queued:
            step = self._step
            step.away(agent.number)
            asked.callbacks.append(lambda _: step.back(agent.number))

    def put_by(self, request: Request) -> bool:
        """Whether a call is over because its trajectory was parked."""
        return self._put_by.pop(request.id, False)

    def goes_on(self, agent: Agent) -> bool:
        """An agent has been answered."""
        work = self._works.get(agent.program)
        if work is None:
            return False
        if work.gate is not None:
            return True
        # Whoever is told may have it stopped.
        if not self._told.turned(work.trajectory):
            self._close(work)
        return work.agent is not None

    def gone(self, agent: Agent, status: str) -> None:
        """An agent has ended."""
        work = self._works.get(agent.program)
        if work is None:
            return
        if not agent.role.model or agent.role.model == self._team.rollout:
            work.length += agent.context.tokens + agent.context.replaced
        if agent is not work.agent:
            return
        if status != "completed" and agent.env.now == agent.started:
            # Else who is always turned away at once would make room for others without end in one instant.
            agent.env.timeout(BACK).callbacks.append(lambda _: self._end(work, status))
        else:
            self._end(work, status)

    def _end(self, work: Work, status: str) -> None:
        if work.agent is None:
            return  # stopped meanwhile
        if work.gate is not None:
            work.fate = status
            return
        self._close(work)
        one = work.trajectory
        one.length, one.turns = work.length, work.turns
        one.cut = status in CUT or (status == "failed" and work.full)
        one.masked = status != "completed" and not one.cut
        one.right = one.right and status == "completed"
        self._told.ended(one)

    def _over(self, event: Any) -> None:
        request: Request = event._value
        work, counted = self._calls.pop(request.id)
        if request.id not in work.open:
            # It was called off, with a step in flight.
            if request.generated > counted:
                self._told.late(work.trajectory, request.generated - counted)
            return
        del work.open[request.id]
        work.made += request.generated
        if work.gate is not None and request.generated > counted:
            self._told.late(work.trajectory, request.generated - counted)
        if request.generated >= request.output:
            work.turns += 1
            return
        if request.id in self._put_by:
            return
        # What came of a call that failed is part of no context.
        work.length += request.generated
        if request.reason in NEVER_FIT:
            if not work.turns:
                raise BadInput([Problem(refused(request), self._client.where)])
            work.full = True

    def _close(self, work: Work) -> None:
        """It runs no more: what is under way is counted as it is now."""
        if work.agent is None:
            return
        del self._works[work.agent.number]
        if self._step is not None:
            self._step.ended(work.agent.number)
        work.agent = None
        for number, request in work.open.items():
            made = self._control.progress(request)
            self._calls[number] = work, made
            self._put_by.pop(number, None)
            work.made += made
            work.length += made
        work.open = {}

    def _visit(self, group: Group, prompt: Prompt) -> int:
        """How often the prompt had been asked when the group last began from nothing."""
        launches, visit = self._asked.get(group.number, (-1, 0))
        if launches != group.launches:
            visit = self._visits.get(prompt.id, 0)
            self._visits[prompt.id] = visit + 1
            self._asked[group.number] = group.launches, visit
        return visit


class Crowd(Shared):
    """What agents that are trajectories have in common; what they do is told to who runs them."""

    def __init__(self, client: Client, team: Team, runner: Turns):
        super().__init__(client, team.programs, team.tools, team.apis)
        self._runner = runner

    def call(self, agent: Agent, request: Request) -> Any:
        event = super().call(agent, request)
        self._runner.sent(request, event)
        return event

    def sandbox(self, agent: Agent) -> Callable[[str, int], Any]:
        def ask(pool: str, image: int) -> Any:
            asked = self.client.sandbox(pool, image)
            self._runner.asked(agent, asked)
            return asked

        return ask

    def held(self, agent: Agent) -> Any:
        return self._runner.held(agent)

    def put_by(self, request: Request) -> bool:
        return self._runner.put_by(request)

    def goes_on(self, agent: Agent) -> bool:
        return self._runner.goes_on(agent)

    def ended(self, agent: Agent, status: str, end: float) -> None:
        super().ended(agent, status, end)
        if status != "unfinished":
            self._runner.gone(agent, status)


@dataclass(frozen=True, slots=True)
class Episode:
    """A trajectory as a program: `work` in an environment that is made ready first, on a prompt of `tokens` under its `key`. `label` is the
    code of resets in `tool_calls`.
    """

    work: Program
    key: int
    tokens: int
    environment: Environment | None
    label: int

    @property
    def role(self) -> Role:
        return self.work.role

    def run(self, agent: Agent) -> Generator[Any, Any, None]:
        agent.asked(self.key, self.tokens)
        if self.environment is not None:
            seconds, tries, ready = self.environment.readied(agent.luck.part(ENVIRONMENT))
            yield from agent.undergo(self.label, seconds, "ok" if ready else "timeout", tries)
            if not ready:
                raise Over("sandbox")
        yield from self.work.run(agent)
