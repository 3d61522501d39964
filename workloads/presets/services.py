"""The clients of published services, one YAML file each in services/, so that realistic mixtures need no download.

A file holds, for each client by falling rate: its share, the cv of its gaps and their law, the hours of its day (or of the part of a day
that was published), the slow swings left over, and quantiles of its lengths. `python -m workloads.presets.fit_services FOLDER` derives
them again.
"""
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from sim.core.errors import did_you_mean
from workloads._clients import Member, Sizes
from workloads._days import Noise

FOLDER = Path(__file__).parent / "services"


def names() -> list[str]:
    """Every service, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def unknown(name: str) -> str:
    """What to say of a name that is no service; empty when it is one."""
    return "" if name in names() else f"unknown service '{name}'; {did_you_mean(name, names())}"


def rate(name: str) -> float:
    """Mean requests per second of the service as it was measured."""
    return float(_content(name)["rate"])


def load(name: str) -> tuple[list[Member], Sizes]:
    """The clients of a service, and their lengths; those whose lengths were not published have those of all the others."""
    content = _content(name)
    curves = content["curves"]
    members = [
        Member(
            share=row["share"], cv=row["cv"], gaps_law=row["gaps"], hours=curves[row["curve"]],
            noise=Noise(sigma=row["sigma"], memory=row["memory"]) if row["sigma"] else None,
        )
        for row in content["clients"]
    ]  # fmt: skip
    every = content["lengths"]["all"]
    sides = (np.log([content["lengths"].get(row["lengths"], every)[side] for row in content["clients"]]) for side in ("input", "output"))
    return members, Sizes(*sides)


@functools.cache
def _content(name: str) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content: dict[str, Any] = yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), loader)
    return content
