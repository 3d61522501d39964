"""What predictions of published runs of reinforcement learning are held to: a figure of named runs, and the band it is to lie in."""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sim.study.validate.rl_figures import Found
from sim.study.validate.rl_plan import Plan


class Band(NamedTuple):
    """`ids`: which runs (a regular expression). `near`: the largest error of each, as a fraction; or the figure within `low` to `high`."""

    name: str
    ids: str
    metric: str
    near: float = 0.0
    low: float = 0.0
    high: float = 0.0


BANDS = (
    Band("verl 7B, 128 H20, staleness 0, 0.1, 0.3: step", r"^verl_fa_7b_128_stale(0|0\.1|0\.3)$", "step_s", 0.10),
    Band("verl 7B, 128 H20, staleness 0.5: step", r"^verl_fa_7b_128_stale0\.5$", "step_s", 0.20),
    Band("verl one step off, 16 H20: step", r"^verl_onestep_", "step_s", 0.10),
    Band("AReaL 1.5B: asynchronous speed-up", r"^areal_t1_1\.5B_AReaL_async$", "speedup_vs_sync", low=2.0, high=3.0),
    Band("NeMo-RL, H100: step", r"^nemo_H100_", "step_s", 0.15),
    Band("Seer: idle share of engines", r"^seer_", "tail_idle_share", low=0.30, high=0.45),
    Band("Seer: share of a round that the last 10 % of answers take", r"^seer_", "tail_last_10_share", low=0.35, high=0.50),
    Band("RollArt: SWE step, with and without failures (inputs set with the step in view)", r"^rollart_swe", "step_s", 0.15),
    Band("RollArt: batch over trajectory stepping", r"^rollart_turns", "speedup_vs_sync", 0.15),
    Band("RollArt: rollout with rewards offloaded", r"^rollart_offload", "gen_s", 0.15),
    Band("checkpoint-engine: sync", r"^checkpoint_engine|^ce_", "sync_s", 0.15),
)  # fmt: skip
# Runs that differ by staleness alone: waits fall as it grows.
LADDER = re.compile(r"^verl_fa_7b_128_stale([\d.]+)$")
# AReaL's throughput over eta: most of the gain is at 1.
ETA, MOST_OF = re.compile(r"^areal_t7_eta(\d+)$"), 0.5
# The same model on the same GPUs, on and off policy: who is faster.
PAIRS = re.compile(r"^(nemo_H100_.+)_off(\d+)$")


def judged(errors: pd.DataFrame, plans: Sequence[Plan], found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """{goal, wanted, found, met} of each band that there are runs for, wanted and found in words."""
    return [*_bands(errors), *_monotone(plans, found), *_gain(found), *_signs(plans, found)]


def _bands(errors: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for band in BANDS:
        part = errors[errors["id"].map(lambda name, ids=band.ids: bool(re.search(ids, name))) & (errors["metric"] == band.metric)]
        if part.empty:
            continue
        if band.near:
            shown = ", ".join(f"{100 * (row.predicted / row.measured - 1):+.1f}%" for row in part.itertuples())
            yield _goal(band.name, f"within {band.near:.0%}", shown, bool((part["ape"] <= band.near).all()))
        else:
            shown = ", ".join(f"{value:.3g}" for value in part["predicted"])
            yield _goal(band.name, f"{band.low:g} to {band.high:g}", shown, bool(part["predicted"].between(band.low, band.high).all()))


def _monotone(plans: Sequence[Plan], found: Mapping[str, Found]) -> Iterator[dict[str, Any]]:
    rungs = sorted((float(at[1]), found[plan.id].figures["wait_s"]) for plan in plans if plan.id in found and (at := LADDER.match(plan.id)))
    if len(rungs) > 1:
        waits = [wait for _, wait in rungs]
        shown = ", ".join(f"{wait:.3g} s at {rung:g}" for rung, wait in rungs)
        yield _goal("verl 7B, 128 H20: wait falls with staleness", "monotone", shown, waits == sorted(waits, reverse=True))


def _gain(found: Mapping[str, Found]) -> Iterator[dict[str, Any]]:
    speeds = {int(at[1]): found[name].figures["tok_s"] for name in found if (at := ETA.match(name))}
    if {0, 1} < set(speeds):
        share = (speeds[1] - speeds[0]) / (speeds[max(speeds)] - speeds[0]) if speeds[max(speeds)] > speeds[0] else 0.0
        yield _goal("AReaL 1.5B: share of the gain that is there at eta 1", f"{MOST_OF:.0%} or more", f"{share:.0%}", share >= MOST_OF)


def _signs(plans: Sequence[Plan], found: Mapping[str, Found]) -> Iterator[dict[str, Any]]:
    """Whether the faster of two published runs is the faster one simulated."""
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        at = PAIRS.match(plan.id)
        if at and plan.id in found and "step_s" in plan.measured:
            groups.setdefault(at[1], []).append(plan)
    told = []
    for name, some in groups.items():
        for other in some[1:]:
            said = some[0].measured["step_s"] / other.measured["step_s"]
            have = found[some[0].id].figures["step_s"] / found[other.id].figures["step_s"]
            told.append((name.removeprefix("nemo_H100_"), said, have))
    if told:
        shown = ", ".join(f"{name} {have:.2f} for {said:.2f}" for name, said, have in told)
        good = all((said > 1) == (have > 1) for _, said, have in told)
        yield _goal("NeMo-RL, H100: off policy over on policy on the same GPUs", "the same sign", shown, good)


def _goal(name: str, wanted: str, shown: str, met: bool) -> dict[str, Any]:
    return {"goal": name, "wanted": wanted, "found": shown, "met": met}
