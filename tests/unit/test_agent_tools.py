"""Tools of agents: how long, how they fail, quotas of outside services against queueing theory, agents as tools, sandboxes."""
from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import simpy
from driven import World, driven

from workloads.programs.apis import Api
from workloads.programs.options import Quota

KIND = {"message": 10, "calls": 2, "output": 5, "tools": {"bash": 1}}
BASE = {"kind": "agents", "rate": 100, "num_sessions": 4000, "agents": {"main": KIND}}


def calls(world):
    return world.tables["tool_calls"].to_pandas()


def run(tool, **more):
    return driven({**BASE, "tools": {"bash": {"observation": 20, **tool}}, **more}, service=lambda request: 0.001)


def test_a_mixture_has_its_shares_of_calls_and_of_time():
    parts = [{"p": 61, "median": "150ms", "sigma": 0.8}, {"p": 35, "median": "3s", "sigma": 1}, {"p": 4, "median": "190s", "sigma": 0.7}]
    seconds = calls(run({"time": {"mixture": parts}}, num_sessions=10_000)).pipe(lambda table: table.end - table.start)
    means = [0.61 * 0.15 * math.exp(0.32), 0.35 * 3 * math.exp(0.5), 0.04 * 190 * math.exp(0.245)]
    assert seconds.mean() == pytest.approx(sum(means), abs=4 * seconds.std() / math.sqrt(len(seconds)))
    # TraceLab: 61 % of the calls below a second are 1 % of the time, and 4 % beyond a minute 85 %.
    assert (seconds < 1).mean() == pytest.approx(0.61, abs=0.06)
    assert seconds[seconds > 60].sum() / seconds.sum() == pytest.approx(0.83, abs=0.04)


def test_what_takes_too_long_is_cut_and_tried_again():
    """An exponential time of mean 1 is cut at ln 4 with chance 1/4, and lasts (1 - 1/4) on average; three tries fail with 1/4^3."""
    table = calls(run({"time": {"mean": "1s"}, "timeout": math.log(4), "retries": 2}))
    assert Counter(table.outcome)["timeout"] / 4000 == pytest.approx(1 / 64, abs=5 * math.sqrt(1 / 64 / 4000))
    assert table.tries.mean() == pytest.approx(1 + 1 / 4 + 1 / 16, rel=0.03)
    assert (table.end - table.start).mean() == pytest.approx(0.75 * (1 + 1 / 4 + 1 / 16), rel=0.05)
    assert table.end.sub(table.start).max() <= 3 * math.log(4) + 1e-9


def test_hangs_last_to_the_time_out_and_errors_as_long_as_the_tool():
    table = calls(run({"time": "2s", "timeout": "30s", "hang": 0.1, "fail": 0.2}))
    shares = {name: count / 4000 for name, count in Counter(table.outcome).items()}
    assert shares == pytest.approx({"ok": 0.9 * 0.8, "error": 0.9 * 0.2, "hang": 0.1}, abs=0.03)
    seconds = (table.end - table.start).round(6).groupby(table.outcome, observed=True).unique()
    assert {name: list(values) for name, values in seconds.items()} == {"ok": [2], "error": [2], "hang": [30]}
    assert set(table.observation) == {20}


def test_parallel_tools_take_as_long_as_the_longest():
    kind = KIND | {"parallel_tools": 3}
    world = run({"time": {"mean": "1s"}}, agents={"main": kind}, num_sessions=3000)
    table = world.tables["agents"].to_pandas()
    assert len(calls(world)) == 9000
    # The mean of the greatest of three exponentials: 1 + 1/2 + 1/3.
    assert table.tool_s.mean() == pytest.approx(11 / 6, rel=0.03)
    assert world.tables["turns"].to_pandas().new.max() == 60


# -- services outside ------------------------------------------------------------
def erlang_c(servers, load):
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


def test_a_service_with_so_many_places_is_an_mmc_queue():
    world = run({"time": {"mean": "1s"}, "api": "web"}, apis={"web": {"concurrency": 4}}, rate=2.4, num_sessions=12_000)
    table = calls(world).sort_values("start")
    assert table.queued.mean() == pytest.approx(erlang_c(4, 2.4) / (4 - 2.4), rel=0.15)
    assert (table.queued > 0).mean() == pytest.approx(erlang_c(4, 2.4), rel=0.08)
    # Exactly: whoever comes takes the place that is free first.
    free = [0.0] * 4
    for row in table.itertuples():
        begun = max(free[0], row.start)
        assert row.queued == pytest.approx(begun - row.start, abs=1e-6)
        free = sorted([*free[1:], row.end])


