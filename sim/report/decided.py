"""The page of whatever study of plans, capacities and frontiers a folder holds."""
from __future__ import annotations

from pathlib import Path

from sim.report import capacity, pareto, plan
from sim.study import capacity as capacities
from sim.study import pareto as frontiers
from sim.study import plan as plans


def again(folder: Path) -> str:
    """The page, made anew of what was saved. Raises BadInput when the folder is of another version, or damaged."""
    if (folder / plans.SAVED).is_file():
        return plan.render(plans.read(folder))
    if (folder / capacities.SAVED).is_file():
        return capacity.render(capacities.read(folder))
    return pareto.render(frontiers.read(folder))
