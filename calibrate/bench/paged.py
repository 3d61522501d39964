"""Attention over a KV cache, by the best kernel that torch has here for sequences of unequal length.

On a GPU this is the FlashAttention that torch carries (`aten::_flash_attention_forward`, which `torch.nn.attention.varlen` wraps), with a
block table where this release of torch takes one: a paged cache is then read in place, page by page, as an engine reads it, within a CUDA
graph. Its pages hold 256 tokens (the kernel's least), against 16 in most engines; where flash_attn_interface is installed on a Hopper GPU
FlashAttention 3 takes its place. Gathering pages into a copy, or a kernel compiled from Python per shape, would time something else.
Older releases read sequences that lie one behind the other; a CPU takes one scaled_dot_product_attention per sequence. Limits: this kernel
splits the KV of one sequence over multiprocessors only when query heads share KV heads; and torch alone has no attention that reads an fp8
cache, so those points are named and left out wherever the trial below refuses them.

No choice is trusted: each kernel first has to agree with a float32 reference on a small case.
"""
from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from calibrate.bench.device import BF16, Bench, Unsupported
from calibrate.bench.grid import HEAD_DIM

PAGE = 256  # tokens
AGREE = 0.05  # of outputs that are averages of standard normal numbers
TRIAL = ([1, 1, 1], [300, 77, 1]), ([5, 1], [261, 40])  # (queries, KV tokens) of the trial cases


class Layout(NamedTuple):
    """Where each sequence's KV lies and how many of its last tokens ask. Tensors are int32 on the device.

    `table` (copies, sequences, pages) numbers pages of the whole pool; None when a sequence's tokens lie together.
    """

    queries: tuple[int, ...]
    lengths: tuple[int, ...]
    cu_q: torch.Tensor
    cu_k: torch.Tensor
    used: torch.Tensor
    table: torch.Tensor | None
    max_q: int
    max_k: int


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Layout, int], torch.Tensor]


class Kernel(NamedTuple):
    """`attend(q, k, v, layout, copy)`: q (queries in all, H, D) to the same shape. `page` tokens lie together; 0: whole sequences."""

    name: str
    layout: str
    page: int
    attend: Attend


