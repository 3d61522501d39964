"""What a run cost. Dollars; rates over the span, which runs from the first arrival to the end.

GPUs are paid for their time, used or not: reserved replicas all the time, whether they are there or not; what a pool has beyond them, or
without a reservation, from when its GPUs were its own until it gave them back. Each pool's GPU money is divided between prompts and
answers as its GPU-seconds in prefill and decode are (`sim.study.energy` says which is which), idle time in the same proportion, so that
both sum to the whole; a pool that computed nothing is divided as the others together are. While a trainer has the GPUs of a pool their
money is for training, and is not divided. Storage is that of KV tiers rented by the
gigabyte, egress what went over links between regions; both only with a price book. CPU nodes of sandboxes are paid for their lives,
judges of reinforcement learning that are rented for the time they are busy.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.core.request import COMPLETED, FAILED
from sim.spec.prices import BELOW
from sim.study.energy import HOUR, gpu_hours, hours
from sim.study.facts import Bins
from sim.study.metric import Metric, ratio
from sim.study.rl.grades import rented_usd
from sim.study.sandboxes import rates as sandbox_rates
from sim.study.sandboxes import usd as sandboxes_usd
from sim.study.training import passing, trainers_usd, trainers_usd_per_hour

if TYPE_CHECKING:
    from sim.study.metrics import Facts

MONTH = 365.25 / 12 * 86400.0


class Paid(NamedTuple):
    """What a pool's GPUs cost over time: dollars per hour `rates` between `times` (s, one more than rates)."""

    times: np.ndarray
    rates: np.ndarray

    @property
    def usd(self) -> float:
        """In all."""
        return float((np.diff(self.times) * self.rates).sum()) / HOUR


def paid(facts: Facts, name: str) -> Paid:
    """What a pool's GPUs cost over the span."""
    pool, mine = facts.pools[name], _replicas(facts, name)
    price, beyond = (np.nan if pool[key] is None else pool[key] for key in ("price_per_hour", "beyond_price_per_hour"))
    borrower = next((one for one, other in facts.pools.items() if other.get("lender") == name), None)
    partner = _replicas(facts, borrower or pool.get("lender") or "")
    start = np.clip(facts.replicas["start"], facts.begin, facts.end)
    # All pools end at one and the same time: a sum may round to just beyond it.
    ends = np.minimum(start + facts.lifetimes, facts.end)
    both = mine | partner
    marks = np.concatenate([start[both], ends[both], [facts.begin, facts.end]])
    order = np.argsort(marks, kind="stable")

    def count(which: np.ndarray) -> np.ndarray:
        change = np.concatenate([which[both].astype(float), -which[both].astype(float), [0.0, 0.0]])
        there: np.ndarray = np.cumsum(change[order])[:-1]
        return there

    # Of GPUs that are reserved and shared, the borrower pays for those it has.
    there, kept = count(mine), facts.pools[pool.get("lender") or name]["reserved"]
    if pool.get("lender"):
        kept = np.minimum(there, kept)
    elif borrower:
        kept = kept - np.minimum(count(partner), kept)
    reserved = kept * price if np.any(kept) else 0.0
    return Paid(marks[order], pool["gpus"] * (reserved + np.maximum(there - kept, 0.0) * beyond))


def _replicas(facts: Facts, name: str) -> np.ndarray:
    """Which replicas are of a pool."""
    return np.array([one == name for one in facts.pool_of_replica], dtype=bool)


def pool_usd(facts: Facts) -> np.ndarray:
    """Dollars for the GPUs of each pool; NaN where it has no price."""
    return np.array([paid(facts, name).usd for name in facts.pools])


def phases_usd(facts: Facts) -> np.ndarray:
    """Dollars for GPUs by phase: prefill, decode. They sum to those of the pools, less what trainers have of them; NaN when nothing was
    computed.
    """
    seconds = facts.work.draw.seconds
    busy, fleet = seconds.sum(axis=1, keepdims=True), seconds.sum(axis=0) / seconds.sum() if seconds.sum() else np.full(2, np.nan)
    shares = np.where(busy > 0, seconds / np.maximum(busy, 1e-300), fleet)
    divided: np.ndarray = (pool_usd(facts) - _trained_usd(facts)) @ shares
    return divided


