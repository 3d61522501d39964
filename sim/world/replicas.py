"""Opens a pool: memory divided, step model bound; and makes its replicas, an engine each, with its cache and its ways out."""
from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sim.core.errors import BadInput, Problem
from sim.core.registry import BATCHERS, RETENTIONS
from sim.core.rng import Draws
from sim.physics.lora import LoraCost
from sim.physics.memory import Memory, divide
from sim.physics.power import clock
from sim.physics.recovery import Recovery
from sim.physics.speculation import Acceptance
from sim.physics.step import EngineStep
from sim.policy.batch.base import Batcher, Limits
from sim.policy.kv.base import KvCache
from sim.policy.kv.contiguous import Contiguous
from sim.policy.kv.paged import Paged
from sim.policy.kv.radix import Radix
from sim.policy.kv.tiers import Tiered
from sim.spec.hardware import gpu, node
from sim.spec.llm import llm
from sim.spec.network import Network
from sim.spec.scenario import Disaggregation, Pool
from sim.spec.training import residual
from sim.world.adapters import Adapters
from sim.world.congestion import Congestion, links
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.link import Link
from sim.world.moves import Moves
from sim.world.retention import Hold, Keeper, Name
from sim.world.roads import Roads, handoff
from sim.world.site import Site
from sim.world.tier_links import TierLinks

if TYPE_CHECKING:
    from sim.world.cluster import World


SWAP_SPACE = 4.0 * 2**30  # vLLM's default, per GPU


class Replicas:
    """A pool as it was opened: what its replicas have in common, and how another one is made.

    `limit` is the longest request that one can hold, in tokens, and the name of what limits it. Raises BadInput at paths below `where` for
    what cannot be simulated.
    """

    def __init__(self, world: World, pool: Pool, where: str):
        self.pool, self._world = pool, world
        architecture, chip, options = llm(pool.model or world.scenario.model), gpu(pool.gpu), pool.engine
        clock(chip, pool.power_cap, f"{where}.power_cap")  # said with its place, before the step model needs it
        self.memory = divide(architecture, chip, pool, where, residual(world.scenario.cluster, pool.name))
        # Shared by all: a step model has no state of its own.
        self.model = EngineStep(architecture, chip, pool)
        self._longest = options.max_model_len or architecture.max_position
        _check_budget(pool, self._longest, where)
        self._limits = _limits(pool, self._longest)
        self._law = Acceptance(options.speculative_config, world.scenario.seed) if options.speculative_config else None
        self._loras = LoraCost(architecture, chip, pool) if options.lora else None
        speeds = _speeds(pool, world.scenario.cluster.network)
        self._recovery = _recovery(pool, self.memory, self.model, self._limits, speeds, where)
        self._kept: dict[Name, list[Hold]] = {}
        self._congestions: dict[int, Congestion] = {}
        self._watchers: dict[int, int] = {}
        # The last token's keys and values are never computed, so a cache of n tokens holds a request of n + 1.
        room = self.memory.blocks * options.block_size + 1
        self.limit = (self._longest, "max_model_len") if self._longest <= room else (room, "kv_capacity")

    def engine(self, index: int) -> Engine | ExactEngine:
        """A replica, its engine idle and its cache empty."""
        world, pool, options, tables = self._world, self.pool, self.pool.engine, self._world.recorder.tables
        policy = _batcher(world, pool), self._limits, self._law
        record = tables["stretches"], tables["stalls"], world.recorder.left
        kind = world.outlook.kind(options.exact_steps)
        engine = kind(world.env, index, self.model, _cache(pool, self.memory, self._longest, self._recovery), policy, record)
        if pool.role != "both" or options.preemption_mode == "swap" or options.kv_tiers or options.retention["kind"] != "lru":
            engine.moves = _moves(world, pool, self.memory, engine.kv)
            if world.site is not None:
                self._over_network(world.site, engine.moves, engine)
            if isinstance(engine.kv, Radix) and options.retention["kind"] != "lru":
                keeper = Keeper(world.env, RETENTIONS.make(options.retention), engine.kv, self._recovery, self._kept)
                engine.moves.keeper, keeper.engine = keeper, engine
                policy[0].order.keeps(keeper.until)
        if self._loras is not None and options.lora is not None:
            engine.adapters = Adapters(options.lora, self._loras, self.model.queries, (index, tables["adapters"]))
        if world.site is not None and pool.parallel.gpus > 1:
            self._congestions[index] = congestion = Congestion(world.env, index, self.model, tables["slowdowns"])
            congestion.engine = engine
        return engine

    def placed(self, index: int) -> None:
        """A replica has its GPUs: from now on traffic on the links of its collectives slows it down."""
        site, congestion = self._world.site, self._congestions.pop(index, None)
        if site is not None and congestion is not None:
            found = links(site.topology, site.places[index], self.pool.parallel, self.model.llm.moe_layers > 0)
            if found:
                self._watchers[index] = site.network.watch(found, congestion.changed)

    def gone(self, index: int) -> None:
        """A replica makes no more steps: nothing slows it down."""
        if self._world.site is not None and index in self._watchers:
            self._world.site.network.unwatch(self._watchers.pop(index))

    def _over_network(self, site: Site, moves: Moves, engine: Engine | ExactEngine) -> None:
        """Have what a replica moves go over the network."""
        pool = self.pool
        way = self._world.scenario.cluster.disaggregation or Disaggregation()
        moves.roads = roads = Roads(site, engine.index, pool.parallel, handoff(way, pool.parallel.tp * pool.parallel.pp))
        if moves.tiers is not None:
            for number, tier in enumerate(pool.engine.kv_tiers):
                if tier.store is not None:
                    moves.tiers.reroute(number, partial(roads.store, tier))
                elif not tier.bandwidth and not tier.latency:
                    moves.tiers.reroute(number, roads.memory)


