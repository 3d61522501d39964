"""Electricity: what a site draws beyond its machines, and what carbon its grid emits.

A grid is the name of a file of `hardware_profiles/grids` (or the path of one's own), one number for all hours, or 24 numbers. Carbon is
location-based and average: gCO2e per kWh generated there, imports and certificates left out.
"""
from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Discriminator, Field, Tag

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.spec.frozen import Spec
from sim.spec.profile import Figure, Profile

HOURS = 24
Intensity = Annotated[float, Field(ge=0, le=2000)]


def _form(said: Any) -> str:
    return "name" if isinstance(said, str) else "hours" if isinstance(said, (list, tuple)) else "value"


Said = Annotated[
    Annotated[str, Tag("name")] | Annotated[Intensity, Tag("value")] | Annotated[tuple[Intensity, ...], Tag("hours")], Discriminator(_form)
]


class Power(Spec):
    """Of the site. The default PUE lies between hyperscalers' reports (about 1.1) and surveys of all sites (about 1.6): a judgement."""

    pue: Annotated[float, Field(ge=1, le=5)] = Field(1.2, description="watts of the site over watts of its machines")


class Embodied(Spec):
    """Carbon of making the machines, spread evenly over their life. As you know it: there is no default."""

    kg_per_gpu: Annotated[float, Field(ge=0, le=1e5)] = Field(description="kgCO2e of one GPU and its share of the host")
    years: Annotated[float, Field(gt=0, le=50)] = 4.0


class Carbon(Spec):
    """Which grid feeds which pool. Without it a run has no carbon figures."""

    grid: Said | None = Field(None, description="of all pools but those named; gCO2e per kWh, or 24 values")
    regions: dict[str, Said] = Field(default_factory=dict, description="grids of the pools of a region")
    pools: dict[str, Said] = Field(default_factory=dict, description="grids of pools elsewhere")
    start_hour: Annotated[float, Field(ge=0, lt=24)] = Field(0.0, description="time of day, UTC, at which the run begins")
    embodied: Embodied | None = None

    def of(self, pool: str, region: str) -> str | float | tuple[float, ...] | None:
        """The grid of a pool as written: its own, else that of its region, else that of all."""
        return self.pools.get(pool, self.regions.get(region, self.grid))


class Grid(NamedTuple):
    """gCO2e per kWh in each hour of the day, UTC, and how that is known."""

    name: str
    title: str
    hours: tuple[float, ...]
    figure: Figure


def grid(said: str | float | tuple[float, ...]) -> Grid:
    """The grid behind a name, a path, a number or 24 numbers. Raises BadInput with all that is wrong."""
    own = Figure(0.0, "judgement", "given in the scenario", "")
    if isinstance(said, (int, float)):
        return Grid(f"{said:g} g/kWh", "", (float(said),) * HOURS, own)
    if not isinstance(said, str):
        if len(said) != HOURS:
            raise BadInput(f"found {len(said)} values; {HOURS} are wanted, one for each hour of the day in UTC, gCO2e per kWh")
        return Grid("own hours", "", tuple(map(float, said)), own)
    return _read(said)


def grid_names() -> list[str]:
    """Every grid of the catalogue, sorted."""
    return sorted(entry.name[:-5] for entry in files("hardware_profiles").joinpath("grids").iterdir() if entry.name.endswith(".yaml"))


def _read(name: str) -> Grid:
    own = name.endswith((".yaml", ".yml")) or "/" in name
    if own and not Path(name).is_file():
        raise BadInput([Problem("no file with a grid here", file=name)])
    if not own and name not in grid_names():
        raise BadInput(f"unknown grid '{name}'; {did_you_mean(name.lower(), grid_names())} (or write gCO2e per kWh, one value or {HOURS})")
    profile = Profile(Path(name) if own else files("hardware_profiles").joinpath("grids", name + ".yaml"))
    title = profile.text("title")
    offset = profile.data.get("utc_offset")
    if not isinstance(offset, int) or not -12 <= offset <= 14:
        profile.wrong("utc_offset", f"found {offset!r}; hours from -12 to 14 are wanted: local time less UTC, standard time")
    hours = profile.data.get("hours")
    listed = hours.get("value") if isinstance(hours, Mapping) else None
    if not isinstance(listed, list) or len(listed) != HOURS:
        profile.wrong("hours", f"{{value: [{HOURS} numbers], source: ...}} is wanted: gCO2e per kWh in each hour of local time")
        listed = []
    values = [profile.number(value, f"hours.{hour}", "number0", hours["source"]) for hour, value in enumerate(listed)]  # type: ignore[index]
    profile.finish({"title", "utc_offset", "hours"})
    # Local hour h is hour h - offset of UTC.
    in_utc = tuple(values[(hour + int(offset)) % HOURS] for hour in range(HOURS))  # type: ignore[arg-type]
    return Grid(name, title, in_utc, profile.figures["hours.0"])


def problems(carbon: Any, pools: list[dict[str, Any]]) -> list[Problem]:
    """Grids that are not there, and pools without one; `carbon` and `pools` as written, perhaps wrongly (the schema says so)."""
    if not isinstance(carbon, Mapping):
        return []
    found: list[Problem] = []
    by = {key: said if isinstance(said := carbon.get(key), Mapping) else {} for key in ("pools", "regions")}
    named = {"pools": [str(pool.get("name", "serve")) for pool in pools], "regions": [str(pool.get("region", "")) for pool in pools]}
    known = {key: [name for name in names if name] for key, names in named.items()}
    each = [(f"carbon.{key}.{name}", said) for key in by for name, said in by[key].items()]
    for path, said in [("carbon.grid", carbon.get("grid")), *each]:
        try:
            if isinstance(said, (str, list, tuple)):
                grid(tuple(said) if isinstance(said, list) else said)
        except (BadInput, ValueError, TypeError) as error:
            found += [Problem(str(problem), path) for problem in error.problems] if isinstance(error, BadInput) else []
    found += [
        Problem(f"no pool has this {what}; {did_you_mean(str(name), known[key]) if known[key] else 'none has one'}", f"carbon.{key}.{name}")
        for key, what in (("pools", "name"), ("regions", "region")) for name in by[key] if name not in named[key]
    ]  # fmt: skip
    if carbon.get("grid") is None:
        found += [
            Problem(f"pool {name} has no grid, and none is taken for it; write carbon: {{grid: NAME or gCO2e per kWh}}, or carbon: "
                    f"{{pools: {{{name}: ...}}}}", "carbon")
            for name, region in zip(*named.values(), strict=True) if name not in by["pools"] and region not in by["regions"]
        ]  # fmt: skip
    return found
