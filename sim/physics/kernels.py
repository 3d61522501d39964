"""Which fit prices a kernel: the GPU's own where it was measured, else one on loan from another GPU, else that of a neighbouring dtype.

Every step away from a measurement is noted in `assumed`, for the report to show.
"""
from __future__ import annotations

from functools import cache

from sim.physics import transfer
from sim.physics.kernel_time import stretched
from sim.spec.dtype import DTYPES
from sim.spec.fit import Fit, same_release
from sim.spec.hardware import Gpu
from sim.spec.hardware import gpu as catalogue

# Whose kernels stand in for a dtype that was not measured: the nearest in arithmetic and in bytes per weight.
STANDS_IN = {
    "fp8_block": "fp8", "int8": "fp8", "mxfp4": "int4", "mxfp4_mxfp8": "mxfp4", "int4": "int8_weights", "int8_weights": "bf16",
    "nvfp4": "fp8", "fp8": "bf16", "fp16": "bf16",
}  # fmt: skip
# And on a chip that cannot multiply the dtype: kernels that widen the weights as they read them.
WIDENED = {"fp8": "int8_weights", "fp8_block": "int8_weights", "int8": "int8_weights", "nvfp4": "int4", "mxfp4_mxfp8": "mxfp4"}


MATRIX_OPS = ("gemm", "moe")
BY_VERSION = {"host": "host's time per step", "frontend": "front end's time per request"}  # what a framework's release changes


class Kernels:
    """The fits of one GPU as one framework runs it, of the `version` nearest to the one given ('': of any), all kernels taking `times` as
    long as they say.
    """

    def __init__(self, gpu: Gpu, framework: str = "vllm", version: str = "", times: float = 1.0):
        self.gpu, self.framework, self.version, self.times = gpu, framework, version, times
        self.assumed: set[str] = set()
        self._found: dict[tuple[str, str, str], Fit | None] = {}

    def fit(self, op: str, dtype: str = "", framework: str | None = None) -> Fit | None:
        """The fit of a kernel in parameters for this GPU; None when not even a stand-in is known."""
        key = op, dtype, framework or self.framework
        if key not in self._found:
            found = self._find(*key)
            self._found[key] = found and stretched(found, self.times)
        return self._found[key]

    def need(self, op: str, dtype: str = "") -> Fit:
        """As `fit`, for a kernel that no step can be priced without."""
        found = self.fit(op, dtype)
        assert found is not None, f"no GPU has a fit of {op} {dtype}"
        return found

    @property
    def used(self) -> list[Fit]:
        """The fits asked for so far, in order."""
        return [fit for fit in self._found.values() if fit is not None]

    def _find(self, op: str, dtype: str, framework: str) -> Fit | None:
        able = op not in MATRIX_OPS or not dtype or DTYPES[dtype].peak in self.gpu.flops
        found = self.gpu.fit(op, dtype, framework, self.version) if able else None
        other = (STANDS_IN if able else WIDENED).get(dtype)
        if found is None and other:
            found = self._find(op, other, framework)
            if found is not None:
                why = "not measured" if able else "the chip has no units for it"
                self.assumed.add(f"{op} in {dtype} on {self.gpu.name}: {why}; the {found.dtype} kernels stand in")
        if found is not None and self.version and op in BY_VERSION and found.framework == framework:
            self._other_version(found)
        if found is None or found.origin == self.gpu.name:
            return found
        return found.with_parameters(transfer.parameters(found, _origin(found.origin), self.gpu))

    def _other_version(self, found: Fit) -> None:
        """Note when a constant is not of the version asked for."""
        what = f"the {BY_VERSION[found.op]} of {self.framework} {self.version} on {self.gpu.name}"
        if not found.version:
            self.assumed.add(f"{what}: not known by version; one figure stands for all")
        elif not same_release(found.version, self.version):
            self.assumed.add(f"{what}: not measured; that of {found.version} stands in")


@cache
def _origin(name: str) -> Gpu:
    return catalogue(name)
