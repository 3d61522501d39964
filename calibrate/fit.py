"""From measured tables to fits: every kind of kernel, dtype and framework that a table holds, each with its range and its error.

Parameters come from three quarters of the shapes and are kept so: the error beside them is that on the other quarter, which they have not
seen, and `burstsim calibrate check` on the same table shows it again. Where another GPU's fit is on loan, it is the prior.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calibrate.fitting import errors, fit
from calibrate.ops.base import Group
from calibrate.table import title
from sim.core.errors import BadInput, Problem
from sim.physics import transfer
from sim.spec.fit import FRAMEWORKS, LIMIT, Errors, Fit, wanted
from sim.spec.hardware import Gpu
from sim.spec.hardware import gpu as lender

WITH_PRIOR, SPARE = 12, 1.5  # points a fit needs with a prior; without one, this many times its parameters


class Fitted(NamedTuple):
    """The fits of a table, and what could not be fitted and why."""

    fits: list[Fit]
    remarks: list[str]


def fit_all(groups: list[Group], gpu: Gpu, source: str) -> Fitted:
    """Fit every group. Raises BadInput when none has enough points, or a fit is implausible."""
    fits, remarks = [], []
    problems: list[Problem] = []
    for group in groups:
        prior = _prior(group, gpu)
        kept = ~group.held_out
        need = int(np.ceil(SPARE * len(group.parameters)))
        need = min(need, WITH_PRIOR) if prior else need
        if kept.sum() < need:
            remarks.append(f"{title(group)}: {kept.sum()} points to fit, {need} are needed; measure more shapes")
            continue
        found = _fit(group, gpu, kept, prior, source)
        problems += [Problem(f"{title(group)}: {text}") for text in implausible(found)]
        fits.append(found)
    if not fits:
        raise BadInput([Problem(f"nothing to fit: {remark}") for remark in remarks] or "no row of the table is a kernel that can be fitted")
    if problems:
        raise BadInput(problems)
    return Fitted(fits, remarks)


def _prior(group: Group, gpu: Gpu) -> Fit | None:
    """What another GPU of the architecture lends for this kernel, of the same framework where it can, if it has all the parameters.

    Kernels of another architecture differ: as a prior they doubled the error of decode attention on H100.
    """
    names = {parameter.name for parameter in group.parameters}
    lent = [
        fit for fit in gpu.fits
        if (fit.op, fit.dtype) == (group.op, group.dtype) and fit.origin != gpu.name and names <= set(fit.parameters)
        and lender(fit.origin).architecture == gpu.architecture
    ]  # fmt: skip
    return min(lent, key=lambda fit: (fit.framework != group.framework, FRAMEWORKS.index(fit.framework)), default=None)


def _fit(group: Group, gpu: Gpu, kept: np.ndarray, prior: Fit | None, source: str) -> Fit:
    found = fit(
        lambda values: group.predict(gpu, values)[kept], group.seconds[kept], group.parameters,
        transfer.parameters(prior, lender(prior.origin), gpu) if prior else None,
    )
    found = {name: float(f"{value:.4g}") for name, value in found.items()}
    shown = unseen(group, gpu, found | group.refine(gpu, found, kept))
    # A measured curve is kept whole: its error is that of the curve through the points kept, on the others.
    whole = np.ones(len(kept), bool)
    return Fit(
        group.op, group.dtype, group.framework, found | group.refine(gpu, found, whole), gpu.name, "fitted", source, group.library,
        int((whole if group.curved else kept).sum()), prior.origin if prior else "",
        {name: (float(np.nanmin(sizes)), float(np.nanmax(sizes))) for name, sizes in group.hull.items()}, shown,
    )  # fmt: skip


def unseen(group: Group, gpu: Gpu, parameters: dict[str, float]) -> Errors:
    """Errors on the shapes held out, of those the cold points, which a serving engine meets; on all held out where none is cold."""
    held = group.held_out
    if not held.any():
        held = np.ones(len(group.shapes), bool)
    chosen = held & group.cold if (held & group.cold).any() else held
    return errors(group.predict(gpu, parameters)[chosen], group.seconds[chosen])


def implausible(fit: Fit) -> list[str]:
    """What no GPU does: a utilisation above LIMIT."""
    kinds = wanted(fit.op, fit.dtype)
    return [
        f"the fit asks for {name} = {value:.3g}, and no kernel reaches more than {LIMIT:g} of a peak; is the table of this GPU, and cold?"
        for name, value in fit.parameters.items() if kinds.get(name) == "fraction" and value > LIMIT
    ]  # fmt: skip
