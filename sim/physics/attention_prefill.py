"""Prefill attention: chunks of new tokens, each query against all keys before it over tiles.

Work is counted in token-times: a tile of 128 query rows against one key. Tiles are dealt to the SMs, and the longest cannot be divided:

    load = sum over tiles of ( mean keys + half a tile of masked ones + o )
    core = ((load/SM)^pl + (c (longest + o))^pl)^(1/pl) x 128 ( 4 D SM/(e P) + soft )
    t    = t0 + t_q B H/SM + t_kv tokens KV/SM + ( core^p + (bytes/(e_m BW))^p )^(1/p)

Beyond a plain tile form: `t_kv`, because the published times include the write of new keys and values into the paged cache, which costs
by head and token (H100: 0.5 ns each; without it heads without groups are off by 40 %); `soft`, the softmax: seconds per score on one SM,
whatever D (vLLM bf16: 31 ps on H100 and 30 on B200, with `e` on its bound; 66 on RTX PRO 6000), which makes fits fit to lend: B200's on
H100 are off by 9 % in the median, not 19; `c`, since kernels halve tiles or split keys when few. Peak P is fp8's where the keys are fp8
and the chip multiplies it. What does not depend on fitted parameters is counted once per chunk (Piece), so that a step costs a few
arithmetic operations.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sim.physics.attention_decode import Shape
from sim.spec.hardware import Gpu

ROWS = 128  # query rows of one tile
ENDLESS = 1 << 60


class Piece(NamedTuple):
    """What chunks ask of a kernel: `tiles`, `keys` they meet in all (masked ones included), the `longest` chain of keys, `bytes` of
    operands in 16 bits but for keys and values, `tokens`, `sequences`, and query-key `pairs` that count. Sums over chunks, but `longest`.
    """

    tiles: Any
    keys: Any
    longest: Any
    bytes: Any
    tokens: Any
    sequences: Any
    pairs: Any


def pairs(n: int, before: int, window: int) -> float:
    """Query-key pairs of n new tokens after `before` others, each query seeing at most `window` keys.

    >>> pairs(4, 0, 100), pairs(4, 10, 100), pairs(4, 10, 3)
    (10.0, 50.0, 12.0)
    """
    free = min(max(window - before, 0), n)
    return free * (before + (free + 1) / 2) + (n - free) * float(window)


def piece(shape: Shape, kv_bytes: float, n: int, before: int, window: int) -> Piece:
    """One chunk of n >= 1 new tokens after `before` others. Grouped heads are packed into common tiles where that saves some."""
    query, kv = shape.query, shape.kv
    apart, packed = query * -(-n // ROWS), kv * -(-n * query // (kv * ROWS))
    tiles = apart if apart < packed else packed
    end = before + n
    if end <= window:
        count, masked, longest, seen = n * (before + (n + 1) / 2), 64.0, end, end
    else:
        count = pairs(n, before, window)
        # A window's edge cuts a tile on both sides.
        masked, longest, seen = 64.0 + 64.0 * (n - min(max(window - before, 0), n)) / n, min(end, window) + 64, min(end, window + n)
    moved = seen * kv * shape.per_key * kv_bytes + 2.0 * n * query * shape.per_row
    return Piece(tiles, tiles * (count / n + masked), longest, moved, n, 1, count)


def total(pieces: list[Piece]) -> Piece:
    """All pieces of one call."""
    if len(pieces) == 1:
        return pieces[0]
    tiles, keys, longest, moved, tokens, sequences, count = zip(*pieces, strict=True)
    return Piece(sum(tiles), sum(keys), max(longest), sum(moved), sum(tokens), sum(sequences), sum(count))


def peak(gpu: Gpu, kv_bytes: float) -> float:
    """FLOP/s at which scores are multiplied: fp8's with fp8 keys where the chip has it."""
    return gpu.flops.get("fp8", gpu.flops["bf16"]) if kv_bytes < 2.0 else gpu.flops["bf16"]


def terms(gpu: Gpu, p: Mapping[str, float], shape: Shape, rate: float, work: Piece) -> tuple[Any, Any, Any]:
    """Seconds of one call: (arithmetic, memory traffic, fixed). Fields of `shape` and `work` are numbers or arrays alike."""
    token = ROWS * (shape.per_pair * gpu.sms / (p["e"] * rate) + p["soft"])
    power = p["pl"]
    chain = p["c"] * (work.longest + p["o"])
    core = (((work.keys + work.tiles * p["o"]) / gpu.sms) ** power + chain**power) ** (1.0 / power) * token
    fixed = p["t0"] + (p["t_q"] * work.sequences * shape.query + p["t_kv"] * work.tokens * shape.kv) / gpu.sms
    return core, work.bytes / (p["e_m"] * gpu.bandwidth), fixed


def join(p: Mapping[str, float], core: Any, memory: Any, fixed: Any) -> Any:
    return fixed + (core ** p["p"] + memory ** p["p"]) ** (1.0 / p["p"])


def floor(gpu: Gpu, shape: Shape, rate: float, work: Piece) -> tuple[Any, Any]:
    """The least seconds by the datasheet: (arithmetic, compulsory traffic)."""
    return shape.per_pair * shape.query * work.pairs / rate, work.bytes / gpu.bandwidth


class Prefill:
    """Prefill attention of one layer, bound to a GPU, fitted parameters, heads and window (0: none). Scalar and quick."""

    def __init__(self, gpu: Gpu, parameters: Mapping[str, float], shape: Shape, kv_bytes: float, window: int):
        self.gpu, self.shape, self.kv_bytes, self.window = gpu, shape, kv_bytes, window or ENDLESS
        self.p = dict(parameters)
        self.rate = peak(gpu, kv_bytes)

    def work(self, chunks: Any) -> Piece:
        """What `chunks`, (new tokens, tokens before) each, ask for; at least one."""
        if len(chunks) == 1:
            n, before = chunks[0]
            return piece(self.shape, self.kv_bytes, n, before, self.window)
        return total([piece(self.shape, self.kv_bytes, n, before, self.window) for n, before in chunks])

    def terms(self, work: Piece) -> tuple[float, float, float]:
        return terms(self.gpu, self.p, self.shape, self.rate, work)

    def seconds(self, work: Piece) -> float:
        seconds: float = max(join(self.p, *self.terms(work)), *floor(self.gpu, self.shape, self.rate, work))
        return seconds
