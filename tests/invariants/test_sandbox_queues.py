"""Sandboxes against queueing theory and plain recursions: waits for places and slots, shared cores, and the same run twice; any mix of what
can be done with them passes the audit.
"""
from __future__ import annotations

import heapq
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.rng import stream
from sim.world.clock import Clock
from sim.world.sandboxes.sharing import Sharing
from tests.unit.sandbox_world import Play, held

MEAN = 10.0


def services(law, count):
    """Times whose mean is MEAN exactly, as that of gaps is what it should be: a load that chance made higher is no test of a formula."""
    rng = stream(5, law)
    if law == "fixed":
        return np.full(count, MEAN)
    drawn = rng.exponential(MEAN, count) if law == "exponential" else rng.lognormal(math.log(MEAN) - 0.5, 1.0, count)
    return drawn * MEAN / drawn.mean()


def arrivals(servers, load, count):
    gaps = stream(5, "arrivals").exponential(1.0, count)
    return np.cumsum(gaps / gaps.mean() * MEAN / (servers * load))


def waits(at, seconds, servers):
    """Of first come, first served: each begins when the first server is free (Kiefer and Wolfowitz 1955)."""
    free, found = [0.0] * servers, []
    for begin, needs in zip(at.tolist(), seconds.tolist(), strict=True):
        first = max(free[0], begin)
        heapq.heapreplace(free, first + needs)
        found.append(first - begin)
    return np.array(found)


def erlang(servers, load):
    """The mean wait of M/M/c, s: Erlang C."""
    a, blocked = servers * load, 1.0
    for n in range(1, servers + 1):
        blocked = a * blocked / (n + a * blocked)
    waiting = blocked / (1 - load * (1 - blocked))
    return waiting * MEAN / (servers * (1 - load))


def crommelin(servers, load):
    """The mean wait of M/D/c, s (Crommelin 1932)."""
    from scipy.stats import poisson

    alpha = servers * load
    parts = (poisson.sf(i * servers - 1, i * alpha) - poisson.sf(i * servers, i * alpha) / load for i in range(1, 400))
    return MEAN * math.fsum(parts)


def boxes(servers, at, seconds):
    """Waits for one of so many sandboxes, each held for so long."""
    play = Play({"node": {"cores": 64, "memory": f"{servers}GB", "disk": "1GB"}, "cores": 0})
    env, ask, asked, found = play.env, play.client.sandbox, {}, np.full(len(at), np.nan)

    def arrive(event):
        lease = ask("box")
        asked[lease] = event.value
        lease.callbacks.append(got)

    def got(event):
        number = asked.pop(event)
        found[number] = env.now - at[number]
        env.timeout(seconds[number], event.value).callbacks.append(lambda event: event.value.release())

    for number, when in enumerate(at.tolist()):
        env.timeout(when, number).callbacks.append(arrive)
    play.end()
    play.checked()
    return found


def slots(servers, at, seconds):
    """Waits of commands of so many seconds for one of so many slots."""
    play = Play({"exec": {"slots": servers, "overhead": 0}})
    found = np.full(len(at), np.nan)

    def run(lease, number):
        lease.run(float(seconds[number]), 0.0).callbacks.append(lambda event: found.__setitem__(number, event.value.queued))

    def life():
        lease = yield play.client.sandbox("box")
        for number, when in enumerate(at.tolist()):
            play.env.timeout(when, number).callbacks.append(lambda event: run(lease, event.value))
        yield play.env.timeout(float(at[-1] + seconds.sum()))
        lease.release()

    play.begin(life()).end()
    play.checked()
    return found


