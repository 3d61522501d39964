"""One measured run as a scenario: what was served, on what, under which load, and which figures to compare."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sim.core.errors import BadInput, did_you_mean
from sim.spec.hardware import Gpu, gpu, gpu_names
from sim.spec.llm import llm
from sim.study.validate.engines import FRAMEWORKS, options
from sim.study.validate.precision_of import precision_of
from sim.study.validate.runs import MEASURED
from sim.study.validate.traffic import find, traffic

# What checkpoints add to the name of the model they hold.
SUFFIX = re.compile(r"[-_](fp8|fp4|nvfp4|mxfp4|awq|gptq|int4|int8|w4a16|w8a8|w8a16|bf16|quantized|dynamic|block|instruct|hf)\b.*$", re.I)
# Seconds a vLLM server takes to parse, template and tokenize one token of a chat: the slope over the prompt's length of measured minus
# simulated TTFT in the two runs with one user of InferenceX's agentic replay (4.2 and 4.0 us). Some 1 MB/s of text, usual for tokenizers.
READING = 4e-6
ROLES = ("prefill", "decode")
MEMORY = re.compile(r"\d+gb")
REPLAYED = re.compile(r"per-request file.*? in (\S+?)[;,]?(?:\s|$)")


@dataclass(frozen=True)
class Case:
    """`scenario` is a mapping as its YAML would give. `measured`: figures by name, in the table's units (ms, tokens/s, seconds). `window`:
    only requests arriving within it are measured. `requests`: a file with every request's measured times. `assumed`: in words.
    """

    run_id: str
    scenario: dict[str, Any]
    measured: dict[str, float]
    window: tuple[float, float] | None
    requests: str | None
    assumed: tuple[str, ...]


def case_of(row: Mapping[str, Any], folders: Sequence[Path]) -> Case:
    """The case of one row of `runs.read`; files are looked for under `folders`. Raises BadInput for what cannot be simulated, and why."""
    if row["spec_decode"] and row["spec_decode"] != "none":
        raise BadInput(f"speculative decoding ({row['spec_decode']}) is not simulated")
    if str(row["engine"]).lower() not in FRAMEWORKS:
        raise BadInput(f"unknown engine '{row['engine']}'; {did_you_mean(str(row['engine']), FRAMEWORKS)}")
    chip = _chip(gpu_named(str(row["gpu"])))
    precision, said = precision_of(row, chip)
    model = model_named(str(row["model"]))
    split = str(row["mode"]).startswith("disagg")
    layouts = [_worker(row, role, model, said) for role in ROLES] if split else [{"parallel": _parallel(row, model, said)}]
    if split and row["concurrency"] != row["concurrency"]:
        raise BadInput("the concurrency of a disaggregated run is not recorded; with all requests at once it would wait for its prefill")
    engine, more = options(row, chip)
    load = traffic(row, folders)
    scenario = {
        "name": str(row["run_id"]), "model": model, "workloads": load.workloads,
        "cluster": {"pools": [{"gpu": chip.name, "precision": precision, "engine": {**engine}, **layout} for layout in layouts]},
    }  # fmt: skip
    replayed = REPLAYED.search(str(row["notes"]))
    requests = str(find(f"{replayed[1]}/requests.jsonl", folders)) if replayed else None
    said = [*said, *more, *load.said]
    if any(work.get("pace") == "answers" for work in load.workloads):
        for pool in scenario["cluster"]["pools"]:
            pool["engine"]["frontend_per_token"] = READING
        said.append(f"the front end takes {1e6 * READING:g} us a prompt token: fitted to the runs with one user")
    return Case(str(row["run_id"]), scenario, _measured(row, said), load.window, requests, tuple(said))


@cache
def _chip(name: str) -> Gpu:
    """A GPU of the catalogue, which ships with the program: its profile is read once, not for each of a thousand rows."""
    return gpu(name)


@cache
def gpu_named(written: str) -> str:
    """The catalogue's name of a GPU as benchmarks write it (`H100-SXM`, `RTX A6000`). Raises BadInput for one that is not there.

    >>> gpu_named("H100-SXM"), gpu_named("RTX-A6000"), gpu_named("B200-SXM"), gpu_named("A100-SXM4-80GB")
    ('h100_sxm', 'a6000', 'b200', 'a100_sxm_80gb')
    """
    wanted, memory = _forms(written), MEMORY.search(written.lower())
    found = [name for name in gpu_names() if wanted & _forms(name)]
    # Of a chip that is sold with several memories, the one that is named, else the largest.
    exact = [name for name in found if memory and memory[0] in name]
    if found:
        return max(exact or found, key=lambda name: _chip(name).memory)
    raise BadInput(f"GPU '{written}' is not in the catalogue; {did_you_mean(written.lower(), gpu_names())}")


def _forms(name: str) -> set[str]:
    """Ways to write the same GPU, in plain letters: with and without the vendor, the series, the form factor and its memory."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for drop in (r"^nvidia", r"^(geforce)", r"server(edition)?$", r"\d+gb$"):
        plain = re.sub(drop, "", plain)
    without = re.sub(r"sxm\d?$", "", plain)
    series = re.sub(r"^rtx(?=a)", "", plain)
    return {plain, re.sub(r"sxm\d$", "sxm", plain), without, series}


