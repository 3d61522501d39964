"""A case run: the figures the simulator gives for what was measured, in the same units (milliseconds, tokens per second, seconds)."""
from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim.core.errors import BadInput
from sim.core.request import COMPLETED, STATUSES
from sim.spec.load import loads
from sim.spec.scenario import Scenario
from sim.study.metrics import Facts
from sim.study.result import Result
from sim.study.run import run
from sim.study.spread import distribution
from sim.study.validate.scenario_of import Case
from sim.world.cluster import World

MS = 1e3


def predict(case: Case, constants: Mapping[str, float] | None = None) -> dict[str, Any]:
    """`figures` by metric as in `case.measured`; `constants`: seconds of host and front end the engine was given; `requests`: measured and
    predicted E2E of each request, seconds, where a file holds them; `cpu_s`.

    `constants` (host_overhead, frontend_overhead) replace the profile's. Raises BadInput for what cannot be simulated.
    """
    scenario, had = prepared(case, constants or {})
    result = run(scenario)
    facts = Facts(result)
    spreads = _spreads(result, facts, case)
    lost = int(facts.counts.sum() - facts.counts[COMPLETED])
    if lost:
        raise BadInput(f"{lost} of {int(facts.counts.sum())} requests do not end: they are longer than the KV cache or the model allows")
    rates = {
        "req_s": facts.counts[COMPLETED] / facts.span, "output_tok_s": facts.tokens[1] / facts.span,
        "total_tok_s": sum(facts.tokens) / facts.span, "duration": facts.span,
        "output_tok_s_per_gpu": facts.tokens[1] / facts.span / facts.gpus.sum(), "kv_blocks": float(facts.replicas["blocks"].sum()),
    }  # fmt: skip
    figures = {}
    for metric in case.measured:
        measure, _, statistic = metric.partition("_")
        if metric in rates:
            figures[metric] = float(rates[metric])
        elif spreads.get(measure):
            figures[metric] = MS * spreads[measure][statistic]
    requests = _requests(case, result) if case.requests else []
    return {"figures": figures, "constants": had, "requests": requests, "cpu_s": float(result.meta["cpu_s"])}


def prepared(case: Case, constants: Mapping[str, float]) -> tuple[Scenario, dict[str, float]]:
    """The scenario with `constants` set, and with a batch that TensorRT-LLM would let in; and the constants it will run with."""
    raw = copy.deepcopy(case.scenario)
    pools = raw["cluster"]["pools"]
    for pool in pools:
        pool["engine"] |= {key: value for key, value in constants.items() if not (key == "frontend_overhead" and key in pool["engine"])}
    scenario = loads(raw)
    world = World(scenario)
    pool = pools[-1]  # the one that decodes
    if pool["engine"]["framework"] == "trtllm":
        # Its default policy, GUARANTEED_NO_EVICT, admits a request only when blocks for its last token are free.
        fit = _fitting(scenario, world.memories[-1].blocks)
        if fit and fit < pool["engine"]["max_num_seqs"]:
            pool["engine"]["max_num_seqs"] = fit
            scenario = loads(raw)
    had = {"host_overhead": float(world.models[0].host), "frontend_overhead": float(world.recorder.overheads[0][0])}
    return scenario, had


def _fitting(scenario: Scenario, blocks: int) -> int | None:
    """Requests of the longest kind that one attention group can hold to their end."""
    lengths = scenario.workloads[0].get("lengths")
    if not isinstance(lengths, dict) or lengths["kind"] not in ("fixed", "uniform"):
        return None
    pool = scenario.cluster.pools[-1]
    longest: int = sum(max(side) if isinstance(side, (list, tuple)) else side for side in (lengths["input"], lengths["output"]))
    each: int = -(-longest // pool.engine.block_size)
    return max(1, blocks // each // pool.parallel.dp)


def _spreads(result: Result, facts: Facts, case: Case) -> dict[str, dict[str, float]]:
    """Mean and percentiles of each measure, seconds; with a window, of the requests that arrive in it."""
    window, found = case.window, {**facts.spreads, "itl": facts.work.gaps}
    if window is None:
        return {name: spread for name, spread in found.items() if spread}
    frame = result.requests
    frame = frame[(frame["arrival"] >= window[0]) & (frame["arrival"] < window[1])]
    frame = frame[frame["status"].astype(str) == STATUSES[COMPLETED]]
    found = {name: distribution(frame[name].dropna().to_numpy().copy()) for name in ("ttft", "tpot", "e2e")}
    gaps = float((frame["output_tokens"] - 1).sum())
    found["itl"] = {"mean": float((frame["last_token"] - frame["first_token"]).sum()) / gaps} if gaps else None
    return {name: spread for name, spread in found.items() if spread}


def _requests(case: Case, result: Result) -> list[tuple[float, float]]:
    """(measured, predicted) E2E of each request, seconds, in the order of the file."""
    path = Path(str(case.requests))
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        measured = np.array([row["last_token_ts"] - row["queued_ts"] for row in rows], dtype=float)
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = "JSON lines with queued_ts and last_token_ts are wanted"
        raise BadInput(f"{path}: cannot be read as measured requests ({error!r}); {wanted}") from None
    predicted = result.requests["e2e"].to_numpy()
    if len(measured) != len(predicted):
        raise BadInput(f"{path}: holds {len(measured)} requests; the replayed file has {len(predicted)}")
    return list(zip(measured.tolist(), predicted.tolist(), strict=True))