@pytest.mark.parametrize("queue", [boxes, slots])
@pytest.mark.parametrize(("law", "servers"), [("exponential", 5), ("fixed", 3), ("lognormal", 4), ("lognormal", 1)])
def test_each_wait_is_that_of_the_recursion(queue, law, servers):
    at, seconds = arrivals(servers, 0.85, 1500), services(law, 1500)
    np.testing.assert_allclose(queue(servers, at, seconds), waits(at, seconds, servers), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(("law", "servers", "load", "theory"), [
    ("exponential", 5, 0.8, erlang), ("exponential", 1, 0.6, erlang), ("fixed", 3, 0.8, crommelin), ("fixed", 1, 0.7, crommelin),
    # Pollaczek and Khinchine: (1 + cv^2) / 2 times that of M/M/1, and cv^2 = e - 1 here.
    ("lognormal", 1, 0.5, lambda servers, load: math.e / 2 * erlang(servers, load)),
])  # fmt: skip
def test_whose_means_are_those_of_theory(law, servers, load, theory):
    """The recursion that the pool equals wait by wait, over 400,000 arrivals: within 3 %."""
    at, seconds = arrivals(servers, load, 400_000), services(law, 400_000)
    assert waits(at, seconds, servers).mean() == pytest.approx(theory(servers, load), rel=0.03)


@pytest.mark.study
@pytest.mark.parametrize(("law", "servers", "theory"), [("exponential", 5, erlang), ("fixed", 3, crommelin)])
def test_mean_waits_of_the_pool_at_length(law, servers, theory):
    found = boxes(servers, arrivals(servers, 0.7, 400_000), services(law, 400_000))
    assert found.mean() == pytest.approx(theory(servers, 0.7), rel=0.03)


# -- shared cores ------------------------------------------------------------
def shared(jobs, capacity, most):
    """When each of the jobs (at, work, weight) ends: all rates worked out anew at each begin and end."""
    left, ends, now, coming = {}, [0.0] * len(jobs), 0.0, sorted(range(len(jobs)), key=lambda job: jobs[job][0])
    while left or coming:
        total = sum(jobs[job][2] for job in left)
        rate = min(most, capacity / total) if total else most
        first = min(left, key=lambda job: (left[job], job), default=None)
        done = now + left[first] / rate if first is not None else math.inf
        if coming and jobs[coming[0]][0] < done:
            passed, now = jobs[coming[0]][0] - now, jobs[coming[0]][0]
            left = {job: work - passed * rate for job, work in left.items()}
            begun = coming.pop(0)
            left[begun] = jobs[begun][1]
        else:
            left = {job: work - (done - now) * rate for job, work in left.items() if job != first}
            now = ends[first] = done
    return ends


@settings(max_examples=60, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.floats(0, 20), st.floats(0.01, 10), st.floats(0.1, 4)), min_size=1, max_size=25),
    capacity=st.floats(0.5, 8), most=st.sampled_from([1.0, math.inf]),
)  # fmt: skip
def test_sharing_is_that_of_a_plain_loop(jobs, capacity, most):
    env, ends = Clock(), {}
    one = Sharing(env, capacity, most, lambda job: ends.__setitem__(job, env.now))
    for number, (at, work, weight) in enumerate(jobs):
        env.timeout(at, (number, work, weight)).callbacks.append(lambda event: one.add(*event.value))
    env.advance()
    assert [ends[job] for job in range(len(jobs))] == pytest.approx(shared(jobs, capacity, most), rel=1e-9, abs=1e-7)
    assert one.spent == pytest.approx(sum(work * weight for _, work, weight in jobs), rel=1e-6)


def test_mean_of_processor_sharing_does_not_ask_for_the_law():
    """M/G/1-PS: the mean time in system is E[S] / (1 - load), whatever the law (Kleinrock 1976, section 4.4), within 3 %."""
    for law in ("exponential", "lognormal"):
        env, times, count = Clock(), [], 40_000
        one = Sharing(env, 1.0, 1.0, lambda at: times.append(env.now - at))  # noqa: B023
        for at, work in zip(arrivals(1, 0.4, count).tolist(), services(law, count).tolist(), strict=True):
            env.timeout(at, (at, work, 1.0)).callbacks.append(lambda event: one.add(*event.value))  # noqa: B023
        env.advance()
        assert np.mean(times) == pytest.approx(np.mean(services(law, count)) / (1 - 0.4), rel=0.03), law


# -- any mix ------------------------------------------------------------
POOLS = st.fixed_dictionaries({
    "nodes": st.integers(1, 3), "place": st.sampled_from(["bin_pack", "spread", "image"]), "boot": st.sampled_from([0, 1, {"mean": 2}]),
    "images": st.fixed_dictionaries({"count": st.integers(1, 4), "zipf": st.sampled_from([0, 1]),
                                     "size": st.sampled_from(["8GB", {"dist": "uniform", "min": "1GB", "max": "25GB"}])}).filter(
        lambda images: images["count"] > 1 or not images["zipf"]),
    "boot_concurrency": st.integers(1, 3), "boot_timeout": st.sampled_from([None, 15, 40]), "fail": st.sampled_from([0, 0.2]),
    "warm": st.integers(0, 2), "idle_timeout": st.sampled_from([None, 3]), "crash": st.sampled_from([0, 100]),
    "snapshot": st.sampled_from([None, {"save": 1, "restore": {"mean": 1}}]), "quota": st.sampled_from([{}, {"work": 5}]),
    "exec": st.fixed_dictionaries({"slots": st.sampled_from([1, 2, 50]), "overhead": st.sampled_from([0, 0.05])}),
    "memory": st.sampled_from(["1GB", {"base": "1GB", "burst": {"mean": "800MB"}, "burst_time": 1}, {"base": "1GB", "burst": "500MB"}]),
    "kind": st.sampled_from(["container", "microvm"]), "limit": st.sampled_from([None, "1.5GB"]), "disk": st.sampled_from([0, "12GB"]),
    "oversubscription": st.sampled_from([{}, {"memory": 1.5, "cpu": 2}]), "cores": st.sampled_from([0, 0.5, 2]),
})  # fmt: skip
ACTS = st.lists(st.tuples(st.sampled_from(["run", "hang", "pause", "resume", "sleep", "stop", "withdraw"]), st.floats(0.1, 8)), max_size=6)


