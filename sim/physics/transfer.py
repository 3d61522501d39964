"""A fit lent to another GPU: which parameters go over as they are, and which follow the datasheets.

Dimensionless coefficients (utilisations, wave softness, tile penalties) are properties of kernels and go over; so do times of start and
synchronisation. Of matrix products a few follow powers of the datasheets' ratios (`sim.physics.gemm.transfer`); collectives scale with the
link where they are priced.
"""
from __future__ import annotations

from collections.abc import Mapping

from sim.physics import gemm
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu


def parameters(fit: Fit, source: Gpu, target: Gpu) -> Mapping[str, float]:
    """The parameters of `fit`, measured on `source`, for `target`."""
    return gemm.transfer(fit.parameters, source, target) if fit.op == "gemm" else fit.parameters
