"""A whole engine step from its kernels: every layer's GEMMs, attention, all-reduces and elementwise work, the head, and the host.

`step` adds it up plainly. The fast forms rest on two facts. All work but attention depends on token counts alone: a table. Attention of
decoders is affine in the tokens they hold until a sliding window fills: a line. In a CUDA graph launches are hidden and token counts are
padded to the captured sizes; without, a step takes at least its launches.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from sim.core.request import Request
from sim.physics.base import Cost, Work
from sim.physics.collectives import all_reduce
from sim.physics.kernels import ZERO, Kernels, total
from sim.spec.hardware import Gpu
from sim.spec.llm import SIXTEEN_BIT, Llm
from sim.spec.scenario import EngineOptions, Pool

ELEMENTWISE_PER_LAYER = 4  # two fused add-norms, rotary embedding with the cache write, the gated activation
ENDLESS = 1 << 60


class RooflineStep:
    """The step model of one replica: `llm` on `pool.parallel.tp` GPUs, in the pool's precisions and engine options."""

    def __init__(self, llm: Llm, gpu: Gpu, pool: Pool):
        self.llm, self.gpu, self.pool = llm, gpu, pool
        self.kernels = Kernels(gpu)
        self.tp = pool.parallel.tp
        self.host = pool.engine.host_overhead if pool.engine.host_overhead is not None else gpu.physics["host"]["seconds"]
        self.captured = capture_sizes(pool.engine)
        self.launches = self._launches() * gpu.physics["launch"]["seconds"]
        self.windows = tuple((window or ENDLESS, layers) for window, layers in llm.kv_groups)
        self._linear: list[float] = [0.0] * (max(pool.engine.max_num_batched_tokens, self.captured[-1] if self.captured else 0) + 1)
        self._head: list[float] = [0.0] * (pool.engine.max_num_seqs + pool.engine.max_num_batched_tokens + 1)
        self._bind()

    # -- plainly ------------------------------------------------------------
    def step(self, work: Work) -> Cost:
        tokens = work.decoders + sum(n for n, _ in work.chunks)
        gpu = total([
            (1, self.layers(self.padded(tokens))),
            (1, self.head(work.decoders + len(work.chunks))),
            (1, self.decode(work.decoders, work.held)),
            (1, self.prefill(work.chunks)),
        ])  # fmt: skip
        gap = 0.0 if self.graphed(tokens) else max(0.0, self.launches - gpu.seconds)
        return gpu._replace(seconds=gpu.seconds + gap + self.host, host=gpu.host + gap + self.host)

    def layers(self, tokens: int) -> Cost:
        """Everything of all layers that depends on the token count alone."""
        llm, precision, kernels = self.llm, self.pool.precision, self.kernels
        costs: list[tuple[float, Cost]] = []
        for matrix in llm.matrices:
            if matrix.part in ("attention", "mlp", "router"):
                dtype = "bf16" if matrix.part == "router" else getattr(precision, matrix.part)
                costs.append((matrix.count, kernels.gemm(dtype, tokens, matrix, self.tp)))
        costs.append((2 * llm.layers, all_reduce(self.gpu, tokens * llm.hidden * SIXTEEN_BIT, self.tp)))
        moved = tokens * SIXTEEN_BIT * (6 * llm.hidden + 3 * llm.inner / self.tp) / ELEMENTWISE_PER_LAYER
        costs.append((ELEMENTWISE_PER_LAYER * llm.layers, kernels.elementwise(moved)))
        return total(costs)

    def head(self, rows: int) -> Cost:
        """The vocabulary projection, one row per sequence that may sample."""
        head = next(matrix for matrix in self.llm.matrices if matrix.part == "lm_head")
        return self.kernels.gemm(self.pool.precision.lm_head, rows, head, self.tp)

    def decode(self, decoders: int, held: int) -> Cost:
        """Attention of the decoders; each also attends to its new token. In windowed layers their mean length counts."""
        if not decoders:
            return ZERO
        costs = []
        for window, layers in self.windows:
            tokens = min(held + decoders, decoders * window)
            costs.append((layers, self.kernels.decode_attention(self.pool.precision.kv, self.decode_flops, self.decode_bytes, tokens)))
        return total(costs)

    def prefill(self, chunks: Sequence[tuple[int, int]]) -> Cost:
        """Attention of prompt chunks, (new tokens, tokens before) each, in one kernel per layer."""
        if not chunks:
            return ZERO
        tokens = sum(n for n, _ in chunks)
        return total([
            (layers, self.kernels.prefill_attention(self.pair_flops, tokens, sum(pairs(n, before, window) for n, before in chunks)))
            for window, layers in self.windows
        ])  # fmt: skip

    # -- fast ------------------------------------------------------------
    def line(self, decoders: int, held: int) -> tuple[float, float, int]:
        seconds = (self._linear[decoders] or self._fill(decoders)) + (self._head[decoders] or self._fill_head(decoders))
        seconds += self._decode_fixed
        slope, steps = 0.0, ENDLESS
        for window, per_token in self._decode_slopes:
            left = decoders * window - held - decoders
            if left > 0:
                seconds += per_token * (held + decoders)
                slope += per_token
                steps = min(steps, left // decoders + 1)
            else:
                seconds += per_token * decoders * window
        slope *= decoders
        if seconds < self.launches and not self.graphed(decoders):
            return self.launches + self.host, 0.0, min(steps, int((self.launches - seconds) / slope) + 1) if slope else steps
        return seconds + self.host, slope, steps

    def mixed(self, decoders: int, held: int, chunks: Sequence[tuple[Request, int]]) -> float:
        tokens, work = decoders, 0.0
        for request, n in chunks:
            tokens += n
            before = request.computed
            for window, per_pair in self._pair_slopes:
                work += per_pair * (n * (before + (n + 1) / 2) if before + n <= window else pairs(n, before, window))
            work += self._chunk_slope * n
        rows = decoders + len(chunks)
        seconds = (self._linear[tokens] or self._fill(tokens)) + (self._head[rows] or self._fill_head(rows)) + self._chunk_fixed + work
        if decoders:
            seconds += self._decode_fixed
            for window, per_token in self._decode_slopes:
                seconds += per_token * min(held + decoders, decoders * window)
        if seconds < self.launches and not self.graphed(tokens):
            seconds = self.launches
        return seconds + self.host

    # -- binding ------------------------------------------------------------
    def graphed(self, tokens: int) -> bool:
        return bool(self.captured) and tokens <= self.captured[-1]

    def padded(self, tokens: int) -> int:
        """The token count that a captured graph computes."""
        return self.captured[bisect_left(self.captured, tokens)] if self.graphed(tokens) else tokens

    def _bind(self) -> None:
        llm, tp = self.llm, self.tp
        self.decode_flops = llm.flops_per_pair(decode=True) / tp
        self.pair_flops = llm.flops_per_pair() / tp
        self.decode_bytes = llm.kv_bytes_per_token(self.pool.precision.kv, tp) / llm.layers
        dtype, chunk = self.pool.precision.kv, self.kernels.physics["attention_prefill"]
        # Both kernels are affine in their load, so that two points give the line.
        fixed = self.kernels.decode_attention(dtype, self.decode_flops, self.decode_bytes, 0.0).seconds
        many = 1e6
        per_token = (self.kernels.decode_attention(dtype, self.decode_flops, self.decode_bytes, many).seconds - fixed) / many
        per_pair = (self.kernels.prefill_attention(self.pair_flops, 0.0, many).seconds - chunk["t0"]) / many
        self._decode_fixed = fixed * llm.layers
        self._decode_slopes = tuple((window, layers * per_token) for window, layers in self.windows)
        self._chunk_fixed = chunk["t0"] * llm.layers
        self._chunk_slope = per_pair * chunk["overhead"] * llm.layers
        self._pair_slopes = tuple((window, layers * per_pair) for window, layers in self.windows)

    def _fill(self, tokens: int) -> float:
        self._linear[tokens] = self.layers(self.padded(tokens)).seconds
        return self._linear[tokens]

    def _fill_head(self, rows: int) -> float:
        self._head[rows] = self.head(rows).seconds
        return self._head[rows]

    def _launches(self) -> int:
        """Kernels launched in a step."""
        gemms = sum(matrix.count for matrix in self.llm.matrices if matrix.part != "embedding")
        reduces = 2 * self.llm.layers if self.tp > 1 else 0
        return gemms + reduces + (ELEMENTWISE_PER_LAYER + 1) * self.llm.layers


def pairs(n: int, before: int, window: int) -> float:
    """Query-key pairs of n new tokens after `before` others, each query seeing at most `window` keys.

    >>> pairs(4, 0, 100), pairs(4, 10, 100), pairs(4, 10, 3)
    (10.0, 50.0, 12.0)
    """
    free = min(max(window - before, 0), n)
    return free * (before + (free + 1) / 2) + (n - free) * float(window)


def capture_sizes(engine: EngineOptions) -> tuple[int, ...]:
    """Batch sizes with a CUDA graph: vLLM's 1, 2, 4, multiples of 8 to 256 and of 16 beyond, up to min(2 max_num_seqs, 512)."""
    if not engine.cuda_graph:
        return ()
    if engine.cudagraph_capture_sizes is not None:
        return tuple(sorted(engine.cudagraph_capture_sizes))
    most = min(2 * engine.max_num_seqs, 512)
    sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= most]
    return tuple(sizes)
