"""A scenario written for rows of published runs, where their columns cannot say what ran: a file of `rl_scenarios`.

    assumed: [[what, value, source], ...]         what the paper does not say
    scenario: {...}                               as a scenario's YAML
    variants: {ID: {KEY: VALUE, ...}, ...}        of rows that share the file, by id: what differs, by dotted key as in `--set`
    skip: 1                                       versions at the begin that do not count
    speedup: step_s                               which of a run's figures speed-ups are of
"""
from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from sim.core.errors import BadInput
from sim.spec import compose


class Written(NamedTuple):
    """What a file says of one row."""

    scenario: dict[str, Any]
    assumed: tuple[tuple[str, str, str], ...]
    skip: int
    speedup: str


def written(row: Mapping[str, Any], skip: int) -> Written:
    """The file that a row names in `scenario`; `skip` where that does not say. Raises BadInput when there is none, or nothing of this row
    in it.
    """
    import yaml

    file = files("sim.study.validate").joinpath("rl_scenarios", f"{row['scenario']}.yaml")
    if not file.is_file():
        raise BadInput(f"scenario '{row['scenario']}' is none that ships with this command; leave the cell empty")
    told = yaml.safe_load(file.read_text("utf-8"))
    scenario: dict[str, Any] = {"name": row["id"], **told["scenario"]}
    variants = told.get("variants", {row["id"]: {}})
    if row["id"] not in variants:
        raise BadInput(f"scenario '{row['scenario']}' has no variant '{row['id']}'; it has {', '.join(variants)}")
    scenario = compose.change(compose.from_mapping(scenario), variants[row["id"]]).data
    return Written(scenario, tuple(tuple(one) for one in told["assumed"]), told.get("skip", skip), told.get("speedup", "step_s"))
