"""Publications of weights: how long engines and the trainer stood still for them, and how fast bytes moved."""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.study.metric import ratio
from sim.study.rl.run import Run
from sim.study.spread import distribution


def syncs(run: Run, replicas: int) -> dict[str, Any] | None:
    """Means over the publications that ended in the time that counts; None where there are none. GB/s are those of all `replicas`
    together, from when bytes began to move to when the last had them.
    """
    rows = run.rows("rl_syncs")
    which = (rows["resumed"] > run.begin) & (rows["resumed"] <= run.end)
    count = int(which.sum())
    if not count:
        return None
    start, gathered, paused, moved, resumed, released, size = (
        rows[name][which] for name in ("start", "gathered", "paused", "moved", "resumed", "released", "bytes")
    )
    # Bytes move once the trainer has them together, and with a blocking sync once engines stand still.
    moving = float((moved - np.where(paused <= moved, np.maximum(gathered, paused), gathered)).sum())
    return {
        "count": count, "time_s": distribution(resumed - start), "gather_s": float((gathered - start).mean()),
        "engines_pause_s": float((resumed - paused).mean()), "trainer_stall_s": float((released - start).mean()),
        "gb_per_replica": float(size.mean()) / 1e9, "gb_moved": float(size.sum()) * replicas / 1e9,
        "gb_per_s": ratio(float(size.sum()) * replicas / 1e9, moving),
        "running_samples": float(rows["running"][which].mean()), "stopped_samples": float(rows["stopped"][which].mean()),
        "held_tokens": float(rows["held"][which].mean()),
    }  # fmt: skip
