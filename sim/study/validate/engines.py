"""What an engine does when nothing else is said: the limits a benchmark leaves at their defaults, from each engine's documentation.

Every default that is used comes back as a sentence with its source, since a batch limit that was really another one moves throughput and
latency more than any kernel.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sim.spec.fit import release
from sim.spec.hardware import Gpu

FRAMEWORKS = {
    "vllm": "vllm", "trtllm": "trtllm", "trt-llm": "trtllm", "tensorrt-llm": "trtllm", "tensorrt_llm": "trtllm", "sglang": "sglang",
}  # fmt: skip
BIG = 70 * 2**30  # bytes of GPU memory from which vLLM V1 takes the larger defaults (EngineArgs._set_default_args_v1)
# InferenceX's recipes for fixed lengths (--no-enable-prefix-caching, --disable-radix-cache, enable_block_reuse: false).
UNCACHED = re.compile(r"InferenceX-(db|together)")
ASYNC_SINCE = (0, 14)  # vLLM releases that schedule asynchronously unless told not to


def options(row: Mapping[str, Any], chip: Gpu) -> tuple[dict[str, Any], list[str]]:
    """Engine options of a run, the row's own limits over the defaults, and what was assumed. The framework must be one of FRAMEWORKS."""
    framework = FRAMEWORKS[str(row["engine"]).lower()]
    seqs, tokens, said = _limits(row, framework, chip)
    chosen: dict[str, Any] = {"framework": framework, "max_num_seqs": seqs, "max_num_batched_tokens": max(tokens, seqs)}
    if _version(row):
        chosen["framework_version"] = ".".join(map(str, _version(row)))
    share = re.search(r"gpu_memory_utilization[=: ]+(0?\.\d+)", str(row["notes"]))
    if share:
        chosen["gpu_memory_utilization"] = float(share[1])
    elif framework == "trtllm":
        most = chosen["gpu_memory_utilization"] = 0.95 if "max throughput" in str(row["workload"]) else 0.9
        said.append(f"memory share {most}: TensorRT-LLM's kv_cache_free_gpu_mem_fraction (its default, or its performance overview's)")
    elif framework == "sglang":
        chosen["gpu_memory_utilization"] = 0.88
        said.append("memory share 0.88: SGLang's mem_fraction_static on GPUs of this size")
    if framework == "vllm" and _version(row) and _version(row) < ASYNC_SINCE and "InferenceX" not in str(row["source"]):
        chosen["async_scheduling"] = False
        said.append("async scheduling off: vLLM's default before 0.14")
    if "prefix caching off" in str(row["workload"]):
        chosen["enable_prefix_caching"] = False
    elif UNCACHED.search(str(row["source"])):
        chosen["enable_prefix_caching"] = False
        said.append("prefix caching off: InferenceX's recipes for random prompts of fixed length")
    if "engine-side" in str(row["notes"]):
        chosen["frontend_overhead"] = 0.0
        said.append("times were taken inside the engine: no API server in front")
    return chosen, said


def _limits(row: Mapping[str, Any], framework: str, chip: Gpu) -> tuple[int, int, list[str]]:
    if framework == "vllm":
        big = chip.memory >= BIG and "a100" not in chip.name
        seqs, tokens = (1024, 8192) if big else (256, 2048)
        source = "vLLM V1's serve defaults by GPU memory (EngineArgs)"
    elif framework == "trtllm":
        # Prompts are not cut unless chunked context is asked for, so the token limit is raised to the prompt where that is longer.
        stages = int(row["pp"]) if row["pp"] == row["pp"] and row["pp"] else 1
        seqs, tokens = 2048 * stages, max(8192, int(row["isl"] or 0) if row["isl"] == row["isl"] else 8192)
        source = "TensorRT-LLM's max_batch_size, of each pipeline stage, and max_num_tokens (LLM API defaults), raised to the prompt"
    else:
        seqs, tokens = 1024, 8192
        source = "SGLang's chunked_prefill_size; running requests bounded by memory"
    said = []
    if row["max_num_seqs"] == row["max_num_seqs"]:
        seqs = int(row["max_num_seqs"])
    else:
        said.append(f"max_num_seqs {seqs}: {source}")
    if row["max_num_batched_tokens"] == row["max_num_batched_tokens"]:
        tokens = int(row["max_num_batched_tokens"])
    else:
        said.append(f"max_num_batched_tokens {tokens}: {source}")
    return seqs, tokens, said


def _version(row: Mapping[str, Any]) -> tuple[int, ...]:
    """The release, wherever it stands in the text (`vllm fork (~0.15)`); empty when the row does not say."""
    found = re.search(r"\d+\.\d+(\.\d+)*", str(row["engine_version"]))
    return release(found[0]) if found else ()
