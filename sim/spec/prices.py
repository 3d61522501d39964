"""Price books: what GPUs, CPUs, storage and outgoing traffic cost, by how they are bought.

A book is a YAML file of `hardware_profiles/prices`, or one's own. A scenario names it, and for each pool how its GPUs are bought:
on demand (by the second), reserved for one or three years (paid all the time, used or not; what a pool has beyond its reserved replicas
is bought on demand), or spot. What a run uses and the book does not price is asked for; nothing is taken as free.
"""
from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.spec.frozen import Spec
from sim.spec.profile import Figure, Profile

Kind = Literal["on_demand", "reserved_1y", "reserved_3y", "spot"]
KINDS: tuple[str, ...] = get_args(Kind)
OTHERS = ("vcpu_hour", "ram_gb_hour", "storage_gb_month", "egress_gb")
BELOW = ("ssd", "remote")  # tiers of keys and values that are rented by the gigabyte


class Prices(Spec):
    """How a scenario's cluster is paid. A pool's own `price_per_hour` goes before the book's."""

    book: str
    commitment: dict[str, Kind] = Field(default_factory=dict, description="how a pool's GPUs are bought; default: on_demand")
    reserved: dict[str, Annotated[int, Field(ge=1, le=100_000)]] = Field(
        default_factory=dict, description="replicas of a reserved pool that are paid all the time; default: those it begins with"
    )


class Book(NamedTuple):
    """Dollars: `gpus` by GPU and kind, per GPU-hour; `others` per vCPU-hour, GB-hour of memory, GB-month stored and GB sent out."""

    name: str
    title: str
    gpus: dict[str, dict[str, float]]
    others: dict[str, float]
    figures: dict[str, Figure]


class Terms(NamedTuple):
    """What a pool pays: dollars per GPU-hour of its `reserved` replicas (none: of all) and of those `beyond` them; where that is from."""

    kind: str
    reserved: int
    price: float | None
    beyond: float | None
    figures: tuple[tuple[str, Figure], ...] = ()


def book(name: str) -> Book:
    """A book of the catalogue, or of a file. Raises BadInput with all that is wrong."""
    own = name.endswith((".yaml", ".yml")) or "/" in name
    if own and not Path(name).is_file():
        raise BadInput([Problem("no file with a price book here", file=name)])
    if not own and name not in book_names():
        raise BadInput(f"unknown price book '{name}'; {did_you_mean(name.lower(), book_names())} (or give the path of a YAML file)")
    profile = Profile(Path(name) if own else files("hardware_profiles").joinpath("prices", name + ".yaml"))
    title = profile.text("title")
    found = profile.data.get("gpus")
    if not isinstance(found, Mapping) or not all(isinstance(prices, Mapping) for prices in found.values()):
        profile.wrong("gpus", "GPUs with their prices are wanted, such as {h100_sxm: {on_demand: {value: 3, source: ...}}}")
        found = {}
    gpus: dict[str, dict[str, float]] = {}
    for gpu, prices in found.items():
        gpus[str(gpu)] = {}
        for kind, entry in prices.items():
            if kind not in KINDS:
                profile.wrong(f"gpus.{gpu}.{kind}", f"unknown way to buy; {did_you_mean(str(kind), KINDS)}")
            else:
                gpus[str(gpu)][kind] = _price(profile, f"gpus.{gpu}.{kind}", entry)
    others = {key: _price(profile, key, profile.data[key]) for key in OTHERS if key in profile.data}
    profile.finish({"title", "gpus", *OTHERS})
    return Book(name, title, gpus, others, profile.figures)


def book_names() -> list[str]:
    """Every book of the catalogue, sorted."""
    return sorted(entry.name[:-5] for entry in files("hardware_profiles").joinpath("prices").iterdir() if entry.name.endswith(".yaml"))


