"""Statistics of published traces, one YAML file each, so that realistic traffic needs no download.

A file holds quantiles of input and output lengths, their rank correlation, the mean rate and the variation of the gaps where the source has
arrivals of a whole service, and where it all comes from. `python -m workloads.presets.fit FOLDER` derives them again.
"""
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from sim.core.errors import BadInput, Problem, did_you_mean

FOLDER = Path(__file__).parent


class Figures(NamedTuple):
    """`arrivals` may hold `rate` (requests per second) and `cv`; quantiles are pairs [q, tokens]; `source` is for people."""

    input: list[tuple[float, float]]
    output: list[tuple[float, float]]
    correlation: float
    arrivals: dict[str, float]
    source: dict[str, Any]


def names() -> list[str]:
    """Every preset, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def unknown(name: str) -> str:
    """What to say of a name that is no preset; empty when it is one."""
    return "" if name in names() else f"unknown preset '{name}'; {did_you_mean(name, names())}"


@functools.cache
def load(name: str) -> Figures:
    """The figures of a preset. Raises BadInput naming the nearest presets."""
    import yaml

    if unknown(name):
        raise BadInput([Problem(unknown(name), "preset")])
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    input, output = ([(q, tokens) for q, tokens in content[side]] for side in ("input", "output"))
    return Figures(input, output, content["correlation"], content["arrivals"], content["source"])
