"""A small engine over the layers of stack.py: paged KV, prompt pieces and decoders in one pass, CUDA graphs for decoders alone.

A request's pages are taken when it is admitted, for its whole length, so none is ever preempted. On a GPU a page is what the attention
kernel reads; on a CPU, whose kernel wants a sequence's tokens together, a page holds a whole request.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from calibrate.bench.device import BF16, SHARE, Bench, TooLarge, Unsupported
from calibrate.bench.elementwise import positions
from calibrate.bench.grid import HEAD_DIM
from calibrate.bench.paged import Layout, choose, sdpa
from calibrate.bench.stack import LLAMA_8B, TINY, Layers, Shape
from calibrate.bench.work import Limits, Piece, Request
from sim.core.errors import BadInput

CPU_PAGES = 64
SMALL = (1, 2, 4)
STRIDE = 8  # between the batch sizes captured above those


class Engine:
    """`shape` None: an 8B on a GPU, tiny on a CPU. `layers`: fewer than the shape has. BadInput: no device or memory for it."""

    def __init__(self, device: str, limits: Limits, shape: Shape | None = None, layers: int | None = None):
        self.bench = Bench(device)
        self.limits = limits
        shape = shape or (LLAMA_8B if self.bench.cuda else TINY)
        self.shape = shape = shape._replace(layers=layers or shape.layers)
        table = (shape.vocabulary, shape.hidden)
        try:
            self.kernel = choose(self.bench)
            *weights, self.embedding, self.head = self.bench.carve([*Layers.shapes(shape), table, table])
        except (TooLarge, Unsupported) as error:
            raise BadInput(f"no replay on {self.bench.gpu}: {error}") from None
        if self.bench.cuda and not self.kernel.page:
            raise BadInput(f"no replay on {self.bench.gpu}: torch {torch.__version__} has no attention over a paged KV cache")
        self.layers = Layers(shape, self.bench, weights)
        self.page = self.kernel.page or limits.length
        self.width = -(-limits.length // self.page)  # pages of the longest request
        count = self._pages()
        shaped = (count, self.page, shape.kv_heads, HEAD_DIM)
        every = [torch.zeros(shaped, dtype=BF16, device=self.bench.device) for _ in range(2 * shape.layers)]
        self.cache = list(zip(every[::2], every[1::2], strict=True))
        flat = (-1, shape.kv_heads, HEAD_DIM)
        self.flat = [(k.view(flat), v.view(flat)) for k, v in self.cache]
        self.spare = list(range(1, count))  # page 0 takes what padding writes
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._warm()
        if self.bench.cuda:
            self._capture()

    def _pages(self) -> int:
        most = 1 + self.limits.requests * self.width
        each = 2 * self.page * self.shape.kv_heads * HEAD_DIM * BF16.itemsize * self.shape.layers
        if not self.bench.cuda:
            return min(most, CPU_PAGES)
        free = torch.cuda.mem_get_info(self.bench.device)[0]
        count = min(most, int(free * SHARE) // each)
        if count <= self.width:
            raise BadInput(f"{self.bench.gpu} is too small: {free / 1e9:.1f} GB left for the KV of one request of {self.limits.length}")
        return count

    def admit(self, request: Request) -> bool:
        """Take the pages for all it will ever hold; False when too few are spare."""
        needed = -(-(request.prompt + request.output) // self.page)
        if needed > len(self.spare):
            return False
        request.pages = tuple(self.spare.pop() for _ in range(needed))
        return True

    def release(self, request: Request) -> None:
        self.spare.extend(request.pages)
        request.pages = ()

    def step(self, pieces: Sequence[Piece]) -> bool:
        """One iteration, from host to host; every request's `last` token is drawn. Whether a graph ran it."""
        with torch.no_grad():
            size = next((n for n in sorted(self.graphs) if n >= len(pieces)), None)
            if size is not None and all(piece.new == 1 and piece.request.computed for piece in pieces):
                drawn = self._replayed(pieces, size)
            else:
                drawn = self._eager(pieces)
        for piece, token in zip(pieces, drawn.tolist(), strict=False):
            piece.request.last = token
        return size is not None and drawn is self._drawn.get(size)

    def _host(self, pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Per token: id, position, slot in the cache. Per piece: KV tokens with its own, pages (padded with page 0)."""
        ids, spots, slots = [], [], []
        table = np.zeros((len(pieces), self.width), np.int32)
        for row, (request, new) in enumerate(pieces):
            at = np.arange(request.computed, request.computed + new)
            pages = np.array(request.pages, np.int64)
            table[row, : len(pages)] = pages
            spots.append(at)
            slots.append(pages[at // self.page] * self.page + at % self.page)
            ids.append(np.full(1, request.last) if new == 1 else (at * 7919 + request.index) % self.shape.vocabulary)
        used = np.array([request.computed + new for request, new in pieces], np.int32)
        return np.concatenate(ids), np.concatenate(spots), np.concatenate(slots), used, table

    def _eager(self, pieces: Sequence[Piece]) -> torch.Tensor:
        device = self.bench.device
        ids, spots, slots, used, table = (torch.from_numpy(array).to(device, non_blocking=True) for array in self._host(pieces))
        queries, lengths = tuple(piece.new for piece in pieces), tuple(piece.request.computed + piece.new for piece in pieces)
        ends = torch.from_numpy(np.cumsum((0, *queries), dtype=np.int32)).to(device)
        cu_k = torch.from_numpy(np.cumsum((0, *lengths), dtype=np.int32)).to(device)
        at = Layout(queries, lengths, ends, cu_k, used, table[None], max(queries), max(lengths))
        return self._forward(ids, spots, slots, at, ends[1:].long() - 1)

    def _forward(
        self, ids: torch.Tensor, spots: torch.Tensor, slots: torch.Tensor, at: Layout, last: torch.Tensor | None
    ) -> torch.Tensor:  # fmt: skip
        """The token each sequence draws. `last`: which rows are its last ones, None for all."""
        cos, sin = positions(spots)
        x = F.embedding(ids, self.embedding)
        x = self.layers(x, cos, sin, self.flat, [slots] * self.shape.layers, lambda q, i: self._read(q, i, at))
        return F.linear(x if last is None else x[last], self.head).argmax(-1)

    def _read(self, q: torch.Tensor, layer: int, at: Layout) -> torch.Tensor:
        k, v = self.cache[layer]
        if self.kernel.page:
            return self.kernel.attend(q, k, v, at, 0)
        assert at.table is not None
        starts = at.table[0, :, 0].tolist()
        asked = torch.split(q, list(at.queries))
        found = [sdpa(a[None], k[page, :n][None], v[page, :n][None])[0] for a, page, n in zip(asked, starts, at.lengths, strict=True)]
        return torch.cat(found)

    def _warm(self) -> None:
        """Run each kind of iteration once, so that libraries choose and compilers compile before anything is timed."""
        self._drawn: dict[int, torch.Tensor] = {}
        prompt = min(self.limits.tokens, self.limits.length) - 2
        for sizes in ((max(1, prompt),), (1,), (max(1, prompt // 2), 1, 1)):
            requests = [Request(i, size, 1) for i, size in enumerate(sizes)]
            if all(self.admit(request) for request in requests):
                for _ in range(2):
                    self.step([Piece(request, request.prompt) for request in requests])
            for request in requests:
                self.release(request)
        self.bench.settle()

    def _capture(self) -> None:
        device, most = self.bench.device, self.limits.requests
        sizes = sorted({*(n for n in SMALL if n <= most), *range(STRIDE, most + 1, STRIDE), most}, reverse=True)
        self._ids, self._spots, self._slots = (torch.zeros(most, dtype=torch.int64, device=device) for _ in range(3))
        self._used = torch.ones(most, dtype=torch.int32, device=device)
        self._table = torch.zeros(1, most, self.width, dtype=torch.int32, device=device)
        every = torch.arange(most + 1, dtype=torch.int32, device=device)
        pool = None
        for n in sizes:
            at = Layout((1,) * n, (1,) * n, every[: n + 1], every[: n + 1], self._used[:n], self._table[:, :n], 1, self.limits.length)
            inputs = (self._ids[:n], self._spots[:n], self._slots[:n], at, None)
            with torch.no_grad():
                self._forward(*inputs)
                self.bench.settle()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    self._drawn[n] = self._forward(*inputs)
            pool = pool or graph.pool()
            self.graphs[n] = graph
        self.bench.settle()

    def _replayed(self, pieces: Sequence[Piece], size: int) -> torch.Tensor:
        ids, spots, slots, used, table = self._host(pieces)
        pad = size - len(pieces)
        for buffer, values, rest in (
            (self._ids, ids, 0), (self._spots, spots, 0), (self._slots, slots, 0), (self._used, used, 1),
        ):  # fmt: skip
            buffer[:size].copy_(torch.from_numpy(np.pad(values, (0, pad), constant_values=rest)), non_blocking=True)
        self._table[0, :size].copy_(torch.from_numpy(np.pad(table, ((0, pad), (0, 0)))), non_blocking=True)
        self.graphs[size].replay()
        return self._drawn[size]
