"""What drafting adds to a step on the GPU: a draft model's passes, or the host's search of the text.

After the target has verified a draft, its drafter reads the k + 1 tokens of each decoder that were verified, the refused ones too (vLLM
pads drafts so that no host has to wait for their number), and the step's prompt chunks; it chooses the first token of each sequence's next
draft. The k - 1 others come one by one, each a pass over one token per sequence. Drafts are greedy. Passes follow one another on the GPU
without the host; between two, a few small kernels advance positions and cache slots.

With pipeline stages the drafter runs in the last one, which then sets the pace of all.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.physics.base import Cost
from sim.physics.curve import total
from sim.physics.layers import Layers
from sim.physics.stage import Row, Sizes, Stage, Tokens
from sim.spec.draft import draft
from sim.spec.hardware import Gpu
from sim.spec.llm import Llm
from sim.spec.scenario import Pool

# Judgement: positions, lengths, cache slots and the chosen tokens are each written by one small kernel.
BETWEEN = 4
# Judgement: searching a context of some thousand tokens for its last few takes microseconds of compiled code, and handing tokens over once
# a step some tens.
SEARCH_STEP, SEARCH_SEQUENCE = 50e-6, 5e-6
Chunks = Sequence[tuple[int, int]]


class Drafting:
    """The drafting of `pool.engine.speculative_config` for `llm`. Sizes are a micro-batch's; costs are those of one stage."""

    def __init__(self, llm: Llm, gpu: Gpu, pool: Pool, sizes: Sizes):
        options = pool.engine.speculative_config
        assert options is not None, "nothing drafts"
        found = draft(llm, pool)
        self.passes: list[tuple[int, Stage]] = []
        self.models: list[Layers] = []
        self.fixed, self.each = Cost(SEARCH_STEP, 0.0, 0.0, 0.0, SEARCH_STEP), SEARCH_SEQUENCE
        if found:
            within, more = found.pool(pool), options.num_speculative_tokens - 1
            self.models = [Layers(found.llm, gpu, within), Layers(found.again, gpu, within)]
            self.passes = [(1, Stage(self.models[0], sizes, Tokens(options.queries, 1, greedy=True)))]
            self.passes += [(more, Stage(self.models[1], sizes, Tokens(greedy=True)))] if more else []
            parts = self.models[0].starts(BETWEEN)
            self.fixed, self.each = Cost(*(float(part) * options.num_speculative_tokens for part in parts)), 0.0

    def cost(self, decoders: int, context: float, chunks: Chunks) -> Cost:
        """All passes of a step, plainly; `context` is the decoders' mean, with their new tokens."""
        search = self.each * (decoders + len(chunks))
        parts = [(1.0, self.fixed), (1.0, Cost(search, 0.0, 0.0, 0.0, search))]
        for (times, stage), work in zip(self.passes, _works(decoders, context, chunks), strict=False):
            parts.append((times, stage.cost(*work)))
        return total(parts)

    def seconds(self, decoders: int, context: float, chunks: Chunks) -> float:
        """The same quickly, its seconds."""
        seconds = self.fixed.seconds + self.each * (decoders + len(chunks))
        for (times, stage), work in zip(self.passes, _works(decoders, context, chunks), strict=False):
            seconds += times * stage.seconds(*work)
        return seconds

    def network(self, decoders: int, chunks: Chunks) -> float:
        """Seconds of collectives in them."""
        works = _works(decoders, 0.0, chunks)
        return sum(times * stage.network(count, some) for (times, stage), (count, _, some) in zip(self.passes, works, strict=False))

    def least(self, decoders: int, chunks: Chunks) -> float:
        """Seconds that a host needs to launch the passes that no graph holds."""
        tokens = sum(n for n, _ in chunks)
        counts = (decoders * stage.queries + (len(chunks) if number else tokens) for number, (_, stage) in enumerate(self.passes))
        return sum(times * stage.least(count) for (times, stage), count in zip(self.passes, counts, strict=True))

    def onto(self, row: Row, stages: int, decoders: int) -> Row:
        """The target's row of steps that only decode with drafting in each of `stages` micro-batches added, by the passes' own rows."""
        values, slopes = np.array(row.values), np.array(row.slopes)
        values += stages * (self.fixed.seconds + self.each * decoders)
        for times, stage in self.passes:
            alone = stage.row(decoders)
            values += stages * times * np.array(alone.values)
            slopes += stages * times * np.array(alone.slopes)
        return row._replace(values=values.tolist(), slopes=slopes.tolist())


def _works(decoders: int, context: float, chunks: Chunks) -> tuple[tuple[int, float, Chunks], tuple[int, float, Chunks]]:
    """What the first pass and the later ones work on: new tokens of all kinds, then one token of every sequence."""
    if not chunks:
        return (decoders, context, chunks), (decoders, context, chunks)
    sequences = decoders + len(chunks)
    held = decoders * context + sum(n + before for n, before in chunks)
    return (decoders, context, chunks), (sequences, held / sequences, ())
