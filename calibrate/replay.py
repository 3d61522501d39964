"""Replay requests through a real decoder, iteration by iteration: what a whole step costs, to hold a step model against.

    python -m calibrate.replay trace.csv --device cuda -o iterations.csv

A plain engine with continuous batching: every iteration gives each running request one token and fills the rest of a token budget with
prompt pieces, first come first served, all in one pass through layers of random weights in the shape of an 8B, with the KV in pages. Random
weights cost what trained ones do; nobody reads the words. Iterations of decoders alone run as CUDA graphs captured per padded batch size,
those with prompt pieces eagerly, as engines do. Time is what the iterations took: idle stretches of the trace are skipped, not slept.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from calibrate.bench.work import Limits, Piece, Request
from sim.core.errors import BadInput, Problem

if TYPE_CHECKING:
    from calibrate.bench.engine import Engine
    from calibrate.bench.stack import Shape

TRACE = ("arrival_s", "input_tokens", "output_tokens")


class Replay(NamedTuple):
    """`iterations`: at_s, decoders, held (KV tokens before, in all), prompt_tokens, chunks ("new:before new:before"), seconds, graph.

    `requests`: the trace with first_token_s and finish_s (NaN when the time limit came first).
    """

    iterations: pd.DataFrame
    requests: pd.DataFrame


def read(path: Path) -> pd.DataFrame:
    """A trace with the columns arrival_s, input_tokens, output_tokens, in order of arrival. BadInput names what is wrong."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput([Problem(f"cannot be read as a table: {str(error).splitlines()[0]}", file=str(path))]) from None
    missing = [name for name in TRACE if name not in table]
    if missing:
        raise BadInput([Problem(f"no column {', '.join(missing)}; a trace has {', '.join(TRACE)}", file=str(path), line=1)])
    problems = []
    for name, least in (("arrival_s", 0.0), ("input_tokens", 1), ("output_tokens", 1)):
        values = pd.to_numeric(table[name], errors="coerce")
        for row in np.flatnonzero(~(np.isfinite(values) & (values >= least)))[:5]:
            problems.append(Problem(f"found {table[name].iloc[row]!r}; at least {least:g} is needed", name, str(path), int(row) + 2))
    if problems:
        raise BadInput(problems)
    if table.empty:
        raise BadInput([Problem("no requests", file=str(path))])
    return table.sort_values("arrival_s", kind="stable", ignore_index=True)


def replay(
    trace: pd.DataFrame, device: str, *, limits: Limits | None = None, layers: int | None = None, limit_s: float = 300.0,
    shape: Shape | None = None, progress: Callable[[int, int], None] | None = None,
) -> Replay:  # fmt: skip
    """Run `trace` (as `read` gives it) on `device`, for at most `limit_s` seconds. `shape`: an 8B on a GPU, tiny on a CPU, unless said.

    `layers` shortens the model. `progress(finished, of)` after each iteration. BadInput: no device, a request longer than `limits.length`,
    too little memory.
    """
    try:
        from calibrate.bench.engine import Engine
    except ImportError as error:
        raise BadInput(f"a replay needs torch ({error}); pip install 'burstsim[calibrate]'") from None

    limits = limits or Limits()
    longest = int((trace["input_tokens"] + trace["output_tokens"]).max())
    if longest > limits.length:
        raise BadInput(f"a request of {longest} tokens in the trace; the KV cache holds {limits.length} of one request")
    engine = Engine(device, limits, shape, layers)
    arrivals = trace["arrival_s"].to_numpy(float)
    waiting = deque(
        Request(i, int(prompt), int(output))
        for i, (prompt, output) in enumerate(zip(trace["input_tokens"], trace["output_tokens"], strict=True))
    )  # fmt: skip
    requests = trace[list(TRACE)].assign(first_token_s=np.nan, finish_s=np.nan)
    first, finish = np.full(len(trace), np.nan), np.full(len(trace), np.nan)
    running: list[Request] = []
    rows: list[dict[str, Any]] = []
    now, begun = 0.0, time.monotonic()
    while (waiting or running) and time.monotonic() - begun < limit_s:
        if not running and arrivals[waiting[0].index] > now:
            now = float(arrivals[waiting[0].index])
        decoders, pieces = schedule(running, waiting, arrivals, now, limits, engine)
        held = sum(request.computed for request in decoders)
        start = time.perf_counter()
        graph = engine.step([*pieces, *(Piece(request, 1) for request in decoders)])
        seconds = time.perf_counter() - start
        chunks = " ".join(f"{piece.new}:{piece.request.computed}" for piece in pieces)
        rows.append({
            "at_s": now, "decoders": len(decoders), "held": held, "prompt_tokens": sum(piece.new for piece in pieces), "chunks": chunks,
            "seconds": seconds, "graph": graph,
        })  # fmt: skip
        now += seconds
        for piece in (*pieces, *(Piece(request, 1) for request in decoders)):
            request = piece.request
            request.computed += piece.new
            if request.computed < request.prompt:
                continue
            request.produced += 1
            if request.produced == 1:
                first[request.index] = now
            if request.produced == request.output:
                finish[request.index] = now
                engine.release(request)
        running = [request for request in running if request.produced < request.output]
        if progress:
            progress(int(np.isfinite(finish).sum()), len(trace))
    return Replay(pd.DataFrame(rows), requests.assign(first_token_s=first, finish_s=finish))


