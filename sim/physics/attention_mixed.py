"""Prompt chunks and decoders in one variable-length call, as engines on FlashAttention 2 and 3 make it.

It is no sum of two kernels. A tile of FlashAttention 2 holds 64 rows of one query head; a decoder fills one row of it, once per query head,
and its keys are neither packed by group nor split: a decoder's tile costs what a prompt's tile costs. The heads of a group run one after
the other over the whole batch, so that they read shared keys again where one KV head's keys overflow the L2 cache:

    load  = H sum over chunks ceil(n/64) (mean keys + 64 + o) + H (KV tokens + B od)
    mem   = KV bytes (1 + (G-1) miss) + ...,  miss = 1/(1 + (l2cap L2 / bytes per KV head)^gamma)
    t     = t0 + t_x tiles launched/SM + t_kv tokens KV/SM + ( core^p + mem^p )^(1/p),  core as in prefill

On LLMServingSim's measurements held-out MAPE is 7-10 % (p95 24-39), against 27-41 % for the sum. On its skew table,
whose times are read as the sum of three layers (where memory-bound they are 3.04 times one), 8 % at equal lengths and 12-15 % at mixed
ones. FlashAttention 3 packs the heads of a group over a paged cache and splits keys; nobody has published a mixed measurement of it.
`packed` builds its form from its two pure kernels.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.physics.attention_decode import Shape
from sim.physics.attention_prefill import ENDLESS, pairs, peak
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu

TILE = 64
PACKED_TILE = 128
SPLITS = 32.0


def packed(prefill: Fit, decode: Fit) -> Fit:
    """The mixed call of a kernel that packs groups and splits keys, from its pure ones: tiles as in prefill, bandwidth as in decode."""
    p = prefill.parameters
    values = {name: p[name] for name in ("t0", "e", "soft", "o", "c", "pl", "p", "t_kv")}
    values |= {"od": p["o"], "e_m": decode.parameters["e_m"], "t_x": 1e-9, "l2cap": 1.0, "gamma": 1.0, "tile": float(PACKED_TILE)}
    source = f"{prefill.source}; decoders taken as tiles of the prefill kernel, packed by group, not measured"
    return Fit("attn_mixed", prefill.dtype, prefill.framework, values, prefill.origin, "judgement", source, prefill.library)


class Mixed:
    """Bound to a GPU, fitted parameters, heads and window (0: none); scalar, no NumPy. `tile` of 128 means groups are packed, 64 not."""

    def __init__(self, gpu: Gpu, parameters: Mapping[str, float], shape: Shape, kv_bytes: float, window: int):
        p = parameters
        self.window = window or ENDLESS
        self.shape, self.kv_bytes = shape, kv_bytes
        self.sms, self.bandwidth, self.rate = gpu.sms, gpu.bandwidth, peak(gpu, kv_bytes)
        self.group = shape.query / shape.kv
        self.packs = p["tile"] > (TILE + PACKED_TILE) / 2
        self.rows = PACKED_TILE if self.packs else TILE
        self.token = self.rows * (shape.per_pair * gpu.sms / (p["e"] * self.rate) + p["soft"])
        self.per_key = shape.per_key * kv_bytes  # bytes of a key and its value, one KV head
        # New tokens of a decoder, those that verify a draft included, are further rows of its tiles.
        self.queries = shape.queries
        packed_rows, head_rows = shape.query * shape.queries, -(-shape.queries // TILE)
        self.decode_tiles = shape.kv * -(-packed_rows // (shape.kv * PACKED_TILE)) if self.packs else shape.query * head_rows
        self.cache = p["l2cap"] * gpu.l2
        self.t0, self.t_x, self.t_kv, self.o, self.od, self.c = p["t0"], p["t_x"] / gpu.sms, p["t_kv"] / gpu.sms, p["o"], p["od"], p["c"]
        self.pl, self.p, self.gamma, self.e_bw = p["pl"], p["p"], p["gamma"], p["e_m"] * gpu.bandwidth
        self._constants = (
            shape.kv, shape.query, shape.kv * self.rows, self.o, self.od, self.sms, self.pl, self.p, self.e_bw, self.per_key, shape.per_row,
            shape.per_pair, self.rate, self.bandwidth, shape.queries,
        )  # fmt: skip

    def terms(self, decoders: int, held: float, chunks: Sequence[tuple[int, int]]) -> tuple[Any, Any, Any, Any]:
        """Seconds: (arithmetic, memory traffic, fixed, the least by the datasheet). `held` is already limited by the window."""
        shape, window, rows, o = self.shape, self.window, self.rows, self.o
        load = longest = count = seen = 0.0
        tokens, most = decoders * self.queries, 0
        for n, before in chunks:
            end = before + n
            if end <= window:
                of_chunk, masked, reach, read = n * (before + (n + 1) / 2), 64.0, end, end
            else:
                of_chunk, masked, reach, read = pairs(n, before, window), 128.0, min(end, window) + 64, min(end, window + n)
            tiles = shape.kv * -(-n * shape.query // (shape.kv * rows)) if self.packs else shape.query * -(-n // rows)
            load += tiles * (of_chunk / n + masked + o)
            longest = max(longest, reach + o)
            count += of_chunk
            seen += read
            tokens += n
            most = max(most, n)
        again = 1.0
        if decoders:
            load += self.decode_tiles * (held + decoders * self.od)
            chain = held / decoders
            if self.packs:
                chain /= min(max(self.sms / (decoders * self.decode_tiles), 1.0), SPLITS)
            elif self.group > 1.0:
                again += (self.group - 1.0) / (1.0 + (self.cache / (held * self.per_key)) ** self.gamma)
            longest = max(longest, chain + self.od)
        core = ((load / self.sms) ** self.pl + (self.c * longest) ** self.pl) ** (1.0 / self.pl) * self.token
        rest = shape.kv * seen * self.per_key + 2.0 * tokens * shape.query * shape.per_row
        keys = shape.kv * held * self.per_key
        launched = (decoders + len(chunks)) * shape.query * -(-most // rows)
        least = max(shape.per_pair * shape.query * (count + held * self.queries) / self.rate, (keys + rest) / self.bandwidth)
        return core, (keys * again + rest) / self.e_bw, self.t0 + self.t_x * launched + self.t_kv * tokens * shape.kv, least

    def seconds(self, decoders: int, held: float, chunks: Sequence[tuple[int, int]]) -> float:
        if len(chunks) > 1 or chunks[0][0] + chunks[0][1] > self.window or not decoders or not self.packs:
            core, memory, fixed, least = self.terms(decoders, held, chunks)
            seconds: float = fixed + (core**self.p + memory**self.p) ** (1.0 / self.p)
            return seconds if seconds > least else float(least)
        return self.single(decoders, held, *chunks[0])

    def single(self, decoders: int, held: float, n: int, before: int) -> float:
        """The same for one chunk within the window beside decoders, of a kernel that packs: nearly every mixed step of an engine."""
        kv, query, per_tile, o, od, sms, pl, p, e_bw, per_key, per_row, per_pair, rate, bandwidth, queries = self._constants
        end, mean = before + n, before + (n + 1) / 2
        tiles = kv * -(-n * query // per_tile)
        decode_tiles = self.decode_tiles
        splits = sms / (decoders * decode_tiles)
        chain = held / decoders / (1.0 if splits < 1.0 else splits if splits < SPLITS else SPLITS) + od
        longest = end + o
        if chain > longest:
            longest = chain
        load = (tiles * (mean + 64.0 + o) + decode_tiles * (held + decoders * od)) / sms
        core = (load**pl + (self.c * longest) ** pl) ** (1.0 / pl) * self.token
        tokens = decoders * queries + n
        moved = kv * (end + held) * per_key + 2.0 * tokens * query * per_row
        launched = (decoders + 1) * query * -(-n // self.rows)
        memory = moved / e_bw
        seconds: float = self.t0 + self.t_x * launched + self.t_kv * tokens * kv + (core**p + memory**p) ** (1.0 / p)
        compute = per_pair * query * (n * mean + held * queries) / rate
        least = moved / bandwidth
        if compute > least:
            least = compute
        return seconds if seconds > least else float(least)
