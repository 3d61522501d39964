"""The device under measurement: its random operands, cache size, clock log and the versions a measurement is valid for.

Operands are slices of one pool of normal random numbers per dtype: zeros, or memory as it was found, switch fewer transistors and run
faster than real weights (788 against 894 TFLOP/s on an H200, second-hand). Consecutive launches read different slices, so that weights
and KV come from memory, as in an engine whose whole model passes through the cache every step.
"""
from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sim.core.errors import BadInput

BEYOND = 3  # launches rotate over operands of at least so many cache sizes
MOST_COPIES = 2500  # and over at most so many copies of them
CPU_CACHE = 2**21  # a nominal cache: a CPU run rehearses the measurement, and big pools would only slow it down
CPU_MEMORY = 4 << 30  # nor does it take more than this
SHARE = 0.85  # of free memory is used for operands; outputs and workspaces need the rest
ALIGN = 128  # elements: slices start where a kernel may load 128 bits at a time
PIECE = 1 << 26  # elements converted at a time to a dtype without a generator
CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw"
PERIOD = 500  # ms between clock readings

BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn


class TooLarge(Exception):
    """A point whose operands do not fit in memory."""


class Unsupported(Exception):
    """A point for which this device, or torch on it, has no kernel."""


class Bench:
    """`device` as torch names it (cuda, cuda:1, cpu). BadInput when it is absent."""

    def __init__(self, device: str, scale: float = 1.0):
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise BadInput(f"{device!r} is no device; known: cuda, cuda:N, cpu") from None
        if self.device.type not in ("cuda", "cpu"):
            raise BadInput(f"device {device!r} cannot be measured; known: cuda, cuda:N, cpu")
        self.cuda = self.device.type == "cuda"
        self.scale = scale
        self.cache = CPU_CACHE
        self.gpu = f"cpu:{platform.machine()}"
        if self.cuda:
            if not torch.cuda.is_available():
                raise BadInput(f"no CUDA device: torch {torch.__version__} finds none (a driver, and a torch built for CUDA, are needed)")
            if (self.device.index or 0) >= torch.cuda.device_count():
                raise BadInput(f"no CUDA device {self.device.index}: torch finds {torch.cuda.device_count()}, numbered from 0")
            torch.cuda.set_device(self.device.index or 0)
            self._properties = torch.cuda.get_device_properties(self.device)
            self.cache = int(self._properties.L2_cache_size)
            self.gpu = str(self._properties.name)
            self.side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        else:
            torch.set_num_threads(1)  # threads that wait for each other on a busy machine time its scheduler
        self._pools: dict[torch.dtype, torch.Tensor] = {}
        self.kernels: dict[torch.dtype, Any] = {}  # the attention kernel by KV dtype, once chosen
        self.refused: dict[str, str] = {}  # why another was not

    def free(self) -> int:
        """Bytes that operands may take now, what the pools hold included."""
        held = sum(pool.nbytes for pool in self._pools.values())
        if not self.cuda:
            return CPU_MEMORY
        torch.cuda.empty_cache()
        return int((torch.cuda.mem_get_info(self.device)[0] + held) * SHARE)

    def normal(self, elements: int, dtype: torch.dtype = BF16) -> torch.Tensor:
        """Random normal numbers, the same storage at every call of one dtype. TooLarge when memory does not hold them."""
        pool = self._pools.get(dtype)
        if pool is None or len(pool) < elements:
            needed, free = elements * dtype.itemsize, self.free()
            if needed > free:
                raise TooLarge(f"needs {needed / 1e9:.1f} GB of operands; {self.gpu} has {free / 1e9:.1f} GB for them")
            del pool
            self._pools.pop(dtype, None)
            if sum(other.nbytes for other in self._pools.values()) + needed > free:
                self._pools.clear()
            if self.cuda:
                torch.cuda.empty_cache()
            self._pools[dtype] = self._random(elements, dtype)
        return self._pools[dtype][:elements]

    def _random(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        torch.manual_seed(0)
        pool = torch.empty(elements, dtype=dtype, device=self.device)
        if dtype != FP8:
            return pool.normal_()
        for start in range(0, elements, PIECE):
            piece = pool[start : start + PIECE]
            piece.copy_(torch.randn(len(piece), dtype=BF16, device=self.device))
        return pool

    def carve(self, shapes: Sequence[Sequence[int]], dtype: torch.dtype = BF16) -> list[torch.Tensor]:
        """Random tensors that do not overlap, one per shape."""
        sizes = [-(-_count(shape) // ALIGN) * ALIGN for shape in shapes]
        flat, start, found = self.normal(sum(sizes), dtype), 0, []
        for shape, size in zip(shapes, sizes, strict=True):
            found.append(flat[start : start + _count(shape)].view(*shape))
            start += size
        return found

    def copies(self, size: int) -> int:
        """Over how many copies of an operand of `size` bytes launches must rotate to find it out of the cache (or the most allowed)."""
        return max(1, min(MOST_COPIES, -(-BEYOND * self.cache // max(size, 1))))

    def cold(self, size: int, copies: int) -> bool:
        return size * copies >= BEYOND * self.cache

    def settle(self) -> None:
        """Wait for the device; a RuntimeError here means that it is lost."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def facts(self) -> dict[str, Any]:
        """What a measurement is valid for: device, driver, versions."""
        facts: dict[str, Any] = {
            "gpu": self.gpu, "torch": torch.__version__, "python": platform.python_version(), "cuda": torch.version.cuda,
            "driver": _driver(self.device) if self.cuda else None, "cache_bytes": self.cache,
        }  # fmt: skip
        if self.cuda:
            at = self._properties
            facts |= {"multiprocessors": at.multi_processor_count, "memory_bytes": at.total_memory, "capability": f"{at.major}.{at.minor}"}
            facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        else:
            facts |= {"threads": torch.get_num_threads(), "processor": _processor()}
        return facts


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _query(device: torch.device, fields: str) -> list[str] | None:
    """The nvidia-smi command that prints `fields` of `device`, or None where there is none. torch numbers only the visible devices."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    index = device.index or 0
    which = f"GPU-{uuid}" if uuid is not None else visible[index] if index < len(visible) else str(index)
    return [tool, "-i", which, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]


def _driver(device: torch.device) -> str | None:
    command = _query(device, "driver_version")
    if command is None:
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


class Clocks:
    """The SM clock while measuring, read every half second by nvidia-smi in the background; None on a CPU or without that tool."""

    def __init__(self, bench: Bench):
        self.log: list[str] = []  # SM MHz, memory MHz, degrees C, W
        self._command = _query(bench.device, CLOCKS) if bench.cuda else None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Clocks:
        if self._command:
            self._process = subprocess.Popen([*self._command, "-lms", str(PERIOD)], stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.strip())

    def now(self) -> float | None:
        """SM clock in MHz."""
        try:
            return float(self.log[-1].split(",")[0])
        except (IndexError, ValueError):
            return None
