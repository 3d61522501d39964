"""KV memory that is taken and holds nothing, and memory that is free and serves nobody: internal and external fragmentation.

The terms are those of the PagedAttention paper (Kwon et al., SOSP 2023, section 3.1), its internal fragmentation and its room reserved for
later tokens taken together. A stretch says how many blocks were in use at its end and, where decoders alone ran, how many tokens they then
held; stretches with prompts are left out of the first figure, for what partly computed prompts hold is not recorded.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.core.registry import BATCHERS
from sim.study.facts import Stretches, Tables
from sim.study.queued import Queued


class Waste:
    """Sums over stretches, a page at a time and in their order; `fragmentation` then gives (internal, external)."""

    def __init__(self, tables: Tables):
        pools = {pool.name: pool for pool in tables.result.scenario.cluster.pools}
        mine = [pools[name] for name in tables.pool_of_replica]
        self._size, self._all = tables.replicas["block_size"].astype(float), tables.replicas["blocks"].astype(float)
        self._seats = np.array([pool.engine.max_num_seqs * pool.parallel.dp for pool in mine])
        self._budget = np.array([pool.engine.max_num_batched_tokens * pool.parallel.dp for pool in mine])
        batchers: list[Any] = [BATCHERS.find(pool.engine.batcher["kind"]) for pool in mine]
        self.pads = np.array([batcher.pads for batcher in batchers], dtype=bool)
        self._queued = Queued(len(mine))
        self._stored = self._taken = self._stranded = self._present = 0.0

    def add(self, page: Stretches) -> None:
        replica, seconds, blocks, decoders = page["replica"], page["seconds"], page["blocks"], page["decoders"]
        alone = (page["prefills"] == 0) & (decoders > 0)
        held = page["held"] + page["tokens"]
        self._stored += float((held * seconds)[alone].sum())
        self._taken += float((blocks * self._size[replica] * seconds)[alone].sum())
        blocked = alone & (self._queued.before(page) > 0) & (decoders < self._seats[replica]) & (decoders < self._budget[replica])
        self._stranded += float(((self._all[replica] - blocks) * seconds)[blocked].sum())
        self._present += float((self._all[replica] * seconds).sum())

    def fragmentation(self) -> tuple[float | None, float | None]:
        """Share of the room in taken blocks that holds no token; share of the blocks of busy engines that were free while somebody queued
        for room. The first counts shared blocks wrongly; the second says nothing where batches are static, for there the queue waits for
        the batch.
        """
        internal = 1 - self._stored / self._taken if self._taken > 0 else None
        return internal, self._stranded / self._present if self._present > 0 and not self.pads.any() else None
