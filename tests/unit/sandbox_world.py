"""A cluster with one pool of sandboxes, and what a test does with it through the client of its workload."""
from __future__ import annotations

from sim.spec.load import loads
from sim.study.result import Result
from sim.study.run import _meta
from sim.world.cluster import World

# Room for 4 sandboxes of 1 GB; nothing takes time, so that each test says what does.
POOL = {"name": "box", "nodes": 1, "node": {"cores": 8, "memory": "4GB", "disk": "100GB"}, "cores": 1, "memory": "1GB", "boot": 0,
        "boot_concurrency": 1000, "exec": {"overhead": 0}}  # fmt: skip
IMAGES = {"count": 2, "size": "10GB", "bandwidth": "1GB/s"}
NETWORK = {"fabric": "one_switch", "hosts": [{"gpu": "l40s"}], "stores": [{"name": "hub", "kind": "registry", "bandwidth": "1.5GB/s"}]}
SNAPSHOT = {"snapshot": {"save": "2s", "restore": "3s"}}
WORK = {"kind": "poisson", "name": "work", "rate": 1, "num_requests": 1, "lengths": {"kind": "fixed", "input": 10, "output": 2}}


def scenario(pool=(), seed=1, cluster=(), **more):
    """A scenario with the pool changed; what is None is left out."""
    boxes = {key: value for key, value in {**POOL, **dict(pool)}.items() if value is not None}
    return {"model": "Qwen/Qwen2.5-0.5B", "seed": seed, "workloads": [WORK],
            "cluster": {"pools": [{"gpu": "l40s"}], "sandboxes": [boxes], **dict(cluster)}, **more}  # fmt: skip


class Play:
    """A world whose first workload asks for sandboxes: `begin` sets generators going, and `end` lets the clock run and closes it.

    The run is over when all of them are.
    """

    def __init__(self, pool=(), **changes):
        self.scenario = loads(scenario(pool, **changes))
        self.world = World(self.scenario)
        self.remarks = self.world.start()
        self.env, self.client = self.world.env, self.world._clients[0]
        self.pool = self.world.sandboxes.pools["box"]

    def begin(self, *generators):
        self.world._drivers += [self.env.process(generator) for generator in generators]
        return self

    def end(self, until=float("inf")):
        self.env.advance(until)
        self.world.close()
        self.result = Result(self.scenario, self.world.recorder.tables, _meta(self.world, self.remarks, 0.0))
        return self

    @property
    def rows(self):
        return self.world.recorder.tables["sandboxes"].to_pandas().sort_values("sandbox", ignore_index=True)

    @property
    def nodes(self):
        return self.world.recorder.tables["sandbox_nodes"].to_pandas()

    def checked(self):
        """The figures of the pool, the audit having found nothing wrong."""
        summary = self.result.summary
        wrong = {name: entry["detail"] for name, entry in summary["audit"].items() if not entry["ok"]}
        assert not wrong, wrong
        return summary["sandboxes"]["box"]


def held(play, at, seconds, image=0, log=None):
    """Ask at a time, hold what comes for so long, give it back; `log` gets (what came, when)."""
    yield play.env.timeout(at)
    lease = yield play.client.sandbox("box", image)
    if log is not None:
        log.append((lease, play.env.now))
    if hasattr(lease, "release"):
        yield play.env.timeout(seconds)
        lease.release()


def asked(play, *orders):
    """(at, seconds, image) each; what came of them, in that order, with the time."""
    logs = [[] for _ in orders]
    play.begin(*(held(play, at, seconds, image, log) for (at, seconds, image), log in zip(orders, logs, strict=True))).end()
    return [log[0] for log in logs]
