"""Callers with patience: time-outs, users who leave, retries and their budget, hedged requests; what tables say; input without sense."""
from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

import sim
from sim.core.record import Table
from sim.core.request import Request
from sim.core.rng import stream
from sim.physics.base import Cost
from sim.policy.batch.base import Limits
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.spec.patience import Patience
from sim.study.attempts import attempts
from sim.study.audit import audit
from sim.study.metrics import Facts
from sim.world.attempts import Attempts, Budget, Seen
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.recorder import Recorder

MODEL = "Qwen/Qwen2.5-0.5B"
FIXED = {"kind": "fixed", "input": 100, "output": 200}


def scenario(client=None, replicas=1, cluster=None, engine=None, **workload):
    traffic = {"kind": "poisson", "name": "chat", "num_requests": 60, "lengths": FIXED} | workload
    if traffic["kind"] == "poisson":
        traffic.setdefault("rate", 5)
    if client is not None:
        traffic["client"] = client
    pool = {"gpu": "l4", "replicas": replicas, "engine": {"max_num_seqs": 4} | (engine or {})}
    return {"seed": 3, "model": MODEL, "cluster": {"pools": [pool]} | (cluster or {}), "workloads": [traffic]}


def rows(result):
    return result.tables["attempts"].to_pandas()


def sound(result):
    wrong = {name: check for name, check in audit(result).items() if not check["ok"]}
    assert not wrong
    return result


def test_without_a_client_nothing_is_noted():
    result = sim.run(scenario())
    assert len(result.tables["attempts"]) == len(result.tables["losses"]) == 0
    assert attempts(Facts(result)) is None


def test_an_answer_in_time_changes_nothing():
    plain, patient = sim.run(scenario()), sound(sim.run(scenario({"timeout": "10m", "first_token_timeout": "5m"})))
    for column in ("arrival", "admitted", "first_token", "last_token", "status"):
        np.testing.assert_array_equal(plain.tables["requests"][column], patient.tables["requests"][column])
    found = attempts(Facts(patient))
    assert found["calls"] == found["answered"] == 60
    assert found["wasted"] == {"input_tokens": 0, "output_tokens": 0, "share": 0.0}
    assert patient.meta["sim_s"] == plain.meta["sim_s"]


def test_timed_out_requests_fail_at_the_end_of_a_step():
    """One request at a time on one seat: every answer takes longer than its caller waits."""
    result = sound(sim.run(scenario({"timeout": "200ms"}, rate=1, num_requests=5)))
    frame, lost = result.requests, result.tables["losses"].to_pandas().set_index("request")
    assert list(frame["status"]) == ["failed"] * 5
    assert set(frame["reason"]) == {"timeout"}
    assert frame["last_token"].isna().all()
    late = lost.loc[frame["request"], "time"].to_numpy() - frame["arrival"] - 0.2
    assert (late > 0).all()
    assert (late < 0.02).all()
    assert (frame["output_tokens"] > 1).all()
    assert (frame["output_tokens"] < 200).all()
    np.testing.assert_allclose(rows(result)["end"] - rows(result)["start"], 0.2, atol=3e-9)
    found = attempts(Facts(result))
    assert (found["answered"], found["given_up"], found["latency_s"]) == (0, 5, None)
    assert found["wasted"]["share"] == pytest.approx(1.0)
    assert found["wasted"]["input_tokens"] == 500


def test_the_audit_counts_those_who_failed():
    """Tokens and decoding time of requests called off are in the books: without them the books do not balance."""
    result = sound(sim.run(scenario({"timeout": "1s"}, rate=15, engine={"num_gpu_blocks_override": 50, "max_model_len": 400})))
    assert result.tables["replicas"]["preemptions"].sum() > 0
    checks = audit(result)
    for name in ("tokens", "littles_law", "I4"):
        assert not checks[name]["detail"].startswith("skipped"), name
    losses = result.tables["losses"]
    assert len(losses) > 10
    late = {column.name: losses[column.name].copy() for column in losses.columns}
    late["time"] += 0.5
    moved = Table("losses", losses.columns)
    for row in zip(*late.values(), strict=True):
        moved.append(row)
    result.tables["losses"] = moved
    assert {name for name, check in audit(result).items() if not check["ok"]} == {"littles_law"}


