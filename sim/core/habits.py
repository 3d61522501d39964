"""Words people bring along from vLLM and its benchmarks, and where burstsim says the same thing. Used by error messages only."""
from __future__ import annotations

NOT_YET = "it is not modelled yet"
_PROMPT = "burstsim's word for it is `input`, tokens of the prompt, under `lengths`"
_ANSWER = "burstsim's word for it is `output`, tokens generated, under `lengths`"
_REPLICAS = "give `replicas` in the pool, and `parallel: {tp: ...}` for the GPUs of one replica"
_RATE = "`rate`, requests per second, belongs to a workload such as {kind: poisson}"
_COUNT = "`num_requests` belongs to a workload"

# By the key as it is spelled with underscores. Names that are near a known key need no entry.
KEYS = {
    "tensor_parallel_size": "write `parallel: {tp: ...}` in the pool",
    "pipeline_parallel_size": "its place is `parallel: {pp: ...}` in the pool",
    "data_parallel_size": "its place is `parallel: {dp: ...}` in the pool; `replicas` adds independent engines",
    "enable_expert_parallel": "its place is `parallel: {ep: ...}` in the pool",
    "kv_cache_dtype": "write `precision: {kv: fp8}` in the pool",
    "dtype": "write `precision: bf16` in the pool",
    "quantization": "write `precision: fp8` (or int8, int4, nvfp4, mxfp4) in the pool",
    "enforce_eager": "write `cuda_graph: false` in the engine",
    "max_seq_len": "burstsim's word for it is `max_model_len`, in the engine",
    "enable_lora": "write `lora: {max_loras: ..., rank: ...}` in the engine",
    "max_lora_rank": "its place is `lora: {rank: ...}` in the engine",
    "served_model_name": "write `model: NAME`, of the scenario or of the pool",
    "async_scheduling": f"{NOT_YET}; `host_overhead` in the engine is the CPU time per step that the GPU waits for",
    **dict.fromkeys(
        ("kv_transfer_config", "decode_context_parallel_size", "cpu_offload_gb", "swap_space", "scheduling_policy",
         "preemption_mode"), NOT_YET),
    **dict.fromkeys(("num_gpus", "gpus", "gpu_count", "count", "num_replicas", "instances"), _REPLICAS),
    **dict.fromkeys(("isl", "input_len", "input_length", "input_tokens", "prompt_len", "prompt_tokens", "random_input_len"), _PROMPT),
    **dict.fromkeys(("osl", "output_len", "output_length", "output_tokens", "max_tokens", "random_output_len"), _ANSWER),
    **dict.fromkeys(("qps", "rps", "request_rate", "rate"), _RATE),
    **dict.fromkeys(("num_prompts", "n_requests", "requests", "num_requests"), _COUNT),
    **dict.fromkeys(("max_concurrency", "num_clients", "users", "concurrency"), "`concurrency` belongs to a workload {kind: closed}"),
    "burstiness": "write cv = 1 / sqrt(burstiness) in a workload {kind: gamma}",
    "lengths": "it belongs to a workload, such as {kind: poisson}",
    "itl": "burstsim holds TPOT to a limit instead, such as `tpot_p99`",
    **dict.fromkeys(("ttft_ms", "tpot_ms", "e2el_ms"), "name the percentile and give the unit, such as `ttft_p99: 500ms`"),
    **dict.fromkeys(("workload", "traffic"), "it is a list here: `workloads`"),
}  # fmt: skip
VALUES = {
    "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "awq": "int4", "gptq": "int4",
    "w8a8": "int8", "fp4": "nvfp4", "auto": "bf16",
}  # fmt: skip


KINDS = {
    **dict.fromkeys(("azure", "burstgpt", "mooncake", "sharegpt", "vllm_bench", "csv", "jsonl", "replay", "file"), "trace"),
    **dict.fromkeys(("bursty", "mmpp"), "gamma"), **dict.fromkeys(("deterministic", "uniform", "fixed"), "constant"),
    **dict.fromkeys(("conversations", "multi_turn", "chat"), "sessions"),
    "exponential": "poisson", "concurrency": "closed", "rr": "round_robin", "jsq": "least_loaded", "least_request": "least_loaded",
    "sticky": "session_affinity", "normal": "lognormal", "vllm": "vllm_v1",
    **dict.fromkeys(("kpa", "knative"), "concurrency"), **dict.fromkeys(("wva", "llm_d"), "kv_threshold"), "cron": "scheduled",
    **dict.fromkeys(("seasonal", "forecast", "holt_winters"), "predictive"), "horizontal_pod_autoscaler": "hpa",
    **dict.fromkeys(("best_fit", "most_allocated"), "bin_pack"), "least_allocated": "spread",
}  # fmt: skip


def spelled(key: str) -> str:
    """A key as a command-line flag may write it, in this project's spelling.

    >>> spelled("--Max-Num-Seqs")
    'max_num_seqs'
    """
    return key.strip().lstrip("-").replace("-", "_").lower()
