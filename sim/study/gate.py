"""What a gate held back: calls of programs that were paused, and of new ones that there was no room for, and for how long."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def gate(facts: Facts) -> dict[str, Any] | None:
    """Calls held and seconds they were; of them those of programs that had been let in before. None where there is no gate.

    A call that is still held when the run ends counts up to then. `paused_s` are seconds in which programs that had been paused waited
    with a call to make, `new_held_s` those of programs that were never let in; where several calls of one wait at a time, each counts.
    """
    if facts.result.scenario.cluster.gate is None:
        return None
    table = facts.result.tables["gate"]
    start, end, paused = (table[name] for name in ("start", "end", "paused"))
    seconds = np.where(np.isnan(end), facts.end, end) - start
    again = ~np.isnan(paused)
    return {
        "calls_held": len(table), "calls_of_paused_programs": int(again.sum()), "still_held": int(np.isnan(end).sum()),
        "held_s": distribution(seconds), "paused_s": float(seconds[again].sum()), "new_held_s": float(seconds[~again].sum()),
    }  # fmt: skip
