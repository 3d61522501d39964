"""Who queued at replicas during stretches of steps, of which the record has those at the end of each.

Who queued at the end of the stretch before queues through this one. The others came in it: where nobody queued yet, an arrival ends a
stretch with the step in flight, so they waited half a step; behind others they came at any time of it, half of it on average.
"""
from __future__ import annotations

import numpy as np

from sim.study.facts import Stretches


class Queued:
    """Requests queued at each of so many replicas, a page of stretches at a time and in their order."""

    def __init__(self, replicas: int):
        self._last = np.zeros(replicas, dtype="i8")

    def before(self, page: Stretches) -> np.ndarray:
        """How many queued at the replica of each stretch when it began: as many as at the end of its stretch before."""
        order = np.argsort(page["replica"], kind="stable")
        replica, waiting = page["replica"][order], page["waiting"][order]
        heads, tails = np.append(True, replica[1:] != replica[:-1])[: len(replica)], np.append(replica[1:] != replica[:-1], True)
        tails = tails[: len(replica)]
        before = np.roll(waiting, 1).astype("i8")
        before[heads] = self._last[replica[heads]]
        self._last[replica[tails]] = waiting[tails]
        result = np.empty_like(before)
        result[order] = before
        return result

    def seconds(self, page: Stretches) -> np.ndarray:
        """Request-seconds of queueing in each stretch."""
        before, waiting, seconds = self.before(page), page["waiting"], page["seconds"]
        stayed = np.minimum(before, waiting)
        heard = seconds / np.maximum(page["steps"], 1)
        return stayed * seconds + (waiting - stayed) * np.where(before > 0, seconds, heard) / 2
