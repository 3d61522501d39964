"""What trainers did: how much of their GPUs' arithmetic went into the model, where their time went, what a billion tokens cost.

MFU is the FLOP of the model over peak FLOP/s times time (Chowdhery et al. 2022), nothing that is recomputed among them. Two conventions are
in use and both are given: attention counted causally, and as if every token saw every other (`mfu_full_attention`, by which long samples
look better). `mfu` is of the time in updates, `mfu_of_time` of all of it. Trainers stand from the begin of the run to its end and are paid,
and draw power, for that time: in passes by the FLOP computed (`sim.physics.power`; what memory draws beside is left out), else idle.

GPUs that a trainer shares with a pool are that pool's in all books. The trainer's are the part of its money for the time the trainer had
them, and what it draws above their idle power.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.physics.power import IDLE_HOST, Activity, watts
from sim.spec.power import Power
from sim.study.facts import Bins, Tables
from sim.study.metric import ratio
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts

PARTS = ("forward", "backward", "recompute", "network", "launch", "imbalance", "bubble", "gradients", "optimizer", "offload",
         "overhead")  # fmt: skip
PASSES = ("update", "logprob", "reference")
SLACK = 1e-9
HOUR = 3600.0


def training(facts: Facts) -> dict[str, dict[str, Any]] | None:
    """{trainer: figures}; None without trainers."""
    found = {one["name"]: _figures(facts, one) for one in facts.meta.get("trainers", [])}
    return found or None


def _figures(facts: Facts, one: dict[str, Any]) -> dict[str, Any]:
    rows, spent = _rows(facts, one["name"]), states(facts, one["name"])
    took = rows["end"] - rows["start"]
    by_step = np.bincount(rows["step"], took)
    updating, peak, gpus = float(took.sum()), one["peak_flops"], one["gpus"]
    tokens = float(rows["tokens"].sum())
    parts = {part: float(rows[part].sum()) for part in PARTS}
    usd, kwh = trainer_usd(facts, one), _kwh(facts, one)
    return {
        "steps": len(by_step), "samples": int(rows["samples"].sum()), "tokens": int(tokens),
        "step_s": distribution(by_step),
        "mfu": ratio(float(rows["flops"].sum()), peak * updating),
        "mfu_full_attention": ratio(float(rows["flops_full"].sum()), peak * updating),
        "hfu": ratio(float(rows["computed"].sum()), peak * updating),
        "mfu_of_time": ratio(float(rows["flops"].sum()), peak * facts.end),
        "tokens_per_s_per_gpu": ratio(tokens, updating * gpus),
        "tokens_per_s_per_gpu_of_time": ratio(tokens, facts.end * gpus),
        "breakdown": {part: ratio(seconds, updating) for part, seconds in parts.items()} if updating else None,
        "state_share": {state: ratio(seconds, facts.end) for state, seconds in spent.items()},
        "gpu_hours": gpus * _had(facts, one) / HOUR,
        "usd_total": usd, "usd_per_billion_tokens": ratio(usd * 1e9, tokens),
        "kwh": kwh, "kwh_per_billion_tokens": ratio(kwh * 1e9, tokens),
    }  # fmt: skip


def states(tables: Tables, name: str) -> dict[str, float]:
    """Seconds that a trainer was in each state, those it was never in left out."""
    table = tables.result.tables["train_states"]
    mine = table["trainer"] == _code(table, name)
    long = (table["end"] - table["start"])[mine]
    spent = np.bincount(table["state"][mine], long, len(table.labels["state"]))
    return {state: float(seconds) for state, seconds in zip(table.labels["state"], spent, strict=True) if seconds}


def awake(tables: Tables, name: str) -> tuple[np.ndarray, np.ndarray]:
    """From when to when, in order, a trainer had its GPUs; seconds."""
    table = tables.result.tables["train_states"]
    mine = (table["trainer"] == _code(table, name)) & (table["state"] != table.labels["state"].index("asleep"))
    start, end = table["start"][mine], table["end"][mine]
    apart = start[1:] > end[:-1] + SLACK
    return start[np.append(True, apart)[:len(start)]], end[np.append(apart, True)[:len(end)]]


def lent(tables: Tables) -> np.ndarray:
    """Seconds of the span in which a trainer had the GPUs of each replica, whose engine slept."""
    had = {one["shares"]: _had(tables, one, tables.begin) for one in tables.meta.get("trainers", []) if one.get("shares")}
    return np.array([had.get(name, 0.0) for name in tables.pool_of_replica])


def _had(tables: Tables, one: dict[str, Any], since: float = 0.0) -> float:
    """Seconds in which a trainer had its GPUs: one that shares them is asleep in the others."""
    if not one.get("shares"):
        return tables.end
    start, end = awake(tables, one["name"])
    return float((np.maximum(end, since) - np.maximum(start, since)).sum())


def trainer_usd(tables: Tables, one: dict[str, Any]) -> float:
    """Dollars for the GPUs of a trainer, NaN where it has no price; of one that shares them a part of its pool's."""
    price = np.nan if one["price_per_hour"] is None else one["price_per_hour"]
    return float(price * one["gpus"] * _had(tables, one, tables.begin if one.get("shares") else 0.0) / HOUR)


def trainers_usd(tables: Tables, shares: str | None = None) -> float:
    """Dollars for the GPUs of all trainers that have their own, or of the one that `shares` those of a pool."""
    return sum(trainer_usd(tables, one) for one in tables.meta.get("trainers", []) if one.get("shares") == shares)