def test_users_leave_the_queue_and_those_served_do_not():
    result = sound(sim.run(scenario({"first_token_timeout": "500ms"}, engine={"max_num_seqs": 1}, num_requests=200)))
    frame = result.requests
    left = frame[frame["status"] == "failed"]
    assert 20 < len(left) < 180
    assert set(left["reason"]) == {"abandoned"}
    # But for those whose first token was on its way.
    assert left["first_token"].isna().mean() > 0.9
    assert (left["ttft"].dropna() > 0.5).all()
    assert (frame.loc[frame["status"] == "completed", "ttft"] < 0.5).all()
    assert set(rows(result)["outcome"]) == {"answered", "abandoned"}


def test_a_rejected_call_is_tried_again_after_a_while():
    client = {"retries": {"max": 3, "backoff": {"first": "1s", "factor": 2, "jitter": 0}}}
    cluster = {"admission": {"kind": "max_queue", "limit": 1}}
    result = sound(sim.run(scenario(client, cluster=cluster, rate=20)))
    frame = rows(result)
    for _, tries in frame.groupby("root"):
        assert list(tries["kind"]) == ["first"] + ["retry"] * (len(tries) - 1)
        assert set(tries["outcome"][:-1]) <= {"rejected"}
        pauses = tries["start"].to_numpy()[1:] - tries["end"].to_numpy()[:-1]
        np.testing.assert_allclose(pauses, [1.0, 2.0, 4.0][: len(pauses)], atol=3e-9)
    found = attempts(Facts(result))
    assert found["attempts"]["retry"]["answered"] > 5
    assert found["answered"] + found["given_up"] == found["calls"] == 60
    assert found["attempts_per_call"] == len(frame) / 60
    # What callers waited for includes the pauses.
    assert found["latency_s"]["p99"] > result.summary["e2e_s"]["p99"] + 1


def test_patience_runs_on_between_attempts():
    """Turned away at once and again 10 s later; the user leaves after 3 s."""
    client = {"first_token_timeout": "3s", "retries": {"backoff": {"first": "10s"}}}
    cluster = {"admission": {"kind": "token_bucket", "rate": 1e-6, "burst": 1}}
    result = sound(sim.run(scenario(client, cluster=cluster, kind="closed", concurrency=1, num_requests=3)))
    frame = rows(result)
    assert list(frame["outcome"]) == ["answered", "rejected", "rejected"]
    assert frame["start"].to_numpy()[2] - frame["end"].to_numpy()[1] == pytest.approx(3.0, abs=1e-6)


def test_who_reloads_waits_anew():
    client = {"first_token_timeout": "100ms", "retries": {"max": 2, "on": ["abandoned"], "backoff": {"first": 0}}}
    result = sound(sim.run(scenario(client, engine={"max_num_seqs": 1}, rate=50, num_requests=20)))
    frame = rows(result)
    tries = frame.groupby("root").size()
    assert tries.max() == 3
    assert (frame.loc[frame["outcome"] == "abandoned", "end"] - frame.loc[frame["outcome"] == "abandoned", "start"]).max() < 0.1 + 1e-6