def agent(play, at, image, acts):
    yield play.env.timeout(at)
    ask = play.client.sandbox("box", image)
    if acts and acts[0][0] == "withdraw":
        yield play.env.timeout(acts[0][1])
        ask.withdraw()
        return
    lease = yield ask
    if not hasattr(lease, "run"):
        return
    for act, seconds in acts:
        if act == "run":
            yield lease.run(seconds, 3.0, 10.0)
        elif act == "hang":
            yield lease.hang(seconds)
        elif act in ("pause", "resume"):
            yield vars(type(lease))[act](lease)
        elif act == "stop":
            command = lease.run(seconds)
            yield play.env.timeout(seconds / 2)
            command.stop()
        else:
            yield play.env.timeout(seconds)
    lease.release()


def mixed(pool, lives, until):
    play = Play(pool, seed=9, duration=until)
    play.begin(*(agent(play, at, image, acts) for at, image, acts in lives))
    return play.end(math.nextafter(until, math.inf))


@settings(max_examples=25, deadline=None)
@given(
    pool=POOLS, until=st.sampled_from([25, 9000]),
    lives=st.lists(st.tuples(st.floats(0, 20), st.integers(0, 9), ACTS), min_size=1, max_size=14),
)  # fmt: skip
def test_whatever_is_done_passes_the_audit(pool, lives, until):
    play = mixed(pool, lives, until)
    assert play.checked()["asked"] == len(lives)
    if until == 9000:
        assert "unfinished" not in set(play.rows["outcome"])
        for node in play.pool.nodes.all:
            left = [lease for lease in node.leases.values() if lease.workload]
            assert (left, node.slots, node.booting if not play.pool.spec.warm else 0) == ([], 0, 0)


def test_the_same_run_twice():
    images = {"count": 4, "zipf": 1.0, "size": {"median": "5GB", "sigma": 0.4}}
    pool = {"nodes": 3, "boot": {"mean": 2}, "crash": 20, "fail": 0.1, "images": images}
    lives = [(k % 17, k, [("run", 1 + k % 3), ("sleep", 2.0)]) for k in range(120)]
    one, other = (mixed(pool, lives, 9000).rows for _ in range(2))
    assert one.equals(other)


def test_luck_belongs_to_sandboxes():
    """A slower boot does not change whose boot fails."""
    runs = []
    for boot in (1, 3):
        play = Play({"nodes": 20, "boot": boot, "fail": 0.3})
        play.begin(*(held(play, 0, 1) for _ in range(60))).end()
        runs.append((play.rows["outcome"] == "boot_failed").tolist())
    assert runs[0] == runs[1]
    assert 5 < sum(runs[0]) < 35


@pytest.mark.speed
def test_a_burst_of_a_hundred_thousand():
    """Asked for at once on a thousand nodes, images of three hundred kinds, a command each: at most 20 CPU-s."""
    play = Play({
        "nodes": 1000, "node": "general_64", "memory": {"base": "185MB", "burst": {"median": "800MB", "sigma": 0.5}, "burst_time": "1.5s"},
        "boot": {"median": "2s", "sigma": 0.5}, "images": {"count": 300, "zipf": 1.0}, "exec": {"overhead": 0.05},
    })  # fmt: skip
    began = time.process_time()

    def got(event):
        event.value.run(5.0, 0.12, 120).callbacks.append(lambda _: event.value.release())

    for number in range(100_000):
        play.client.sandbox("box", number).callbacks.append(got)
    play.end()
    assert time.process_time() - began < 20
    assert play.checked()["outcomes"] == {"released": 100_000}