def _cache(pool: Pool, memory: Memory, longest: int, recovery: Recovery) -> KvCache:
    options = pool.engine
    if not options.paged:
        return Contiguous(memory.blocks, options.block_size, longest, options.kv_reservation or "max")
    if options.kv_tiers:
        sizes = [int(tier.capacity / _per_block(pool, memory)) for tier in options.kv_tiers]
        costs = None if options.kv_reload == "always" else recovery
        return Tiered(memory.blocks, options.block_size, sizes, options.kv_offload != "on_evict", costs)
    kind = Radix if options.enable_prefix_caching else Paged
    return kind(memory.blocks, options.block_size)


def _per_block(pool: Pool, memory: Memory) -> float:
    """Bytes of a block on all GPUs that hold a part of it."""
    return memory.per_block * pool.parallel.tp * pool.parallel.pp


def _recovery(pool: Pool, memory: Memory, model: EngineStep, limits: Limits, speeds: list[tuple[float, float]], where: str) -> Recovery:
    """What it costs to have keys and values again. Raises BadInput when a tier has no room for a single block."""
    size = _per_block(pool, memory)
    problems = [
        Problem(f"found {tier.capacity:g} bytes; a block of {pool.engine.block_size} tokens takes {size:g}, and at least one has to fit",
                f"{where}.engine.kv_tiers.{number}.capacity")
        for number, tier in enumerate(pool.engine.kv_tiers) if tier.capacity < size
    ]  # fmt: skip
    if problems:
        raise BadInput(problems)
    most = limits.long_prefill_token_threshold or limits.max_num_batched_tokens
    return Recovery(model, speeds, size, min(most, limits.max_num_batched_tokens))


