"""Token exchange of expert parallelism by DeepEP's kernels: dispatch sends each token to the GPUs of its experts, combine brings them back.

Low-latency kernels, for decode, write one copy per chosen expert straight to its GPU. The sum moves at a share of the link, but one thread
group serves each of the E experts of the layer, at `b_expert`, so that few experts are waited for (B the bytes one rank sends):

    t = a + g E + ((B / (e BW))^p + (B / E / b_expert)^p)^(1/p)

Normal kernels, for prefill, send one copy per GPU that holds any of a token's experts, n (1 - (1 - 1/n)^k) of n for k experts a token, by
a few multiprocessors:

    t = a + token T SMS / sms + B ((e BW)^-q + (sms b_sm)^-q)^(1/q)

Between nodes the part of the bytes that leaves the node crosses the cards at the same time. Low-latency tables of 2, 4 and 8 nodes (H100,
400 Gb/s InfiniBand: 20.2, 25.7 and 27.8 us, 91, 62 and 53 GB/s) are that part at 0.92 of the card and 4.8 us per doubling of nodes.
Normal mode of DeepEP's published tables is 0.87 of the card. Uniform choice of experts throughout; an imbalance scales the bytes.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

SENT, RETURNED = 1.0 + 4.0 / 128.0, 2.0  # bytes per element: dispatch in fp8 with a scale per 128, combine in bf16
SMS = 20  # multiprocessors that normal kernels take unless told otherwise
LOW_LATENCY_TOKENS = 256  # tokens per rank up to which engines take the low-latency kernels (their receive buffers' usual size)
CARD = {"ll": 0.92, "normal": 0.87}  # of a network card's rate
HOP = 4.8e-6  # seconds per doubling of nodes


class Reach(NamedTuple):
    """Where the ranks sit: `n` GPUs over `nodes`, with their link inside a node and their card between, bytes/s one way."""

    n: int
    nodes: int
    link: float
    card: float

    @property
    def away(self) -> float:
        """The share of a rank's traffic that leaves its node."""
        return 1.0 - math.ceil(self.n / self.nodes) / self.n if self.nodes > 1 else 0.0

    @property
    def delay(self) -> float:
        return HOP * math.log2(self.nodes) if self.nodes > 1 else 0.0


def low_latency(fit: Mapping[str, float], size: Any, reach: Reach, experts: int) -> Any:
    """Seconds of `size` bytes per rank (tokens x experts per token x width); `experts` counts those of the layer, over all ranks."""
    near = size * (1.0 - reach.away) / (fit["e"] * reach.link)
    group = size / experts / fit["b_expert"]
    p = fit["p"]
    inside = (near**p + group**p) ** (1.0 / p)
    outside = size * reach.away / (CARD["ll"] * reach.card) if reach.away else 0.0
    return fit["a"] + fit["g"] * experts + reach.delay + np.maximum(inside, outside)


def normal(fit: Mapping[str, float], tokens: Any, width: float, topk: int, reach: Reach, sms: Any = SMS) -> Any:
    """Seconds of `tokens` per rank of `width` bytes each, which choose `topk` experts; `sms` multiprocessors run the kernel."""
    q = fit["q"]
    inside = tokens * width * copies(topk, reach.n) * ((fit["e"] * reach.link) ** -q + (sms * fit["b_sm"]) ** -q) ** (1.0 / q)
    outside = tokens * width * copies(topk, reach.nodes) / (CARD["normal"] * reach.card) if reach.away else 0.0
    return fit["a"] + fit["token"] * tokens * SMS / sms + reach.delay + np.maximum(inside, outside)


def copies(topk: Any, places: int) -> Any:
    """Other places, of `places`, that hold at least one of `topk` experts drawn evenly: copies of a token that are sent away."""
    return (places - 1.0) * (1.0 - (1.0 - 1.0 / places) ** topk) if places > 1 else 0.0
