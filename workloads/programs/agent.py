"""The life of one agent, root or sub-agent: everything that a program may do, and what is noted of it.

An agent is a SimPy process. It is at any time in one state (computing an answer, at tools, waiting for a sandbox, for its sub-agents, or
for its user), and the seconds of the states sum to its life. Its end is one and the same whatever led to it: a process that is interrupted,
because its time is over or nobody waits for its result, calls off its request, its tool calls and its sub-agents at that very instant.
"""
from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

from simpy import Interrupt

from sim.core.errors import BadInput
from sim.core.request import Request
from sim.core.rng import Luck
from sim.spec.law import Law
from workloads.programs.base import Ended, Over, Program, Used
from workloads.programs.budget import Spent
from workloads.programs.context import Context
from workloads.programs.home import Home, isrefusal
from workloads.programs.join import Join
from workloads.programs.tools import ToolUse

if TYPE_CHECKING:
    from workloads.programs.shared import Shared

Steps = Generator[Any, Any, None]
LLM, TOOL, SANDBOX, JOIN, THINK, NOTHING = range(6)
# Parts of an agent's luck.
CHILDREN, USES, TASK, RESULT, SUMMARY, KEPT = 1_000_000, 2_000_000, 3_000_000, 3_000_001, 3_000_002, 4_000_000