def test_a_quota_is_a_bucket():
    """A hundred calls at once: the burst goes first, the others a quarter of a second apart."""
    kind = KIND | {"parallel_tools": 100}
    world = run({"time": "1s", "api": "web"}, apis={"web": {"rate": "4 per second", "burst": 20}}, agents={"main": kind}, num_sessions=1)
    waits = np.sort(calls(world).queued)
    assert waits == pytest.approx(np.maximum(0.0, np.arange(100) - 19) * 0.25)


def test_a_rate_with_a_burst_of_one_is_an_md1_queue():
    world = run({"api": "web"}, apis={"web": {"rate": 10}}, rate=6, num_sessions=12_000)
    table = calls(world).sort_values("start")
    # Pollaczek-Khinchine of a fixed service time s: rho s / (2 (1 - rho)); and exactly, Lindley's recursion.
    assert table.queued.mean() == pytest.approx(0.6 * 0.1 / (2 * 0.4), rel=0.1)
    free = 0.0
    for row in table.itertuples():
        begun = max(free, row.start)
        assert row.queued == pytest.approx(begun - row.start, abs=1e-6)
        free = begun + 0.1


def test_a_full_queue_refuses_and_who_leaves_makes_room():
    env = simpy.Environment()
    api = Api(env, Quota(concurrency=1, queue=1))
    begun = []
    first = api.enter(lambda: begun.append("a"))
    second = api.enter(lambda: begun.append("b"))
    assert api.enter(lambda: begun.append("c")) is None
    api.leave(second)
    assert api.enter(lambda: begun.append("d")) is not None
    api.leave(first)
    api.leave(first)
    assert begun == ["a", "d"]


def test_refused_calls_are_tools_that_failed():
    kind = KIND | {"parallel_tools": 5}
    quota = {"concurrency": 1, "queue": 1}
    world = run({"time": "1s", "api": "web"}, apis={"web": quota}, agents={"main": kind}, num_sessions=1)
    assert Counter(calls(world).outcome) == {"ok": 2, "refused": 3}


# -- agents as tools ------------------------------------------------------------
def test_a_judge_is_a_tool():
    kinds = {"main": KIND | {"tools": {"judge": 1}}, "judge": {"system": 7, "output": 9}}
    world = driven({**BASE, "num_sessions": 1, "agents": kinds, "tools": {"judge": {"model": {"agent": "judge", "task": 300}}}})
    assert [(request.prompt, request.output) for request in world.requests] == [(10, 5), (307, 9), (24, 5)]
    [row] = calls(world).itertuples()
    assert (row.outcome, row.observation, row.end - row.start) == ("ok", 9, pytest.approx(1))
    table = world.tables["agents"].to_pandas().set_index("agent")
    assert (table.parent[1], table.depth[1]) == (0, 1)
    assert table.tool_s[0] == pytest.approx(1)


# -- sandboxes ------------------------------------------------------------
class Ran:
    def __init__(self, outcome, queued):
        self.outcome, self.queued = outcome, queued


class Lease:
    """A sandbox that runs what it is given at once, and keeps a record."""

    def __init__(self, env, fate="ok"):
        self.env, self.fate, self.open, self.rests, self.commands = env, fate, True, 0, 0

    def run(self, seconds, cores=1.0, timeout=None):
        self.commands += 1
        self.open = self.fate != "crash"
        event = self.env.timeout(seconds, Ran(self.fate, 0.25))
        event.stop = lambda: None
        return event

    def hang(self, timeout):
        return self.env.timeout(timeout, Ran("timeout", 0.0))

    def pause(self):
        self.rests += 1

    def release(self):
        self.open = False


class Refusal:
    reason = "full"


def lent(options, fates=("ok",), wait=5.0):
    """The world of a run whose pool lends sandboxes of these fates, one after the other, and the sandboxes."""
    world, leases = World(), []

    def ask(image):
        fate = fates[min(len(leases), len(fates) - 1)]
        lease = Refusal() if fate == "refused" else Lease(world.env, fate)
        leases.append(lease)
        event = world.env.timeout(wait, lease)
        event.withdraw = lambda: setattr(lease, "open", False)
        return event

    world.pools["swe"] = ask
    return driven(options, world=world), leases