def _speeds(pool: Pool, network: Network | None) -> list[tuple[float, float]]:
    """Bytes/s and latency of each tier, with nothing else on the links."""
    chip, found = gpu(pool.gpu), []
    for tier in pool.engine.kv_tiers:
        speed = tier.bandwidth or host_bandwidth(pool)
        if tier.store is not None and network is not None:
            cards = node(pool.node or chip.node).nic_bandwidth * pool.parallel.tp * pool.parallel.pp
            speed = min(speed, cards, network.store(tier.store).bandwidth)
        found.append((speed, tier.latency))
    return found


def host_bandwidth(pool: Pool) -> float:
    """Bytes/s between the host's memory and the GPUs that hold a request's keys and values."""
    return gpu(pool.gpu).pcie * pool.parallel.tp * pool.parallel.pp


def _batcher(world: World, pool: Pool) -> Batcher:
    """Every replica has one of its own, all with the same luck."""
    batcher: Batcher = BATCHERS.make(pool.engine.batcher)
    batcher.order.seed(Draws(world.rng(f"order.{pool.name}")))
    return batcher


def _moves(world: World, pool: Pool, memory: Memory, kv: KvCache) -> Moves:
    chip, gpus = gpu(pool.gpu), pool.parallel.tp * pool.parallel.pp
    way = world.scenario.cluster.disaggregation or Disaggregation()
    out = Link(world.env, (way.bandwidth or node(pool.node or chip.node).nic_bandwidth or chip.pcie) * gpus, way.latency)
    per_token = memory.per_block / pool.engine.block_size * gpus
    host, record = Link(world.env, host_bandwidth(pool)), world.recorder.tables["transfers"]
    moves = Moves(world.env, kv, (out, host), per_token, record)
    if isinstance(kv, Tiered):
        # Without figures of its own the host tier shares the bus with swapped caches.
        ways = [
            (tier.kind, Link(world.env, tier.bandwidth or host.bandwidth, tier.latency) if tier.bandwidth or tier.latency else host)
            for tier in pool.engine.kv_tiers
        ]
        moves.tiers = TierLinks(world.env, kv, ways, _per_block(pool, memory), record)
    moves.hands_on = pool.role == "prefill"
    moves.overlap = 1.0 - 1.0 / llm(pool.model or world.scenario.model).layers if way.layerwise else 0.0
    if pool.engine.preemption_mode == "swap":
        moves.swap = int((pool.engine.swap_space or SWAP_SPACE) * gpus / per_token)
    return moves


def _limits(pool: Pool, longest: int) -> Limits:
    """The scheduler's limits for a whole replica: each attention group has its own, and each pipeline stage a batch in flight.

    A prompt's chunk still fits one batch of one group.
    """
    options, parallel = pool.engine, pool.parallel
    lanes = parallel.pp * parallel.dp
    budget, most = options.max_num_batched_tokens, options.long_prefill_token_threshold
    if lanes > 1:
        most = min(most or budget, budget)
    return Limits(
        options.max_num_seqs * parallel.dp, budget * lanes, options.enable_chunked_prefill, most, options.async_scheduling,
        options.speculative_config.queries if options.speculative_config else 1, longest, options.lora.max_loras if options.lora else 0,
    )


def _check_budget(pool: Pool, longest: int, where: str) -> None:
    """Without chunked prefill a prompt is computed in one step or never; vLLM refuses such a configuration too."""
    budget = pool.engine.max_num_batched_tokens
    if not pool.engine.enable_chunked_prefill and budget < longest:
        kind = pool.engine.batcher["kind"]
        whole = "enable_chunked_prefill" in BATCHERS.find(kind).refuses  # type: ignore[attr-defined]
        way = f"choose a batcher that computes prompts in chunks ({kind} does not)" if whole else "set enable_chunked_prefill: true"
        message = (
            f"max_num_batched_tokens ({budget}) is below max_model_len ({longest}), and without chunked prefill a longer prompt could "
            f"never be computed; raise it, lower max_model_len, or {way}"
        )
        raise BadInput([Problem(message, f"{where}.engine.max_num_batched_tokens")])
