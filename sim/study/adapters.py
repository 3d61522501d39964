"""How often an adapter was where it was needed, and how long engines waited for those that were not."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def adapters(facts: Facts) -> dict[str, Any] | None:
    """Starts of requests with an adapter by where it was, and seconds waited for it; None where no request asked for one."""
    table = facts.result.tables["adapters"]
    if not len(table):
        return None
    sources = table.labels["source"]
    counts, waited, asked = np.zeros(len(sources), dtype="i8"), 0.0, np.zeros(len(table.labels["adapter"]), dtype=bool)
    for page in table.pages():
        counts += np.bincount(page["source"], minlength=len(sources))
        waited += float(page["seconds"].sum())
        asked[page["adapter"]] = True
    slot, host, storage = counts.tolist()
    return {
        "asked_for": int(asked.sum()), "starts": int(counts.sum()), "slot_hit_rate": slot / counts.sum(),
        "loaded_from_host": host, "loaded_from_storage": storage, "engines_waited_s": waited,
    }  # fmt: skip
