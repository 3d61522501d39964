"""What stands where and how it is connected: hosts, fabric, stores and regions. `sim.physics.topology` makes a graph of it.

A fabric is the name of a preset, a preset with changes (`{preset: superpod_rails, oversubscription: 2}`) or written out. Presets are YAML
files of `hardware_profiles/fabrics`, each figure with its source. Every region has a fabric of the same kind. Bytes/s one way, seconds.
"""
from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from sim.core.errors import BadInput, did_you_mean
from sim.core.units import Seconds, Speed
from sim.spec.frozen import Spec
from sim.spec.hardware import gpu, node
from sim.spec.preset import filled
from sim.spec.profile import Figure, Profile
from sim.spec.regions import Way

Count = Annotated[int, Field(ge=1, le=100_000)]
Latency = Annotated[Seconds, Field(ge=0, le=60)]
KINDS = ("leaf_spine", "rails", "flat")
FIGURES = {"hosts_per_leaf": "count0", "oversubscription": "number", "nic_latency": "duration0", "switch_latency": "duration0"}


class Preset(NamedTuple):
    """A fabric of the catalogue. `values` are its keys as `Fabric` takes them, `figures` their provenance."""

    name: str
    title: str
    values: dict[str, Any]
    figures: dict[str, Figure]


@cache
def preset(name: str) -> Preset:
    """A fabric of the catalogue. Raises BadInput with the nearest names, or with all that is wrong in its file."""
    if name not in preset_names():
        raise BadInput(f"found '{name}'; the name of a fabric is wanted; {did_you_mean(name, preset_names())}")
    profile = Profile(files("hardware_profiles").joinpath("fabrics", name + ".yaml"))
    title, kind = profile.text("title"), profile.text("kind", KINDS)
    values: dict[str, Any] = {key: profile.figure(key, what) for key, what in FIGURES.items() if key in profile.data}
    profile.finish({"title", "kind", *FIGURES})
    if "hosts_per_leaf" in values:
        values["hosts_per_leaf"] = int(values["hosts_per_leaf"])
    return Preset(name, title, {"kind": kind, **values}, profile.figures)


def preset_names() -> list[str]:
    """Every fabric of the catalogue, sorted."""
    return sorted(entry.name[:-5] for entry in files("hardware_profiles").joinpath("fabrics").iterdir() if entry.name.endswith(".yaml"))


class Fabric(Spec):
    """The switches between the network cards of a region's hosts.

    leaf_spine: all cards of `hosts_per_leaf` hosts at one leaf switch. rails: card i of the `hosts_per_leaf` hosts of a pod at leaf i of
    that pod. Above both a spine that blocks nothing. flat: one switch for all. `oversubscription`: what the hosts below a leaf can send
    over what its links to the spine carry. Latencies are those of one card and of one switch.
    """

    preset: str | None = Field(None, description="of the catalogue; other keys given change it")
    kind: Literal["leaf_spine", "rails", "flat"]
    hosts_per_leaf: Count | None = Field(None, description="of rails: hosts in a pod; flat has none")
    oversubscription: Annotated[float, Field(ge=1, le=1000)] = 1.0
    # About what ping-pong tests of RDMA show in all (2 us and a little more), split over two cards and one switch: a judgement.
    nic_latency: Latency = Field(0.9e-6, description="of one network card, at either end of a way")
    switch_latency: Latency = Field(0.5e-6, description="of each switch on a way")

    @model_validator(mode="before")
    @classmethod
    def _of_the_catalogue(cls, value: Any) -> Any:
        return filled(value, preset)

    @model_validator(mode="after")
    def _used(self) -> Fabric:
        if self.kind == "flat" and (self.hosts_per_leaf is not None or self.oversubscription != 1.0):
            raise ValueError("kind flat is one switch: it has no use for hosts_per_leaf and oversubscription")
        if self.kind != "flat" and self.hosts_per_leaf is None:
            raise ValueError(f"hosts_per_leaf is missing; kind {self.kind} needs it")
        return self


class Hosts(Spec):
    """Hosts that are alike. They fill leaf switches, and racks that are one NVLink domain, in the order they are written; those of another
    node begin a new leaf.
    """

    name: str = Field("", description="in messages and drawings; default: the GPU's name")
    gpu: str
    node: str | None = Field(None, description="node of the catalogue; default: the GPU's usual one")
    count: Count = 1
    region: str = ""


class StoreSpec(Spec):
    """A store at the core of its region's network: of objects (weights, checkpoints) or a registry of images."""

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["storage", "registry"] = "storage"
    bandwidth: Speed = Field(description="all it can send, or take, at once")
    latency: Latency = Field(0.0, description="before the first byte")
    region: str = ""


class Wan(Way):
    """The way between two regions, alike in both directions. Without `bandwidth` only requests go over it."""

    bandwidth: Speed | None = None


class Network(Spec):
    """Hosts and what connects them. `placement` is the kind of placer that puts replicas on GPUs."""

    fabric: Fabric
    hosts: tuple[Hosts, ...] = Field(min_length=1)
    stores: tuple[StoreSpec, ...] = ()
    wan: tuple[Wan, ...] = ()
    placement: dict[str, Any] = Field(default_factory=lambda: {"kind": "topology"})

    @property
    def regions(self) -> tuple[str, ...]:
        """Every region that has hosts or a store, in the order they are written."""
        return tuple(dict.fromkeys([*(group.region for group in self.hosts), *(store.region for store in self.stores)]))

    def figures(self) -> dict[str, Figure]:
        """The catalogue's figures that the graph is made of, by dotted name; of a preset those that the scenario has not changed.

        Raises BadInput for a GPU or a node that is not there.
        """
        known = preset(self.fabric.preset).figures if self.fabric.preset else {}
        found = {f"fabric.{key}": figure for key, figure in known.items() if vars(self.fabric)[key] == figure.value}
        for group in self.hosts:
            chip = gpu(group.gpu)
            host = node(group.node or chip.node)
            found |= {f"{chip.name}.{key}": chip.figures[key] for key in ("nvlink", "pcie")}
            speeds = ("nics", "nic_bandwidth", "memory_bandwidth")
            found |= {f"{host.name}.{key}": host.figures[key] for key in speeds if key in host.figures}
        return found

    def store(self, name: str) -> StoreSpec:
        """The store of that name. Raises BadInput with the nearest names."""
        for store in self.stores:
            if store.name == name:
                return store
        known = [store.name for store in self.stores]
        raise BadInput(f"no store '{name}'; {did_you_mean(name, known) if known else 'cluster.network.stores has none'}")
