"""A whole engine step from its kernels: every layer's GEMMs, attention, collectives and small kernels, the head, and the host.

A replica spans tp x pp x dp GPUs. A step's work is dealt to pp micro-batches of dp attention groups. Groups step together, so that the
fullest of them decides. A stage computes the micro-batches one after another, and a step lasts as long as all of them in one stage: the
pipeline in steady state. A micro-batch without work costs as much as the others do, since the pipeline waits for their next round: the
bubble.

`step` adds a step up plainly. The fast forms rest on two facts. All work but attention depends on token counts alone: a table. Attention
of decoders is, for each number of them, affine in their mean context piece by piece: a row of knots. In a CUDA graph launches are hidden
and token counts padded to the captured sizes; without one a step takes at least its launches.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from sim.core.request import Request
from sim.physics.attention import Attention
from sim.physics.base import Cost, Work
from sim.physics.curve import ZERO, Curve, context_knots, token_knots, total
from sim.physics.layers import Layers
from sim.spec.hardware import Gpu
from sim.spec.llm import Llm
from sim.spec.scenario import EngineOptions, Pool

ENDLESS = 1 << 60
ROWS, EAGER = 16, 256  # numbers of decoders that are tabulated at a time, and at once


class Row(NamedTuple):
    """Steps that only decode, of so many decoders: `values` (s) at the context knots, `slopes` (s per token of context) after each, the
    `least` that launches take, and what of the values is `other` than attention.
    """

    values: list[float]
    slopes: list[float]
    least: float
    other: float


class EngineStep:
    """The step model of one replica: `llm` laid over `pool.parallel`, in the pool's precisions and engine options.

    `assumed(context)` says, for the report, which kernels are priced without a measurement or outside the measured range, up to a context.
    """

    def __init__(self, llm: Llm, gpu: Gpu, pool: Pool):
        self.llm, self.gpu, self.pool = llm, gpu, pool
        self.captured = capture_sizes(pool.engine)
        self.stages, self.lanes = pool.parallel.pp, pool.parallel.pp * pool.parallel.dp
        layers = Layers(llm, gpu, pool)
        budget = pool.engine.max_num_batched_tokens + pool.engine.max_num_seqs
        # Chunks are dealt to lanes whole, so the fullest may have more than an even share.
        most = max(budget if self.lanes == 1 else 2 * budget, self.captured[-1] if self.captured else 0)
        knots = token_knots(most, self.captured)
        self.layers, self.head = Curve(knots, layers.linear(knots)), Curve(knots, layers.head(knots))
        self.attention = layers.attention()
        # One kernel for decoders and chunks, or one for each; all kinds of layers of a model agree.
        self.together = all(attention.together for attention, _ in self.attention)
        sole = self.together and len(self.attention) == 1 and self.lanes == 1
        self._sole = (_quickest(self.attention[0][0]), self.attention[0][1]) if sole else ()
        self.context = context_knots(pool.engine.max_model_len or llm.max_position, (window for window, _ in llm.kv_groups))
        self.host, self.frontend, self.launches = layers.host(), layers.frontend(), layers.launches()
        self.assumed = partial(layers.assumed, most)
        self.used = layers.kernels.used
        padded = [self.padded(tokens) for tokens in range(most + 1)]
        seconds = self.layers.seconds(most)
        self._linear, self._head = [seconds[tokens] for tokens in padded], self.head.seconds(most)
        self._decode: dict[int, Curve] = {}
        self._knots = self.context.tolist()
        self._rows: list[Row | None] = [None] * (most + 1)
        for decoders in range(1, min(pool.engine.max_num_seqs, EAGER) + 1, ROWS):
            self._fill(decoders)

    # -- plainly ------------------------------------------------------------
    def step(self, work: Work) -> Cost:
        decoders, context = self.share(work.decoders, work.held)
        batches = self.batches(decoders, work.chunks)
        gpu = total([(self.stages / len(batches), self.stage(decoders, context, chunks)) for chunks in batches])
        return gpu._replace(seconds=gpu.seconds + self.host, host=gpu.host + self.host)

    def stage(self, decoders: int, context: float, chunks: Sequence[tuple[int, int]]) -> Cost:
        """One micro-batch in one stage, launches included."""
        tokens = decoders + sum(n for n, _ in chunks)
        gpu = total([
            (1, self.layers.at(self.padded(tokens))),
            (1, self.head.at(decoders + len(chunks))),
            (1, self.attend(decoders, context, chunks)),
        ])  # fmt: skip
        gap = 0.0 if self.graphed(tokens) else max(0.0, self.launches - gpu.seconds)
        return gpu._replace(seconds=gpu.seconds + gap, host=gpu.host + gap)

    def attend(self, decoders: int, context: float, chunks: Sequence[tuple[int, int]]) -> Cost:
        """Attention of a lane over one stage's layers: one kernel for decoders and chunks, no faster than the decoders' alone, or two."""
        alone = self.decode(decoders, context)
        if not chunks:
            return alone
        inside = decoders if self.together else 0
        both = total((layers, attention.mixed(inside, inside * context, chunks)) for attention, layers in self.attention)
        if self.together:
            return both if both.seconds > alone.seconds else alone
        return total([(1, both), (1, alone)])

    def decode(self, decoders: int, context: float) -> Cost:
        """Attention of a lane's decoders over one stage's layers, interpolated between the context knots."""
        if not decoders:
            return ZERO
        if decoders not in self._decode:
            costs = ((layers, attention.decode(float(decoders), self.context)) for attention, layers in self.attention)
            self._decode[decoders] = Curve(self.context, total(costs))
        return self._decode[decoders].at(context)

    def share(self, decoders: int, held: float) -> tuple[int, float]:
        """The decoders of a lane, and their mean context (each attends to its new token too)."""
        return -(-decoders // self.lanes), held / decoders + 1.0 if decoders else 0.0

    def batches(self, decoders: int, chunks: Sequence[tuple[int, int]]) -> list[Sequence[tuple[int, int]]]:
        """The prompt chunks of each micro-batch, of its fullest attention group; micro-batches without any work are left out."""
        if self.lanes == 1:
            return [chunks]
        loads: list[list[tuple[int, int]]] = [[] for _ in range(self.lanes)]
        for chunk in sorted(chunks, reverse=True):
            min(loads, key=_tokens).append(chunk)
        fullest = [max(loads[batch :: self.stages], key=_tokens) for batch in range(self.stages)]
        return [load for load in fullest if load or decoders]

    # -- fast ------------------------------------------------------------
    def line(self, decoders: int, held: int) -> tuple[float, float, int]:
        context = held / decoders + 1.0
        if self.lanes > 1:
            decoders = -(-decoders // self.lanes)
        values, slopes, least, _ = self._rows[decoders] or self._fill(decoders)
        knots = self._knots
        i = bisect_right(knots, context) - 1
        if i < len(slopes):
            steps = int(knots[i + 1] - context) + 1
        else:
            i, steps = i - 1, ENDLESS
        slope = slopes[i]
        seconds = values[i] + slope * (context - knots[i])
        if seconds < least:
            return least, 0.0, min(steps, int((least - seconds) / slope) + 1) if slope else steps
        return seconds, slope, steps

    def mixed(self, decoders: int, held: int, chunks: Sequence[tuple[Request, int]]) -> float:
        if len(chunks) == 1 and decoders and self._sole:
            return self._beside(decoders, held, chunks[0])
        pieces = [(n, request.computed) for request, n in chunks]
        if self.lanes == 1:
            return self._stage(decoders, held / decoders + 1.0 if decoders else 0.0, pieces) + self.host
        decoders, context = self.share(decoders, held)
        batches = self.batches(decoders, pieces)
        return self.stages / len(batches) * sum(self._stage(decoders, context, some) for some in batches) + self.host

    def _beside(self, decoders: int, held: int, chunk: tuple[Request, int]) -> float:
        """The same for one chunk beside decoders, in a model with one kind of attention: nearly every such step."""
        request, n = chunk
        tokens = decoders + n
        values, slopes, _, other = self._rows[decoders] or self._fill(decoders)
        context = held / decoders + 1.0
        i = bisect_right(self._knots, context) - 1
        if i >= len(slopes):
            i -= 1
        alone = values[i] + slopes[i] * (context - self._knots[i]) - other
        beside, layers = self._sole
        both: float = layers * beside(decoders, held + decoders, n, request.computed)
        seconds = self._linear[tokens] + self._head[decoders + 1] + (both if both > alone else alone)
        return (seconds if seconds > self.launches or self.graphed(tokens) else self.launches) + self.host

    def _stage(self, decoders: int, context: float, pieces: Sequence[tuple[int, int]]) -> float:
        if not pieces:
            seconds = self._attend(decoders, context) + self._linear[decoders] + self._head[decoders]
            return seconds if seconds > self.launches or self.graphed(decoders) else self.launches
        tokens = decoders
        for n, _ in pieces:
            tokens += n
        both, together = 0.0, decoders if self.together else 0
        for attention, layers in self.attention:
            both += layers * attention.mixed_seconds(together, 0.0, together * context, pieces)
        if decoders:
            alone = self._attend(decoders, context)
            both = both + alone if not together else both if both > alone else alone
        seconds = self._linear[tokens] + self._head[decoders + len(pieces)] + both
        return seconds if seconds > self.launches or self.graphed(tokens) else self.launches

    def _attend(self, decoders: int, context: float) -> float:
        """Attention of a lane's decoders in one stage, by the table."""
        values, slopes, _, other = self._rows[decoders] or self._fill(decoders)
        i = min(bisect_right(self._knots, context), len(slopes)) - 1
        return (values[i] + slopes[i] * (context - self._knots[i]) - other) / self.stages

    # -- binding ------------------------------------------------------------
    def graphed(self, tokens: int) -> bool:
        return bool(self.captured) and tokens <= self.captured[-1]

    def padded(self, tokens: int) -> int:
        """The token count that a captured graph computes."""
        return self.captured[bisect_left(self.captured, tokens)] if tokens and self.graphed(tokens) else tokens

    def _fill(self, decoders: int) -> Row:
        """Rows of steps that only decode, for this many decoders of a lane and the next few."""
        counts = np.arange(decoders, min(decoders + ROWS, len(self._rows)))
        seconds = np.zeros((len(counts), len(self.context)))
        for attention, layers in self.attention:
            seconds += layers * attention.decode(counts[:, None].astype(float), self.context[None, :]).seconds
        slopes = self.stages * np.diff(seconds, axis=1) / np.diff(self.context)
        for count, attended, slope in zip(counts.tolist(), self.stages * seconds, slopes, strict=True):
            other = self.stages * (self._linear[count] + self._head[count]) + self.host
            least = 0.0 if self.graphed(count) else self.stages * self.launches + self.host
            self._rows[count] = self._rows[count] or Row((attended + other).tolist(), slope.tolist(), least, other)
        return self._rows[decoders]  # type: ignore[return-value]


def capture_sizes(engine: EngineOptions) -> tuple[int, ...]:
    """Batch sizes with a CUDA graph: vLLM's 1, 2, 4, multiples of 8 to 256 and of 16 beyond, up to min(2 max_num_seqs, 512)."""
    if not engine.cuda_graph:
        return ()
    if engine.cudagraph_capture_sizes is not None:
        return tuple(sorted(engine.cudagraph_capture_sizes))
    most = min(2 * engine.max_num_seqs, 512)
    sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= most]
    return tuple(sizes)


def _quickest(attention: Attention) -> Callable[[int, int, int, int], float]:
    """`attention.beside`, without the ways there: it is called in every step with a prompt chunk."""
    plain = attention.varlen is not None and attention.varlen.packs and not attention.window
    return attention.varlen.single if plain else attention.beside  # type: ignore[union-attr]


def _tokens(load: Sequence[tuple[int, int]]) -> int:
    return sum(n for n, _ in load)