def trainers_usd_per_hour(tables: Tables) -> float:
    """Dollars per hour for those that are trainers' own."""
    own = [one for one in tables.meta.get("trainers", []) if not one.get("shares")]
    return sum(np.nan if one["price_per_hour"] is None else one["price_per_hour"] * one["gpus"] for one in own)


def passes(tables: Tables, pool: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """GPUs, and begins and ends (s) of passes, of trainers that share the GPUs of a pool."""
    for one in tables.meta.get("trainers", []):
        if one.get("shares") == pool:
            yield one["gpus"], *_passes(tables, one["name"])


def _passes(tables: Tables, name: str) -> tuple[np.ndarray, np.ndarray]:
    table = tables.result.tables["train_states"]
    codes = [code for code, state in enumerate(table.labels["state"]) if state in PASSES]
    mine = (table["trainer"] == _code(table, name)) & np.isin(table["state"], codes)
    return table["start"][mine], table["end"][mine]


def passing(tables: Tables, pool: str) -> float:
    """GPU-seconds of a pool in passes of the trainer that shares its GPUs."""
    sharing = [one for one in tables.meta.get("trainers", []) if one.get("shares") == pool]
    return sum(one["gpus"] * _passing(tables, one) for one in sharing)


def _passing(tables: Tables, one: dict[str, Any]) -> float:
    return sum(seconds for state, seconds in states(tables, one["name"]).items() if state in PASSES)


def joules(tables: Tables, one: dict[str, Any]) -> tuple[float, float]:
    """Joules of the GPUs of a trainer, and of their share of the hosts; of GPUs that it shares, what it adds to those at rest."""
    rows = _rows(tables, one["name"])
    updating = float((rows["end"] - rows["start"]).sum())
    used = float(rows["computed"].sum()) / (one["peak_flops"] * updating) if updating else 0.0
    at_work = _passing(tables, one)
    above = float(watts(one["idle_watts"], one["tdp"], Activity(min(used, 1.0), 0.0))) - one["idle_watts"]
    gpus, there = one["gpus"], 0.0 if one.get("shares") else tables.end
    chips, hosts = above * at_work + one["idle_watts"] * there, (1.0 - IDLE_HOST) * at_work + IDLE_HOST * there
    return gpus * chips, gpus * one["host_watts"] * hosts


def site_joules_by_hour(tables: Tables, one: dict[str, Any]) -> np.ndarray:
    """Joules of a trainer at the site, PUE included, by hour of the run's clock."""
    chips, hosts = joules(tables, one)
    edges = HOUR * np.arange(max(int(np.ceil(tables.end / HOUR)), 1) + 1)
    at_work = HOUR * Bins(edges).add(*_passes(tables, one["name"])).means()
    there = np.clip(tables.end - edges[:-1], 0.0, HOUR)
    idle = 0.0 if one.get("shares") else one["gpus"] * (one["idle_watts"] + IDLE_HOST * one["host_watts"])
    above = (chips + hosts - idle * tables.end) / max(float(at_work.sum()), 1e-300)
    found: np.ndarray = (tables.result.scenario.power or Power()).pue * (idle * there + above * at_work)
    return found


def trainers_kwh(tables: Tables, hosts: bool) -> float:
    """Kilowatt-hours of the GPUs of all trainers, or of GPUs and hosts."""
    both = [joules(tables, one) for one in tables.meta.get("trainers", [])]
    return sum(chips + host * hosts for chips, host in both) / 3.6e6


def _kwh(facts: Facts, one: dict[str, Any]) -> float:
    """Kilowatt-hours of a trainer at the site: GPUs and hosts, times the PUE."""
    return sum(joules(facts, one)) / 3.6e6 * (facts.result.scenario.power or Power()).pue


def spans(tables: Tables) -> tuple[int, list[str]]:
    """Rows looked at, and what is wrong: the states of a trainer follow each other from the begin of the run to its end, so that its
    GPU-seconds by state are its GPUs times that time; the parts of an update are its seconds, and updates do not overlap (I8).
    """
    faults: list[str] = []
    checked = 0
    for one in tables.meta.get("trainers", []):
        name = one["name"]
        table = tables.result.tables["train_states"]
        mine = table["trainer"] == _code(table, name)
        start, end = table["start"][mine], table["end"][mine]
        checked += len(start)
        slack = SLACK * max(1.0, tables.end)
        tiles = np.concatenate([[0.0], end]), np.concatenate([start, [tables.end]])
        if np.abs(tiles[1] - tiles[0]).max() > slack:
            faults.append(f"{name}: its states leave gaps, overlap, or do not end with the run")
        rows = _rows(tables, name)
        checked += len(rows["start"])
        took = rows["end"] - rows["start"]
        if len(took) and np.abs(sum(rows[part] for part in PARTS) - took).max() > 1e-6 * max(1.0, float(took.max())):
            faults.append(f"{name}: the parts of an update are not its seconds")
        if np.any(rows["start"][1:] < rows["end"][:-1] - slack):
            faults.append(f"{name}: an update begins before the one before it ended")
        if np.any(rows["flops"] > one["peak_flops"] * took * (1 + 1e-9)):
            faults.append(f"{name}: an update is faster than the peak of its GPUs")
    return checked, faults


def _rows(tables: Tables, name: str) -> dict[str, np.ndarray]:
    table = tables.result.tables["train_steps"]
    mine = table["trainer"] == _code(table, name)
    return {column.name: table[column.name][mine] for column in table.columns}


def _code(table: Any, name: str) -> int:
    """The code of a trainer, -1 where it has no rows."""
    return table.labels["trainer"].index(name) if name in table.labels["trainer"] else -1
