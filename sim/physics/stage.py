"""One forward pass of a model's layers over a micro-batch, in one pipeline stage: the layers, attention, the head.

`cost` adds it up plainly. The fast forms rest on two facts. All work but attention depends on token counts alone: a table. Attention of
decoders is, for each number of them, affine in their mean context piece by piece: a row of knots. In a CUDA graph token counts are padded
to the captured sizes.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.physics.base import Cost
from sim.physics.curve import ZERO, Curve, token_knots, total
from sim.physics.layers import Layers

ROWS = 16  # numbers of decoders that are tabulated at a time
Chunks = Sequence[tuple[int, int]]


class Row(NamedTuple):
    """Steps that only decode, of so many decoders: `values` (s) at the context knots, `slopes` (s per token of context) after each, the
    `least` that launches take, and what of the values is `other` than attention.
    """

    values: list[float]
    slopes: list[float]
    least: float
    other: float


class Sizes(NamedTuple):
    """What is tabulated: up to `most` tokens, the `captured` ones (ascending), and the knots of `context`."""

    most: int
    captured: tuple[int, ...]
    context: np.ndarray

    def graphed(self, tokens: int) -> bool:
        return bool(self.captured) and tokens <= self.captured[-1]

    def padded(self, tokens: int) -> int:
        """The token count that a captured graph computes."""
        return self.captured[bisect_left(self.captured, tokens)] if tokens and self.graphed(tokens) else tokens


class Tokens(NamedTuple):
    """What a decoder brings: `queries` new tokens, of which `outputs` are projected onto the vocabulary; `greedy` takes the likeliest."""

    queries: int = 1
    outputs: int = 1
    greedy: bool = False


class Stage:
    """A micro-batch's pass. Rows are of steps of `stages` such passes, one after another, and `host` seconds."""

    def __init__(self, layers: Layers, sizes: Sizes, tokens: Tokens, stages: int = 1, host: float = 0.0):
        self.sizes, self.context, self.stages, self.host = sizes, sizes.context, stages, host
        self.queries, self.outputs = tokens.queries, tokens.outputs
        knots = token_knots(sizes.most, sizes.captured)
        self.layers, self.head = Curve(knots, layers.linear(knots)), Curve(knots, layers.head(knots, tokens.greedy))
        self.attention = layers.attention(tokens.queries)
        # One kernel for decoders and chunks, or one for each; all kinds of layers of a model agree.
        self.together = all(attention.together for attention, _ in self.attention)
        self.launches = layers.launches()
        seconds = self.layers.seconds(sizes.most)
        self.linear = [seconds[sizes.padded(size)] for size in range(sizes.most + 1)]
        self.projected = self.head.seconds(sizes.most)
        self._decode: dict[int, Curve] = {}
        self._knots = self.context.tolist()
        self.rows: list[Row | None] = [None] * (sizes.most // tokens.queries + 1)

    # -- plainly ------------------------------------------------------------
    def cost(self, decoders: int, context: float, chunks: Chunks) -> Cost:
        """One micro-batch, launches hidden. `context`: mean KV tokens of the decoders, their new ones included."""
        tokens = decoders * self.queries + sum(n for n, _ in chunks)
        return total([
            (1, self.layers.at(self.sizes.padded(tokens))),
            (1, self.head.at(decoders * self.outputs + len(chunks))),
            (1, self.attend(decoders, context, chunks)),
        ])  # fmt: skip

    def attend(self, decoders: int, context: float, chunks: Chunks) -> Cost:
        """Attention over the layers: one kernel for decoders and chunks, no faster than the decoders' alone, or two."""
        alone = self.decode(decoders, context)
        if not chunks:
            return alone
        inside = decoders if self.together else 0
        both = total((layers, attention.mixed(inside, inside * context, chunks)) for attention, layers in self.attention)
        if self.together:
            return both if both.seconds > alone.seconds else alone
        return total([(1, both), (1, alone)])

    def decode(self, decoders: int, context: float) -> Cost:
        """Attention of the decoders over the layers, interpolated between the context knots."""
        if not decoders:
            return ZERO
        if decoders not in self._decode:
            costs = ((layers, attention.decode(float(decoders), self.context)) for attention, layers in self.attention)
            self._decode[decoders] = Curve(self.context, total(costs))
        return self._decode[decoders].at(context)

    def network(self, decoders: int, chunks: Chunks) -> float:
        """Seconds of collectives in it, for any context."""
        tokens = decoders * self.queries + sum(n for n, _ in chunks)
        layers, head = self.layers.at(self.sizes.padded(tokens)), self.head.at(decoders * self.outputs + len(chunks))
        return layers.network + head.network

    def least(self, tokens: int) -> float:
        """Seconds that a host needs to launch the kernels of so many tokens, where no graph does."""
        return 0.0 if self.sizes.graphed(tokens) else self.launches

    # -- fast ------------------------------------------------------------
    def seconds(self, decoders: int, context: float, chunks: Chunks) -> float:
        """As `cost`, its seconds."""
        if not chunks:
            return self._attend(decoders, context) + self.linear[decoders * self.queries] + self.projected[decoders * self.outputs]
        tokens = decoders * self.queries
        for n, _ in chunks:
            tokens += n
        both, together = 0.0, decoders if self.together else 0
        for attention, layers in self.attention:
            both += layers * attention.mixed_seconds(together, 0.0, together * context, chunks)
        if decoders:
            alone = self._attend(decoders, context)
            both = both + alone if not together else both if both > alone else alone
        return self.linear[tokens] + self.projected[decoders * self.outputs + len(chunks)] + both

    def row(self, decoders: int) -> Row:
        """The row of so many decoders, from the table or made now with the next few."""
        return self.rows[decoders] or self._fill(decoders)

    def _attend(self, decoders: int, context: float) -> float:
        """Attention of the decoders, by the table."""
        values, slopes, _, other = self.rows[decoders] or self._fill(decoders)
        i = min(bisect_right(self._knots, context), len(slopes)) - 1
        return (values[i] + slopes[i] * (context - self._knots[i]) - other) / self.stages

    def _fill(self, decoders: int) -> Row:
        counts = np.arange(decoders, min(decoders + ROWS, len(self.rows)))
        seconds = np.zeros((len(counts), len(self.context)))
        for attention, layers in self.attention:
            seconds += layers * attention.decode(counts[:, None].astype(float), self.context[None, :]).seconds
        slopes = self.stages * np.diff(seconds, axis=1) / np.diff(self.context)
        for count, attended, slope in zip(counts.tolist(), self.stages * seconds, slopes, strict=True):
            tokens = count * self.queries
            other = self.stages * (self.linear[tokens] + self.projected[count * self.outputs]) + self.host
            least = 0.0 if self.sizes.graphed(tokens) else self.stages * self.launches + self.host
            self.rows[count] = self.rows[count] or Row((attended + other).tolist(), slope.tolist(), least, other)
        return self.rows[decoders]  # type: ignore[return-value]