class Sequences:
    """KV of some sequences in `copies` copies, random, laid out as `kernel` wants it. `queries`, `lengths`: tokens of each sequence."""

    def __init__(
        self, bench: Bench, kernel: Kernel, queries: Sequence[int], lengths: Sequence[int], kv_heads: int, copies: int, dtype: torch.dtype,
        beside: Sequence[Sequence[int]] = (),
    ):  # fmt: skip
        """`beside`: shapes of other random tensors that must not overlap the cache, found in `self.beside`."""
        self.bench, self.kernel, self.kv_heads = bench, kernel, kv_heads
        pages = [-(-length // kernel.page) for length in lengths] if kernel.page else list(lengths)
        shape = (copies * sum(pages), max(1, kernel.page), kv_heads, HEAD_DIM)
        if dtype == BF16:
            self.k, self.v, *self.beside = bench.carve([shape, shape, *beside], dtype)
        else:
            self.k, self.v = bench.carve([shape, shape], dtype)
            self.beside = bench.carve(beside)
        table = None
        if kernel.page:
            generator = torch.Generator(device=bench.device)
            generator.manual_seed(0)
            scattered = torch.randperm(shape[0], generator=generator, device=bench.device).to(torch.int32).view(copies, -1)
            table = torch.zeros(copies, len(pages), max(pages), dtype=torch.int32, device=bench.device)
            start = 0
            for i, count in enumerate(pages):
                table[:, i, :count] = scattered[:, start : start + count]
                start += count
        else:
            self.k, self.v = (x.view(copies, sum(pages), kv_heads, HEAD_DIM) for x in (self.k, self.v))
        self.layout = Layout(
            tuple(queries), tuple(lengths), bounds(queries, bench.device), bounds(lengths, bench.device),
            torch.tensor(lengths, dtype=torch.int32, device=bench.device), table, max(queries), max(lengths),
        )  # fmt: skip

    def attend(self, q: torch.Tensor, copy: int) -> torch.Tensor:
        return self.kernel.attend(q, self.k, self.v, self.layout, copy)

    def slots(self, copy: int, counts: Sequence[int] | None = None) -> torch.Tensor:
        """Where the KV of each sequence's last `counts` tokens (those that ask) lies, as indices of tokens in `flat()`. int64."""
        found, start = [], 0
        for i, (count, length) in enumerate(zip(counts or self.layout.queries, self.layout.lengths, strict=True)):
            at = torch.arange(length - count, length, device=self.bench.device)
            if self.layout.table is None:
                found.append(at + start + copy * sum(self.layout.lengths))
            else:
                found.append(self.layout.table[copy, i].long()[at // self.kernel.page] * self.kernel.page + at % self.kernel.page)
            start += length
        return torch.cat(found)

    def flat(self) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V as (tokens of all pages or copies, KV heads, head dim)."""
        return self.k.view(-1, self.kv_heads, HEAD_DIM), self.v.view(-1, self.kv_heads, HEAD_DIM)


def bounds(counts: Sequence[int], device: torch.device) -> torch.Tensor:
    """0, then the running sum: int32, one more than `counts`."""
    return torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def choose(bench: Bench, dtype: torch.dtype = BF16) -> Kernel:
    """The first kernel that runs here on a cache of this dtype and is right; Unsupported when there is none."""
    if dtype not in bench.kernels:
        bench.kernels[dtype] = next((k for k in _candidates(bench) if _right(bench, k, dtype)), None)
    kernel = bench.kernels[dtype]
    if kernel is None:
        why = "; ".join(f"{name}: {reason}" for name, reason in bench.refused.items())
        raise Unsupported(f"no attention here reads a KV cache of {str(dtype).removeprefix('torch.')} ({why[:300]})")
    return kernel  # type: ignore[no-any-return]


def _candidates(bench: Bench) -> list[Kernel]:
    return _flash(bench) if bench.cuda else [Kernel("torch_sdpa", "dense", 0, _one_by_one)]


def _flash(bench: Bench) -> list[Kernel]:
    operator = getattr(torch.ops.aten, "_flash_attention_forward", None)
    if operator is None:
        return []
    known = {argument.name for argument in operator.default._schema.arguments}
    name = "torch_flash"
    if torch.cuda.get_device_capability(bench.device)[0] == 9 and importlib.util.find_spec("flash_attn_interface"):
        try:
            from torch.nn.attention import activate_flash_attention_impl

            activate_flash_attention_impl("FA3")
            name = "torch_flash3"
        except (ImportError, RuntimeError, ValueError) as error:
            bench.refused["FA3"] = str(error).splitlines()[0]

    def attend(bounded: bool) -> Attend:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, at: Layout, copy: int) -> torch.Tensor:
            causal = at.max_q > 1
            more: dict[str, Any] = {"window_size_left": -1, "window_size_right": 0 if causal else -1}
            if at.table is not None:
                more |= {"block_table": at.table[copy], "seqused_k": at.used}
            else:
                k, v = k[copy], v[copy]
            cu_k = at.cu_k if bounded else None
            return operator(q, k, v, at.cu_q, cu_k, at.max_q, at.max_k, 0.0, causal, False, **more)[0]  # type: ignore[no-any-return]

        return call

    paged = [Kernel(name, "paged", PAGE, attend(bounded)) for bounded in (True, False)] if "block_table" in known else []
    return [*paged, Kernel(name, "varlen", 0, attend(True))]


def _one_by_one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, at: Layout, copy: int) -> torch.Tensor:
    k, v = k[copy], v[copy]
    if len(set(at.queries)) == len(set(at.lengths)) == 1:
        split = (len(at.lengths), -1)
        out = sdpa(*(x.view(*split, *x.shape[1:]) for x in (q, k, v)))
        return out.reshape(q.shape)
    pieces = (torch.split(x, list(counts)) for x, counts in ((q, at.queries), (k, at.lengths), (v, at.lengths)))
    return torch.cat([sdpa(a[None], b[None], c[None])[0] for a, b, c in zip(*pieces, strict=True)])


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(B, tokens, heads, D) each; the queries are the last tokens, and see those before them."""
    asked, known = q.shape[1], k.shape[1]
    mask = None
    if 1 < asked < known:
        mask = torch.ones(asked, known, dtype=torch.bool, device=q.device).tril(known - asked)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=1 < asked == known, enable_gqa=q.shape[1] != k.shape[1])
    return out.transpose(1, 2)


def _right(bench: Bench, kernel: Kernel, dtype: torch.dtype) -> bool:
    """Whether it runs and agrees."""
    try:
        for queries, lengths in TRIAL:
            here = Sequences(bench, kernel, queries, lengths, 2, 2, dtype, [(sum(queries), 8, HEAD_DIM)])
            q = here.beside[0].to(dtype)
            with torch.no_grad():
                apart = here.attend(q, 1).float() - _reference(here, q, 1)
            if not float(apart.abs().max()) < AGREE:
                raise RuntimeError(f"is off by {float(apart.abs().max()):.3g}")
        bench.settle()
    except (RuntimeError, TypeError, ValueError) as error:
        bench.settle()
        bench.refused[f"{kernel.name} {kernel.layout} {str(dtype).removeprefix('torch.')}"] = str(error).splitlines()[0]
        return False
    return True


def _reference(here: Sequences, q: torch.Tensor, copy: int) -> torch.Tensor:
    """The same attention in float32 on the CPU, written out."""
    at, (k, v) = here.layout, (x.float().cpu() for x in here.flat())
    queries, out, asked = q.float().cpu(), [], 0
    spots = torch.split(here.slots(copy, at.lengths).cpu(), list(at.lengths))
    for count, length, spot in zip(at.queries, at.lengths, spots, strict=True):
        group = q.shape[1] // here.kv_heads
        ks, vs = (x[spot].repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))  # heads, length, D
        scores = queries[asked : asked + count].transpose(0, 1) @ ks.transpose(1, 2) / HEAD_DIM**0.5
        scores += torch.full((count, length), float("-inf")).triu(length - count + 1)
        out.append((scores.softmax(-1) @ vs).transpose(0, 1))
        asked += count
    return torch.cat(out).to(q.device)
