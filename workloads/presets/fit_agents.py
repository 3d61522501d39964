"""Derive presets of agents from recordings of agents: `python -m workloads.presets.fit_agents FOLDER` rewrites YAML files in agents/.

A law is the quantiles of what was recorded, its last point lowered where that keeps the mean. Each function below says what of the
recording became what; what no recording says is a judgement, and named so in the file's `source`, as is every figure of a publication.
"""
from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from workloads.presets.fit_programs import mini_swe_agent, searchers
from workloads.programs.presets import FOLDER

GRID = (0, 0.01, *(q / 20 for q in range(1, 19)), 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1)
# Sessions of Claude Code: longest context of the window of 200,000, shortest first prompt of a conversation that goes on, most turns of
# those that have few.
WINDOW, RESUMED, MANY = 180_000, 40_000, 8
KINDS = ("main", "main_many", "resumed", "long", "long_many", "long_resumed")
COMPACTION = {"compact_at": 0.8, "summary": 4000}
# Tools of SWE tasks that are told apart; the others (9 of 6,473 calls) are left out.
TOOLS = ("Bash", "Read", "Edit", "TodoWrite", "Grep", "Glob", "Write")
# Tokens of a block in Mooncake's recording, and the seconds within which the next message of a conversation is looked for.
BLOCK, SOON = 512, 1200


def law(values: Any, digits: int = 0) -> dict[str, Any]:
    """Quantiles on the grid, as far as the values are many enough to tell them."""
    found = np.clip(np.asarray(values, dtype=float), 0, None)
    shares = [q for q in GRID if q in (0, 1) or min(q, 1 - q) * len(found) >= 1]
    points = [[q, float(height)] for q, height in zip(shares, np.quantile(found, shares), strict=True)]
    points = _thinned(points)
    low, high = points[-2][1], points[-1][1]
    # The mean rises with the last point: halving finds where it is right, or ends at the largest value.
    for _ in range(60):
        points[-1][1] = (low + high) / 2
        low, high = (points[-1][1], high) if mean(points) < found.mean() else (low, points[-1][1])
    return {"points": [[q, round(height, digits) if digits else round(height)] for q, height in points]}


def mean(points: list[list[float]]) -> float:
    """The mean of what `sim.spec.law.Law` draws from quantiles: between two points the logarithm is linear, or the value, if one is 0."""
    parts = [(right - left) * ((high - low) / np.log(high / low) if 0 < low < high else (low + high) / 2)
             for (left, low), (right, high) in pairwise(points)]  # fmt: skip
    return float(sum(parts))


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """Without points that say within 1 %, or a token, what those beside them say."""
    kept = [points[0]]
    for point, after in pairwise(points[1:]):
        (left, low), (right, high) = kept[-1], after
        part = (point[0] - left) / (right - left)
        said = low * (high / low) ** part if low > 0 else low + part * (high - low)
        if abs(said - point[1]) > 0.01 * point[1] and (abs(said - point[1]) > 1 or points[-1][1] < 1000):
            kept.append(point)
    return [*kept, points[-1]]