def schedule(
    running: list[Request], waiting: deque[Request], arrivals: np.ndarray, now: float, limits: Limits, engine: Engine
) -> tuple[list[Request], list[Piece]]:  # fmt: skip
    """Who decodes and which prompt pieces run: decoders first, then prompts under way, then those that have arrived and find pages."""
    decoders = [request for request in running if request.computed >= request.prompt]
    budget = max(0, limits.tokens - len(decoders))
    pieces = []
    for request in running:
        if request.computed < request.prompt and budget:
            pieces.append(Piece(request, min(budget, request.prompt - request.computed)))
            budget -= pieces[-1].new
    while budget and waiting and len(running) < limits.requests and arrivals[waiting[0].index] <= now and engine.admit(waiting[0]):
        running.append(waiting.popleft())
        pieces.append(Piece(running[-1], min(budget, running[-1].prompt)))
        budget -= pieces[-1].new
    return decoders, pieces


def compare(iterations: pd.DataFrame, model: Any) -> pd.DataFrame:
    """The iterations with `predicted` seconds and `ape`, the absolute error as a fraction of what was measured.

    `model`: anything with `step(Work) -> Cost`, such as a bound step model, or a function of Work to seconds.
    """
    from sim.physics.base import Work

    step = model.step if hasattr(model, "step") else model
    predicted = []
    for row in iterations.itertuples():
        text = row.chunks if isinstance(row.chunks, str) else ""
        chunks = tuple((int(new), int(before)) for new, before in (piece.split(":") for piece in text.split()))
        cost = step(Work(chunks, int(row.decoders), int(row.held)))
        predicted.append(float(getattr(cost, "seconds", cost)))
    table = iterations.assign(predicted=predicted)
    return table.assign(ape=(table["predicted"] / table["seconds"] - 1).abs())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibrate.replay", description="Replay requests through a real decoder.")
    parser.add_argument("trace", type=Path, help=f"a CSV with {', '.join(TRACE)}")
    parser.add_argument("--device", required=True, help="cuda, cuda:N or cpu")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the CSV of iterations; requests go to NAME.requests.csv")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--limit", type=float, default=300.0, metavar="SECONDS", help="stop after so long (default: %(default)g)")
    given = parser.parse_args(argv)
    try:
        done = replay(read(given.trace), given.device, layers=given.layers, limit_s=given.limit)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; a replay cannot be continued", file=sys.stderr)
        return 130
    done.iterations.to_csv(given.out, index=False)
    done.requests.to_csv(given.out.with_suffix(".requests.csv"), index=False)
    print(f"{len(done.iterations)} iterations, {done.requests['finish_s'].notna().sum()} of {len(done.requests)} requests: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
