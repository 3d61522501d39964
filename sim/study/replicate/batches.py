"""Intervals from one long run: batch means.

The time in which requests arrive, less the warm-up, is cut into equal parts; each gives its own figures (`window.py`), and their
spread says how sure those of the whole are (Law, Simulation Modeling and Analysis, section 9.5.3). Batches must be much longer than what
one burst or one long request leaves behind; whether they hang together is tested, and said.

Figures that grow with the length of a run, such as requests and dollars in all, have no mean over batches and are left out.
"""
from __future__ import annotations

import numpy as np

from sim.core.errors import BadInput
from sim.study.facts import Tables
from sim.study.figures import flat, main
from sim.study.metrics import METRICS, cut_out
from sim.study.replicate.interval import BATCHES, correlated, correlation
from sim.study.replicate.replications import Replications, table_of
from sim.study.replicate.window import cut_figures, window
from sim.study.result import Result

FEW = 30  # requests in a batch, below which its percentiles say little
TOTALS = ("requests", "USD", "kWh", "gCO2e")
LEAVES = ("requests", "completed", "handed_on", "usd_total", "gpus", "count", "target", "bytes", "met")


def batches(result: Result, count: int) -> Replications:
    """The figures of `count` equal parts of the time in which requests arrive. Raises BadInput for fewer than two, or for parts in which
    nothing arrives.
    """
    if count < 2:
        raise BadInput(f"found {count} batches; an interval needs 2 or more")
    said, tables = result.meta.get("warmup"), Tables(result)
    if not tables.counts.sum():
        raise BadInput("no request arrives in this run, and batches are of the time in which they do; give replications")
    edges = np.linspace(said["begin"] if said else tables.begin, tables.arrivals[1], count + 1)
    groups, rows, few = cut_figures(result.meta), [], 0
    for number in range(count):
        # The last arrival belongs to the last batch.
        end = np.nextafter(edges[-1], np.inf) if number == count - 1 else edges[number + 1]
        part = window(result, float(edges[number]), float(end))
        arrived = len(part.tables["requests"])
        if not arrived:
            raise BadInput(f"nothing arrives in batch {number} of {count} ({edges[number]:.4g} to {end:.4g} s); fewer batches are wanted")
        few += arrived < FEW
        figures = {name: value for name, value in flat(cut_out(part, groups)).items() if not _total(name)}
        rows.append({"replication": number, "seed": result.meta["seed"], "verdict": result.summary["verdict"],
                     "audit_ok": all(entry["ok"] for entry in result.summary["audit"].values()), "figures": figures})  # fmt: skip
    table, whole = table_of(rows), flat(result.summary)
    # Percentiles are given about those of the whole, which must have them.
    table = table[[name for name in table.columns if "." not in name or name in whole]]
    found = Replications(result.scenario, table, count, method=BATCHES, whole=whole)
    lines = [f"{few} of {count} batches have fewer than {FEW} requests; fewer batches or a longer run are wanted."] if few else []
    together = [name for name in main(found.names) if name not in found.missing and correlated(found.values(name).astype(float).to_numpy())]
    if together:
        worst = max(correlation(found.values(name).astype(float).to_numpy()) for name in together)
        lines.append(f"Batches hang together in {', '.join(together)} (correlation of neighbours up to {worst:.2f}), so that these "
                     "intervals are too narrow; fewer batches or a longer run are wanted.")  # fmt: skip
    return Replications(result.scenario, table, count, method=BATCHES, whole=whole, remarks=tuple(lines))


def _total(name: str) -> bool:
    """Whether a figure grows with the run, or is none of a part of it.

    >>> [_total(name) for name in ("cost.usd_total", "cost.usd_per_hour", "requests.arrived", "ttft_s.p50", "slo.met")]
    [True, False, True, False, True]
    """
    unit = next((METRICS[part].unit for part in (name, name.rpartition(".")[0], name.partition(".")[0]) if part in METRICS), "")
    return name.rpartition(".")[2] in LEAVES or (unit in TOTALS and "_per_" not in name)