INSIDE = {"bash": {"time": "2s", "observation": 20, "sandbox": True}}


def boxed(**home):
    kind = KIND | {"calls": 3, "sandbox": {"pool": "swe", **home}}
    return {**BASE, "num_sessions": 1, "turns": 2, "think_time": "60s", "agents": {"main": kind}, "tools": INSIDE}


@pytest.mark.parametrize(("home", "leases", "waited"), [({}, 1, 5), ({"at": "start"}, 1, 5), ({"keep": False}, 4, 20)])
def test_a_sandbox_is_asked_for_when_it_is_needed_and_given_back(home, leases, waited):
    world, lent_out = lent(boxed(**home))
    assert len(lent_out) == leases
    assert not any(lease.open for lease in lent_out)
    assert sum(lease.commands for lease in lent_out) == 4
    [row] = world.tables["agents"].to_pandas().itertuples()
    assert (row.sandbox_s, row.tool_s, row.status) == (pytest.approx(waited), pytest.approx(8), "completed")
    assert world.requests[0].arrival - row.start == pytest.approx(5 if home.get("at") else 0)
    # It is put away while the user is away.
    assert lent_out[-1].rests + lent_out[0].rests == (0 if home.get("keep") is False else 2)
    assert calls(world).queued.tolist() == [0.25] * 4


def test_one_that_crashes_is_replaced_and_none_ends_the_agent():
    world, leases = lent(boxed(), ("crash", "ok"))
    assert calls(world).outcome.tolist() == ["crash", "ok", "ok", "ok"]
    assert len(leases) == 2
    world, leases = lent(boxed(), ("refused",))
    assert world.tables["agents"].to_pandas().status.tolist() == ["sandbox"]


def test_sub_agents_work_in_the_sandbox_of_whom_they_work_for():
    options = boxed(at="start")
    options["agents"]["main"] |= {"spawns": [{"agent": "sub", "calls": [1], "count": 3}]}
    options["agents"]["sub"] = {"task": 9, "calls": 2, "output": 5, "tools": {"bash": 1}}
    _world, leases = lent(options)
    assert (len(leases), leases[0].commands, leases[0].open) == (1, 2 * (3 + 1), False)


def test_who_is_called_off_while_waiting_gets_none():
    kind = boxed()["agents"]["main"] | {"budget": {"time": "3s"}}
    world, leases = lent(boxed() | {"agents": {"main": kind}})
    assert world.tables["agents"].to_pandas().status.tolist() == ["time"]
    assert not leases[0].open


def test_a_sandbox_may_be_lost_while_a_tool_waits_for_its_turn_at_a_service():
    """Two commands, one at a time through a service: the first takes the sandbox down, and the second finds none when it is let in."""
    kind = KIND | {"sandbox": {"pool": "swe"}, "parallel_tools": 2}
    tools = {"bash": {**INSIDE["bash"], "api": "web"}}
    for quota in ({"concurrency": 1}, {"rate": 0.2}):
        options = boxed() | {"turns": 1, "think_time": 0, "agents": {"main": kind}, "tools": tools, "apis": {"web": quota}}
        world, _leases = lent(options, ("crash",))
        table = calls(world)
        assert table.outcome.tolist() == ["crash", "crash"]
        assert (table.end - table.start).tolist() == pytest.approx([2, 2 if "concurrency" in quota else 5])
        assert world.tables["agents"].to_pandas().status.tolist() == ["completed"]


def test_who_is_called_off_leaves_the_sandbox_it_shares():
    """Of two sub-agents in their parent's sandbox the second is called off in a command; it does not keep the sandbox for itself."""
    options = boxed(keep=False) | {"turns": 1, "think_time": 0}
    options["agents"]["main"] |= {"spawns": [{"agent": "sub", "calls": [1], "count": 2, "join": 1}]}
    options["agents"]["sub"] = {"task": 9, "calls": 2, "output": 5, "tools": {"slow": 1}}
    options["tools"] = INSIDE | {"slow": {"time": {"mean": "40s"}, "observation": 20, "sandbox": True}}
    world, leases = lent(options)
    assert calls(world).outcome.tolist() == ["ok", "cancelled", "ok"]
    assert [lease.commands for lease in leases] == [2, 1]
    assert not any(lease.open for lease in leases)
