"""A GPU whose kernels take a multiple of what is known of them: how an error of the fits would show, or a card slower than its like.

Every form of a kernel has only seconds and rates in it beside pure numbers, so that stretching its seconds and shrinking its rates, those
of the datasheet too, stretches its time. Left out, and small, are what forms hold themselves: the time after which clocks fall, and the
start of a collective on a link that was not measured. The host, its launches and the front end are no kernels, and stay.
"""
from __future__ import annotations

from dataclasses import replace

from sim.spec.fit import Fit, optional, wanted
from sim.spec.hardware import Gpu

HOSTS = ("host", "launch", "frontend")


def slower(gpu: Gpu, times: float) -> Gpu:
    """The GPU with rates of arithmetic, memory and links divided by `times`."""
    if times == 1.0:
        return gpu
    flops = {dtype: peak / times for dtype, peak in gpu.flops.items()}
    return replace(gpu, flops=flops, bandwidth=gpu.bandwidth / times, nvlink=gpu.nvlink / times, pcie=gpu.pcie / times)


def stretched(fit: Fit, times: float) -> Fit:
    """The fit with seconds multiplied and rates divided by `times`."""
    if times == 1.0 or fit.op in HOSTS:
        return fit
    known, powers = wanted(fit.op, fit.dtype), {"seconds": times, "rate": 1.0 / times}
    kinds = {name: known.get(name) or optional(fit.op, name) or "" for name in fit.parameters}
    return fit.with_parameters({name: value * powers.get(kinds[name], 1.0) for name, value in fit.parameters.items()})