def _trained_usd(facts: Facts) -> np.ndarray:
    """Dollars for the GPUs of each pool while a trainer that shares them has them."""
    return np.array([trainers_usd(facts, name) for name in facts.pools])


def _gpus(facts: Facts) -> float:
    return float(pool_usd(facts).sum())


def _storage(facts: Facts) -> float:
    """Tiers of keys and values that are rented by the gigabyte, for the lives of their replicas."""
    price = facts.meta.get("other_prices", {}).get("storage_gb_month", 0.0)
    lives = dict.fromkeys(facts.pools, 0.0)
    for name, life in zip(facts.pool_of_replica, facts.lifetimes, strict=True):
        lives[name] += life
    tiers = [(pool.name, tier) for pool in facts.result.scenario.cluster.pools for tier in pool.engine.kv_tiers if tier.kind in BELOW]
    return price * sum(tier.capacity / 1e9 * lives[name] / MONTH for name, tier in tiers)


def _egress(facts: Facts) -> float:
    """Bytes on links between regions, charged where they leave: such a link is one way."""
    price, table = facts.meta.get("other_prices", {}).get("egress_gb", 0.0), facts.result.tables.get("links")
    if not price or table is None or "wan" not in table.labels["kind"]:
        return 0.0
    between = table.labels["kind"].index("wan")
    return price * float(sum(page["bytes"][page["kind"] == between].sum() for page in table.pages())) / 1e9


def usd(facts: Facts) -> float:
    """All that the run cost."""
    judges = rented_usd(facts, facts.end) or 0.0
    return _gpus(facts) + _storage(facts) + _egress(facts) + sandboxes_usd(facts) + trainers_usd(facts) + judges


def _hourly(facts: Facts) -> Any:
    if facts.span > 0:
        return usd(facts) * HOUR / facts.span
    return float((facts.per_replica("price_per_hour") * facts.gpus).sum()) + trainers_usd_per_hour(facts)


def _peak(facts: Facts) -> Any:
    """The sum over pools, trainers and CPU nodes at the dearest moment of the span."""
    trainers, nodes = trainers_usd_per_hour(facts), sandbox_rates(facts)
    every = [(one.times[:-1], one.rates) for name in facts.pools for one in [paid(facts, name)]]
    if not every and not len(nodes[0]):
        return trainers
    times = np.unique(np.concatenate([facts.begin + np.zeros(1), nodes[0], *(one[0] for one in every)]))
    times = times[(times >= facts.begin) & (times < facts.end)]
    if not len(times):
        return _hourly(facts)
    total = np.zeros(len(times))
    for since, rates in (*every, nodes):
        place = np.searchsorted(since, times, side="right") - 1
        total += np.where(place >= 0, np.append(rates, 0.0)[place], 0.0)
    return float(total.max()) + trainers


def idle_usd(facts: Facts) -> np.ndarray:
    """Of each pool, its money times the share of its paid GPU time without a step, or a pass of a trainer that shares its GPUs."""
    found = np.zeros(len(facts.pools))
    for number, (name, cost) in enumerate(zip(facts.pools, pool_usd(facts), strict=True)):
        pool, mine = facts.pools[name], _replicas(facts, name)
        lent = np.array([facts.pools[one].get("lender") == name for one in facts.pool_of_replica], dtype=bool)
        kept = pool["reserved"] * pool["gpus"] * facts.span - float((facts.gpus * facts.lifetimes)[lent].sum())
        there = max(float((facts.gpus * facts.lifetimes)[mine].sum()), kept)
        used = facts.work.draw.seconds[number].sum() + passing(facts, name)
        found[number] = cost * (1 - min(1.0, used / there)) if there > 0 else 0.0
    return found


