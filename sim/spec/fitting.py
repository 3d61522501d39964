"""Which engine options go together: what a batcher or a contiguous KV cache has no use for is off, and asking for it is an error.

A batcher says what it refuses and what it needs (`policy/batch/base.py`); a cache of contiguous ranges shares nothing and preempts nobody.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sim.core.explain import show
from sim.core.registry import BATCHERS, RETENTIONS

# Where a user who wants another way is silent.
CONTIGUOUS = {"enable_prefix_caching": "a contiguous cache shares no blocks", "preemption_mode": "a contiguous cache preempts nobody"}
OFF: dict[str, Any] = {"preemption_mode": "recompute", "long_prefill_token_threshold": 0, "lora": None}


class Claims(NamedTuple):
    """Options that must be off and on, each with who says so and why."""

    off: dict[str, str]
    on: dict[str, str]


def claims(kind: Any, paged: Any) -> Claims:
    """What a batcher of this kind and a cache that is paged or not demand of the other options; an unknown kind demands nothing."""
    off = {key: f"with paged: false {why}" for key, why in CONTIGUOUS.items()} if paged is False else {}
    on: dict[str, str] = {}
    if kind is not None and kind in BATCHERS.names():
        batcher: Any = BATCHERS.find(kind)
        off |= {key: f"batcher {kind} has no use for it: {why}" for key, why in batcher.refuses.items()}
        on |= {key: f"batcher {kind} needs it: {why}" for key, why in batcher.needs.items()}
    return Claims(off, on)


def filled(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an engine, of those `known`, with what they demand of each other where nothing is written."""
    batcher = options.get("batcher")
    off, on = claims(batcher.get("kind") if isinstance(batcher, Mapping) else None, options.get("paged"))
    silent = {key: OFF.get(key, False) for key in off} | dict.fromkeys(on, True)
    if options.get("paged") is False:
        silent["kv_reservation"] = "max"
    return {key: value for key, value in silent.items() if key in known} | dict(options)


def clashes(options: Mapping[str, Any], batcher: Mapping[str, Any]) -> list[str]:
    """What is asked for and cannot be had, in words."""
    off, on = claims(batcher.get("kind"), options["paged"])
    wrong = [
        f"{key} ({show(options[key])}) is set; {why}" for key, why in off.items() if key in options and options[key] != OFF.get(key, False)
    ]
    wrong += [f"{key} is off; {why}" for key, why in on.items() if not options[key]]
    if options["paged"] and options["kv_reservation"] is not None:
        wrong.append(f"kv_reservation ({options['kv_reservation']}) is set; a paged cache reserves nothing, set paged: false with it")
    return wrong


def misplaced(options: Mapping[str, Any], tiers: Sequence[tuple[str, bool]], retention: Mapping[str, Any]) -> list[str]:
    """What is wrong with the lower tiers of a KV cache, given as (kind, whether it has a speed), and with what sessions keep."""
    kinds, wrong = [kind for kind, _ in tiers], []
    twice = [kind for place, kind in enumerate(kinds) if kind in kinds[:place]]
    wrong += [f"two kv_tiers are of kind {kind}; give one with the capacity of both" for kind in twice]
    if "host" in kinds[1:] and kinds[0] != "host":
        wrong.append("kv_tiers: host has to come first; blocks pass through its memory on the way to all others")
    wrong += [f"kv_tiers: {kind} has no bandwidth; only host has a default" for kind, speed in tiers if kind != "host" and not speed]
    wrong += [
        f"{key} ({options[key]}) is set; there are no kv_tiers it could be about"
        for key in ("kv_offload", "kv_reload") if options[key] is not None and not tiers
    ]  # fmt: skip
    kind = retention.get("kind")
    for what, used in (("kv_tiers", bool(tiers)), (f"retention {kind}", kind not in (None, "lru"))):
        if used and not options["enable_prefix_caching"]:
            wrong.append(f"{what} needs enable_prefix_caching: true; without it no block is found again")
    if kind in RETENTIONS.names() and vars(RETENTIONS.find(kind))["offloads"] and "host" not in kinds:
        wrong.append(f"retention {kind} needs a tier of kind host in kv_tiers to move blocks to")
    return wrong
