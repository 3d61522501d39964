"""The load of a measured run as workloads of a scenario, from the columns and the words of its table.

In this order: a file of requests is replayed, one of users' turns at the pace of the simulated answers; stages (`5 then 10 req/s x600 s
each`) are constant rates; a request rate is Poisson; a concurrency is a closed loop; and without any of these all requests are there at
once, as in a test of the maximum throughput.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sim.core.errors import BadInput

# Requests of a closed loop that does not say: ten a client (InferenceX's and vLLM's benchmarks), but no more than MANY, and at least
# FEWEST a client so that the ramp does not decide.
PER_CLIENT, FEWEST, MANY = 10, 4, 2000
# Requests of TensorRT-LLM's maximum-throughput runs, by (input, output) tokens: its performance overview; DATASET for others.
DATASETS = {(128, 128): 30000, (2048, 2048): 1500, (5000, 500): 1500, (20000, 2000): 1000}
DATASET = 3000
# Prompt and output tokens of an all-at-once run that are simulated at most; beyond, requests are cut to a few fillings of the batch.
TOKENS = 40e6

# InferenceX draws each length uniformly from this share of the nominal one up to it (random-range-ratio of its workflows). It matters:
# clients that ask for equal lengths stay in step, and wait for each other's prompts in every round.
INFERENCEX, RANGE_RATIO = re.compile(r"InferenceX|gap-analysis"), 0.8
SPREAD = (0.9, 1.1)
# An answer that ends before its limit: the share of the nominal output below which the measured times say that it did.
SHORTER = 0.95

# inference-perf's shared-prefix data: so many tokens of one of several system prompts, then a question of a user's own.
SHARED = re.compile(r"(\d+)\+\d+ in/.*shared-prefix(?: chat, (\d+) prompts?)?")
TURNS = ".requests.csv"  # what files of multi-turn runs end with
STAGES = re.compile(r"((?:[\d.]+ then )*[\d.]+) req/s x ?([\d.]+) s")


class Traffic(NamedTuple):
    """`workloads` of a scenario; `window`: measured are requests that arrive within these seconds; `said`: what was assumed."""

    workloads: list[dict[str, Any]]
    window: tuple[float, float] | None
    said: list[str]


def traffic(row: Mapping[str, Any], folders: Sequence[Path]) -> Traffic:
    """The load of one row; files are looked for under `folders`. Raises BadInput when the row does not say enough."""
    if row["request_file"]:
        path = str(find(str(row["request_file"]), folders))
        if path.endswith(TURNS):
            said = "multi-turn replay: each user's next prompt is sent after the simulated answer and the pause that was measured"
            return Traffic([{"kind": "trace", "path": path, "pace": "answers"}], None, [said])
        return Traffic([{"kind": "trace", "path": path}], None, [])
    if "multi-turn" in str(row["notes"]):
        raise BadInput("the turns of this multi-turn run are not there: request_file is empty")
    lengths, said = _lengths(row)
    stages = STAGES.search(str(row["workload"]))
    if stages:
        return _staged(stages, str(row["workload"]), lengths, said)
    count = _number(row["n_requests"])
    rate, clients = _number(row["request_rate"]), _number(row["concurrency"])
    if rate:
        seconds = _number(row["duration_s"])
        most = int(count) if count else MANY if not seconds else None
        load = {"kind": "poisson", "rate": rate, "lengths": lengths, **({"num_requests": most} if most else {"duration": seconds})}
        return Traffic([load], None, [*said, "Poisson arrivals at the stated rate"])
    if clients:
        c = int(clients)
        total = int(count) if count else max(FEWEST * c, min(PER_CLIENT * c, MANY))
        if not count:
            said.append(f"n_requests not recorded: {PER_CLIENT} a client, at most {MANY}, at least {FEWEST} a client")
        return Traffic([{"kind": "closed", "concurrency": c, "num_requests": total, "lengths": lengths}], None, said)
    isl, osl = round(float(row["isl"])), round(float(row["osl"]))
    total = int(count) if count else DATASETS.get((isl, osl), DATASET)
    if not count:
        total = min(total, max(int(TOKENS / (isl + osl)), 500))
        said.append("n_requests not recorded: as many as TensorRT-LLM's performance overview uses, within a limit of simulated tokens")
    return Traffic([{"kind": "closed", "concurrency": total, "num_requests": total, "lengths": lengths}], None, said)


def find(written: str, folders: Sequence[Path]) -> Path:
    """The file or folder a table names, its leading folders dropped one by one. Raises BadInput when it is nowhere."""
    parts = Path(written).parts
    for folder in folders:
        for first in range(len(parts)):
            path = folder.joinpath(*parts[first:])
            if path.exists():
                return path.resolve()
    # Their names alone: the message goes into pages that travel.
    known = ", ".join(folder.name or str(folder) for folder in folders)
    raise BadInput(f"'{written}' is not found under {known}; name its folder with --replay")


def _lengths(row: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    requests, output, total = (_number(row[name]) for name in ("req_s", "output_tok_s", "total_tok_s"))
    if requests and output and total and "random" in str(row["workload"]):
        # What was really sent: the benchmark draws lengths, and its nominal length is only the most there is.
        means = (total - output) / requests, output / requests
        low = [max(1, round(2 * mean - most)) for mean, most in zip(means, (row["isl"], row["osl"]), strict=True)]
        high = [max(1, round(2 * mean) - bottom) for mean, bottom in zip(means, low, strict=True)]
        text = "lengths uniform with the means that were measured; the nominal length is only the most there is"
        return {"kind": "uniform", "input": [low[0], high[0]], "output": [low[1], high[1]]}, [text]
    isl, osl = max(1, round(float(row["isl"]))), max(1, round(float(row["osl"])))
    if INFERENCEX.search(str(row["source"])):
        least = [max(1, round(RANGE_RATIO * length)) for length in (isl, osl)]
        text = f"lengths uniform in {RANGE_RATIO:.0%} to 100% of the nominal: InferenceX's setting, not recorded in the table"
        return {"kind": "uniform", "input": [least[0], isl], "output": [least[1], osl]}, [text]
    if "NVIDIA-runs" in str(row["source"]):
        ends = [[max(1, round(share * length)) for share in SPREAD] for length in (isl, osl)]
        text = "lengths spread by 10 % about the nominal: clients of a real benchmark drift apart, which equal lengths would prevent"
        return {"kind": "uniform", "input": ends[0], "output": ends[1]}, [text]
    ttft, itl, e2e = (_number(row[f"{measure}_mean_ms"]) for measure in ("ttft", "itl", "e2e"))
    if ttft and itl and e2e and (mean := (e2e - ttft) / itl + 1) < SHORTER * osl:
        return {"kind": "fixed", "input": isl, "output": max(1, round(mean))}, [
            "answers end before their limit: output tokens are (E2E - TTFT) / ITL + 1 of the measured means"
        ]
    return {"kind": "fixed", "input": isl, "output": osl}, []


def _staged(found: re.Match[str], text: str, lengths: dict[str, Any], said: list[str]) -> Traffic:
    rates, seconds = [float(rate) for rate in found[1].split(" then ")], float(found[2])
    stage = re.search(r"stage (\d+)", text)
    last = int(stage[1]) if stage else len(rates) - 1
    if last >= len(rates):
        raise BadInput(f"stage {last} of a run with {len(rates)} stages")
    shared = SHARED.search(text)
    beginning: dict[str, Any] = {"prefixes": {"tokens": int(shared[1]), "count": int(shared[2] or 1)}} if shared else {}
    loads = [
        {"kind": "constant", "rate": rate, "start": number * seconds, "duration": seconds, "lengths": lengths, **beginning}
        for number, rate in enumerate(rates[: last + 1])
    ]
    window = (last * seconds, (last + 1) * seconds) if stage else None
    said = [*said, "arrivals evenly spaced within a stage (inference-perf's default load type)"]
    if shared:
        said.append("each prompt begins with one of the system prompts, drawn evenly; the question after it is never asked twice")
    return Traffic(loads, window, said)


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
