"""What the front door sees of the replicas: the engines themselves, or more of them, or what they last reported.

A cluster whose router and admission ask for no more than requests in flight and queued has plain engines, and pays for nothing of this.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simpy import Environment

from sim.core.registry import ADMISSIONS, ROUTERS
from sim.core.request import Request
from sim.physics.step import EngineStep
from sim.spec.regions import distances
from sim.spec.scenario import Pool, Scenario
from sim.world.block_events import BlockEvents
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.ranking import Ranked
from sim.world.reports import OldView, Reports, Rhythm
from sim.world.seen import About, Seen, SeenExact

# A pool that has no weight gets the tokens per second that a replica decodes for so many requests, or all it may run, of so many tokens.
DECODERS, HELD = 64, 1024
# Replicas from which on a ranking is cheaper than asking all of them.
LARGE = 100


class Outlook:
    """One for a world. `travels`: requests come from regions, so that some are on their way for a while. `ranked`: whoever has the fewest
    requests is asked for so often, among so many, that there is a ranking.
    """

    def __init__(self, env: Environment, scenario: Scenario):
        self._env, cluster = env, scenario.cluster
        asked = {policy.sees for policy in (ROUTERS.make(cluster.router), ADMISSIONS.make(cluster.admission)) if hasattr(policy, "sees")}
        self.travels = any(options.get("region") for options in scenario.workloads)
        self._views = cluster.views
        self._rhythm = Rhythm(env, cluster.views) if cluster.views is not None else None
        self._blocks = BlockEvents(env, self._rhythm) if "blocks" in asked else None
        self._wide = bool(asked - {"load", "nothing"}) or cluster.views is not None or self.travels
        self._away: dict[str, dict[int, float]] = {pool.region: {} for pool in cluster.pools}
        self._scenario = scenario
        most = sum(pool.autoscale.max if pool.autoscale is not None else pool.replicas for pool in cluster.pools)
        plain = not self._wide and not any(pool.engine.exact_steps for pool in cluster.pools)
        self.ranked = plain and most >= LARGE and cluster.router["kind"] == "least_loaded"

    def kind(self, exact: bool) -> type[Engine] | type[ExactEngine]:
        """What engines are made of."""
        if self._wide:
            return SeenExact if exact else Seen
        if self.ranked:
            return Ranked
        return ExactEngine if exact else Engine

    def show(self, engine: Engine | ExactEngine, pool: Pool, model: EngineStep) -> None:
        """Complete a replica that has just been made."""
        if not isinstance(engine, Seen | SeenExact):
            return
        most = min(DECODERS, pool.engine.max_num_seqs)
        weight = pool.weight or most / model.line(most, most * HELD)[0]
        engine.about = About(self._env, weight, self._away[pool.region], self._blocks)
        if self._rhythm is not None:
            engine.reports = Reports(self._rhythm)
        if self._blocks is not None:
            self._blocks.follow(engine, engine.reports)
        if engine.moves is not None:
            engine.moves.touched = engine.before

    def view(self, engine: Engine | ExactEngine) -> Any:
        """What routers see of a replica."""
        if self._views is None or not isinstance(engine, Seen | SeenExact) or engine.reports is None:
            return engine
        return OldView(engine, engine.reports, self._views.own_count)

    @property
    def look(self) -> Callable[[Engine | ExactEngine], Any] | None:
        """What gives the view of a replica; None: it is the engine itself."""
        return None if self._views is None else self._old

    def measure(self, origins: Sequence[str | None], reached: Sequence[Sequence[str]]) -> None:
        """How far it is to each pool from each workload, whose regions and pools these are. Raises BadInput."""
        between = distances(self._scenario.cluster, origins, reached)
        for region, away in self._away.items():
            away.update({number: between.get((origin or "", region), 0.0) for number, origin in enumerate(origins)} if between else {})

    def away(self, engines: Sequence[Engine | ExactEngine]) -> Any:
        """A function of a request: seconds that its answer travels back from the replica that served it."""
        def back(request: Request) -> float:
            engine = engines[request.replica] if request.replica >= 0 else None
            return engine.distance(request) if isinstance(engine, Seen | SeenExact) else 0.0

        return back

    def _old(self, engine: Engine | ExactEngine) -> OldView:
        assert self._views is not None
        assert isinstance(engine, Seen | SeenExact)
        assert engine.reports is not None
        return OldView(engine, engine.reports, self._views.own_count)
