"""The books of agents: what each says of itself against the tables of what it did, so that nothing is counted twice, or not at all.

An agent's calls and tool calls are the rows there are of them, in its life; its tokens are those of the calls that were answered or
failed, each once (who was called off, or ran out of time, does not count the call it was in); and a sandbox that is still held at the end
is that of an agent that has not ended, or of a grader at work on what one has left. Recorded agents count the tokens of what was recorded,
which is another thing.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.core.record import Table
from sim.study.facts import Tables
from sim.study.idle import SLACK

# Those of whom a call may have been called off; sandbox: a grader got none, whose agent had run out of time.
CUT = ("time", "cancelled", "unfinished", "sandbox")


def accounts(tables: Tables, recorded: np.ndarray, see: Callable[[str, np.ndarray], None]) -> int:
    """Rows looked at; `see(what, bad)` is told which agents (or tool calls) are wrong. `recorded`: numbers of those that replay."""
    found = tables.result.tables
    agents, turns, uses = found["agents"], found["turns"], found["tool_calls"]
    order = np.argsort(agents["agent"], kind="stable")
    numbers = agents["agent"][order]
    by, of = _rows(numbers, turns["agent"]), _rows(numbers, uses["agent"])
    started, ended = agents["start"][order], agents["end"][order]
    see("LLM calls of nobody", by < 0)
    see("tool calls of nobody", of < 0)
    if (by < 0).any() or (of < 0).any():
        return len(turns) + len(uses)
    see("tool calls before its life or after it", (uses["start"] < started[of] - SLACK) | (uses["end"] > ended[of] + SLACK))
    made, used = np.bincount(by, minlength=len(numbers)), np.bincount(of, minlength=len(numbers))
    see("more or fewer LLM calls than it says", made != agents["calls"][order])
    open_ = np.isnan(ended)
    said = agents["tool_calls"][order]
    see("more or fewer tool calls than it says", np.where(open_, used > said, used != said))
    prompt, output = _tokens(tables, turns, by, len(numbers))
    cut = np.isin(agents["status"][order], [code for code, name in enumerate(agents.labels["status"]) if name in CUT])
    replays = np.isin(numbers, recorded)
    for name, total in (("prompt", prompt), ("output", output)):
        mine = agents[f"{name}_tokens"][order]
        see(f"{name} tokens that are not those of its calls", ~replays & np.where(cut, mine > total, mine != total))
    return len(turns) + len(uses) + _held(found, see)


def _rows(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each number stands among those, which are in order; -1: nowhere."""
    at = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    return np.where(numbers[at] == wanted, at, -1)


def _tokens(tables: Tables, turns: Table, by: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of prompts and of answers by agent; `by` is whose each row of `turns` is."""
    whose = np.full(tables.meta["arrived"], -1, dtype="i8")
    whose[turns["request"]] = by
    prompt, output = np.zeros(count, dtype="i8"), np.zeros(count, dtype="i8")
    for page in tables.requests():
        owner = whose[page["request"]]
        mine = owner >= 0
        np.add.at(prompt, owner[mine], page["input_tokens"][mine])
        np.add.at(output, owner[mine], page["output_tokens"][mine])
    return prompt, output


def _held(found: dict[str, Table], see: Callable[[str, np.ndarray], None]) -> int:
    """A sandbox that nobody has given back belongs to a workload of which an agent, or a grader, has not ended."""
    boxes, agents, grades = found["sandboxes"], found["agents"], found["rl_grades"]
    if not len(boxes):
        return 0
    open_ = np.isnan(agents["end"])
    all_, live = ({agents.labels["workload"][code] for code in np.unique(agents["workload"][which])} for which in (slice(None), open_))
    graded = grades["workload"][grades["outcome"] == grades.label("outcome", "unfinished")]
    live |= {grades.labels["workload"][code] for code in np.unique(graded)}
    lost = [code for code, name in enumerate(boxes.labels["workload"]) if name in all_ and name not in live]
    left = np.isin(boxes["workload"], lost) & (boxes["outcome"] == boxes.label("outcome", "unfinished"))
    see("a sandbox that was never given back though all agents have ended", left)
    return len(boxes)
