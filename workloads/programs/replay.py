"""Recorded sessions replayed against a world that takes its own time to answer.

A call is sent when the answers it waited for are there and its recorded wait is over, so the load bends to the cluster. A session under way
is callbacks, no process: its calls form a graph, and of a graph many may be under way. It ends early when a call is turned away or fails:
then nothing more is sent. Whoever fills the tables does so as `Agent` does: an agent's life is from its first call to its last answer, and
its seconds are those in which a call of it was under way, and else those of what its next call waited for. Who has sub-agents that go on
after its last answer lives as long as they do.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.core.content import Content
from sim.core.request import Request
from workloads._prefixes import NOTHING, cut
from workloads.programs.contents import Contents
from workloads.programs.script import JOIN, SPAWN, USER, Call, Recorded, Script, ToolUse

if TYPE_CHECKING:
    from workloads.base import Client

LLM, TOOLS, JOINING, THINKING = range(4)
STATES = {USER: THINKING, JOIN: JOINING}
CAUSES = {SPAWN: "task"}


class Cast(NamedTuple):
    """What is the same in every run of a replay, one entry per call: tokens of its prompt (0: the session ends before it), seconds it
    waits, seconds until its agent is expected to ask again (NaN: never), the calls that wait for it. `plan` is that of the contents.
    """

    prompts: Sequence[int]
    waits: Sequence[float]
    pauses: Sequence[float]
    nexts: Sequence[Sequence[int]]
    plan: tuple[list[int], list[int], list[bool]]
    tool_scale: float


class Stage:
    """One for a run of a workload: its world, and who is under way."""

    def __init__(self, client: Client, recorded: Recorded, cast: Cast, starts: Iterator[Content] | None):
        self.client, self.env, self.recorded, self.cast = client, client.env, recorded, cast
        self._starts = starts
        self._systems: dict[int, Content] = {}
        self._passes: dict[int, Contents] = {}
        self.living: dict[int, Session] = {}
        self.workload = client.label("agents", "workload", client.name)
        client.closing(self._close)

    def begin(self, script: Script, time: int) -> Any:
        """A session begins now, for the `time`-th time; the event returned succeeds when it is over."""
        session = Session(self, script, self._contents(time))
        session.begin()
        return session.done

    def start(self) -> Content:
        """What the prompts of the next session begin with."""
        return NOTHING if self._starts is None else next(self._starts)

    def system(self, tokens: int) -> Content:
        """A system prompt of so many tokens, the same in all sessions."""
        if tokens not in self._systems:
            self._systems[tokens] = Content((self.client.keys(1),), (tokens,), tokens) if tokens else NOTHING
        return self._systems[tokens]

    @property
    def alike(self) -> bool:
        """Whether system prompts are the same in all sessions."""
        return self._starts is None

    def _contents(self, time: int) -> Contents:
        if time not in self._passes:
            self._passes[time] = Contents(self.client, self.recorded.shares, self.cast.plan)
        return self._passes[time]

    def _close(self) -> None:
        for session in list(self.living.values()):
            session.close()


class Life:
    """What is noted of one agent. `busy`: calls under way; `since`: when that last changed from or to none."""

    __slots__ = ("busy", "calls", "ended", "output", "prompt", "seconds", "since", "started", "tools", "turn")

    def __init__(self) -> None:
        self.started = self.since = self.ended = math.nan
        self.busy = self.calls = self.tools = self.prompt = self.output = self.turn = 0
        self.seconds = [0.0] * 4


class Session:
    """One session under way. `done` succeeds when nothing of it is under way and nothing more will be sent."""

    __slots__ = ("_ahead", "_contents", "_left", "_lives", "_made", "_numbers", "_open", "_over", "_stage", "done", "script")

    def __init__(self, stage: Stage, script: Script, contents: Contents):
        self._stage, self.script, self._contents = stage, script, contents
        calls = stage.recorded.calls[script.first : script.first + script.size]
        self._numbers = [stage.client.number() for _ in script.agents]
        self._lives = [Life() for _ in script.agents]
        self._left = [len(call.after) for call in calls]
        self._ahead = sum(call.output for call in calls)
        self._made: dict[int, Content] = {}
        self._open = 0
        self._over = ""
        self.done = stage.env.event()
        self._seed(calls)
        stage.living[self._numbers[0]] = self

    def begin(self) -> None:
        """Send the calls that wait for no other."""
        script, calls = self.script, self._stage.recorded.calls
        for number in range(script.first, script.first + script.size):
            if not calls[number].after:
                self._wait(number)

    def close(self) -> None:
        """The clock has stopped."""
        self._note("unfinished")

    # -- calls ------------------------------------------------------------
    def _seed(self, calls: Sequence[Call]) -> None:
        """The contents of prompts that go on from no other begin with what all sessions, or those of this one, have in common."""
        stage = self._stage
        ref, start = stage.recorded.shares.ref, stage.start()
        for call in calls if stage.alike or start is not NOTHING else ():
            if ref[call.row] < 0:
                front = stage.system(self.script.system[call.agent]) if stage.alike else start
                self._contents.of(call.row, front, self._made)

    def _wait(self, number: int) -> None:
        self._open += 1
        wait = self._stage.cast.waits[number]
        if wait:
            self._stage.env.timeout(wait, number).callbacks.append(self._rung)
        else:
            self._send(number)

    def _rung(self, event: Any) -> None:
        self._send(event._value)

    def _send(self, number: int) -> None:
        stage = self._stage
        prompt = stage.cast.prompts[number]
        if not self._over and not prompt:
            self._over = "context"
        if self._over:
            self._gone()
            return
        call = stage.recorded.calls[number]
        content, reply = self._contents.of(call.row, NOTHING, self._made)
        known = cut(content, prompt) if content.keys else None
        request = stage.client.request(prompt, call.output, self._numbers[call.agent], known, reply)
        request.program, request.pause = self._numbers[0], stage.cast.pauses[number]
        self._ahead -= call.output
        request.ahead = float(self._ahead)
        event = stage.client.call(request)
        event.callbacks.append(partial(self._answered, number))
        self._sent(call, request)

    def _answered(self, number: int, event: Any) -> None:
        stage = self._stage
        request, call = event.value, stage.recorded.calls[number]
        life = self._lives[call.agent]
        now = life.ended = stage.env.now
        life.busy -= 1
        if not life.busy:
            life.seconds[LLM] += now - life.since
            life.since = now
        if request.generated < request.output:
            self._over = self._over or "failed"
        else:
            life.prompt += request.prompt
            life.output += request.output
            for one in stage.cast.nexts[number]:
                self._left[one - self.script.first] -= 1
                if not self._left[one - self.script.first]:
                    self._wait(one)
        self._gone()

    def _gone(self) -> None:
        self._open -= 1
        if not self._open:
            self._note(self._over or "completed")
            self._made.clear()
            self.done.succeed()

    # -- tables ------------------------------------------------------------
    def _sent(self, call: Call, request: Request) -> None:
        stage, life, agent = self._stage, self._lives[call.agent], self._numbers[call.agent]
        client, now, gap = stage.client, stage.env.now, math.nan
        if not life.calls:
            life.started = now
        elif not life.busy:
            gap = now - life.since
            life.seconds[STATES.get(call.cause, TOOLS)] += gap
            self._used(call.tools, agent, life)
        if not life.busy:
            life.since = now
        life.busy += 1
        life.calls += 1
        life.turn += call.cause == USER
        cause = client.label("turns", "cause", CAUSES.get(call.cause, call.cause))
        shared = min(stage.recorded.shares.shared[call.row], request.prompt)
        client.note("turns", (request.id, agent, life.turn, cause, request.prompt, request.prompt - shared, gap))

    def _used(self, tools: Sequence[ToolUse], agent: int, life: Life) -> None:
        """Tools that have run since an agent's last answer; one recorded as longer than its agent waited ended with the wait."""
        client, now, scale = self._stage.client, self._stage.env.now, self._stage.cast.tool_scale
        ok = client.label("tool_calls", "outcome", "ok") if tools else 0
        for tool in tools:
            start = life.since + scale * tool.start
            end = min(now, start + scale * tool.seconds)
            client.note("tool_calls", (agent, client.label("tool_calls", "tool", tool.name), min(start, end), 0.0, end, ok, 1, 0))
        life.tools += len(tools)

    def _note(self, status: str) -> None:
        """One row for each agent that has begun."""
        label, note = self._stage.client.label, self._stage.client.note
        root = self._numbers[0]
        del self._stage.living[root]
        parents, depths = self.script.parents, [0] * len(self._lives)
        for place in reversed(range(1, len(parents))):
            self._outlive(self._lives[parents[place]], self._lives[place].ended)
        for place, (number, life) in enumerate(zip(self._numbers, self._lives, strict=True)):
            depths[place] = depths[parents[place]] + 1 if place else 0
            if not life.calls:
                continue
            if life.busy:
                life.seconds[LLM] += self._stage.env.now - life.since
            llm, tool, join, think = life.seconds
            end, kind = life.ended if status != "unfinished" else math.nan, label("agents", "kind", self.script.agents[place])
            note("agents", (
                number, root, self._numbers[parents[place]] if place else -1, depths[place], self._stage.workload, kind,
                life.started, end, label("agents", "status", status), life.calls, life.tools, life.prompt, life.output, 0,
                llm, tool, 0.0, join, think,
            ))  # fmt: skip

    def _outlive(self, life: Life, end: float) -> None:
        """An agent waits for a sub-agent that ended then, in case it had ended before."""
        if not life.busy and end > life.ended:
            life.seconds[JOINING] += end - life.ended
            life.ended = end