def coding_assistant(folder: Path) -> dict[str, Any]:
    """Sessions of Claude Code.

    A turn ends where the model stopped with `end_turn`. Contexts and numbers of calls go together, so kinds of sessions are told apart: by
    the window, by whether they begin anew or go on from a conversation (`resumed`), and by many turns. A prompt that has less than 90 % of
    the one before in common with it was compacted, where it is below 60 % of its length, else edited.
    """
    every, about = (pd.read_parquet(folder / f"cc_weka_{what}_A.parquet") for what in ("requests", "agents"))
    rows = every[every.agent_id == "main"].sort_values(["session_id", "turn"]).reset_index(drop=True)
    by = rows.groupby("session_id")
    before = by.input_tokens.shift()
    broken = rows.input_tokens - rows.new_tokens < 0.9 * before
    pressed = broken & (rows.input_tokens < 0.6 * before)
    user = by.stop.shift() == "end_turn"
    grown = (rows.input_tokens - before - by.output_tokens.shift())[~broken & before.notna()]
    turn = user.groupby(rows.session_id).cumsum()
    turns = turn.groupby(rows.session_id).max() + 1
    sessions = pd.DataFrame({"first": by.input_tokens.first(), "longest": by.input_tokens.max(), "turns": turns})
    kind = sessions.apply(_kind_of, axis=1)
    mine = rows.session_id.map(kind)
    calls = rows.groupby([mine, rows.session_id, turn]).size()
    tools, prompts = (about[about.agent_id == "main"][part] for part in ("tool_tokens", "system_tokens"))
    system = int((tools + prompts).median())
    subs = every[every.agent_id != "main"].sort_values(["session_id", "agent_id", "turn"])
    own = subs.groupby(["session_id", "agent_id"])
    last = own.cumcount(ascending=False) == 0
    below = int(about[about.agent_id != "main"].eval("tool_tokens + system_tokens").median())
    stopped = rows.stop == "end_turn"
    context = {"max": 200_000, **COMPACTION, "kept": law((rows.input_tokens - system - COMPACTION["summary"])[pressed])}
    edits = (broken & ~pressed).groupby(mine).sum() / user.groupby(mine).sum()
    common = {
        "system": system, "message": law(grown[user]), "output": law(rows.output_tokens[~stopped]),
        "final": law(rows.output_tokens[stopped]), "tools": {"step": 1},
        "spawns": [{"agent": "explorer", "share": round(own.ngroups / (len(rows) - len(calls)), 5)}],
    }  # fmt: skip
    kinds = {}
    for name in KINDS:
        some = sessions[kind == name]
        window = {} if not name.startswith("long") else {"max": 1_000_000, "compact_at": round(float(some.longest.quantile(0.9)) / 1e6, 2)}
        kinds[name] = {
            **(common if name == "main" else {"<<": "main"}), "turns": law(some.turns), "task": law(some["first"] - system),
            "calls": law(calls[name]), "context": {**context, **window, "edits": round(float(edits[name]), 3)},
        }  # fmt: skip
    kinds["explorer"] = {
        "system": below, "task": law(own.input_tokens.first() - below), "calls": law(own.size()), "output": law(subs.output_tokens[~last]),
        "final": law(subs.output_tokens[last]), "tools": {"look": 1},
    }  # fmt: skip
    more = subs.input_tokens - own.input_tokens.shift() - own.output_tokens.shift()
    return {
        "think_time": law(rows.think_time_s[user]), "mix": {name: int((kind == name).sum()) for name in KINDS}, "agents": kinds,
        "tools": {"step": {"time": law(rows.tool_latency_s.dropna()), "observation": law(grown[~user])},
                  "look": {"time": law(subs.think_time_s[more.notna()]), "observation": law(more.dropna())}},
    }  # fmt: skip


def _kind_of(session: pd.Series) -> str:
    many = "_many" if session.turns > MANY else ""
    if session.longest > WINDOW:
        return "long_resumed" if session["first"] > WINDOW else "long" + many
    return "resumed" if session["first"] > RESUMED else "main" + many


def swe_agent(folder: Path) -> dict[str, Any]:
    """SWE-rebench tasks of a Claude-Code-like agent. Each tool has its own times, observations and share of errors.

    Characters become tokens at the rate at which prompts grew with them beyond the answers. What was thought and dropped again is off that,
    so that contexts end as recorded.
    """
    calls, used, tasks = (pd.read_parquet(folder / f"agentcgroup_{what}_glm.parquet") for what in ("requests", "tools", "tasks"))
    calls = calls[calls.input_tokens > 0].sort_values(["session_id", "turn"])
    by = calls.groupby("session_id")
    grown = calls.input_tokens - by.input_tokens.shift() - by.output_tokens.shift()
    said = used.groupby(["session_id", "step"]).result_chars.sum()
    before = pd.MultiIndex.from_arrays([calls.session_id, calls.turn - 1])
    chars = pd.Series(said.reindex(before).to_numpy(), index=calls.index)
    both = grown.notna() & chars.notna()
    rate = float(grown[both].sum() / chars[both].sum())
    first = by.input_tokens.first()
    system = int(first.min()) // 100 * 100
    ends = by.cumcount(ascending=False) == 0
    count = calls.n_tools[calls.n_tools > 0].value_counts()
    named = used[used.tool.isin(TOOLS)].groupby("tool")
    return {
        "agents": {"coder": {
            "system": system, "task": law(first - system), "calls": law(tasks.n_steps), "output": law(calls.output_tokens[~ends]),
            "final": law(calls.output_tokens[ends]), "tools": {name: int((used.tool == name).sum()) for name in TOOLS},
            "parallel_tools": {"mixture": [{"p": int(count[n]), "dist": "fixed", "value": int(n)} for n in sorted(count.index)]},
            "context": {"max": 200_000, **COMPACTION}, "sandbox": {"pool": "swe", "at": "start", "image": "own"},
        }},
        "tools": {name: {
            "sandbox": True, "time": law(rows.latency_s, 3), "observation": law(rate * rows.result_chars),
            "fail": round(float(rows.is_error.mean()), 3), **({"cores": 0.12} if name != "Bash" else {}),
        } for name, rows in named},
        "boot": law(tasks.permission_fix_time, 2),
    }  # fmt: skip


