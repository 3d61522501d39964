"""Agents of which only moments of whole programs are published: their first prompt and growth per call are solved from these.

A program of n calls, whose prompt begins with s tokens and grows by an answer o and an observation of mean b and variance v each time, has
n (s + o) + (o + b) n (n - 1) / 2 tokens on average, prompts and answers of all calls added up, with variance v (1 + 4 + ... + (n - 1)^2)
around that, and n^2 times the variance of s. With the law of n this gives a mean and a variance of the tokens of all programs, two
equations for s and b.

Figures: Continuum (arXiv:2511.02230), Table 2, mini-SWE-agent on SWE-bench and BFCL v4 web search; the slowest tenth of `cd` has 94.1 % of
its time there.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sim.spec.law import Law

SLOWEST = 0.941
STEPS = 20_000
COUNT = {"mixture": [{"p": 0.7, "dist": "fixed", "value": 3}, {"p": 0.3, "dist": "fixed", "value": 4}]}


class Program(NamedTuple):
    """Mean and standard deviation of calls, of tokens of all calls, and of seconds of a tool."""

    calls: tuple[float, float]
    tokens: tuple[float, float]
    tool: tuple[float, float]


MINI = Program((10.9, 2.1), (70_126, 19_732), (0.925, 3.55))
SEARCH = Program((6.3, 2.3), (93_256, 68_687), (1.923, 2.133))


def solve(program: Program, answer: float, cv: float, spread: float = 0.0) -> tuple[float, float]:
    """(first prompt, mean observation) in tokens, for answers of so many, observations of variation `cv`, and first prompts of standard
    deviation `spread`.
    """
    law = Law(dist="normal", mean=program.calls[0], sd=program.calls[1], min=1.0)
    n = np.array([law.whole((place + 0.5) / STEPS) for place in range(STEPS)], dtype=float)
    pairs, squares = n * (n - 1) / 2, (n - 1) * n * (2 * n - 1) / 6

    def first(seen: float) -> float:
        return float((program.tokens[0] - (answer + seen) * pairs.mean()) / n.mean() - answer)

    def deviation(seen: float) -> float:
        around = (seen * cv) ** 2 * squares.mean() + spread**2 * (n * n).mean()
        return math.sqrt(float(np.var(n * (first(seen) + answer) + (answer + seen) * pairs)) + around)

    low, high = 0.0, program.tokens[0] / float(pairs.mean()) - answer
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if deviation(middle) < program.tokens[1] else (low, middle)
    return first(low), low


def two_parts(program: Program, slowest: float) -> dict[str, Any]:
    """Seconds of a tool: nine tenths at once, one tenth with this share of the time; mean and deviation are those of the program."""
    mean, sd = program.tool
    fast, slow = (1 - slowest) * mean / 0.9, slowest * mean / 0.1
    # The deviation of the nine tenths adds next to nothing: sigma 0.8, as the guide to agents has for calls at once.
    spread = math.sqrt((sd**2 + mean**2 - 0.9 * fast**2 * math.exp(0.64)) / 0.1 / slow**2 - 1)
    return {"mixture": [{"p": 0.9, "mean": round(fast, 4), "sigma": 0.8}, {"p": 0.1, "mean": round(slow, 3), "cv": round(spread, 3)}]}


def calls(program: Program) -> dict[str, Any]:
    """The law of a program's calls, at least one."""
    return {"dist": "normal", "mean": program.calls[0], "sd": program.calls[1], "min": 1}


def mini_swe_agent(folder: Path) -> dict[str, Any]:
    """Answers as recorded (LMCache's calls of mini-SWE-agent); all else from the moments."""
    rows = pd.read_parquet(folder / "lmcache_agent_miniswe.parquet")
    answers = rows.output_tokens
    cv = round(float(answers.std() / answers.mean()), 3)
    starts = rows.input_tokens[rows.turn == 0]
    first, seen = solve(MINI, float(answers.mean()), 1.0, float(starts.std()))
    # The shortest first prompt on record is what all have in common: system prompt and instructions.
    system = int(starts.min()) // 100 * 100
    task = {"mean": round(first - system), "cv": round(float(starts.std()) / (first - system), 3)}
    return {
        "agents": {"coder": {
            "system": system, "task": task, "calls": calls(MINI),
            "output": {"mean": round(float(answers.mean()), 1), "cv": cv, "min": 1}, "tools": {"bash": 1},
            "context": {"max": 128_000}, "sandbox": {"pool": "swe", "at": "start", "image": "own"},
        }},
        "tools": {"bash": {"sandbox": True, "time": two_parts(MINI, SLOWEST), "observation": {"mean": round(seen), "cv": 1.0}}},
    }  # fmt: skip


def searchers() -> dict[str, Any]:
    """A lead and those who search for it."""
    first, seen = solve(SEARCH, 300.0, 1.0)
    task = 200
    return {
        "agents": {
            "lead": {
                "system": 4000, "task": {"median": 150, "sigma": 0.8}, "calls": 2, "output": 600, "final": {"median": 1500, "sigma": 0.4},
                "spawns": [{"agent": "searcher", "calls": [1], "count": COUNT, "join": "all", "task": task,
                            "result": {"median": 1000, "sigma": 0.4}}],
                "context": {"max": 200_000},
            },
            "searcher": {
                "system": max(0, round(first) - task), "task": task, "calls": calls(SEARCH), "output": 300,
                "tools": {"search": 1, "fetch_url": 1}, "context": {"max": 1_000_000},
            },
        },
        "tools": {name: {"time": {"mean": SEARCH.tool[0], "cv": round(SEARCH.tool[1] / SEARCH.tool[0], 4)}, "api": "web",
                         "observation": {"mean": round(seen), "cv": 1.0}} for name in ("search", "fetch_url")},
        "apis": {"web": {"concurrency": 1000}},
    }  # fmt: skip
