"""Tokens generated in vain, by reason, and prompts computed more than once. Of the whole run: nobody notes when a token became waste.

What was generated is either waste by the books, or belongs to groups that were trained or still may be. Of what was trained, two parts
were in vain too: samples that are masked, and groups with rewards that do not differ, which teach nothing (`no_advantage`; a filter would
have rejected them). Shares are of all tokens generated.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.study.metric import ratio
from sim.study.rl.engines import Engines
from sim.study.rl.run import Run
from sim.study.states import pauses


def generated(run: Run) -> int:
    """Tokens generated over the whole run, by the books of groups."""
    gone = np.isin(run.groups["state"], [run.groups.code("state", name) for name in ("rejected", "stale_dropped")])
    return int(run.rows("rl_waste")["tokens"].sum()) + int(run.groups["tokens"][~gone].sum())


def waste(run: Run, engines: Engines) -> dict[str, Any]:
    """`tokens` by reason and their `share`; `recomputed_tokens` of prompts, per token of prompts computed for the first time (`multiple`:
    1 where nothing is computed twice); `forgotten_tokens`: of caches that updates threw away.
    """
    books, reasons = run.rows("rl_waste"), {}
    sums = np.bincount(books["reason"], books["tokens"], len(books.labels["reason"])) if len(books) else np.zeros(0)
    for reason, tokens in zip(books.labels["reason"], sums.tolist(), strict=False):
        if tokens:
            reasons[reason] = int(tokens)
    tokens = run.samples["tokens"]
    groups = run.groups["group"][run.groups["state"] == run.groups.code("state", "trained")]
    trained = np.isin(run.samples["group"], groups) & (run.samples["kept"] == 1)
    masked = trained & (run.samples["masked"] == 1)
    level = trained & ~masked & ~run.differs
    for reason, rows in (("masked", masked), ("no_advantage", level)):
        if rows.any():
            reasons[reason] = reasons.get(reason, 0) + int(tokens[rows].sum())
    whole, lost = generated(run), sum(reasons.values())
    first = max(engines.prefilled - engines.recomputed, 0)
    return {
        "tokens": reasons, "total": lost, "generated": whole, "share": ratio(lost, whole),
        "by_share": {reason: ratio(tokens, whole) for reason, tokens in reasons.items()},
        "recomputed_tokens": engines.recomputed, "multiple": ratio(engines.prefilled, first),
        "forgotten_tokens": _forgotten(engines),
    }  # fmt: skip


def _forgotten(engines: Engines) -> int:
    """Tokens whose keys and values were thrown away when weights changed, to be computed again."""
    if pauses(engines.facts) is None:
        return 0
    table = engines.facts.result.tables["pauses"]
    return int(table["forgotten"][engines.mine[table["replica"]]].sum())
