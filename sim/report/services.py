"""Rows of the report about what a run had several of: pools, the stages and callers of a cascade, adapters."""
from __future__ import annotations

from typing import Any

from sim.report.section import Sheet
from sim.report.words import dollars, number, percent, seconds

Rows = list[tuple[str, str]]


def sheets(summary: dict[str, Any]) -> list[Sheet]:
    """Figures by pool, and by workload through a cascade."""
    return [
        Sheet("By pool", POOLS, pools(summary),
              "A request counts where it was served last. Money is the pool's price over the whole run, idle or not."),
        Sheet("By workload, through the cascade", CLASSES, classes(summary),
              "Latency runs from the caller's request to the answer it was given, verification included. Each pool's price is shared by "
              "the tokens computed there."),
    ]  # fmt: skip


def pools(summary: dict[str, Any]) -> list[list[str]]:
    """One row per pool, where there are several: cells as in `POOLS`."""
    return [
        [
            name, f"{pool['gpus']:,}", _requests(pool), _part(pool["ttft_s"], "p50"), _part(pool["ttft_s"], "p99"),
            _part(pool["tpot_s"], "p50"), number(pool["output_tokens_per_s"]), percent(pool["busy_fraction"]),
            dollars(pool["usd_per_million_output_tokens"]),
        ]
        for name, pool in (summary["pools"] or {}).items()
    ]  # fmt: skip


def _requests(pool: dict[str, Any]) -> str:
    handed = f"{pool['handed_on']:,} handed on"
    return f"{pool['requests']:,}" if not pool["handed_on"] else f"{pool['requests']:,} and {handed}" if pool["requests"] else handed


POOLS = ("Pool", "GPUs", "Requests", "TTFT p50", "TTFT p99", "TPOT p50", "Output tokens/s", "Busy", "Per 1M output tokens")
CLASSES = ("Workload", "Requests", "Answered", "Sent on", "Latency p50", "Latency p99", "Cost", "Per request")


def classes(summary: dict[str, Any]) -> list[list[str]]:
    """One row per workload that goes through a cascade: cells as in `CLASSES`."""
    cascade = summary["cascade"] or {"classes": {}}
    return [
        [
            name, f"{row['requests']:,}", f"{row['answered']:,}", percent(row["escalated_share"]), _part(row["e2e_s"], "p50"),
            _part(row["e2e_s"], "p99"), dollars(row["usd"]), dollars(row["usd_per_request"]),
        ]
        for name, row in cascade["classes"].items()
    ]  # fmt: skip


def panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Titles with (name, value) rows, of what the run had."""
    found = []
    if summary["cascade"]:
        found.append({"title": "Cascade", "rows": _cascade(summary["cascade"])})
    if summary["adapters"]:
        found.append({"title": "Adapters", "rows": _adapters(summary["adapters"])})
    return found


def _cascade(cascade: dict[str, Any]) -> Rows:
    verifier, quality = cascade["verifier"], cascade["quality"]
    rows = [("Callers' requests", f"{cascade['requests']:,}"), ("Sent on to a larger model", percent(cascade["escalated_share"]))]
    rows += [(f"Answered by {name}", percent(share)) for name, share in cascade["answered_by"].items()]
    rows += [("Latency, median", _part(cascade["e2e_s"], "p50")), ("Verdict on an answer, mean", seconds(verifier["mean_s"]))]
    if verifier["model_requests"]:
        rows.append(("Verdicts given by a model", f"{verifier['model_requests']:,}"))
    if quality:
        rows += [(f"Quality of {name}, as given by the user", number(value)) for name, value in quality["as_given"].items()]
        rows.append(("Mean of these over the answers", number(quality["mean_of_answers"])))
    return rows


def _adapters(adapters: dict[str, Any]) -> Rows:
    return [
        ("Adapters asked for", f"{adapters['asked_for']:,}"),
        ("Found on the GPU", percent(adapters["slot_hit_rate"])),
        ("Loaded from the host's memory", f"{adapters['loaded_from_host']:,}"),
        ("Loaded from storage", f"{adapters['loaded_from_storage']:,}"),
        ("Engines waited for them", seconds(adapters["engines_waited_s"])),
    ]


def _part(spread: dict[str, float] | None, name: str) -> str:
    return seconds((spread or {}).get(name))
