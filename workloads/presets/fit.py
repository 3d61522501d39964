"""Derive the presets from the traces themselves: `python -m workloads.presets.fit FOLDER` rewrites the YAML files beside this one.

Quantiles are taken on a grid that is finer in the tails. The variation of the gaps is that of the gaps between requests, except where time
stamps are ticks: there it is the square root of variance over mean of the requests per tick, which for a renewal process is the same
figure over long times.
"""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from workloads.formats.base import Rows, load
from workloads.presets import FOLDER

GRID = (0, 0.001, 0.005, 0.01, 0.02, 0.05, *(q / 20 for q in range(2, 19)), 0.925, 0.95, 0.965, 0.98, 0.99, 0.995, 0.998, 0.999, 1)
SOURCES: dict[str, dict[str, Any]] = {
    "azure_conv_2023": {
        "file": "azure2023_conv.csv.gz",
        "arrivals": "gaps",
        "what": "Azure LLM inference trace 2023, conversation: 58 minutes of one service, 2023-11-16",
        "where": "github.com/Azure/AzurePublicDataset, AzureLLMInferenceTrace_conv.csv; Splitwise, arXiv:2311.18677",
        "licence": "CC-BY-4.0",
    },
    "azure_code_2023": {
        "file": "azure2023_code_t0-1800.csv.gz",
        "arrivals": "gaps",
        "what": "Azure LLM inference trace 2023, code completion: the first 30 minutes, 2023-11-16",
        "where": "github.com/Azure/AzurePublicDataset, AzureLLMInferenceTrace_code.csv; Splitwise, arXiv:2311.18677",
        "licence": "CC-BY-4.0",
    },
    "mooncake_conversation": {
        "file": "mooncake_conversation_t0-2400.parquet",
        "arrivals": "ticks",
        "what": "Mooncake conversation trace: the first 40 minutes of the published hour (2024)",
        "where": "github.com/kvcache-ai/Mooncake, conversation_trace.jsonl; arXiv:2407.00079",
        "licence": "Apache-2.0",
    },
    "cc_weka": {
        "file": "cc_weka_requests_A.parquet",
        "arrivals": "none",
        "what": "requests of 438 coding-agent sessions, the whole context counted as input (2025-2026)",
        "where": "github.com/callanjfox/kv-cache-tester; about 96 % of the input is a cached prefix there",
        "licence": "as stated in that repository; figures only",
    },
}


def quantiles(lengths: np.ndarray) -> list[list[float]]:
    """Pairs [q, tokens] on the grid, lengths rounded to a tenth of a token."""
    return [[q, round(float(value), 1)] for q, value in zip(GRID, np.quantile(lengths, GRID), strict=True)]


def arrivals(rows: Rows, kind: str) -> dict[str, float]:
    """Mean rate (requests per second) and variation of the gaps; nothing where arrivals are not those of a service."""
    if kind == "none" or rows.arrival is None:
        return {}
    stamps, counts = np.unique(rows.arrival, return_counts=True)
    if kind == "ticks":
        tick = float(np.median(np.diff(stamps)))
        return {"rate": round(float(counts.mean()) / tick, 4), "cv": round(float(np.sqrt(counts.var() / counts.mean())), 4)}
    gaps = np.diff(rows.arrival)
    return {"rate": round(float(1 / gaps.mean()), 4), "cv": round(float(gaps.std() / gaps.mean()), 4)}


def fit(path: Path, source: dict[str, Any]) -> dict[str, Any]:
    """The content of one preset's file."""
    from scipy.stats import spearmanr

    order = "sort" if source["arrivals"] != "none" else "any"
    rows = load(str(path), "auto", "skip", order)  # type: ignore[arg-type]
    return {
        "source": {key: source[key] for key in ("what", "where", "licence")} | {"requests": len(rows.prompt), "provenance": "measured"},
        "arrivals": arrivals(rows, source["arrivals"]),
        "correlation": round(float(spearmanr(rows.prompt, rows.output).statistic), 4),
        "input": quantiles(rows.prompt),
        "output": quantiles(rows.output),
    }


def main(folder: Path) -> None:
    import yaml

    for name, described in SOURCES.items():
        content = fit(folder / described["file"], described)
        head = f"# Derived by `python -m workloads.presets.fit` from {described['file']}; do not edit.\n"
        source = yaml.safe_dump({"source": content.pop("source")}, sort_keys=False, width=140)
        figures = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=140)
        (FOLDER / f"{name}.yaml").write_text(head + source + figures, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m workloads.presets.fit FOLDER, the folder that holds the traces")
    main(Path(sys.argv[1]))
