"""A result as one HTML page that needs nothing else: no network, the plots and the script inline. The same result gives the same page."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.core.errors import BadInput
from sim.report import agents, callers, economics, fleet, links, rl, rl_plots, sandboxes, services, sharing, training
from sim.report.answer import answer, gpus_of
from sim.report.folder import of_run
from sim.report.intervals import Sure
from sim.report.plots import Plot
from sim.report.section import Card, Mark, Sheet
from sim.report.template import fill
from sim.report.text import WHY
from sim.report.words import DASH, dollars, figure, number, percent, scaled, seconds, together
from sim.spec.hardware import KINDS
from sim.spec.limits import worded
from sim.study.metrics import METRICS, Facts
from sim.study.result import Result

LATENCIES = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("itl_s", "ITL"), ("e2e_s", "E2E"), ("queue_s", "Queueing"))
PERCENTILES = ("mean", "p50", "p90", "p95", "p99")
POOL = ("Pool", "Model", "GPUs", "Price", "KV cache", "Kernel times", "Weakest figure")
KIND_MARKS = {"measured": "good", "fitted": "good", "datasheet": "none", "judgement": "warn"}
CHECKS = {
    "I1": "Every request ends once", "I2": "KV blocks are conserved", "I3": "Time runs forwards", "I4": "No idle engine with work",
    "I5": "Same seed, same tables", "I6": "No step beats the roofline", "I7": "No link beats its bandwidth",
    "I8": "GPU-seconds of trainers add up, and samples have versions",
    "tokens": "Tokens are conserved", "littles_law": "Little's law", "lives": "Replicas work while they live",
    "agents": "Families of agents are whole", "sandboxes": "Every sandbox is given back",
    "replica_states": "The states of replicas that pause are their lives", "lending": "Shared GPUs are one pool's at a time",
}  # fmt: skip


def render(result: Result, sure: Sure | None = None) -> str:
    """The page, with how sure the figures are where that is given (`sim/report/intervals.py`). Raises nothing of its own: figures a run
    does not have are left out.
    """
    from sim.spec.load import dump

    summary, facts = result.summary, Facts(result)
    pools, trainers = result.meta["pools"], result.meta.get("trainers", [])
    latency = _latency(summary)
    return fill(
        "page", name=result.scenario.name, description=result.scenario.description, setting=_setting(result), verdict=summary["verdict"],
        answer=answer(summary), summary=summary, cards=cards(summary), warnings=warnings(result), slo_mark=_slo_mark(summary["slo"]),
        limits=_limits(summary["slo"]), plots=_plots(facts, summary), latency_heads=("Measure", *PERCENTILES), drawing=_drawing(result),
        latency=list(latency.values()), latency_docs=[METRICS[key].doc for key in latency], panels=_panels(summary), pool_heads=POOL,
        pools=[*map(_pool, pools), *map(_trainer, trainers)], extrapolated=_extrapolated(summary), gpus=_origins_of(result.meta),
        audit=_audit(summary["audit"]), audit_mark=_audit_mark(summary["audit"]), run=_run(result), scenario=dump(result.scenario),
        metrics=[(metric.name, metric.unit, metric.doc) for metric in METRICS.values()], sheets=_sheets(facts, summary), sure=sure,
        files=of_run(result, sure is not None),
    )  # fmt: skip


def _plots(facts: Facts, summary: dict[str, Any]) -> list[Plot]:
    from sim.report.plots import plots

    about = [*rl_plots.plots(facts, summary), *agents.plots(facts, summary), *sandboxes.plots(facts, summary), *fleet.plots(facts, summary)]
    shared = sharing.plots(facts, summary)
    return [*about, *shared, *plots(facts), *callers.plots(facts, summary), *links.plots(facts), *economics.plots(facts)]


def _drawing(result: Result) -> str:
    """The cluster as one drawing, where it stands on a network; nothing where what it is made of is no longer at hand."""
    from sim.report.topology import drawing

    if result.scenario.cluster.network is None:
        return ""
    try:
        return drawing(result.scenario)
    except BadInput:
        return ""


def _sheets(facts: Facts, summary: dict[str, Any]) -> list[Sheet]:
    """The tables of the page, of what the run had."""
    apart = services.sheets(summary)
    about = [*agents.sheets(facts, summary), *sandboxes.sheets(summary), *training.sheets(summary), *fleet.sheets(facts, summary)]
    found = [*rl.sheets(summary), *about, *sharing.sheets(summary), *apart, *callers.sheets(summary), *links.sheets(summary)]
    return [sheet for sheet in (*found, *economics.sheets(facts)) if sheet.rows]


def _setting(result: Result) -> str:
    """One line: what ran on what."""
    scaled_pools = {pool.name for pool in result.scenario.cluster.pools if pool.autoscale is not None}
    pools = Counter(f"{pool['model']} on {'up to ' * (pool['name'] in scaled_pools)}{_layout(pool)}" for pool in result.meta["pools"])
    pools.update(f"{one['model']} trained on {_learner(one)}" for one in result.meta.get("trainers", []))
    kinds = Counter(str(workload["kind"]) for workload in result.scenario.workloads)
    said = "; ".join(f"{count} pools, each of {what}" if count > 1 else what for what, count in pools.items())
    traffic = ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in kinds.items())
    return f"{said}. Traffic: {traffic}. Seed {result.meta['seed']}."


def _learner(trainer: dict[str, Any]) -> str:
    """The GPUs of a trainer."""
    shares = trainer.get("shares")
    return f"the GPUs of {shares}, in turn" if shares else f"{trainer['gpus']:,} × {trainer['gpu']}"


def _layout(pool: dict[str, Any]) -> str:
    replicas, gpus = pool["replicas"], pool["gpus"]
    if pool.get("lender"):
        return f"the GPUs of {pool['lender']}, in turn ({replicas:,} replica{'s' * (replicas != 1)} of {gpus})"
    if gpus == 1:
        return f"{replicas:,} × {pool['gpu']}"
    return f"{replicas * gpus:,} × {pool['gpu']} ({replicas:,} replica{'s' * (replicas != 1)} of {gpus})"


def cards(summary: dict[str, Any]) -> list[Card]:
    """The key figures; what they are worth in an overload is said on them."""
    rates, gpu, slo, requests = summary["throughput"], summary["gpu"], summary["slo"], summary["requests"]
    found = [
        *(Card(*card) for card in (*rl.cards(summary), *agents.cards(summary), *training.cards(summary), *sharing.cards(summary))),
        Card("Output tokens per second", number(rates["output_tokens_per_s"]), f"{number(rates['output_tokens_per_s_per_gpu'])} per GPU"),
        Card("Requests per second", number(rates["requests_per_s"]), f"{requests['completed']:,} of {requests['arrived']:,} completed"),
    ]
    if not requests["arrived"]:
        # Nobody asked for anything: a trainer on its own.
        return [card for card in (*found[:-2], *(Card(*card) for card in economics.cards(summary))) if not card.value.startswith(DASH)]
    for key, name in (("ttft_s", "TTFT, median"), ("tpot_s", "TPOT, median"), ("e2e_s", "E2E, median")):
        spread = summary[key] or {}
        found.append(Card(name, seconds(spread.get("p50")), f"p99 {seconds(spread.get('p99'))}"))
    if slo["attainment"] is not None:
        goodput = f"wanted {percent(slo['target'])}; goodput {number(slo['goodput_requests_per_s'])}/s"
        found.append(Card("Within service levels", percent(slo["attainment"]), goodput))
    kv = summary["kv"]
    found += [
        Card(_whose(summary), percent(gpu["busy_fraction"]), f"{gpus_of(summary)}; {_used(summary)}"),
        Card("KV cache, peak", percent(kv["peak_fraction"]), f"{kv['preemptions']:,} preemptions"),
        *(Card(*card) for card in economics.cards(summary)),
    ]
    return [card for card in found if not card.value.startswith(DASH)]


def _whose(summary: dict[str, Any]) -> str:
    """What the figures of GPUs are of: those of trainers that have their own do not count."""
    return "GPUs of engines, busy" if (summary["training"] or {}).keys() - (summary["shared_gpus"] or {}).keys() else "GPUs busy"


def _used(summary: dict[str, Any]) -> str:
    """How well engines used GPUs, while they had them."""
    used = f"MFU {percent(summary['gpu']['mfu'])}, MBU {percent(summary['gpu']['mbu'])}"
    return f"the trainer's passes count; of engines' own time, {used}" if summary["shared_gpus"] else used


def warnings(result: Result) -> list[str]:
    """What a reader must know before trusting a figure: lost requests, extrapolation, failed checks, the run's own remarks."""
    summary, lines = result.summary, []
    counts = dict(summary["requests"])
    # What a run of reinforcement learning calls off itself is part of its plan, and told there.
    counts["failed"] -= _planned(result)
    for status, what in (("rejected", "were turned away"), ("failed", "failed"), ("unfinished", "were cut off by the end of the run")):
        if counts[status]:
            lines.append(f"{counts[status]:,} of {counts['arrived']:,} requests {what}{_reasons(result, status)}.")
    broken = [CHECKS[name] for name, entry in summary["audit"].items() if not entry["ok"]]
    if broken:
        lines.append(f"Checks failed: {', '.join(broken)}. A fault of the simulator: do not use these figures, and report it.")
    lines += [f"Extrapolated: {text}" for text in summary["provenance"]["extrapolations"]]
    return lines + list(result.meta["remarks"])