def chat(folder: Path) -> dict[str, Any]:
    """Conversations of Mooncake. A request goes on from the latest whose full blocks it begins with.

    The chance that a conversation goes on is the share of requests of the first half, with prompts long enough to tell, that another goes
    on from within 20 minutes.
    """
    rows = pd.read_parquet(folder / "mooncake_conversation_t0-2400.parquet")
    latest: dict[tuple[int, int], int] = {}
    parent = np.full(len(rows), -1)
    for number, (blocks, tokens) in enumerate(zip(rows.hash_ids, rows.input_tokens, strict=True)):
        full = min(tokens // BLOCK, len(blocks))
        found = next((latest[key] for end in range(full, 1, -1) if (key := (end, blocks[end - 1])) in latest), -1)
        if found >= 0 and tokens >= rows.input_tokens[found]:
            parent[number] = found
        if full > 1:
            latest[full, blocks[full - 1]] = number
    on = parent >= 0
    origin = rows.iloc[parent[on]].reset_index(drop=True)
    after = rows[on].reset_index(drop=True)
    gap = after.arrival_s - origin.arrival_s
    followed = np.zeros(len(rows), dtype=bool)
    followed[parent[on][gap <= SOON]] = True
    chance = followed[(rows.arrival_s < SOON) & (rows.input_tokens >= 2 * BLOCK)].mean()
    return {
        "turns": {"dist": "geometric", "mean": round(1 / (1 - float(chance)), 2)}, "think_time": law(gap),
        "agents": {"assistant": {
            "system": BLOCK, "task": law(rows.input_tokens[~on] - BLOCK),
            "message": law(after.input_tokens - origin.input_tokens - origin.output_tokens),
            "calls": {"mixture": [{"p": 0.97, "dist": "fixed", "value": 1}, {"p": 0.03, "dist": "fixed", "value": 2}]},
            "output": {"median": 60, "sigma": 0.6, "min": 1}, "final": law(rows.output_tokens), "tools": {"search": 1},
            "context": {"max": 160_000, "compact_at": 0.9, "summary": 4000},
        }},
        "tools": {"search": {"time": {"mean": 1.923, "cv": 1.109}, "observation": {"median": 900, "sigma": 0.8}, "timeout": 30}},
    }  # fmt: skip


class _Line(dict):  # type: ignore[type-arg]
    """Written in one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Line, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True))


def _lined(value: Any) -> Any:
    """What has no mapping of mappings in it goes into one line."""
    if isinstance(value, dict):
        inner = {key: _lined(one) for key, one in value.items() if one is not None}
        flat = not any(isinstance(one, dict) for one in value.values()) and ("points" in value or "<<" not in value)
        return _Line(inner) if flat and len(inner) < 6 else inner
    return [_lined(one) for one in value] if isinstance(value, list) else value


def written(content: dict[str, Any]) -> str:
    """As YAML; `<<: main` takes over what agent main says."""
    text = yaml.dump(_lined(content), Dumper=_Dumper, sort_keys=False, width=138)
    return text.replace("'<<': main\n", "<<: *main\n").replace("  main:\n", "  main: &main\n") if "<<" in text else text


def main(folder: Path) -> None:
    about = yaml.safe_load((Path(__file__).parent / "sources" / "agents.yaml").read_text(encoding="utf-8"))
    presets = {
        "chat": chat(folder), "coding_assistant": coding_assistant(folder), "swe_agent": swe_agent(folder),
        "mini_swe_agent": mini_swe_agent(folder), "deep_research": searchers(),
    }  # fmt: skip
    for name, content in presets.items():
        described = about[name]
        if "boot" in content:
            described["pool"]["boot"] = content.pop("boot")
        head = f"# {described.pop('title')}\n# Derived by `python -m workloads.presets.fit_agents`; do not edit.\n"
        source = yaml.safe_dump({"source": described}, sort_keys=False, width=138)
        (FOLDER / f"{name}.yaml").write_text(head + source + written(content), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m workloads.presets.fit_agents FOLDER, the folder that holds the recordings")
    main(Path(sys.argv[1]))