def terms(prices: Prices | None, pool: Any, gpu: str, listed: float | None) -> Terms:
    """What the pool pays; `gpu` is its GPU's name and `listed` its profile's price, which holds without a book. Raises BadInput."""
    own = pool.price_per_hour
    if prices is None:
        price = own if own is not None else listed
        return Terms("own" if own is not None else "profile", 0, price, price)
    kind = prices.commitment.get(pool.name, "on_demand")
    known = book(prices.book)
    rates = dict.fromkeys(KINDS, own) if own is not None else known.gpus.get(gpu, {})
    wrong = _unpriced(prices.book, kind, pool.name, gpu, rates)
    if wrong:
        raise BadInput([wrong])
    reserved = kind.startswith("reserved")
    used = (kind, "on_demand") if reserved else (kind,)
    figures = tuple((f"price_per_hour.{one}", known.figures[f"gpus.{gpu}.{one}"]) for one in used) if own is None else ()
    return Terms(kind, prices.reserved.get(pool.name, pool.replicas) if reserved else 0, rates[kind], rates[used[-1]], figures)


def problems(prices: Any, pools: list[dict[str, Any]]) -> list[Problem]:
    """A book that is not there, and what it lacks; both arguments as written, perhaps wrongly (the schema says so)."""
    if not isinstance(prices, Mapping) or not isinstance(prices.get("book"), str):
        return []
    try:
        known = book(prices["book"])
    except BadInput as error:
        return [Problem(str(problem), "prices.book") for problem in error.problems]
    names = [str(pool.get("name", "serve")) for pool in pools]
    bought, counts = _mapping(prices.get("commitment")), _mapping(prices.get("reserved"))
    found = [
        Problem(f"no pool has this name; {did_you_mean(str(name), names)}", f"prices.{key}.{name}")
        for key, said in (("commitment", bought), ("reserved", counts)) for name in said if name not in names
    ]  # fmt: skip
    found += [
        Problem(f"only reserved GPUs are paid all the time; write commitment: {{{name}: reserved_1y}} too", f"prices.reserved.{name}")
        for name in counts if name in names and not str(bought.get(name, "")).startswith("reserved")
    ]
    for number, (name, pool) in enumerate(zip(names, pools, strict=True)):
        kind, gpu = bought.get(name, "on_demand"), Path(str(pool.get("gpu"))).name.rsplit(".", 1)[0]
        # GPUs of another pool are paid as that one's.
        asked = kind in KINDS and pool.get("price_per_hour") is None and pool.get("shares") is None
        wrong = _unpriced(known.name, kind, name, gpu, known.gpus.get(gpu, {})) if asked else None
        found += [wrong._replace(path=f"cluster.pools.{number}.gpu")] if wrong else []
        if _tiers(pool) and "storage_gb_month" not in known.others:
            message = f"pool {name} keeps KV in {' and '.join(_tiers(pool))}, and book {known.name} has no storage_gb_month"
            found.append(Problem(f"{message}; add {{value: dollars, source: ...}} to it", f"cluster.pools.{number}.engine.kv_tiers"))
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tiers(pool: Mapping[str, Any]) -> list[str]:
    engine = pool.get("engine")
    tiers = engine.get("kv_tiers") if isinstance(engine, Mapping) else None
    return [tier["kind"] for tier in tiers or () if isinstance(tier, Mapping) and tier.get("kind") in BELOW]


def _unpriced(name: str, kind: str, pool: str, gpu: str, rates: Mapping[str, Any]) -> Problem | None:
    """The problem with a pool's price, if there is one: reserved pools need one on demand too, for what they have beyond."""
    lacking = [one for one in dict.fromkeys((kind, "on_demand" if kind.startswith("reserved") else kind)) if one not in rates]
    if not lacking:
        return None
    has = f"it has {', '.join(rates)}" if rates else "it has no price of this GPU at all"
    message = f"price book {name} has no {' or '.join(lacking)} price of {gpu}, which pool {pool} uses; {has}"
    return Problem(f"{message}. Add it to a book of your own, or give the pool a price_per_hour in dollars per GPU", "prices")


def _price(profile: Profile, key: str, entry: Any) -> float:
    if not isinstance(entry, Mapping) or set(entry) != {"value", "source"}:
        profile.wrong(key, "a figure {value: dollars, source: ...} is wanted")
        return 1.0
    return profile.number(entry["value"], key, "number0", entry["source"])