def _planned(result: Result) -> int:
    """Requests that runs of reinforcement learning called off: surplus, stale, or stopped to go on later."""
    table = result.tables["requests"]
    names, reasons = table.labels["workload"], table.labels["reason"]
    runs = [names.index(one["name"]) for one in result.meta.get("rl", ()) if one["name"] in names]
    if not runs or "cancelled" not in reasons:
        return 0
    called_off = reasons.index("cancelled")
    return sum(int((np.isin(page["workload"], runs) & (page["reason"] == called_off)).sum()) for page in table.pages())


def _reasons(result: Result, status: str) -> str:
    """Why requests ended so, with counts: ` (max_model_len 3, queue_limit 10)`."""
    table = result.tables["requests"]
    ended, counts = table.labels["status"].index(status), Counter[int]()
    for page in table.pages():
        counts.update(page["reason"][page["status"] == ended].tolist())
    text = ", ".join(f"{label} {counts[code]:,}" for code, label in enumerate(table.labels["reason"]) if label and counts[code])
    return f" ({text})" if text else ""


def _slo_mark(slo: dict[str, Any]) -> Mark:
    return {True: Mark("good", "met"), False: Mark("bad", "not met"), None: Mark("none", "not measured")}[slo["met"]]


def _limits(slo: dict[str, Any]) -> list[tuple[str | Mark, ...]]:
    """Rows: the limit, what was asked, what was measured, whether it holds."""
    holds = {True: Mark("good", "yes"), False: Mark("bad", "no"), None: Mark("none", DASH)}
    rows: list[tuple[str | Mark, ...]] = []
    for limit in slo["limits"]:
        rows.append((worded(limit["limit"]), f"≤ {seconds(limit['limit_s'])}", seconds(limit["measured_s"]), holds[limit["ok"]]))
    if slo["target"] is not None:
        reached = None if slo["attainment"] is None else slo["attainment"] >= slo["target"]
        rows.append(("Good requests", f"≥ {percent(slo['target'])}", percent(slo["attainment"]), holds[reached]))
    return rows


