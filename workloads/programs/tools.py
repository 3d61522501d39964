"""One tool call on its way: its turn at a service, a place to run, its tries, and what came of it.

No process of its own: each step is the callback of the one before it. Times and outcomes are drawn from the call's own luck, a fresh one
for each try, so that how long a tool takes does not depend on who else uses it.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.core.rng import Luck
from workloads.programs.apis import Api, Pass
from workloads.programs.base import Ended, Used
from workloads.programs.options import Tool

if TYPE_CHECKING:
    from workloads.programs.agent import Agent

OBSERVATION = 1_000


class Bench(NamedTuple):
    """A tool and where its uses go: `label` is its code in table `tool_calls`, `api` the service it goes through."""

    name: str
    tool: Tool
    label: int
    api: Api | None


class ToolUse:
    """A tool call of an agent. `used` is None until it is over; then `ended` is called with it, unless it was called off.

    `observation`: tokens it answers with, None: by the tool's law, or for an agent that is asked, what it answers.
    """

    __slots__ = (
        "_agent", "_bench", "_child", "_command", "_ended", "_luck", "_pass", "_queued", "_since", "_start", "_tries", "observation",
        "used",
    )  # fmt: skip

    def __init__(self, agent: Agent, bench: Bench, luck: Luck, ended: Callable[[ToolUse], None]):
        self._agent, self._bench, self._luck, self._ended = agent, bench, luck, ended
        self._pass: Pass | None = None
        self._child: Agent | None = None
        self._command: Any = None
        self._start = self._since = agent.env.now
        self._queued, self._tries = 0.0, 0
        self.observation: int | None = None
        self.used: Used | None = None

    def begin(self) -> None:
        """The next try: ask for a turn at the service, if it has one."""
        self._tries += 1
        self._since = self._agent.env.now
        api = self._bench.api
        if api is None:
            self._run()
            return
        ticket = api.enter(self._let_in)
        if ticket is None:
            # Said by a service that is there: not at once, or a program that asks again would never stop.
            self._agent.env.timeout(0.0).callbacks.append(lambda _: self._tried("refused"))
        else:
            self._pass = ticket

    def call_off(self) -> None:
        """The agent wants it no more."""
        if self.used is None:
            self._leave()
            self._end("cancelled", 0)
            if self._child is not None:
                self._child.stop("cancelled")
            if self._command is not None:
                self._command.stop()

    # -- a try ------------------------------------------------------------
    def _let_in(self) -> None:
        self._queued += self._agent.env.now - self._since
        self._run()

    def _run(self) -> None:
        tool, agent = self._bench.tool, self._agent
        if tool.model is not None:
            self._child = agent.born(tool.model.agent, tool.model.task)
            self._child.process.callbacks.append(self._answered)
            return
        luck = self._luck.part(self._tries)
        hangs = tool.hang > 0 and luck.next() < tool.hang
        seconds = tool.time.at(luck.next())
        outcome = "error" if tool.fail and luck.next() < tool.fail else "ok"
        if tool.sandbox:
            assert agent.home is not None
            if agent.home.gone():
                # Lost while this waited for its turn at the service, which may be letting it in at this very moment.
                agent.env.timeout(0.0).callbacks.append(lambda _: self._lost())
                return
            lease = agent.home.lease
            self._command = lease.hang(tool.timeout) if hangs else lease.run(seconds, tool.cores, tool.timeout)
            self._command.callbacks.append(lambda event: self._ran(event.value, "hang" if hangs else outcome))
            return
        if hangs:
            assert tool.timeout is not None
            seconds, outcome = tool.timeout, "hang"
        elif tool.timeout is not None and seconds > tool.timeout:
            seconds, outcome = tool.timeout, "timeout"
        agent.env.timeout(seconds, outcome).callbacks.append(lambda event: self._tried(event.value))

    def _ran(self, ran: Any, outcome: str) -> None:
        """A command in the sandbox is over: `ran` says how, and how long it had waited for a slot."""
        if self.used is not None:
            return
        self._queued += ran.queued
        self._command = None
        assert self._agent.home is not None
        if self._agent.home.gone():
            self._lost()
        else:
            self._tried(outcome if ran.outcome == "ok" or (outcome == "hang" and ran.outcome == "timeout") else ran.outcome)

    def _lost(self) -> None:
        """Its sandbox is gone: another try would need another one, which is asked for at the next use."""
        if self.used is None:
            self._leave()
            self._end("crash", self._said())

    def _answered(self, event: Any) -> None:
        ended: Ended = event.value
        if self.used is None:
            if self.observation is None and self._bench.tool.observation is None:
                self.observation = ended.result
            self._tried("ok" if ended.result else "error")

    def _tried(self, outcome: str) -> None:
        if self.used is not None:
            return
        self._leave()
        if outcome != "ok" and self._tries <= self._bench.tool.retries:
            self.begin()
        else:
            self._end(outcome, self._said())

    # -- the end ------------------------------------------------------------
    def _leave(self) -> None:
        if self._pass is not None:
            assert self._bench.api is not None
            ticket, self._pass = self._pass, None
            self._bench.api.leave(ticket)

    def _said(self) -> int:
        if self.observation is not None:
            return self.observation
        law = self._bench.tool.observation
        return 0 if law is None else law.whole(self._luck.part(OBSERVATION).next())

    def _end(self, outcome: str, observation: int) -> None:
        now, agent = self._agent.env.now, self._agent
        self.used = Used(outcome, now - self._start, observation)
        agent.shared.used(agent.number, self._bench.label, (self._start, self._queued, now, outcome, self._tries, observation))
        if outcome != "cancelled":
            self._ended(self)