class Agent:
    """`number` is its own, also that of its session; `program` that of the root it works for; `depth` 0 for a root.

    `task` is the number of the session among those of its workload: which image a sandbox has. `luck` is the agent's own: whatever it draws
    does not depend on the cluster. `turn` counts the user's messages; `process` succeeds with an
    `Ended`.
    """

    __slots__ = (
        "_answer", "_begun", "_born", "_cause", "_children", "_ended", "_held", "_limited", "_request", "_result", "_root", "_since",
        "_state", "_uses", "context", "depth", "env", "home", "luck", "number", "parent", "process", "program", "role", "seconds", "shared",
        "spent", "started", "task", "turn",
    )  # fmt: skip

    def __init__(self, shared: Shared, program: Program, luck: Luck, parent: Agent | None = None, task: int = 0):
        self.shared, self.luck, self.parent, self.role = shared, luck, parent, program.role
        self.env = shared.env
        self.number = shared.client.number()
        # A root does not name itself: no cycle is left for the collector of garbage.
        self._root: Agent | None = None if parent is None else parent.root
        self.program = self.root.number
        self.task: int = task if parent is None else parent.task
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.context = Context(shared.system(self.role), shared.client.keys)
        self.spent = Spent(self.role.budget)
        self.started = self._since = self.env.now
        self.seconds = [0.0] * (NOTHING + 1)
        self._state, self._cause, self._ended = NOTHING, "user" if parent is None else "task", math.nan
        self.turn = self._born = self._begun = self._answer = 0
        self._result: int | None = None
        self._limited = True
        self._request: Request | None = None
        self._uses: list[ToolUse] = []
        self._children: list[Agent] = []
        self._held: list[Any] = []
        self.home = self._place()
        self.root.spent.agents += 1
        self.process: Any = self.env.process(self._live(program))
        shared.living[self.number] = self

    @property
    def root(self) -> Agent:
        """The agent at the head of its session."""
        return self if self._root is None else self._root

    # -- what a program may do ------------------------------------------------------------
    def told(self, tokens: int, cause: str = "user") -> None:
        """Something is added to the context: by the user, a tool, a subagent. No time passes."""
        self.context.told(_count(tokens, 0))
        self._cause = cause
        if cause == "user":
            self.turn += 1

    def asked(self, key: int, tokens: int) -> None:
        """The first message, the same for all agents that are asked it under one key."""
        self.context.asked(key, tokens)
        self._cause = "user"
        self.turn += 1

    def edited(self) -> None:
        """All but the system prompt is rewritten, as long as it was. No time passes."""
        self.context.edited()
        self._cause = "edit"

    def call(self, output: int, model: str = "", pause: float | None = None) -> Generator[Any, Any, Request]:
        """One call of a model, with the whole context as the prompt; the `output` tokens (>= 1) it answers are added.

        `pause`: seconds after which the next call is expected, NaN: there is none; by default what the tools take on average. A context
        that is too long is compacted first. Raises Over when the budget does not allow it, or when it failed and retries did too.
        """
        limit, context, output = self.role.context, self.context, _count(output, 1)
        if not context.tokens:
            context.told(1)
        if limit.compact_at is not None and limit.max is not None and context.tokens + output > limit.compact_at * limit.max:
            yield from self._compact()
        return (yield from self._asked(output, model, pause))

    def use(self, tool: str, observation: int | None = None) -> Generator[Any, Any, Used]:
        """Use a tool and wait for it; what it says (`observation` tokens, by default as the tool's law has it) is added to the context."""
        return (yield from self.use_all([tool], None if observation is None else [observation]))[0]

    def use_all(self, tools: Sequence[str], observations: Sequence[int] | None = None) -> Generator[Any, Any, list[Used]]:
        """Use several tools at once and wait for all. Raises Over when one needs a sandbox and there is none to be had."""
        if not tools:
            return []
        benches = [self.shared.bench(tool) for tool in tools]
        home = self.home if any(bench.tool.sandbox for bench in benches) else None
        if any(bench.tool.sandbox for bench in benches):
            yield from self._settle()
        self._switch(TOOL)
        gate = self.env.event()
        left = len(benches)

        def ended(_: ToolUse) -> None:
            nonlocal left
            left -= 1
            if not left:
                gate.succeed()

        uses = [ToolUse(self, bench, self.luck.part(USES + self._begun + place), ended) for place, bench in enumerate(benches)]
        self.spent.tools += len(uses)
        self._begun += len(uses)
        for place, use in enumerate(uses if observations is not None else ()):
            use.observation = observations[place]  # type: ignore[index]
        self._uses = uses
        if home is not None:
            home.use()
        for use in uses:
            use.begin()
        try:
            yield gate
        except Interrupt:
            if home is not None:
                home.used()
            raise
        self._uses, self._children = [], []
        if home is not None:
            home.used()
        self._switch(NOTHING)
        done = [use.used for use in uses if use.used is not None]
        self.told(sum(used.observation for used in done), "tool")
        return done

    def may_spawn(self, count: int) -> int:
        """How many of so many sub-agents its budget allows."""
        budget = self.role.budget
        if budget.depth is not None and self.depth >= budget.depth:
            return 0
        return count if budget.agents is None else max(0, min(count, budget.agents - self.root.spent.agents))

    def spawn(
        self, kind: str | Program, count: int = 1, join: int | None = None, task: Law | int | None = None, result: Law | int | None = None
    ) -> Generator[Any, Any, list[Ended]]:
        """Have `count` agents work at once, as far as the budget allows, and wait for all results, or for the first `join` of them; the
        others are then called off. What they hand back is added to the context.

        `task`: tokens each is told, by default its kind's; `result`: tokens each hands back, by default its last answer.
        """
        count = self.may_spawn(_count(count, 0))
        if not count:
            return []
        self._switch(JOIN)
        children = [self.born(kind, task, result) for _ in range(count)]
        ended: list[Ended] = yield Join(self.env, children, join).event
        self._children = []
        self._switch(NOTHING)
        self.told(sum(child.result for child in ended), "subagent")
        return ended

    def think(self, seconds: float) -> Steps:
        """The user is away."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"found {seconds!r}; seconds of 0 or more are wanted")
        if seconds > 0:
            if self.role.sandbox is not None and self.home is not None:
                self.home.rest()
            self._switch(THINK)
            yield self.env.timeout(seconds)
            self._switch(NOTHING)

    def undergo(self, tool: int, seconds: float, outcome: str, tries: int) -> Steps:
        """What no program asks for takes so long, and is noted as a tool call; `tool` is its code, `outcome` what comes of it."""
        start = self.env.now
        self.spent.tools += 1
        self._switch(TOOL)
        try:
            yield self.env.timeout(seconds)
        except Interrupt:
            self.shared.used(self.number, tool, (start, 0.0, self.env.now, "cancelled", tries, 0))
            raise
        self._switch(NOTHING)
        self.shared.used(self.number, tool, (start, 0.0, self.env.now, outcome, tries, 0))

    def drop(self, status: str) -> None:
        """Call off all that is under way; `status` as in table `agents` says why."""
        self._switch(NOTHING)
        if self._request is not None:
            self.shared.client.cancel(self._request, "timeout" if status == "time" else "cancelled")
        for use in self._uses:
            use.call_off()
        for child in self._children:
            child.stop("cancelled")
        self._request, self._uses, self._children = None, [], []

    def unlimited(self) -> None:
        """Its budget of time ends here: what it does from now on does not count."""
        self._limited = False

    def renew(self) -> None:
        """Give its sandbox back: a tool that needs one gets another."""
        if self.role.sandbox is not None and self.home is not None:
            self.home.leave()
            self.home = self._place()

    def hold(self, pool: str, image: int = 0) -> Generator[Any, Any, Any]:
        """A sandbox of a pool, until it is released or the agent ends: a lease, or a refusal, which has a reason."""
        self._switch(SANDBOX)
        asked = self.shared.client.sandbox(pool, image)
        self._held.append(asked)
        answer = yield asked
        self._held.remove(asked)
        if not isrefusal(answer):
            self._held.append(answer)
        self._switch(NOTHING)
        return answer

    # -- what others do with it ------------------------------------------------------------
    def born(self, kind: str | Program, task: Law | int | None = None, result: Law | int | None = None) -> Agent:
        """A sub-agent that begins now."""
        program = self.shared.program(kind)
        child = Agent(self.shared, program, self.luck.part(CHILDREN + self._born), self)
        self._born += 1
        self._children.append(child)
        wanted = task if task is not None else program.role.task
        if wanted is not None:
            child.told(child.drawn(wanted, TASK), "task")
        if result is not None:
            child._result = max(1, child.drawn(result, RESULT))
        return child

    def drawn(self, amount: Law | int, part: int) -> int:
        """An amount, by a law from the luck of one of its parts."""
        return amount if isinstance(amount, int) else amount.whole(self.luck.part(part).next())

    def stop(self, status: str) -> None:
        """End it now, unless it has ended."""
        if self.process.is_alive:
            self.process.interrupt(status)

    def settle(self) -> None:
        """Count the seconds of its state up to now."""
        self._switch(self._state)

    # -- its life ------------------------------------------------------------
    def _live(self, program: Program) -> Generator[Any, Any, Ended]:
        status = "completed"
        try:
            if self.role.budget.time is not None:
                self._limit(self.role.budget.time)
            if self.role.sandbox is not None and self.role.sandbox.at == "start":
                yield from self._settle()
            yield from program.run(self)
        except Over as over:
            status = over.reason
        except Interrupt as why:
            status = str(why.cause)
        self._leave(status)
        self.shared.ended(self, status, self.env.now)
        # Who ran out of a budget hands back what there is.
        useful = status not in ("failed", "sandbox", "cancelled")
        result = self._answer if self._result is None else self._result
        return Ended(self.number, status, result if useful else 0)

    def _leave(self, status: str) -> None:
        """Let go of all that is under way, and give back what was held."""
        self.drop(status)
        for held in self._held:
            self.shared.give_back(held)
        if self.role.sandbox is not None and self.home is not None:
            self.home.leave()

    def _limit(self, seconds: float) -> None:
        # Half a nanosecond after a whole one: an answer that comes on time is in time.
        at = (round((self.env.now + seconds) * 1e9) + 0.5) * 1e-9
        self.env.timeout(at - self.env.now).callbacks.append(lambda _: self.stop("time") if self._limited else None)

    def _switch(self, state: int) -> None:
        now = self.env.now
        self.seconds[self._state] += now - self._since
        self._since, self._state = now, state

    def _place(self) -> Home | None:
        """Its own sandbox, or that of whom it works for."""
        wanted = self.role.sandbox
        if wanted is None:
            return None if self.parent is None else self.parent.home
        image = self.task if wanted.image == "own" else 0
        return Home(wanted, self.shared.sandbox(self), image)

    def _settle(self) -> Steps:
        home = self.home
        if home is None:
            raise BadInput(f"a tool runs in a sandbox, but agent {self.role.name} has none, nor has whom it works for; give it one")
        if home.lease is None:
            self._switch(SANDBOX)
            yield from home.settle()
            self._switch(NOTHING)
            if home.lease is None:
                raise Over("sandbox")

    # -- calls ------------------------------------------------------------
    def _compact(self) -> Generator[Any, Any, None]:
        limit, cause = self.role.context, self._cause
        summary = max(1, self.drawn(limit.summary, SUMMARY + self.spent.compactions)) if limit.summary is not None else 1
        self._cause = "summary"
        yield from self._asked(summary, "", 0.0)
        kept = self.drawn(limit.kept, KEPT + self.spent.compactions) if limit.kept is not None else 0
        self.context.compacted(summary + kept)
        self.spent.compactions += 1
        self._cause = cause if cause == "summary" else "compaction"

    def _asked(self, output: int, model: str, pause: float | None) -> Generator[Any, Any, Request]:
        context, limit, shared, retries = self.context, self.role.context, self.shared, self.role.retries
        if limit.max is not None and context.tokens + output > limit.max:
            raise Over("context")
        left, tries, cause = output, 0, self._cause
        while True:
            held = shared.held(self)
            if held is not None:
                self._switch(LLM)
                yield held
                continue
            self.spent.may(context.tokens + left)
            new = context.tokens - context.sent
            request = shared.request(self, left, model or self.role.model)
            request.pause = shared.pause if pause is None else pause
            self._request = request
            self._switch(LLM)
            answer = shared.call(self, request)
            shared.sent(request, self.number, (self.turn, cause, new, self.env.now - self._ended))
            yield answer
            self._request, self._ended = None, self.env.now
            self._switch(NOTHING)
            self.spent.prompt += request.prompt
            self.spent.output += request.generated
            if request.generated >= left:
                context.answered(request.reply, left)
                self._answer = output
                self._cause = "more"
                if not shared.goes_on(self):
                    # By somebody else, in this very instant: no process can interrupt itself.
                    self.env.timeout(0.0).callbacks.append(lambda _: self.root.stop("cancelled"))
                    yield self.env.event()
                return request
            if shared.put_by(request):
                # What there is of the answer is no answer, but new to the call that asks for the rest.
                if request.generated:
                    context.asked(request.reply, request.generated)
                    left -= request.generated
                    cause = "more"
                continue
            if tries == retries.max:
                raise Over("failed")
            self._switch(LLM)
            yield self.env.timeout(retries.backoff * 2.0**tries)
            tries, cause = tries + 1, "retry"


def _count(number: int, least: int) -> int:
    """A whole number of at least so much. Raises TypeError or ValueError."""
    if index(number) < least:
        raise ValueError(f"found {number}; at least {least} is wanted")
    return number