def _latency(summary: dict[str, Any]) -> dict[str, list[str]]:
    """Rows of the table by the key of the summary: the name with its unit, then percentiles."""
    rows = {}
    for key, name in LATENCIES:
        unit, cells = together([(summary[key] or {}).get(p) for p in PERCENTILES])
        if any(cell != DASH for cell in cells):
            rows[key] = [f"{name}, {unit}", *cells]
    return rows


def _panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Titles with (name, value) rows; those without a figure are left out."""
    rates, gpu, kv = (summary[key] for key in ("throughput", "gpu", "kv"))
    found: list[dict[str, Any]] = [
        {"title": "Requests", "rows": [(status.capitalize(), f"{count:,}") for status, count in summary["requests"].items()]},
        {"title": "Throughput", "rows": [
            ("Requests per second", number(rates["requests_per_s"])),
            ("Output tokens per second", number(rates["output_tokens_per_s"])),
            ("Prompt and output tokens per second", number(rates["total_tokens_per_s"])),
            ("Output tokens per second and GPU", number(rates["output_tokens_per_s_per_gpu"])),
        ]},
        {"title": "GPUs and KV cache", "rows": [
            ("GPUs", f"{gpu['count']:,}"), ("Busy", percent(gpu["busy_fraction"])),
            ("MFU", percent(gpu["mfu"])), ("MBU", percent(gpu["mbu"])),
            ("KV blocks in use, peak", percent(kv["peak_fraction"])), ("KV blocks in use, mean", percent(kv["mean_fraction"])),
            ("Prompt tokens found in the cache", percent(kv["prefix_hit_rate"])),
            *_moved(kv["moved"]),
            ("Preemptions", f"{kv['preemptions']:,}"),
        ]},
        *(panel._asdict() for part in (agents, sandboxes, training, sharing, fleet, callers) for panel in part.panels(summary)),
        *economics.panels(summary),
        *services.panels(summary),
    ]  # fmt: skip
    if not summary["requests"]["arrived"]:
        found = found[3:]
    found = [*(panel._asdict() for panel in rl.panels(summary)), *found]
    said = [panel | {"rows": [row for row in panel["rows"] if not row[1].startswith(DASH)]} for panel in found]
    return [panel for panel in said if panel["rows"]]


def _moved(flows: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows for the kinds of transfers of keys and values that happened."""
    for kind, flow in flows.items():
        wait = f", {seconds(flow['seconds']['mean'])} each" if flow["seconds"] else ""
        yield f"KV moved, {WHY[kind]}", f"{number(flow['bytes'] / 1e9)} GB{wait}"


