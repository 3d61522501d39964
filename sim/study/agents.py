"""What agents did and what it took: by task, by user's message, by depth, and where their time went.

A task is a session: a root agent and all that work for it. Its time is from the begin of its root to the end, without what its user took
to come back. Amplification is what a user's message sets off, at every depth: agents, calls, tokens of prompts and answers, and tokens
computed, which are those not found in a cache. Cache hits are told by what came before a call (`turns.cause`), the first of an agent apart.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.request import COMPLETED
from sim.study.metric import ratio
from sim.study.money import usd
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts

HOUR = 3600.0
STATES = ("llm_s", "tool_s", "sandbox_s", "join_s", "think_s")


def agents(facts: Facts) -> dict[str, Any] | None:
    """The figures of all agents; None where there are none."""
    table, crowd = facts.result.tables.get("agents"), facts.crowd
    if table is None or crowd is None:
        return None
    ended = ~np.isnan(crowd.end[crowd.roots])
    tasks = len(crowd.times)
    return {
        "tasks": {"begun": len(crowd.roots), "completed": tasks, "ended": crowd.ends(crowd.roots)},
        "agents": {"begun": len(crowd.agent), "ended": crowd.ends(np.arange(len(crowd.agent)))},
        "task_time_s": distribution(crowd.times),
        "tasks_per_hour": ratio(tasks * HOUR, facts.span),
        "usd_per_task": ratio(usd(facts), tasks),
        "tokens_per_task": distribution(crowd.tokens_by_task[ended].astype(float)),
        "calls_per_task": distribution(crowd.calls_by_task[ended].astype(float)),
        "agents_per_task": distribution(crowd.agents_by_task[ended].astype(float)),
        "share": crowd.shares(),
        "cache_hit": {name: ratio(found, whole) for name, (whole, found) in crowd.prompts.items() if whole},
        "recomputed": ratio(crowd.computed_prompts, crowd.new_tokens),
        "amplification": crowd.amplification(),
        "kv_idle": ratio(float(facts.replicas["kept_block_seconds"].sum()), float((facts.replicas["blocks"] * facts.lifetimes).sum())),
    }


class Crowd:
    """One entry per agent, in the order in which they ended: its number, when it began and ended (NaN: never), its status, depth and the
    place of its root. `roots` are the places of roots.
    """

    def __init__(self, facts: Facts):
        self._facts, self._table = facts, facts.result.tables["agents"]
        table = self._table
        self.agent, self.start, self.end, self.status = (table[name] for name in ("agent", "start", "end", "status"))
        self.depth, self.think = table["depth"], table["think_s"]
        self.roots = np.flatnonzero(self.depth == 0)
        self._order = np.argsort(self.agent, kind="stable")
        self.root = self.place(table["root"])
        # Where each root is among the roots.
        self._task = np.full(len(self.agent), -1)
        self._task[self.roots] = np.arange(len(self.roots))
        self.task = self._task[self.root]

    def place(self, agents: np.ndarray) -> np.ndarray:
        """Where agents are in the table, by their numbers."""
        found: np.ndarray = self._order[np.searchsorted(self.agent, agents, sorter=self._order)]
        return found

    def ends(self, which: np.ndarray) -> dict[str, int]:
        """How many of some agents ended in which way; what did not occur is left out."""
        names = self._table.labels["status"]
        return {names[code]: int(count) for code, count in enumerate(np.bincount(self.status[which], minlength=len(names))) if count}

    @property
    def times(self) -> np.ndarray:
        """Seconds of each completed task, a fresh array."""
        done = self.status[self.roots] == self._table.labels["status"].index("completed")
        taken: np.ndarray = (self.end - self.start - self.think)[self.roots][done]
        return taken

    @functools.cached_property
    def tokens_by_task(self) -> np.ndarray:
        """Tokens of prompts and answers of each task, those found in a cache included."""
        return self._by_task(self._table["prompt_tokens"] + self._table["output_tokens"])

    @functools.cached_property
    def calls_by_task(self) -> np.ndarray:
        """LLM calls of each task."""
        return self._by_task(self._table["calls"])

    @functools.cached_property
    def agents_by_task(self) -> np.ndarray:
        """Agents of each task, its root included."""
        return self._by_task(np.ones(len(self.agent)))

    @functools.cached_property
    def seconds(self) -> dict[str, np.ndarray]:
        """Of each agent's life: queued for an engine, with a model, at tools, waiting for a sandbox, sub-agents, the user."""
        llm = self._table["llm_s"]
        queue = np.minimum(self._calls.queued, llm)
        return {"queue": queue, "llm": llm - queue, **{name.removesuffix("_s"): self._table[name] for name in STATES[1:]}}

    def shares(self) -> dict[str, float] | None:
        """The same of the lives of all agents."""
        sums = {name: float(seconds.sum()) for name, seconds in self.seconds.items()}
        total = sum(sums.values())
        return {name: seconds / total for name, seconds in sums.items()} if total else None

    def by_kind(self) -> dict[str, dict[str, float]]:
        """The seconds of all agents of each kind."""
        kinds, code = self._table.labels["kind"], self._table["kind"]
        sums = {state: np.bincount(code, seconds, len(kinds)) for state, seconds in self.seconds.items()}
        return {name: {state: float(each[number]) for state, each in sums.items()} for number, name in enumerate(kinds)}

    def amplification(self) -> dict[str, Any]:
        """What each message of a user set off, in all and by depth."""
        messages, calls = self._calls.messages, self._calls
        depths = np.arange(int(self.depth.max()) + 1)
        counts = np.bincount(self.depth, minlength=len(depths))
        by_depth = [
            {"depth": int(depth), "agents": ratio(counts[depth], messages), "calls": ratio(calls.count[depth], messages),
             "tokens": ratio(calls.tokens[depth], messages), "compute": ratio(calls.computed[depth], messages)}
            for depth in depths
        ]  # fmt: skip
        whole = {name: ratio(float(sums.sum()), messages) for name, sums in
                 (("agents", counts), ("calls", calls.count), ("tokens", calls.tokens), ("compute", calls.computed))}  # fmt: skip
        return {"messages": messages, **whole, "by_depth": by_depth}

    @property
    def prompts(self) -> dict[str, tuple[int, int]]:
        """Prompt tokens of admitted calls and those of them found in a cache, by what came before the call."""
        return self._calls.prompts

    @property
    def computed_prompts(self) -> int:
        """Prompt tokens of admitted calls that no cache had."""
        return sum(whole - found for whole, found in self.prompts.values())

    @property
    def new_tokens(self) -> int:
        """Prompt tokens that were not part of the call before, of all calls."""
        return self._calls.new

    @functools.cached_property
    def _calls(self) -> Calls:
        return Calls(self._facts, self)

    def _by_task(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.task, values, minlength=len(self.roots))


