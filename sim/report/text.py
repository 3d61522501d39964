"""A run as a block of text: the verdict, then the figures in the shape of `vllm bench serve`, to read and to paste.

Latencies are in milliseconds, a figure that is undefined is a dash.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 50
LATENCIES = (
    ("ttft_s", "TTFT", "Time to First Token"),
    ("tpot_s", "TPOT", "Time per Output Token (excl. 1st token)"),
    ("itl_s", "ITL", "Inter-token Latency"),
    ("e2e_s", "E2EL", "End-to-end Latency"),
    ("queue_s", "queue", "Time in Queue"),
)
COUNTS = (("rejected", "Rejected requests:"), ("failed", "Failed requests:"), ("unfinished", "Unfinished requests:"))
RATES = (
    ("requests_per_s", "Request throughput (req/s):"),
    ("output_tokens_per_s", "Output token throughput (tok/s):"),
    ("output_tokens_per_s_per_gpu", "Output throughput per GPU (tok/s):"),
    ("total_tokens_per_s", "Total token throughput (tok/s):"),
)
WHY = {"handoff": "hand-over", "swap_in": "swap-in", "reload": "reload", "offload": "offload"}
RESOURCES = (
    ("gpu", "count", "GPUs:", 1.0),
    ("gpu", "busy_fraction", "GPU busy (%):", 100.0),
    ("gpu", "mfu", "MFU (%):", 100.0),
    ("gpu", "mbu", "MBU (%):", 100.0),
    ("kv", "peak_fraction", "Peak KV cache usage (%):", 100.0),
    ("kv", "prefix_hit_rate", "Prefix cache hits (% of prompt):", 100.0),
    ("kv", "preemptions", "Preemptions:", 1.0),
    ("cost", "usd_per_hour", "Cost ($/h):", 1.0),
    ("cost", "usd_per_million_output_tokens", "Cost ($ per 1M output tokens):", 1.0),
    ("cost", "usd_idle", "Cost of idle GPU time ($):", 1.0),
    ("energy", "kwh", "Energy (kWh):", 1.0),
    ("energy", "joules_per_output_token", "Energy per output token (J):", 1.0),
    ("carbon", "grams", "Carbon (gCO2e):", 1.0),
)


def block(summary: Mapping[str, Any]) -> str:
    """The text block of a summary (DESIGN.md section 6), ending without a newline."""
    return "\n".join(_lines(summary))


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    yield from _verdict(summary)
    requests, trains = summary["requests"], summary.get("training")
    if trains and not requests["arrived"]:
        yield from _trainers(trains)
        yield "=" * WIDTH
        return
    yield _title("Serving Benchmark Result", "=")
    yield _row("Successful requests:", requests["completed"])
    yield from (_row(label, requests[key]) for key, label in COUNTS if requests[key])
    yield _row("Benchmark duration (s):", _duration(summary))
    yield from (_row(label, summary["throughput"][key]) for key, label in RATES)
    for key, name, title in LATENCIES:
        yield _title(title, "-")
        yield from (_row(f"{label} {name} (ms):", _scaled(summary[key], part)) for label, part in _parts())
    if summary["slo"].get("attainment") is not None:
        yield _title("Service Levels", "-")
        yield _row("SLO attainment (%):", summary["slo"]["attainment"] * 100.0)
        yield _row("Request goodput (req/s):", summary["slo"]["goodput_requests_per_s"])
    yield _title("Resources", "-")
    for group, key, label, scale in RESOURCES:
        value = summary.get(group, {}).get(key)
        if value is not None:
            yield _row(label, value if scale == 1.0 else value * scale)
    for kind, flow in (summary.get("kv", {}).get("moved") or {}).items():
        yield _row(f"KV moved, {WHY[kind]} (GB):", flow["bytes"] / 1e9)
        if flow["seconds"]:
            yield _row(f"Mean / P99 {WHY[kind]} (ms):", flow["seconds"]["mean"] * 1e3, flow["seconds"]["p99"] * 1e3)
    yield from _services(summary)
    yield from _agents(summary)
    yield from _fleet(summary)
    yield from _learns(summary.get("rl") or {})
    yield from _trainers(trains or {})
    yield from _shared(summary)
    yield "=" * WIDTH


def _shared(summary: Mapping[str, Any]) -> Iterator[str]:
    """GPUs that were lent, and those that trainers have in turn with engines."""
    for name, one in (summary.get("lending") or {}).items():
        yield _title(f"GPUs of {one['owner']} lent to {name}", "-")
        yield _row("GPU-hours / of the time of the GPUs (%):", one["gpu_hours"], *_percents(one, "share"))
        yield _row("Replicas lent / taken back:", one["lend"]["count"], one["take_back"]["count"])
        yield _row("Requests sent on / called off:", *(sum(one[kind].get(key, 0) for kind in ("lend", "take_back"))
                                                       for key in ("sent_on", "called_off")))  # fmt: skip
        yield _row("Of its workloads' requests (%):", *_percents(one["traffic"], "of_requests"))
    for name, spent in (summary.get("shared_gpus") or {}).items():
        yield _title(f"GPUs that {name} shares", "-")
        total = sum(spent.values())
        yield from (_row(f"Time: {state.replace('_', ' ')} (%):", 100.0 * value / total) for state, value in spent.items() if value)


def _trainers(found: Mapping[str, Any]) -> Iterator[str]:
    """What was trained, how well the GPUs were used, and what it cost."""
    for name, one in found.items():
        yield _title(f"Trainer {name}", "-")
        yield _row("Updates / tokens:", one["steps"], one["tokens"])
        yield _row("Mean / P99 update (s):", *((one["step_s"] or {}).get(part) for part in ("mean", "p99")))
        yield _row("Tokens per second and GPU, updating:", one["tokens_per_s_per_gpu"])
        yield _row("MFU, updating / of all its time (%):", *_percents(one, "mfu", "mfu_of_time"))
        yield from (_row(f"Time: {state} (%):", *_percents(one["state_share"], state)) for state in one["state_share"])
        yield _row("Cost / per 1B tokens ($):", one["usd_total"], one["usd_per_billion_tokens"])
        yield _row("Energy / per 1B tokens (kWh):", one["kwh"], one["kwh_per_billion_tokens"])


def _learns(found: Mapping[str, Any]) -> Iterator[str]:
    """Runs of reinforcement learning: the step and its parts, who waits, staleness, money."""
    for name, one in found.items():
        if one is None:
            continue
        rollout, rates, money, stale = one["rollout"], one["throughput"], one["money"], one["staleness"]
        yield _title(f"Reinforcement learning {name}", "-")
        yield _row("Versions made / counted:", one["steps"]["made"], one["steps"]["counted"])
        yield _row("Mean / P99 step (s):", *((one["step_s"] or {}).get(part) for part in ("mean", "p99")))
        yield from (_row(f"Step: {part} (s):", spent) for part, spent in one["breakdown"]["seconds"].items() if spent)
        yield _row("Trainer waits (%):", *_percents(one, "trainer_idle_frac"))
        yield _row("Rollouts, idle / bubble (%):", *_percents(rollout, "idle_frac", "bubble"))
        if stale:
            yield _row("Staleness, submit / oldest / mean:", *(stale[f"lag_{kind}"]["mean"] for kind in ("submit", "oldest", "mean")))
        yield _row("Generated in vain (%):", *_percents(one["waste"], "share"))
        kinds = ("generated", "trained", "useful")
        yield _row("Made / trained / useful (tok/s/GPU):", *(rates[f"{kind}_tokens_per_s_per_gpu"] for kind in kinds))
        price = None if money["usd_per_trained_sample"] is None else money["usd_per_trained_sample"] * 1e3
        yield _row("Cost per step / 1,000 samples ($):", money["usd_per_step"], price)


def _services(summary: Mapping[str, Any]) -> Iterator[str]:
    """What several pools, a cascade and adapters add, in the order of the summary."""
    for label, pool in (summary.get("pools") or {}).items():
        yield _title(f"Pool {label}", "-")
        yield _row("Requests:", pool["requests"])
        if pool["handed_on"]:
            yield _row("Prompts handed on:", pool["handed_on"])
        for key, name in (("ttft_s", "TTFT"), ("tpot_s", "TPOT")):
            yield _row(f"Median {name} (ms):", _scaled(pool[key], "p50"))
            yield _row(f"P99 {name} (ms):", _scaled(pool[key], "p99"))
        yield _row("GPU busy (%):", None if pool["busy_fraction"] is None else pool["busy_fraction"] * 100.0)
    cascade, adapters = summary.get("cascade"), summary.get("adapters")
    if cascade:
        yield _title("Cascade", "-")
        yield _row("Callers' requests:", cascade["requests"])
        yield from (_row(f"Answered by {name} (%):", share * 100.0) for name, share in cascade["answered_by"].items())
        yield _row("Median latency, verified (ms):", _scaled(cascade["e2e_s"], "p50"))
        yield _row("P99 latency, verified (ms):", _scaled(cascade["e2e_s"], "p99"))
        if cascade["quality"]:
            yield _row("Mean quality, as given by the user:", cascade["quality"]["mean_of_answers"])
    if adapters:
        yield _title("Adapters", "-")
        yield _row("Found on the GPU (%):", adapters["slot_hit_rate"] * 100.0)
        yield _row("Engines waited for others (s):", adapters["engines_waited_s"])


def _agents(summary: Mapping[str, Any]) -> Iterator[str]:
    """Tasks of agents, evaluations, and the sandboxes they work in."""
    agents = summary.get("agents")
    if agents:
        time, share = agents["task_time_s"], agents["share"] or {}
        yield _title("Agents", "-")
        yield _row("Tasks begun / completed:", agents["tasks"]["begun"], agents["tasks"]["completed"])
        yield _row("Median / P95 task time (s):", *((time or {}).get(part) for part in ("p50", "p95")))
        yield _row("Tasks per hour:", agents["tasks_per_hour"])
        yield _row("Cost per 1,000 tasks ($):", None if agents["usd_per_task"] is None else agents["usd_per_task"] * 1e3)
        yield _row("Time with models / queued (%):", *_percents(share, "llm", "queue"))
        yield _row("Time at tools / for sandboxes (%):", *_percents(share, "tool", "sandbox"))
        if summary["tools"]:
            yield _row("GPUs idle while tools worked (%):", *_percents(summary["tools"]["gpu_idle"], "of_gpu_time"))
        for cause, name in (("tool", "tool call"), ("user", "message")):
            if cause in agents["cache_hit"]:
                yield _row(f"Cached after a {name} (%):", *_percents(agents["cache_hit"], cause))
    for name, one in (summary.get("evals") or {}).items():
        yield _title(f"Evaluation {name}", "-")
        yield _row("Samples:", one["samples"])
        yield _row("Time to finish / until 90% (s):", one["finish_s"], one["done_s"]["p90"])
    for name, pool in (summary.get("sandboxes") or {}).items():
        yield _title(f"Sandboxes {name}", "-")
        yield _row("At a time, peak / mean:", pool["occupancy"]["peak"], pool["occupancy"]["mean"])
        for key, words in (("wait_s", "Wait"), ("boot_s", "Boot")):
            yield _row(f"{words}, P50 / P99 (s):", *((pool[key] or {}).get(part) for part in ("p50", "p99")))
        yield _row("Held with a command (%):", *_percents(pool["held"], "busy"))
        yield _row("Cost of nodes ($):", pool["usd"])


def _percents(shares: Mapping[str, float | None], *names: str) -> Iterator[float | None]:
    return (None if (share := shares.get(name)) is None else share * 100.0 for name in names)


def _fleet(summary: Mapping[str, Any]) -> Iterator[str]:
    """A line or two for each thing that a fleet may have: replicas that come and go, a network, regions, patient callers, carbon."""
    scaling, network, regions, calls = (summary.get(key) for key in ("scaling", "network", "regions", "calls"))
    if scaling or network or regions or calls:
        yield _title("Fleet", "-")
    if scaling:
        yield _row("Replicas, mean / peak:", scaling["replicas"]["mean"], scaling["replicas"]["peak"])
        up, held = scaling["wanted_to_ready"], scaling["held_requests"]
        if up:
            yield _row("Start, mean / P95 (s):", up["mean"], up["p95"])
        if held:
            yield _row("Requests held at the front door:", held["count"])
    if network and network["busiest"]:
        link = network["busiest"][0]
        yield _row(f"{link['link']}, mean / peak (%):", link["mean"] * 100.0, min(link["peak"], 1.0) * 100.0)
    for origin, one in (regions or {}).items():
        yield _row(f"From {origin}, served elsewhere (%):", None if one["spilled"] is None else one["spilled"] * 100.0)
    if calls:
        yield _row("Calls answered / given up:", calls["answered"], calls["given_up"])
        yield _row("Attempts per call:", calls["attempts_per_call"])


def _verdict(summary: Mapping[str, Any]) -> Iterator[str]:
    reason = summary.get("verdict_reason")
    yield f"Verdict: {summary['verdict']}" + (f": {reason}" if reason else "")
    yield from (f"Why: {reason['text']}" for reason in summary.get("why") or ())
    warmup = summary.get("warmup")
    if warmup:
        gone = f"{warmup['requests']:,} of {warmup['of_requests']:,} requests"
        yield f"Warm-up left out: the first {warmup['seconds']:.4g} s ({warmup['method']}), {gone}"
        if not all(warmup["settled"].values()):
            yield "  No steady state was seen: the run is too short to tell where the warm-up ends"
    slo = summary["slo"]
    if slo.get("met") is not None:
        target = f" of {slo['target']:.2%} wanted" if slo.get("target") is not None else ""
        share = "" if slo["attainment"] is None else f": {slo['attainment']:.2%}{target} of requests within the limits"
        yield f"SLO: {'met' if slo['met'] else 'NOT met'}{share}"
        for row in slo.get("limits") or ():
            if row["ok"] is False:
                yield f"  {row['limit']}: {row['measured_s'] * 1e3:.2f} ms, limit {row['limit_s'] * 1e3:.2f} ms"
    provenance = summary.get("provenance", {})
    if provenance.get("extrapolated"):
        yield f"Extrapolated: beyond what was calibrated: {'; '.join(provenance.get('extrapolations') or ['see the report'])}"
    failed = failures(summary)
    if failed:
        yield "AUDIT FAILED, do not trust these figures:"
        yield from (f"  {line}" for line in failed)


def failures(summary: Mapping[str, Any]) -> list[str]:
    """The audit's checks that did not hold, each with its detail."""
    return [f"{name}: {entry['detail']}" for name, entry in summary["audit"].items() if not entry["ok"]]


def _parts() -> tuple[tuple[str, str], ...]:
    return ("Mean", "mean"), ("Median", "p50"), ("P90", "p90"), ("P95", "p95"), ("P99", "p99")


def _duration(summary: Mapping[str, Any]) -> float:
    """Seconds that the rates are over, as in vLLM's benchmark: from the first arrival on. The whole run where nothing completed."""
    completed, rate = summary["requests"]["completed"], summary["throughput"]["requests_per_s"]
    return float(completed / rate if rate else summary["run"]["sim_s"])


def _scaled(values: Mapping[str, float] | None, part: str) -> float | None:
    value = values.get(part) if values else None
    return None if value is None else value * 1e3


def _title(text: str, fill: str) -> str:
    return f" {text} ".center(WIDTH, fill) if fill == "=" else text.center(WIDTH, fill)


def _row(label: str, *values: float | None) -> str:
    shown = " / ".join("-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value) for value in values)
    return f"{label:<40} {shown:<10}".rstrip()
