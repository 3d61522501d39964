"""A CPU node: what sandboxes run on. Written out, or a node of the catalogue (`hardware_profiles/cpu_nodes`, each figure with its source)
by its name, perhaps with changes: `node: general_64`, `node: {preset: general_64, disk: 4TB}`. Bytes, dollars per hour.
"""
from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from sim.core.errors import BadInput, did_you_mean
from sim.core.units import Bytes
from sim.spec.frozen import Spec
from sim.spec.preset import filled
from sim.spec.profile import Figure, Profile

FIGURES = {"cores": "number", "memory": "size", "disk": "size"}


class Preset(NamedTuple):
    """A node of the catalogue: `values` are its keys as `CpuNode` takes them, `figures` where they and its price come from."""

    name: str
    title: str
    values: dict[str, float]
    price_per_hour: float
    figures: dict[str, Figure]


@cache
def preset(name: str) -> Preset:
    """A node of the catalogue. Raises BadInput with the nearest names, or with all that is wrong in its file."""
    if name not in preset_names():
        near = did_you_mean(name, preset_names())
        raise BadInput(f"found '{name}'; the name of a CPU node is wanted, or its cores, memory and disk; {near}")
    profile = Profile(files("hardware_profiles").joinpath("cpu_nodes", name + ".yaml"))
    title, values = profile.text("title"), {key: profile.figure(key, kind) for key, kind in FIGURES.items()}
    price = profile.figure("price_per_hour", "number")
    profile.finish({"title", "price_per_hour", *FIGURES})
    return Preset(name, title, values, price, profile.figures)


def preset_names() -> list[str]:
    """Every CPU node of the catalogue, sorted."""
    return sorted(entry.name[:-5] for entry in files("hardware_profiles").joinpath("cpu_nodes").iterdir() if entry.name.endswith(".yaml"))


def large(size: float) -> float:
    """A size in bytes whose unit was not forgotten. Raises ValueError."""
    if 0 < size < 1e6:
        raise ValueError(f"found {size:g} bytes; there is more: write the unit, such as {size:g}GB")
    return size


Size = Annotated[Bytes, Field(gt=0, le=1e18), AfterValidator(large)]


class CpuNode(Spec):
    """`cores` count hardware threads, as clouds do. `disk` is for images and for what sandboxes write."""

    preset: str | None = Field(None, description="of the catalogue; other keys given change it")
    cores: Annotated[float, Field(gt=0, le=100_000)]
    memory: Size
    disk: Size

    @model_validator(mode="before")
    @classmethod
    def _of_the_catalogue(cls, value: Any) -> Any:
        return filled(value, preset)

    def figures(self) -> dict[str, Figure]:
        """The catalogue's figures that the scenario has not changed, by key."""
        known = preset(self.preset).figures if self.preset else {}
        return {key: known[key] for key in FIGURES if key in known and known[key].value == vars(self)[key]}