def _pool(pool: dict[str, Any]) -> tuple[str | Mark, ...]:
    """What is assumed of a pool, in the order of POOL."""
    price = pool["price_per_hour"]
    total = pool["gpus"] * pool["replicas"]
    memory = pool["memory"]
    cache = pool["kv_blocks"] * memory["per_block"]
    return (
        pool["name"], pool["model"], _layout(pool), f"as {pool['lender']}" if pool.get("lender") else _price(price, total),
        f"{pool['kv_blocks']:,} blocks a replica, {scaled(cache)}B of {scaled(memory['budget'])}B a GPU", _kernels(pool["provenance"]),
        _weakest(pool["provenance"]),
    )  # fmt: skip


def _trainer(one: dict[str, Any]) -> tuple[str | Mark, ...]:
    """The same of a trainer, which has no cache."""
    taken = sum(size for part, size in one["memory"].items() if part not in ("budget", "host"))
    memory = f"none; training takes {scaled(taken)}B of {scaled(one['memory']['budget'])}B a GPU"
    price = f"as {one['shares']}" if one["shares"] else _price(one["price_per_hour"], one["gpus"])
    return one["name"], one["model"], _learner(one), price, memory, _kernels(one["provenance"]), _weakest(one["provenance"])


def _weakest(rows: list[dict[str, Any]]) -> Mark:
    worst = max((row["kind"] for row in rows), key=KINDS.index, default="judgement")
    return Mark(KIND_MARKS[worst], worst)


def _kernels(rows: list[dict[str, Any]]) -> str:
    """How far fits of kernels are off, as far as that is known."""
    known = [row["value"] for row in rows if row["name"].startswith("kernel.") and row["value"] is not None]
    if not known:
        return "errors not known"
    between = " to ".join(dict.fromkeys(percent(value) for value in (min(known), max(known))))
    return f"{between} median error, {len(known)} kernel{'s' * (len(known) != 1)}"


def _extrapolated(summary: dict[str, Any]) -> str:
    count = len(summary["provenance"]["extrapolations"])
    if not count:
        return "Nothing was extrapolated."
    return f"{count} figure{' was' if count == 1 else 's were'} extrapolated, as said under Read this first."


def _price(price: float | None, gpus: int) -> str:
    return "–" if price is None else f"{dollars(price)} a GPU-hour, {dollars(price * gpus)} an hour"


def _origins_of(meta: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of each GPU once, of the network and of starts, under where they come from: the least certain first."""
    machines = [*meta.get("trainers", []), *meta["pools"]]
    sheets = {one["gpu"]: one["provenance"] for one in machines} | meta.get("provenance", {})
    return [{"name": f"Figures of {name}", "origins": _origins(rows)} for name, rows in sheets.items()]


def _origins(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for row in rows:
        name = row["name"].removeprefix("kernel.").replace("_", " ").replace(".", ", ")
        groups.setdefault((row["kind"], row["source"], row["date"]), []).append((name, figure(row["name"], row["value"])))
    order = sorted(groups, key=lambda origin: -KINDS.index(origin[0]))
    return [{"source": s, "date": d, "mark": Mark(KIND_MARKS[k], k), "figures": groups[k, s, d]} for k, s, d in order]


def _audit(entries: dict[str, Any]) -> list[tuple[str | Mark, ...]]:
    """Rows: the check, its result, how much it looked at, and what it found."""
    def mark(entry: dict[str, Any]) -> Mark:
        if not entry["ok"]:
            return Mark("bad", "fails")
        unchecked = not entry["checked"] or entry["detail"].startswith("not checked")
        return Mark("none", "not checked") if unchecked else Mark("good", "holds")

    names = {name: f"{name} {CHECKS[name]}" if name.startswith("I") else CHECKS[name] for name in entries}
    return [(names[name], mark(entry), f"{entry['checked']:,}", entry["detail"]) for name, entry in entries.items()]


def _audit_mark(entries: dict[str, Any]) -> Mark:
    return Mark("good", "all hold") if all(entry["ok"] for entry in entries.values()) else Mark("bad", "a check fails")


def _run(result: Result) -> list[tuple[str, str]]:
    run = result.summary["run"]
    return [
        ("Simulated time", seconds(run["sim_s"])), ("Computing time", seconds(run["cpu_s"])), ("Events", f"{run['events']:,}"),
        ("Seed", str(run["seed"])), ("Version", run["version"]), ("Digest of the scenario", run["digest"]),
    ]  # fmt: skip
