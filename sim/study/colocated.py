"""GPUs that a trainer shares with the engines of a pool: what they did in all their time, and whether ever both had them (I8).

A GPU generates, idles with its engine awake, stands still while others of its pool finish a step, or is the trainer's: then it does what
`train_states` says, `onload` and `offload` being the switch from one to the other. These GPU-seconds sum to the GPUs times the run, but for
the nanoseconds in which a pool learns that all its engines stand still.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.study.facts import Tables
from sim.study.states import pauses, replica_states
from sim.study.training import awake, states

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SLACK = 1e-8  # what a pool learns comes up to a few nanoseconds after it (`sim.world.control`)
SWITCH = ("onload", "offload")


def shared_gpus(facts: Facts) -> dict[str, dict[str, float]] | None:
    """{trainer: GPU-seconds of the run by what the GPUs did}; None where no trainer shares any."""
    found = {one["name"]: _spent(facts, one) for one in facts.meta.get("trainers", []) if one.get("shares")}
    return found or None


def _spent(facts: Facts, one: dict[str, Any]) -> dict[str, float]:
    of_pools = replica_states(facts)
    if of_pools is None:
        number = list(facts.pools).index(one["shares"])
        busy = float(facts.work.draw.seconds[number].sum())
        engines = {"busy": busy, "idle": one["gpus"] * facts.end - busy}
    else:
        engines = of_pools[one["shares"]]
    found = {"generating": engines["busy"], "idle": engines["idle"]}
    found["paused"] = sum(seconds for state, seconds in engines.items() if state not in ("busy", "idle", "sleep"))
    found["switch"] = 0.0
    for state, seconds in states(facts, one["name"]).items():
        if state != "asleep":
            name = "switch" if state in SWITCH else f"trainer_{state}" if state == "wait" else state
            found[name] = found.get(name, 0.0) + seconds * one["gpus"]
    return found


def handed(tables: Tables) -> tuple[int, list[str]]:
    """Stretches and spans looked at, and what is wrong: a step of an engine while the trainer has its GPU, a replica that is asleep at
    other times than the trainer is awake, GPUs that are not the trainer's.
    """
    checked, faults = 0, []
    for one in tables.meta.get("trainers", []):
        if not one.get("shares"):
            continue
        mine = np.array([name == one["shares"] for name in tables.pool_of_replica], dtype=bool)
        start, end = awake(tables, one["name"])
        both = 0
        for page in tables.stretches():
            here = mine[page["replica"]]
            begin, until = page["start"][here], page.end[here]
            checked += len(begin)
            # Spans that begin before a stretch ends, less those that end before it begins.
            both += int((np.searchsorted(start, until - SLACK) > np.searchsorted(end, begin + SLACK)).sum())
        if both:
            faults.append(f"{one['name']}: {both} stretches of pool {one['shares']} while the trainer has its GPUs")
        checked += len(start)
        faults += [f"{one['name']}: {what}" for what in _slept(tables, np.flatnonzero(mine), (start, end))]
        lives = float((tables.gpus * (tables.replicas["end"] - tables.replicas["start"]))[mine].sum())
        if abs(lives - one["gpus"] * tables.end) > 1e-9 * lives + SLACK:
            faults.append(f"{one['name']}: the GPU-seconds of pool {one['shares']} are not those of its {one['gpus']} GPUs")
    return checked, faults


def _slept(tables: Tables, replicas: np.ndarray, had: tuple[np.ndarray, np.ndarray]) -> list[str]:
    """Replicas that sleep at other times than the trainer has the GPUs."""
    found, wrong = pauses(tables), 0
    code = tables.result.tables["pauses"].labels["why"].index("sleep")
    for replica in replicas.tolist():
        spans: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))
        if found is not None:
            asleep = np.flatnonzero((found.replica == replica) & (found.why == code))
            asleep = asleep[np.argsort(found.start[asleep])]
            spans = found.start[asleep], found.end[asleep]
        # A span that is cut off as it begins is a row of one of both tables only.
        lasting = [np.array(times)[:, (times[1] - times[0]) > SLACK] for times in (spans, had)]
        wrong += not (lasting[0].shape == lasting[1].shape and np.allclose(*lasting, rtol=0.0, atol=SLACK))
    return [f"{wrong} replicas are not asleep just while the trainer is awake"] if wrong else []