def test_the_copy_with_the_first_token_goes_on():
    """Long prompts on one of two replicas; hedged short requests get their token from the other one."""
    client = {"hedge": {"after": "150ms", "max": 1}}
    lengths = {"kind": "lognormal", "input": {"mean": 300, "p99": 4000}, "output": {"mean": 60, "p99": 400}}
    cluster = {"router": {"kind": "round_robin"}}
    result = sound(sim.run(scenario(client, replicas=2, cluster=cluster, rate=8, num_requests=300, lengths=lengths)))
    frame = rows(result)
    pairs = frame[frame["root"].isin(frame.loc[frame["kind"] == "hedge", "root"])]
    assert pairs["root"].nunique() > 20
    requests = result.requests.set_index("request")
    for _, copies in pairs.sort_values("start").groupby("root"):
        assert sorted(copies["outcome"]) == ["answered", "late"]
        assert requests.loc[copies["request"], "replica"].nunique() == 2
        assert copies["start"].diff().iloc[1] == pytest.approx(0.15, abs=1e-8)
        late = copies[copies["outcome"] == "late"].iloc[0]
        assert requests.loc[late["request"], "reason"] in ("hedged", "")
    assert set(requests.loc[requests["status"] == "failed", "reason"]) == {"hedged"}
    kinds = frame.groupby(["kind", "outcome"], observed=True).size()
    assert kinds["hedge", "answered"] > 3


def test_a_copy_that_lost_misses_no_service_level():
    raw = scenario({"hedge": {"after": "20ms"}}, replicas=2) | {"slo": {"ttft_p99": "10m"}}
    result = sim.run(raw)
    assert result.summary["requests"]["failed"] > 10
    assert result.summary["slo"]["attainment"] == 1.0


def test_callers_who_wait_in_vain_are_an_overload():
    assert sim.run(scenario({"timeout": "10m"}, rate=1)).summary["verdict"] != "overloaded"
    result = sim.run(scenario({"timeout": "300ms"}, rate=1))
    assert result.summary["verdict"] == "overloaded"
    assert "waited in vain" in result.summary["verdict_reason"]


def test_a_hedge_after_a_percentile_doubles_about_so_many():
    client = {"hedge": {"after": "p90"}}
    result = sound(sim.run(scenario(client, replicas=2, engine={"max_num_seqs": 16}, rate=8, num_requests=1000)))
    doubled = (rows(result)["kind"] == "hedge").sum() / 1000
    assert 0.05 < doubled < 0.15


def test_a_copy_finds_the_prompt_of_the_other():
    """A prompt of its own is in no cache; that of a retry on the same replica is."""
    client = {"timeout": "300ms", "retries": {"max": 1, "backoff": {"first": "10ms"}}}
    result = sound(sim.run(scenario(client, rate=1, num_requests=5)))
    frame = result.requests.set_index("request").join(rows(result).set_index("request")["kind"])
    assert (frame.loc[frame["kind"] == "first", "cached_tokens"] == 0).all()
    assert (frame.loc[frame["kind"] == "retry", "cached_tokens"] == 96).all()


def test_a_session_goes_on_with_the_answer_of_a_retry():
    sessions = {"kind": "sessions", "rate": 3, "num_sessions": 20, "turns": 3, "turns_law": "fixed", "lengths": FIXED}
    client = {"retries": {"max": 9, "backoff": {"first": "300ms"}}}
    raw = scenario(client, cluster={"admission": {"kind": "max_queue", "limit": 1}})
    raw["workloads"] = [sessions | {"name": "chat", "client": client}]
    result = sound(sim.run(raw))
    found = attempts(Facts(result))
    assert found["attempts"]["retry"]["answered"] > 5
    assert found["calls"] == found["answered"] == 60


def test_what_ifs_share_their_luck():
    """A call's patience is the same whatever the cluster does."""
    client = {"first_token_timeout": {"median": "300ms", "p99": "2s"}}
    spans = []
    for seats in (1, 2):
        frame = rows(sim.run(scenario(client, engine={"max_num_seqs": seats}, rate=20)))
        gone = frame[frame["outcome"] == "abandoned"]
        spans.append((gone["end"] - gone["start"]).set_axis(gone["start"].round(6)))
    both = spans[0].index.intersection(spans[1].index)
    assert len(both) > 10
    np.testing.assert_allclose(spans[0][both], spans[1][both], atol=3e-9)


