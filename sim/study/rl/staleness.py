"""How stale what was trained on was, three ways, and what of it is beyond what the gate promises.

Lags are versions between the policy that trains and, of a sample, the one its group was submitted to, the one that wrote its oldest token,
and the mean over its tokens. What a gate bounds differs: some promise it only if groups end in the order they began (AReaL, SkyRL, verl),
so that a long one may exceed it; prime-rl bounds the oldest token. Violations are counted, not asserted.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim.study.metric import ratio
from sim.study.rl.run import Run

BIN = 0.25
# The bound of each gate in versions: the option that says it, and which lag it is of. Of verl it is a fraction of a batch.
BOUNDS = {
    "areal": ("eta", "submit"), "skyrl": ("staleness", "submit"), "verl": ("staleness_threshold", "submit"),
    "nemo_rl": ("max_trajectory_age_steps", "submit"), "rollart": ("alpha", "submit"), "prime_rl": ("max_off_policy_steps", "oldest"),
}  # fmt: skip


def bound(one: dict[str, Any]) -> tuple[float, str] | None:
    """Versions, and of which lag, that a run (an entry of `meta["rl"]`) is not to exceed; None: nobody bounds it.

    >>> bound({"mode": "async", "gate": {"kind": "verl", "staleness_threshold": 0.5}})
    (1.0, 'submit')
    """
    if one["mode"] == "one_step_off":
        return 1.0, "submit"
    if one["mode"] != "async" or one["gate"] is None:
        return None
    option, lag = BOUNDS.get(one["gate"]["kind"], ("", ""))
    # Lags that gates look at are whole versions.
    return (float(math.ceil(one["gate"][option])), lag) if option else None


def staleness(run: Run) -> dict[str, Any] | None:
    """Of samples trained on; None where there are none."""
    trained = run.trained
    if not trained.any():
        return None
    segments, span = run.samples["segments"][trained], (run.samples["newest"] - run.samples["oldest"])[trained]
    lags = {name: run.samples[f"lag_{name}"][trained] for name in ("submit", "oldest", "mean")}
    dropped = run.groups["state"] == run.groups.code("state", "stale_dropped")
    limit = bound(run.one)
    return {
        **{f"lag_{name}": _figures(values, 1.0 if name != "mean" else BIN) for name, values in lags.items()},
        "bound": None if limit is None else {"versions": limit[0], "of": f"lag_{limit[1]}",
                                             "violations": int((lags[limit[1]] > limit[0]).sum()),
                                             "violations_share": float((lags[limit[1]] > limit[0]).mean())},
        "partial_ratio": float((segments > 1).mean()), "max_partial_span": int(span.max()),
        "stale_dropped_groups": int(dropped.sum()), "stale_dropped_share": ratio(int(dropped.sum()), len(run.groups)),
    }  # fmt: skip


def _figures(lags: np.ndarray, width: float) -> dict[str, Any]:
    """Mean, max and how many samples there are by lag, which stands for those from it to `width` more."""
    bins, counts = np.unique(np.floor(lags / width + 1e-9), return_counts=True)
    named = {f"{low * width:g}": int(count) for low, count in zip(bins.tolist(), counts.tolist(), strict=True)}
    return {"mean": float(lags.mean()), "max": float(lags.max()), "histogram": named}
