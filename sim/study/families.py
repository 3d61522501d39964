"""What must hold of agents: a family is whole, lives are accounted for, and no token of a context is counted twice.

Every sub-agent has a parent that was there before it and outlived it; the seconds of an agent's states sum to its life; a call's prompt is
that of the call before it, its answer, and what is new; and an agent makes one call at a time. The last two are not asked of recorded
agents, which send what they sent then.
"""
from __future__ import annotations

import numpy as np

from sim.core.request import COMPLETED
from sim.study.accounts import accounts
from sim.study.facts import Tables
from sim.study.idle import SLACK

STATES = ("llm_s", "tool_s", "sandbox_s", "join_s", "think_s")


def families(tables: Tables) -> tuple[int, list[str]]:
    """Agents and calls looked at, and what is wrong with them."""
    table = tables.result.tables.get("agents")
    if table is None or not len(table):
        return 0, []
    faults: list[str] = []

    def see(what: str, bad: np.ndarray) -> None:
        if bad.any():
            faults.append(f"{what}: {int(bad.sum())} rows, first row {int(np.flatnonzero(bad)[0])}")

    number, start, end = table["agent"], table["start"], table["end"]
    order = np.argsort(number, kind="stable")
    see("another agent with that number", np.diff(number[order]) == 0)
    child = np.flatnonzero(table["parent"] >= 0)
    at = np.minimum(np.searchsorted(number, table["parent"][child], sorter=order), len(number) - 1)
    parent = order[at]
    see("a parent that does not exist", number[parent] != table["parent"][child])
    see("a depth that is not its parent's and one", table["depth"][child] != table["depth"][parent] + 1)
    see("a root that is not its parent's", table["root"][child] != table["root"][parent])
    see("a root with a parent, or none without", (table["depth"] == 0) != (table["parent"] < 0))
    see("began before its parent", start[child] < start[parent] - SLACK)
    outlived = (end[child] > end[parent] + SLACK) | (np.isnan(end[child]) & ~np.isnan(end[parent]))
    see("neither joined nor called off before its parent ended", outlived)
    spent = np.sum([table[name] for name in STATES], axis=0)
    see("seconds of its states are not its life", np.abs(spent - (end - start)) > 1e-9 + 1e-9 * tables.end)
    recorded = _recorded(tables)
    return len(number) + _calls(tables, faults, recorded) + accounts(tables, recorded, see), faults


def _calls(tables: Tables, faults: list[str], recordings: np.ndarray) -> int:
    """Calls looked at; adds what is wrong with them. `recordings`: numbers of agents that replay."""
    turns, arrived = tables.result.tables["turns"], tables.meta["arrived"]
    row = np.full(arrived, -1, dtype="i8")
    request, agent = turns["request"], turns["agent"]
    row[request] = np.arange(len(request))
    sent, left, answer = np.zeros(len(request)), np.zeros(len(request)), np.zeros(len(request), dtype="i8")
    seen = 0
    for page in tables.requests():
        mine = row[page["request"]]
        of = mine >= 0
        seen += int(of.sum())
        sent[mine[of]], left[mine[of]] = page["arrival"][of], page["last_token"][of]
        answer[mine[of]] = np.where(page["status"] == COMPLETED, page["output_tokens"], 0)[of]
        if np.any(page["input_tokens"][of] != turns["context"][mine[of]]):
            faults.append("a prompt that is not its agent's context")
    if seen != len(request):
        faults.append(f"{len(request)} calls of agents, {seen} requests")
    order = np.lexsort((request, agent))
    same = agent[order][1:] == agent[order][:-1]
    before, then = order[:-1][same], order[1:][same]
    grown = turns["context"][then] == turns["context"][before] + answer[before] + turns["new"][then]
    codes = turns.labels["cause"].index
    fresh = np.isin(turns["cause"][then], [codes("compaction"), codes("edit")])
    # A history may be rewritten just before it is summed up, which is then what the call is for: it is as long as it was.
    rewritten = (turns["cause"][then] == codes("summary")) & (turns["new"][then] <= turns["context"][then])
    fresh |= rewritten & (turns["context"][then] >= turns["context"][before] + answer[before])
    recorded = np.isin(agent[then], recordings)
    fresh |= recorded
    if not np.all(grown | fresh):
        faults.append(f"a context that is not the one before, its answer and what is new: {int((~(grown | fresh)).sum())} calls")
    first = order[np.append(True, ~same)] if len(order) else order
    if np.any((turns["new"][first] != turns["context"][first]) & ~np.isin(agent[first], recordings)):
        faults.append("a first call of which not all is new")
    if np.any((sent[then] < left[before] - SLACK) & ~recorded):
        faults.append("a call before the one before it was answered")
    return len(request)


def _recorded(tables: Tables) -> np.ndarray:
    """Numbers of the agents of recordings."""
    # The names of the workloads, in their order.
    names = tables.result.tables["requests"].labels["workload"]
    kinds = [options["kind"] for options in tables.result.scenario.workloads]
    replays = [name for name, kind in zip(names, kinds, strict=True) if kind == "agent_trace"]
    agents = tables.result.tables["agents"]
    codes = [code for code, name in enumerate(agents.labels["workload"]) if name in replays]
    return np.asarray(agents["agent"][np.isin(agents["workload"], codes)])