def test_a_budget_is_a_share_of_the_calls_in_its_window():
    budget = Budget(0.5, 10.0)
    for second in range(4):
        budget.called(float(second))
    assert [budget.spend(3.5) for _ in range(3)] == [True, True, False]
    # Two calls have left the window, and no retry: one call's half is less than the two that were made.
    assert not budget.spend(11.5)
    for second in range(12, 14):
        budget.called(float(second))
    assert budget.spend(13.9)
    assert all(Budget(None, 10.0).spend(0.0) for _ in range(100))


def test_a_percentile_needs_enough_to_have_one():
    seen = Seen(95)
    for number in range(19):
        seen.add(float(number))
    assert seen.percentile() is None
    seen.add(19.0)
    assert seen.percentile() == 19.0
    for _ in range(2000):
        seen.add(5.0)
    assert seen.percentile() == 5.0


def burst(budget):
    """Share of calls answered within half a minute: before a burst, in it, and long after it, on a replica loaded to two thirds."""
    retries = {"max": 100, "backoff": {"first": "500ms", "most": "2s"}} | ({"budget": budget} if budget else {})
    lengths = {"kind": "fixed", "input": 2000, "output": 150}
    common = {"kind": "poisson", "lengths": lengths, "client": {"timeout": "4s", "retries": retries}}
    raw = scenario(engine={"max_num_seqs": 8, "enable_prefix_caching": False})
    raw["workloads"] = [common | {"name": "base", "rate": 4, "duration": 300},
                        common | {"name": "burst", "rate": 16, "start": 60, "duration": 15}]  # fmt: skip
    frame = rows(sim.run(raw | {"duration": 300}))
    calls = frame.groupby("root").agg(start=("start", "min"), answered=("outcome", lambda o: (o == "answered").any()), end=("end", "max"))
    calls["answered"] &= calls["end"] - calls["start"] < 30
    return [float(calls.query(f"{low} <= start < {high}")["answered"].mean()) for low, high in ((0, 50), (60, 75), (200, 260))]


def test_a_retry_storm_outlives_its_cause_and_a_budget_ends_it():
    """A metastable failure (Bronson et al., HotOS 2021): retries keep the queue so long that what is served is timed out before its end."""
    before, during, after = burst(None)
    assert before == 1.0
    assert during < 0.5
    assert after < 0.1
    before, during, after = burst(0.1)
    assert before == 1.0
    assert during < 0.5
    assert after > 0.99


STEP = 1e-3


class Constant:
    """Every step takes the same time."""

    def step(self, work):
        return Cost(STEP, 0.0, STEP, 0.0, 0.0)

    def line(self, decoders, held):
        return STEP, 0.0, 1 << 60

    def mixed(self, decoders, held, chunks):
        return STEP


class Door:
    """The way to one engine."""

    def __init__(self, env, engine):
        self.env, self.engine, self.sent = env, engine, 0

    def call(self, request, avoid):
        request.id, request.done, request.replica = self.sent, self.env.event(), 0
        self.sent += 1
        done = request.done
        self.engine.submit(request)
        return done

    def cancel(self, request, reason):
        request.reason = reason
        self.engine.cancel(request)


