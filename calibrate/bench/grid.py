"""The points of the microbenchmark: blocks, shapes and counts chosen so that ten minutes on one GPU identify every fitted form.

    python -m calibrate.bench.grid calibrate/calib_grid.csv        writes the grid that is shipped

Sizes straddle the tile edges (17, 129, 513, ...) because a grid of powers of two cannot tell the cost of a wave from the cost of a
launch: it aliases. Projections of real models are added to the lattice, since their widths (14336, 28672) lie off any round grid. Whole
blocks are validation only (`holdout`), and some fitted points are drawn again (`repeat`): their spread is the noise floor of any model.
"""
from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.rng import stream

HEAD_DIM = 128
ROLES = ("fit", "holdout", "repeat")
SEED = 0


class Point(NamedTuple):
    """One thing to time. Sizes that do not apply are 0.

    `family` is the dtype, KV dtype, operation or stack. m, n, k: GEMM sizes (elementwise: m tokens, n width; memcpy: m bytes).
    H, K: query and KV heads. B: batch (attn_mixed: decoding requests). L: KV tokens of each decoding request. mix: how unequal their
    lengths are. S: new tokens of a prompt piece, after `prefix` tokens already in the KV cache.
    """

    kind: str
    family: str
    role: str = "fit"
    m: int = 0
    n: int = 0
    k: int = 0
    H: int = 0
    K: int = 0
    B: int = 0
    L: int = 0
    mix: str = ""
    S: int = 0
    prefix: int = 0

    @property
    def name(self) -> str:
        sizes = (f"{name}={value}" for name, value in zip(self._fields[3:], self[3:], strict=True) if value)
        return " ".join((f"{self.kind}/{self.family}", *sizes))


# What each kind must say to be measured, each at least 1 (a stack: B and L, or S for a prompt).
NEEDED: dict[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "attn_decode": ("H", "K", "B", "L"),
    "attn_decode_hetero": ("H", "K", "B", "L", "mix"),
    "attn_prefill": ("H", "K", "B", "S"),
    "attn_chunk": ("H", "K", "S"),
    "attn_mixed": ("H", "K", "B", "L", "S"),
    "elementwise": ("m", "n"),
    "memcpy": ("m",),
    "launch": (),
    "layer_stack": (),
    "throttle": (),
}
MIXES = ("lognormal_s0.5", "lognormal_s1.0", "one_x16", "half_x4")
ELEMENTWISE = ("rmsnorm_residual", "silu_mul", "rope_kvwrite", "fp8_quant", "embedding", "topk_sample")
LAUNCHES = ("empty_kernel_eager", "empty_kernel_graph", "graph_chain_200", "host_launch_gap", "dependent_chain")
GRAPH_STACK, EAGER_STACK, PREFILL_STACK, SHARD_STACK = STACKS = (
    "llama8b_decode_32layers_graph", "llama8b_decode_32layers_eager", "llama8b_prefill_32layers", "70bTP8shard_decode_10layers_graph",
)  # fmt: skip
FAMILIES: dict[str, tuple[str, ...]] = {
    "gemm": ("bf16", "fp8"), "attn_decode": ("bf16kv", "fp8kv"), "attn_decode_hetero": ("bf16kv",), "attn_prefill": ("bf16",),
    "attn_chunk": ("bf16",), "attn_mixed": ("bf16",), "elementwise": ELEMENTWISE, "launch": LAUNCHES, "layer_stack": STACKS,
}  # fmt: skip