@cache
def model_named(written: str) -> str:
    """The catalogue's name of a checkpoint: its own, or that of the model it is a quantised copy of. Raises BadInput when unknown."""
    tries = dict.fromkeys([written, written.rpartition("/")[2], SUFFIX.sub("", written), SUFFIX.sub("", written.rpartition("/")[2])])
    problem: BadInput | None = None
    for name in tries:
        try:
            return llm(name).name
        except BadInput as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _parallel(row: Mapping[str, Any], model: str, said: list[str]) -> dict[str, int]:
    sizes = {key: int(row[key]) if row[key] == row[key] and row[key] else 1 for key in ("tp", "pp", "dp", "ep")}
    product = sizes["tp"] * sizes["pp"] * sizes["dp"]
    if row["n_gpus"] == row["n_gpus"] and int(row["n_gpus"]) != product:
        raise BadInput(f"n_gpus is {row['n_gpus']:g}, but tp x pp x dp is {product}: which GPUs do what is not said")
    if "ep not stated" in str(row["notes"]) and sizes["tp"] > 1 and llm(model).moe_layers:
        # Maximum throughput of a model with experts: attention by request and experts spread, as the same page says of its later runs.
        said.append(f"layout not stated: attention data parallel over the {sizes['tp']} GPUs of a stage, and experts spread over them")
        return {"tp": 1, "pp": sizes["pp"], "dp": sizes["tp"], "ep": sizes["tp"]}
    return sizes


def _worker(row: Mapping[str, Any], role: str, model: str, said: list[str]) -> dict[str, Any]:
    """The pool of a disaggregated run's workers of one role, from a text such as `tp=1;pp=1;dp=4;moe_tp=1;ep=4;batch=1;workers=2`."""
    text = str(row[f"{role}_cfg"])
    sizes = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}
    if not {"tp", "workers"} <= set(sizes):
        raise BadInput(f"{role}_cfg is '{text}'; tp=..;pp=..;dp=..;ep=..;workers=.. is wanted for a disaggregated run")
    layout = {key: sizes.get(key, 1) or 1 for key in ("tp", "pp", "dp", "ep")}
    if not sizes.get("ep") and layout["dp"] > 1 and llm(model).moe_layers:
        layout["ep"] = layout["tp"] * layout["dp"]
        said.append(f"layout of the {role} workers' experts not stated: spread over their {layout['ep']} GPUs")
    return {"name": role, "role": role, "replicas": sizes["workers"], "parallel": layout}


def _measured(row: Mapping[str, Any], said: list[str]) -> dict[str, float]:
    """Figures by metric: the column without its unit (`ttft_mean`, `output_tok_s`), and `kv_blocks` where the notes hold the engine's."""
    found = {metric_of(column): float(row[column]) for column in MEASURED if row[column] == row[column]}
    if "output_tok_s" in found:
        found.pop("output_tok_s_per_gpu", None)
    blocks = re.search(r"KV blocks(?: gpu=|[^;:]*: )(\d+)", str(row["notes"]))
    if blocks:
        found["kv_blocks"] = float(blocks[1])
    gap, pace = found.get("itl_p50"), found.get("tpot_p50")
    if gap and pace and not 1 / 3 < gap / pace < 3:
        # A server that streams several tokens at a time has gaps between messages, not between tokens.
        for name in [name for name in found if name.startswith("itl_")]:
            del found[name]
        said.append("ITL left out: its median is many times the median TPOT, so the gaps are those between messages of several tokens")
    return found


def metric_of(column: str) -> str:
    """
    >>> metric_of("ttft_mean_ms"), metric_of("output_tok_s"), metric_of("duration_s")
    ('ttft_mean', 'output_tok_s', 'duration')
    """
    return column.removesuffix("_ms") if column.endswith("_ms") else "duration" if column == "duration_s" else column
