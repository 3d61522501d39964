"""A whole engine step from its kernels: every layer's GEMMs, attention, collectives and small kernels, the head, and the host.

A replica spans tp x pp x dp GPUs. A step's work is dealt to pp micro-batches of dp attention groups. Groups step together, so that the
fullest of them decides. A stage computes the micro-batches one after another, and a step lasts as long as all of them in one stage: the
pipeline in steady state. A micro-batch without work costs as much as the others do, since the pipeline waits for their next round: the
bubble.

`step` adds a step up plainly, `line` and `mixed` read tables (`sim.physics.stage`). In a CUDA graph launches are hidden and token counts
padded to the captured sizes; without one a step takes at least its launches.

With speculation each decoder brings its last token and k drafted ones, which the layers, attention and the head take as so many rows, and
drafting is added (`sim.physics.drafting`). A step then yields `pace` tokens per decoder on average: what it is priced by, drawn or not.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from sim.core.request import Request
from sim.physics.attention import Attention
from sim.physics.base import Cost, Work
from sim.physics.curve import context_knots, total
from sim.physics.drafting import Drafting
from sim.physics.layers import Layers
from sim.physics.power import at_clock, clock
from sim.physics.speculation import Acceptance
from sim.physics.stage import ROWS, Row, Sizes, Stage, Tokens
from sim.spec.engine import EngineOptions
from sim.spec.hardware import Gpu
from sim.spec.llm import Llm
from sim.spec.scenario import Pool

ENDLESS = 1 << 60
EAGER = 256  # numbers of decoders that are tabulated at once


class EngineStep:
    """The step model of one replica: `llm` laid over `pool.parallel`, in the pool's precisions and engine options.

    `used` are the fits that price it. With speculation each decoder brings `queries` tokens to a step and gets `pace` of them on average.
    """

    def __init__(self, llm: Llm, gpu: Gpu, pool: Pool):
        self.llm, self.gpu, self.pool = llm, gpu, pool
        self.stages, self.lanes = pool.parallel.pp, pool.parallel.pp * pool.parallel.dp
        slowed = at_clock(gpu, clock(gpu, pool.power_cap))
        speculation, layers = pool.engine.speculative_config, Layers(llm, slowed, pool)
        self.queries = speculation.queries if speculation else 1
        self.pace = Acceptance(speculation).e if speculation else 1.0
        self._new = float(self.queries)
        self.host, self.frontend = layers.host(), layers.frontend()
        captured, budget = capture_sizes(pool.engine), pool.engine.max_num_batched_tokens + pool.engine.max_num_seqs * self.queries
        # Chunks are dealt to lanes whole, so the fullest may have more than an even share.
        most = max(budget if self.lanes == 1 else 2 * budget, captured[-1] if captured else 0)
        context = context_knots(pool.engine.max_model_len or llm.max_position, (window for window, _ in llm.kv_groups))
        sizes = Sizes(most, captured, context)
        self.target = target = Stage(layers, sizes, Tokens(self.queries, self.queries), self.stages, self.host)
        self.drafting = Drafting(llm, slowed, pool, sizes) if speculation else None
        sole = target.together and len(target.attention) == 1 and self.lanes == 1 and not speculation
        self._sole = (_quickest(target.attention[0][0]), target.attention[0][1]) if sole else ()
        self._linear, self._head, self._launches = target.linear, target.projected, target.launches
        self._most_graphed = captured[-1] if captured else 0
        self._models = [layers, *(self.drafting.models if self.drafting else [])]
        self.used = list(layers.kernels.used)
        self.used += [fit for model in self._models[1:] for fit in model.kernels.used if fit not in self.used]
        self._knots = context.tolist()
        self._rows: list[Row | None] = [None] * len(target.rows) if speculation else target.rows
        for decoders in range(1, min(pool.engine.max_num_seqs, EAGER) + 1, ROWS):
            target.row(decoders)

    def assumed(self, context: int) -> set[str]:
        """Which kernels are priced without a measurement or outside the measured range, up to a context; for the report."""
        said = set().union(*(model.assumed(self.target.sizes.most, context) for model in self._models))
        if self.pool.engine.lora:
            said.add(f"adapters on {self.gpu.name}: not measured; starts and bandwidth of other small kernels, and a judgement of storage")
        if self.drafting:
            said.add(f"attention of {self.queries} new tokens per sequence on {self.gpu.name}: not measured; rows of decode attention")
        return said

    # -- plainly ------------------------------------------------------------
    def step(self, work: Work) -> Cost:
        decoders, context = self.share(work.decoders, work.held)
        batches = self.batches(decoders, work.chunks)
        gpu = total([(self.stages / len(batches), self.stage(decoders, context, chunks)) for chunks in batches])
        return gpu._replace(seconds=gpu.seconds + self.host, host=gpu.host + self.host)

    def stage(self, decoders: int, context: float, chunks: Sequence[tuple[int, int]]) -> Cost:
        """One micro-batch in one stage, launches included."""
        gpu = self.target.cost(decoders, context, chunks)
        if self.drafting:
            gpu = total([(1, gpu), (1, self.drafting.cost(decoders, context, chunks))])
        gap = max(0.0, self.least(decoders, chunks) - gpu.seconds)
        return gpu._replace(seconds=gpu.seconds + gap, host=gpu.host + gap)

    def least(self, decoders: int, chunks: Sequence[tuple[int, int]]) -> float:
        """Seconds that the host needs to launch what no graph holds of a stage."""
        launches = self.target.least(decoders * self.queries + sum(n for n, _ in chunks))
        return launches + self.drafting.least(decoders, chunks) if self.drafting else launches

    def share(self, decoders: int, held: float) -> tuple[int, float]:
        """The decoders of a lane, and their mean context (each attends to its new tokens too)."""
        return -(-decoders // self.lanes), held / decoders + self.queries if decoders else 0.0

    def batches(self, decoders: int, chunks: Sequence[tuple[int, int]]) -> list[Sequence[tuple[int, int]]]:
        """The prompt chunks of each micro-batch, of its fullest attention group; micro-batches without any work are left out."""
        if self.lanes == 1:
            return [chunks]
        loads: list[list[tuple[int, int]]] = [[] for _ in range(self.lanes)]
        for chunk in sorted(chunks, reverse=True):
            min(loads, key=_tokens).append(chunk)
        fullest = [max(loads[batch :: self.stages], key=_tokens) for batch in range(self.stages)]
        return [load for load in fullest if load or decoders]

    def network(self, decoders: int, chunks: Sequence[tuple[int, int]]) -> float:
        """Seconds of collectives in a step, those that `step` says, whatever the decoders hold."""
        decoders, _ = self.share(decoders, 0.0)
        batches = self.batches(decoders, chunks)
        seconds = sum(self.target.network(decoders, some) for some in batches)
        if self.drafting:
            seconds += sum(self.drafting.network(decoders, some) for some in batches)
        return self.stages / len(batches) * seconds

    # -- fast ------------------------------------------------------------
    def line(self, decoders: int, held: int) -> tuple[float, float, int]:
        context, pace = held / decoders + self._new, self.pace
        if self.lanes > 1:
            decoders = -(-decoders // self.lanes)
        values, slopes, least, _ = self._rows[decoders] or self._fill(decoders)
        knots = self._knots
        i = bisect_right(knots, context) - 1
        if i < len(slopes):
            steps = int((knots[i + 1] - context) / pace) + 1
        else:
            i, steps = i - 1, ENDLESS
        slope = slopes[i]
        seconds = values[i] + slope * (context - knots[i])
        slope *= pace
        if seconds < least:
            return least, 0.0, min(steps, int((least - seconds) / slope) + 1) if slope else steps
        return seconds, slope, steps

    def mixed(self, decoders: int, held: int, chunks: Sequence[tuple[Request, int]]) -> float:
        if len(chunks) == 1 and decoders and self._sole:
            return self._beside(decoders, held, chunks[0])
        pieces = [(n, request.computed) for request, n in chunks]
        if self.lanes == 1:
            return self._stage(decoders, held / decoders + self.queries if decoders else 0.0, pieces) + self.host
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
        return (seconds if seconds > self._launches or tokens <= self._most_graphed else self._launches) + self.host

    def _stage(self, decoders: int, context: float, pieces: Sequence[tuple[int, int]]) -> float:
        seconds = self.target.seconds(decoders, context, pieces)
        if self.drafting:
            seconds += self.drafting.seconds(decoders, context, pieces)
        elif seconds > self._launches:
            return seconds
        least = self.least(decoders, pieces)
        return seconds if seconds > least else least

    def _fill(self, decoders: int) -> Row:
        """Rows of steps that only decode, for this many decoders of a lane and perhaps the next few."""
        row = self.target.row(decoders)
        if self.drafting:
            launches = self.least(decoders, ())
            row = self.drafting.onto(row, self.stages, decoders)._replace(least=self.stages * launches + self.host if launches else 0.0)
            self._rows[decoders] = row
        return row


def capture_sizes(engine: EngineOptions) -> tuple[int, ...]:
    """Batch sizes with a CUDA graph: vLLM's 1, 2, 4, multiples of 8 to 256 and of 16 beyond, up to min(2 max_num_seqs, 512).

    With speculation a sequence counts as often as it brings tokens.
    """
    if not engine.cuda_graph:
        return ()
    if engine.cudagraph_capture_sizes is not None:
        return tuple(sorted(engine.cudagraph_capture_sizes))
    most = min(2 * engine.max_num_seqs * (engine.speculative_config.queries if engine.speculative_config else 1), 512)
    sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= most]
    return tuple(sizes)


def _quickest(attention: Attention) -> Callable[[int, int, int, int], float]:
    """`attention.beside`, without the ways there: it is called in every step with a prompt chunk."""
    plain = attention.varlen is not None and attention.varlen.packs and not attention.window
    return attention.varlen.single if plain else attention.beside  # type: ignore[union-attr]


def _tokens(load: Sequence[tuple[int, int]]) -> int:
    return sum(n for n, _ in load)