TOKENS = (1, 8, 17, 32, 64, 129, 193, 256, 513, 1024, 1537, 2561, 4096, 16384)
LATTICE = tuple(itertools.product((512, 1536, 5120, 16384), repeat=2))
MODELS = (  # (n, k) of the projections of an 8B at TP1, TP2, and of a 70B at TP1, TP4, TP8; then the two vocabularies
    (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (3072, 4096), (4096, 2048), (14336, 4096), (4096, 7168),
    (10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672), (2560, 8192), (8192, 2048), (14336, 8192), (8192, 7168),
    (1280, 8192), (8192, 1024), (7168, 8192), (8192, 3584), (128256, 4096), (16032, 8192),
)  # fmt: skip
WIDE, WIDE_TOKENS = 100_000, 1024  # a vocabulary is projected for few tokens only
HEADS = ((32, 8), (16, 4), (8, 2), (4, 1), (64, 8), (8, 1), (32, 32))
LARGEST_KV = 40e9  # bytes
REPEATS = {("gemm", "bf16"): 40, ("gemm", "fp8"): 15, ("attn_decode", "bf16kv"): 22, ("attn_decode", "fp8kv"): 3}


def points() -> list[Point]:
    """The whole grid, block after block (the order in which it is measured is another)."""
    fitted = [*_gemm(), *_decode()]
    rng = stream(SEED, "calibration repeats")
    repeats = []
    for (kind, family), count in REPEATS.items():
        own = [point for point in fitted if (point.kind, point.family, point.role) == (kind, family, "fit")]
        repeats += [own[i]._replace(role="repeat") for i in sorted(rng.choice(len(own), count, replace=False))]
    return [*fitted, *_other_attention(), *_rest(), *repeats]


def _gemm() -> Iterator[Point]:
    for dtype in ("bf16", "fp8"):
        for n, k in (*LATTICE, *MODELS):
            sparse = dtype == "fp8" and (n, k) in MODELS
            for m in TOKENS[::2] if sparse else TOKENS:
                if n <= WIDE or m <= WIDE_TOKENS:
                    yield Point("gemm", dtype, m=m, n=n, k=k)
    rng = stream(SEED, "calibration holdout")
    for _ in range(100):
        n, k = (64 * round(512 / 64 * (28672 / 512) ** float(u)) for u in rng.random(2))
        yield Point("gemm", "bf16", "holdout", m=round(16384 ** float(rng.random())), n=n, k=k)


def _decode() -> Iterator[Point]:
    for family, width, heads in (("bf16kv", 2, HEADS), ("fp8kv", 1, ((32, 8), (8, 1)))):
        for (h, kv), b, length in itertools.product(heads, (1, 4, 16, 64, 160, 256), (128, 500, 2048, 6000, 16384, 65536, 131072)):
            if 2 * b * length * kv * HEAD_DIM * width <= LARGEST_KV:
                yield Point("attn_decode", family, H=h, K=kv, B=b, L=length)


def _other_attention() -> Iterator[Point]:
    two, three = ((32, 8), (8, 1)), ((32, 8), (8, 1), (16, 4))
    for (h, kv), b, length, mix in itertools.product(two, (8, 32, 128), (512, 2048, 8192), MIXES):
        yield Point("attn_decode_hetero", "bf16kv", "holdout", H=h, K=kv, B=b, L=length, mix=mix)
    alone = [(1, s) for s in (100, 256, 512, 1000, 2048, 4096, 8192, 16384, 32768)]
    for (h, kv), (b, s) in itertools.product(three, [*alone, (4, 256), (4, 1000), (4, 4096), (16, 128), (16, 512)]):
        yield Point("attn_prefill", "bf16", H=h, K=kv, B=b, S=s)
    for (h, kv), s, prefix in itertools.product(three, (128, 256, 512, 1024, 2048), (1000, 4096, 16384, 65536)):
        yield Point("attn_chunk", "bf16", H=h, K=kv, B=1, S=s, prefix=prefix)
    for (h, kv), s, prefix, b, length in itertools.product(two, (128, 512, 2048), (0, 8192), (8, 32, 128), (512, 2048, 8192)):
        yield Point("attn_mixed", "bf16", H=h, K=kv, B=b, L=length, S=s, prefix=prefix)


def _rest() -> Iterator[Point]:
    for op, m, n in itertools.product(ELEMENTWISE, (1, 8, 32, 128, 512, 2048, 8192), (4096, 8192)):
        yield Point("elementwise", op, m=m, n=n)
    for i in range(14):
        yield Point("memcpy", "read+write", m=round(1e5 * (4e9 / 1e5) ** (i / 13)))
    yield from (Point("launch", family) for family in LAUNCHES)
    for b, length in itertools.product((1, 8, 32, 64, 128, 256), (1024, 8192)):
        yield Point("layer_stack", GRAPH_STACK, "holdout", B=b, L=length)
    yield from (Point("layer_stack", EAGER_STACK, "holdout", B=b, L=1024) for b in (1, 32, 128))
    yield from (Point("layer_stack", PREFILL_STACK, "holdout", S=s) for s in (512, 2048, 8192))
    yield from (Point("layer_stack", SHARD_STACK, "holdout", B=b, L=4096) for b in (1, 32, 128))
    yield Point("throttle", "bf16", m=8192, n=8192, k=8192)


def scaled(every: Iterable[Point], scale: float) -> list[Point]:
    """The same grid with all sizes times `scale` (at most 1), points that fall together named once: a rehearsal for a slow device."""
    if scale == 1:
        return list(every)

    def size(value: int, multiple: int, least: int) -> int:
        return value and max(least, multiple * round(value * scale / multiple))

    small = [
        p._replace(
            m=size(p.m, 1, 1), n=size(p.n, HEAD_DIM if p.kind == "elementwise" else 16, HEAD_DIM), k=size(p.k, 16, 64), B=size(p.B, 1, 1),
            L=size(p.L, 1, 8), S=size(p.S, 1, 4), prefix=size(p.prefix, 1, 8),
        )
        for p in every
    ]  # fmt: skip
    return list(dict.fromkeys(small))


def names(every: Sequence[Point]) -> list[str]:
    """A name per point that no other has: repeats are counted."""
    seen: dict[str, int] = {}
    found = []
    for point in every:
        seen[point.name] = seen.get(point.name, 0) + 1
        found.append(point.name if seen[point.name] == 1 else f"{point.name} #{seen[point.name]}")
    return found


def shuffled(every: Sequence[Point]) -> list[int]:
    """Indices in the order to measure: a fixed shuffle, so that drift (heat, clocks) falls on no block and a cut leaves a fair sample.

    The sustained load goes last, since it heats the device for whatever follows.
    """
    order = stream(SEED, "calibration order").permutation(len(every)).tolist()
    return sorted(order, key=lambda i: every[i].kind == "throttle")


def digest(every: Iterable[Point]) -> str:
    return hashlib.sha256("\n".join(",".join(map(str, point)) for point in every).encode()).hexdigest()[:16]


def write(path: Path, every: Iterable[Point]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Point._fields)
        table.writerows([value or "" for value in point] for point in every)


def read(path: Path) -> list[Point]:
    """The points of a CSV with the columns of `Point`; others are ignored. BadInput names every row that cannot be measured."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput([Problem(f"cannot be read as a grid: {error}", file=str(path))]) from None
    missing = {"kind", "family"} - set(rows[0] if rows else ())
    if missing:
        found = "no rows" if not rows else f"no column {' or '.join(sorted(missing))}"
        raise BadInput([Problem(f"a grid has the columns {', '.join(Point._fields)}; found {found}", file=str(path))])
    problems: list[Problem] = []
    found_points = [_row(row, str(path), line, problems) for line, row in enumerate(rows, 2)]
    if problems:
        raise BadInput(problems)
    return found_points


def _row(row: dict[str, str | None], file: str, line: int, problems: list[Problem]) -> Point:
    def bad(column: str, message: str) -> None:
        problems.append(Problem(message, column, file, line))

    values: dict[str, int | str] = {}
    for column in Point._fields:
        text = (row.get(column) or "").strip()
        if column in ("kind", "family", "mix"):
            values[column] = text
        elif column == "role":
            values[column] = text.split(" ")[0] or "fit"
        else:
            try:
                number = float(text or 0)
                if number != int(number) or number < 0:
                    raise ValueError
                values[column] = int(number)
            except (ValueError, OverflowError):
                bad(column, f"found {text!r}; a whole number of at least 0 is needed")
                values[column] = 0
    kind, family = str(values["kind"]), str(values["family"])
    if kind not in NEEDED:
        bad("kind", f"{kind!r} is no kind of kernel; {did_you_mean(kind, NEEDED)}")
    else:
        if family not in FAMILIES.get(kind, (family,)):
            bad("family", f"{family!r} cannot be measured as {kind}; {did_you_mean(family, FAMILIES[kind])}")
        needed = NEEDED[kind] or (("S",) if family == PREFILL_STACK else ("B", "L") if kind == "layer_stack" else ())
        for column in needed:
            if not values[column]:
                bad(column, f"{kind} needs it, at least 1")
    if values["mix"] and values["mix"] not in MIXES:
        bad("mix", f"{values['mix']!r} is no mix of lengths; {did_you_mean(str(values['mix']), MIXES)}")
    if values["role"] not in ROLES:
        bad("role", f"{values['role']!r}; {did_you_mean(str(values['role']), ROLES)}")
    heads, kv = int(values["H"]), int(values["K"])
    if heads and kv and heads % kv:
        bad("H", f"{heads} query heads cannot share {kv} KV heads evenly")
    return Point(**values)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the grid of points that `calibrate measure` times.")
    parser.add_argument("out", type=Path)
    write(parser.parse_args(argv).out, points())


if __name__ == "__main__":
    main()