def _wasted(facts: Facts) -> Any:
    """The GPU money of requests that failed after they were let in: what was computed of their prompts, and the tokens they had got, as
    shares of all tokens computed in each phase. What was computed twice for them, after a preemption, counts once.
    """
    table = facts.result.tables.get("losses")
    if table is None or not len(table):
        return 0.0
    kept = dict(zip(table["request"].tolist(), table["computed"].tolist(), strict=True))
    prompts = tokens = 0.0
    for page in facts.requests():
        rows = np.flatnonzero(page["status"] == FAILED)
        computed = np.array([kept.get(number, 0) for number in page["request"][rows].tolist()], dtype=float)
        got = page["output_tokens"][rows]
        prompts += float(np.clip(computed - got - page["cached_tokens"][rows], 0.0, page["input_tokens"][rows]).sum())
        # A prompt's last chunk gives the first token.
        tokens += float(np.maximum(got - 1, 0).sum())
    prefill, decode = phases_usd(facts)
    shares = ((prefill, prompts, facts.work.computed), (decode, tokens, facts.work.decoded))
    return sum(cost * lost / whole for cost, lost, whole in shares if whole)


def usd_by_hour(facts: Facts) -> list[float]:
    """Dollars for GPUs of engines and trainers by hour of the run's clock."""
    edges = HOUR * np.arange(hours(facts) + 1)
    total = Bins(edges).add(np.zeros(1), np.array([facts.end]), trainers_usd_per_hour(facts)).means()
    for name in facts.pools:
        one = paid(facts, name)
        total += Bins(edges).add(one.times[:-1], one.times[1:], one.rates).means()
    return [float(value) for value in total]


COST = (
    Metric("cost.usd_per_hour", "USD/h", "all costs, averaged over the span; None when a pool has no price", _hourly),
    Metric("cost.usd_total", "USD", "all costs of the span: GPUs of engines and trainers, idle or not, storage and egress", usd),
    Metric("cost.usd_per_million_output_tokens", "USD", "all costs over output tokens of completed requests",
           lambda facts: ratio(usd(facts) * 1e6, facts.tokens[1])),
    Metric("cost.usd_per_million_total_tokens", "USD", "all costs over prompt and output tokens of completed requests",
           lambda facts: ratio(usd(facts) * 1e6, sum(facts.tokens))),
    Metric("cost.usd_per_request", "USD", "all costs over completed requests", lambda facts: ratio(usd(facts), facts.counts[COMPLETED])),
    Metric("cost.input_usd_per_million", "USD", "what prompts cost (GPU time in prefill, its share of idle time) per million input tokens",
           lambda facts: ratio(phases_usd(facts)[0] * 1e6, facts.tokens[0])),
    Metric("cost.output_usd_per_million", "USD", "what answers cost (GPU time in decode, its share of idle time) per million output tokens",
           lambda facts: ratio(phases_usd(facts)[1] * 1e6, facts.tokens[1])),
    Metric("cost.usd_prefill", "USD", "what of the GPUs' cost is that of prompts", lambda facts: phases_usd(facts)[0]),
    Metric("cost.usd_decode", "USD", "what of the GPUs' cost is that of answers", lambda facts: phases_usd(facts)[1]),
    Metric("cost.usd_per_hour_peak", "USD/h", "of GPUs and CPU nodes at the dearest moment", _peak),
    Metric("cost.usd_trainers", "USD", "of the GPUs of trainers, also of those they share while they have them; None: no trainers",
           lambda facts: trainers_usd(facts) + _trained_usd(facts).sum() if facts.meta.get("trainers") else None),
    Metric("cost.usd_idle", "USD", "of GPU time without a step: the price of provisioning for peaks",
           lambda facts: idle_usd(facts).sum()),
    Metric("cost.usd_wasted", "USD", "of GPU time for requests that failed: prompts computed and tokens sent", _wasted),
    Metric("cost.usd_storage", "USD", "of KV tiers rented by the gigabyte, by the price book", _storage),
    Metric("cost.usd_egress", "USD", "of bytes sent between regions, by the price book", _egress),
    Metric("cost.usd_sandboxes", "USD", "of the CPU nodes that sandboxes run on; None: no sandboxes",
           lambda facts: sandboxes_usd(facts) if facts.meta.get("sandboxes") else None),
    Metric("cost.usd_judges", "USD", "of judges that are rented by the time they are busy; None: no such judges",
           lambda facts: rented_usd(facts, facts.end)),
    Metric("cost.gpu_hours_by_hour", "GPU-h", "GPU-hours there were, by hour of the run's clock",
           lambda facts: gpu_hours(facts).sum(axis=0).tolist()),
    Metric("cost.usd_by_hour", "USD", "of the GPUs of engines and trainers, by hour of the run's clock", usd_by_hour),
)  # fmt: skip
