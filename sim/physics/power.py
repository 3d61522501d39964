"""Watts of a GPU from what it does, and how a power cap slows it.

A step draws idle + (TDP - idle) (FLOOR + COMPUTE f^2 u + MEMORY m), at most the TDP or the cap: u are its FLOP over what the peak allows
in its time, m its bytes over what the bandwidth allows, f the clock relative to the full one. FLOOR is for running kernels at all.

The three weights are fitted to Splitwise's Llama2-70B on A100 (Mutinifni/splitwise-sim@8f99e7dc), power over TDP: the mean of a request,
which is nearly all token phase, and the peak, which is the prompt's. Left out of the fit: prompts shorter than the 100 ms that a power
reading averages, batches of 8 and more, whose time per prompt token doubles for reasons that FLOP do not tell, and means of prompts from
4096 tokens on, whose logs end early. On layouts that the fit has not seen the mean is off by 3.2, 2.0 and 3.4 % of the TDP (TP 2, 4, 8),
the peak by 0, 1.1 and 10.5 %; `tests/reality/test_power.py` holds this. For other GPUs than the A100 the weights are a judgement.

A cap is held by a lower clock. Dynamic power goes with f V^2 and the voltage about with f, so that work bound by arithmetic draws
idle + (TDP - idle) f^3; the clock is the one at which that is the cap. Arithmetic slows by 1 / f; memory, links and the host do not.
Splitwise (arXiv:2311.18677) reports both: at half the TDP of an H100 prompts take 1.30 times as long (1.31 here) and tokens no longer.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sim.core.errors import BadInput, Problem
from sim.spec.hardware import Gpu

FLOOR, COMPUTE, MEMORY = 0.171, 1.88, 0.820
LEAST_CLOCK = 0.3  # of the full one: about the lowest that data-centre GPUs run at under load (judgement)

# Watts of a host besides its GPUs when those are idle, over its watts under load. The A6000 server of LLMServingSim's figure 6: 380 W idle,
# of which 66 are its two cards, and about 350 more than its cards under load. One server; hosts with more fans have a wider range.
IDLE_HOST = 0.9


class Activity(NamedTuple):
    """What a GPU did over a time: `flops` over the peak times it, `bytes_moved` over the bandwidth times it; both from 0 to 1."""

    flops: Any
    bytes_moved: Any


def watts(idle: Any, tdp: Any, activity: Activity, clock: Any = 1.0, limit: Any = np.inf) -> Any:
    """Watts of one GPU in a step; arrays or numbers. `limit` is its power cap."""
    share = FLOOR + COMPUTE * clock**2 * activity.flops + MEMORY * activity.bytes_moved
    return np.minimum(idle + (tdp - idle) * np.minimum(share, 1.0), limit)


def clock(gpu: Gpu, cap: float | None, path: str = "power_cap") -> float:
    """The clock that holds a cap of so many watts, relative to the full one; 1 without a cap. Raises BadInput when none does."""
    if cap is None:
        return 1.0
    least = gpu.idle_watts + (gpu.tdp - gpu.idle_watts) * LEAST_CLOCK**3
    if not least <= cap <= gpu.tdp:
        message = f"found {cap:g} W; a cap of {gpu.name} lies between {least:.0f} W (its lowest clock) and {gpu.tdp:g} W (its TDP)"
        raise BadInput([Problem(message, path)])
    return float(((cap - gpu.idle_watts) / (gpu.tdp - gpu.idle_watts)) ** (1 / 3))


def at_clock(gpu: Gpu, share: float) -> Gpu:
    """The GPU at a share of its full clock: arithmetic slows, memory and links do not."""
    return gpu if share == 1.0 else replace(gpu, flops={dtype: peak * share for dtype, peak in gpu.flops.items()})