def test_impatient_customers_are_erlang_a():
    """M/M/1+M (Palm 1957; Zeltyn and Mandelbaum 2005): with n at the system, one is served at rate m and n - 1 leave at rate t each, so
    p(n) = p(n-1) l / (m + (n-1) t); a share 1 - (1 - p(0)) m / l leaves, and all wait that share over t on average.
    """
    count, rate, mean, patience = 40_000, 1.1, 1000, 2.0
    env = Clock()
    recorder = Recorder(env)
    stretches, stalls = recorder.tables["stretches"], recorder.tables["stalls"]
    engine = Engine(env, 0, Constant(), Paged(1 << 40, 16), (VllmV1(), Limits(1, 10, True, 0), None), (stretches, stalls, recorder.left))
    world = SimpleNamespace(env=env, door=Door(env, engine), keys=iter, recorder=recorder, scenario=SimpleNamespace(seed=1))
    callers = Attempts(world, "callers", Patience(first_token_timeout={"mean": patience}))
    shares = [stream(3, name).permutation((np.arange(count) + 0.5) / count) for name in ("gaps", "lengths")]
    gaps = -np.log1p(-shares[0]) / rate
    lengths = np.ceil(np.log1p(-shares[1]) / math.log1p(-1 / mean)).astype(int)

    def drive():
        for gap, length in zip(gaps.tolist(), lengths.tolist(), strict=True):
            yield env.timeout(gap)
            callers.submit(Request(-1, env.now, 1, length))

    env.process(drive())
    env.advance()
    serve, leave = 1 / (mean * STEP), 1 / patience
    weights = np.cumprod([1.0, *(rate / (serve + n * leave) for n in range(400))])
    left = 1 - (1 - weights[0] / weights.sum()) * serve / rate
    table, requests = recorder.tables["attempts"], recorder.tables["requests"]
    assert callers.pending == 0
    gone = table["outcome"] == table.labels["outcome"].index("abandoned")
    assert gone.mean() == pytest.approx(left, rel=0.02)
    order = np.argsort(table["request"])
    ends = np.where(gone, table["end"], np.nan)[order]
    rank = np.argsort(requests["request"])
    waits = np.fmin(ends, requests["admitted"][rank]) - requests["arrival"][rank]
    assert waits.mean() == pytest.approx(left / leave, rel=0.03)


@pytest.mark.parametrize(
    ("client", "where", "found"),
    [
        ({}, "client", "nothing is said of the client"),
        ({"timeout": 0}, "client.timeout", "above 0"),
        ({"timeout": "soon"}, "client.timeout", "found 'soon'; a duration is wanted"),
        ({"timeout": {"median": "2s"}}, "client.timeout", "median: 10s, p99: 60s"),
        ({"timeout": {"median": "2s", "p99": "1s"}}, "client.timeout", "p99 (1 s) is below the median (2 s)"),
        ({"patience": "2s"}, "client", "patience"),
        ({"retries": {"on": ["timeout"]}}, "client", "no timeout is given"),
        ({"retries": {"on": ["abandoned"]}, "timeout": 3}, "client", "no first_token_timeout is given"),
        ({"retries": {"on": ["failed"]}}, "client.retries.on", "failed"),
        ({"retries": {"window": "20s"}}, "client", "no retries.budget"),
        ({"retries": {"budget": 0}}, "client.retries.budget", "found 0; a value above 0"),
        ({"hedge": {"after": "p100"}}, "client.hedge.after", "found 'p100'; a percentile between p0 and p100"),
        ({"hedge": {"after": "later"}}, "client.hedge.after", "a percentile of times to first token such as p95"),
        ({"hedge": {"after": 0}}, "client.hedge.after", "a time above 0"),
        ({"hedge": {}}, "client.hedge.after", "missing"),
    ],
)
def test_what_makes_no_sense_is_said(client, where, found):
    with pytest.raises(sim.BadInput) as caught:
        sim.run(scenario(client))
    assert any(f"workloads.0.{where}" in line and found in line for line in str(caught.value).splitlines()), str(caught.value)


def test_a_cascade_has_no_impatient_callers():
    pools = [{"name": "small", "gpu": "l4"}, {"name": "large", "model": "meta-llama/Llama-3.2-3B", "gpu": "l4"}]
    raw = scenario({"timeout": "5s"})
    raw["cluster"] = {"pools": pools, "cascades": [{"from": "small", "to": "large", "escalate": 0.5}]}
    with pytest.raises(sim.BadInput, match=r"workloads\.0\.client: its requests go through a cascade"):
        sim.run(raw)


def test_a_resolved_scenario_runs_again(tmp_path):
    client = {"timeout": "5s", "first_token_timeout": {"median": "2s", "p99": "9s"}, "retries": {}, "hedge": {"after": "p95"}}
    result = sim.run(scenario(client))
    path = tmp_path / "again.yaml"
    path.write_text(sim.dump(result.scenario))
    assert sim.load(path) == result.scenario
    again = sim.run(path)
    assert np.array_equal(result.tables["attempts"]["end"], again.tables["attempts"]["end"])