class Calls:
    """Sums over LLM calls: by depth how many (`count`), their `tokens` and those `computed`; seconds `queued` by agent; the rest as `Crowd`
    has it.
    """

    def __init__(self, facts: Facts, crowd: Crowd):
        table = facts.result.tables["turns"]
        labels = table.labels["cause"]
        depths = int(crowd.depth.max()) + 1
        arrived = facts.meta["arrived"]
        place, cause = np.full(arrived, -1, dtype="i4"), np.zeros(arrived, dtype="i1")
        self.new, told = 0, np.zeros(len(crowd.agent), dtype="i8")
        for page in table.pages():
            at, rows = crowd.place(page["agent"]), page["request"]
            place[rows] = at
            cause[rows] = np.where(np.isnan(page["gap"]), len(labels), page["cause"])
            self.new += int(page["new"].sum(dtype="i8"))
            np.maximum.at(told, at, page["turn"])
        self.messages = int(told[crowd.roots].sum())
        self.count, self.tokens, self.computed = (np.zeros(depths) for _ in range(3))
        self.queued = np.zeros(len(crowd.agent))
        found = np.zeros((len(labels) + 1, 2), dtype="i8")
        for page in facts.requests():
            whose = place[page["request"]]
            of = whose >= 0
            mine = crowd.depth[whose]
            prompt, cached = page["input_tokens"].astype("i8"), page["cached_tokens"].astype("i8")
            output = page["output_tokens"]
            on = ~np.isnan(page["admitted"])
            self.count += np.bincount(mine[of], minlength=depths)
            self.tokens += np.bincount(mine[of], (prompt + output)[of], minlength=depths)
            self.computed += np.bincount(mine[of & on], (prompt - cached + output)[of & on], minlength=depths)
            done = of & (page["status"] == COMPLETED)
            self.queued += np.bincount(whose[done], (page["admitted"] - page["arrival"])[done], len(self.queued))
            for column, values in enumerate((prompt, cached)):
                found[:, column] += np.bincount(cause[page["request"]][of & on], values[of & on], minlength=len(labels) + 1).astype("i8")
        names = [*labels, "first"]
        self.prompts = {name: (int(found[names.index(name), 0]), int(found[names.index(name), 1])) for name in names}
