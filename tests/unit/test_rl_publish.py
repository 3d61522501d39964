"""New versions of a run of reinforcement learning: who stands still, for how long, what becomes of what runs; what a run leaves behind."""
from __future__ import annotations

import gc
from collections import Counter
from unittest import mock

import pytest
from rl_runs import VARIED, plan, played, rows, scenario

import sim
from sim.core.request import Request
from sim.core.rollout import Group, Trajectory
from workloads.rollouts import turns
from workloads.rollouts.calls import Work
from workloads.rollouts.generation import Generation

KINDS = (Group, Trajectory, Request, Work, turns.Work)
AGENTS = {
    "agents": {"lead": {"task": 20, "calls": 3, "output": 20, "tools": {"run": 1}}}, "tools": {"run": {"time": "100ms", "observation": 30}},
    "answers": None, "prompt": None,
}  # fmt: skip
COLD = {"engine": {"enable_prefix_caching": False}}


def asynchronous(interrupt=None, **changes):
    return played(**{
        "mode": "async", "staleness": {"kind": "areal", "eta": 1}, "steps": 6, "answers": VARIED, "times": {"update": 2.0, "logprob": 0.0},
        "interrupt": interrupt or {}, "pool": COLD, **changes,
    })  # fmt: skip


def computed(result):
    """Prompt tokens that engines computed, and those of all requests."""
    return result.tables["stretches"]["prefill_tokens"].sum(), result.tables["requests"]["input_tokens"].sum()


def whole(result):
    """Every answer that was trained on has the tokens that it was to have."""
    still = rows(played(answers=VARIED, steps=12), "rl_samples").set_index(["group", "number"])["tokens"]
    samples = rows(result, "rl_samples").query("lag_submit >= 0").set_index(["group", "number"])["tokens"]
    return (still.loc[samples.index] == samples).all()


# -- what runs ------------------------------------------------------------
def test_caches_are_kept():
    result = asynchronous({"kv": "keep"})
    prefilled, prompts = computed(result)
    assert prefilled == prompts
    assert whole(result)
    syncs, samples = rows(result, "rl_syncs"), rows(result, "rl_samples")
    assert syncs["running"].sum() > 3
    assert syncs["stopped"].sum() == 0
    across = samples[samples["segments"] > 1]
    assert len(across) > 2
    assert (across["oldest"] < across["newest"]).all()


def test_or_computed_again():
    """Of prompts and answers that run at a publication all tokens are; after the last one nobody has the time."""
    result = asynchronous({"kv": "recompute"})
    syncs = rows(result, "rl_syncs")
    prefilled, prompts = computed(result)
    assert prefilled - prompts == syncs["held"][:-1].sum() > 1000
    assert whole(result)


@pytest.mark.parametrize("wait", ["calls", "drain"])
def test_or_nobody_runs_by_then(wait):
    result = asynchronous({"wait": wait})
    syncs = rows(result, "rl_syncs")
    assert (syncs["running"] == 0).all()
    assert (rows(result, "rl_samples")["segments"] <= 1).all()
    groups = rows(result, "rl_groups")
    for _, sync in syncs.iterrows():
        assert not ((groups["begun"] > sync["gathered"] + 1e-6) & (groups["begun"] < sync["resumed"] - 1e-6)).any()
        ended = groups["done"].fillna(1e9)
        if wait == "drain":
            assert not ((groups["begun"] < sync["paused"] - 1e-6) & (ended > sync["paused"] + 1e-6)).any()
    assert (syncs["paused"] - syncs["gathered"]).max() > 1.0
    prefilled, prompts = computed(result)
    assert prefilled == prompts


def test_what_is_called_off_goes_on():
    result = asynchronous({"abort": "resume"})
    syncs, groups = rows(result, "rl_syncs"), rows(result, "rl_groups")
    assert (syncs["stopped"] == syncs["running"]).all()
    assert (groups["launches"] == 1).all()
    assert whole(result)
    assert not len(rows(result, "rl_waste"))
    called_off = (rows(result, "requests")["status"] == "failed").sum()
    assert called_off == syncs["stopped"].sum() + rows(result, "rl_samples")["done"].isna().sum()
    # The rest is asked for with all that was there before as its prompt; after the last publication nobody has the time.
    prefilled, prompts = computed(result)
    assert prompts == 100 * groups["launched"].sum() + syncs["held"].sum()
    assert prefilled == 100 * groups["launched"].sum() + syncs["held"][:-1].sum()


@pytest.mark.parametrize(("gate", "interrupt"), [
    ({"kind": "slime", "abort_policy": "resume"}, {"kv": "keep"}), ({"kind": "unbounded"}, {"kv": "keep", "abort": "resume"}),
], ids=["gate", "interrupt"])  # fmt: skip
def test_what_goes_on_finds_what_was_kept(gate, interrupt):
    """But for the rest of a block nothing is computed twice, whoever stopped it."""
    result = asynchronous(interrupt, staleness={**gate, "max_concurrent": 16}, pool={"replicas": 1})
    again = rows(result, "requests").query("input_tokens > 100 and status == 'completed'")
    assert len(again) > 3
    assert (again["input_tokens"] - again["cached_tokens"] <= 16).all()


def test_or_begins_again():
    result = asynchronous({"abort": "restart"})
    groups, waste = rows(result, "rl_groups"), rows(result, "rl_waste")
    assert groups["launches"].max() > 1
    assert set(waste["reason"]) == {"restarted"}
    assert (rows(result, "rl_samples")["segments"] <= 1).all()
    again = groups["launches"] > 1
    assert (groups.loc[again, "wasted"] > 0).all()
    assert rows(result, "rl_samples")["lag_submit"].max() <= 1


def test_or_is_dropped():
    result = asynchronous({"abort": "drop"})
    groups, syncs = rows(result, "rl_groups"), rows(result, "rl_syncs")
    lost = groups[groups["state"] == "stale_dropped"]
    assert len(lost) > 0
    assert all(min(abs(syncs["moved"] - time)) < 1e-6 for time in lost["ended"])
    assert lost["wasted"].sum() == rows(result, "rl_waste")["tokens"].sum() > 0


# -- who stands still ------------------------------------------------------------
@pytest.mark.parametrize("kind", ["bucketed", "per_tensor", "checkpoint_engine", "rdma_p2p", "object_store", "delta"])
def test_engines_and_trainer_stand_still_for_what_a_sync_takes(kind):
    result = asynchronous({"wait": "none"}, sync={"kind": kind, "blocking": "blocking"})
    takes = plan(scenario(), kind=kind, blocking="blocking")
    syncs, steps = rows(result, "rl_syncs"), rows(result, "rl_steps")
    assert (syncs["gathered"] - syncs["start"]).tolist() == pytest.approx([takes.gather] * 6, abs=1e-6)
    stood = syncs["paused"] - syncs["gathered"]
    assert stood.max() < 0.01
    assert (syncs["resumed"] - syncs["paused"]).tolist() == pytest.approx([takes.fixed + takes.move + takes.load] * 6, abs=1e-6)
    assert steps["sync"].tolist() == pytest.approx((takes.seconds + stood).tolist(), abs=1e-6)
    assert syncs["released"].tolist() == syncs["resumed"].tolist()
    pauses = rows(result, "pauses").query("why == 'update'")
    assert pauses["end"].max() == pytest.approx(syncs["resumed"].max(), abs=1e-6)


@pytest.mark.parametrize("kind", ["bucketed", "checkpoint_engine", "object_store", "delta"])
def test_in_flight_engines_stand_still_for_loading_alone(kind):
    result = asynchronous(sync={"kind": kind, "blocking": "in_flight"})
    takes = plan(scenario(), kind=kind, blocking="in_flight")
    syncs, pauses = rows(result, "rl_syncs"), rows(result, "pauses")
    assert (syncs["moved"] - syncs["gathered"]).tolist() == pytest.approx([takes.fixed + takes.move] * 6, abs=1e-6)
    assert (syncs["resumed"] - syncs["paused"]).tolist() == pytest.approx([takes.load] * 6, abs=1e-6)
    assert pauses.groupby(["replica"])["end"].count().tolist()[0] >= 6
    loading = pauses[pauses["why"] == "update"]
    assert (loading["end"] - loading["start"]).max() == pytest.approx(takes.load, abs=1e-6)
    assert (rows(result, "rl_steps")["sync"] >= takes.seconds - 1e-6).all()


@pytest.mark.parametrize("kind", ["bucketed", "object_store", "delta"])
def test_pulled_the_trainer_goes_on_at_once(kind):
    result = asynchronous(sync={"kind": kind, "blocking": "pull"})
    takes = plan(scenario(), kind=kind, blocking="pull")
    syncs, steps = rows(result, "rl_syncs"), rows(result, "rl_steps")
    assert (syncs["released"] - syncs["start"]).tolist() == pytest.approx([takes.gather] * 6, abs=1e-6)
    assert (syncs["resumed"] - syncs["released"] >= takes.fixed + takes.move + takes.load - 1e-6).all()
    assert len(steps) == len(syncs) == 6
    assert steps["end"].tolist() == syncs["released"].tolist()
    # Engines learn of a version later than the trainer: lags are those of what it trains.
    trained = rows(result, "rl_groups").query("state == 'trained'")
    assert trained.groupby("trained").size().tolist() == [8] * 6


def test_a_relay_holds_one_version():
    """The store is slow: the next version waits until engines have the one before."""
    slow = {"kind": "object_store", "up": "1GB/s", "down": "1GB/s"}
    result = asynchronous(sync=slow, times={"update": 0.5, "logprob": 0.0}, answers={"value": 200, "cap": 400}, steps=8)
    syncs = rows(result, "rl_syncs")
    assert (syncs["start"].to_numpy()[1:] >= syncs["resumed"].to_numpy()[:-1] - 1e-6).any()
    assert (syncs["gathered"].to_numpy()[1:] >= syncs["resumed"].to_numpy()[:-1] - 1e-6).all()
    assert rows(result, "rl_samples")["lag_submit"].max() >= 1


def test_over_a_network_versions_take_its_links():
    given = scenario(mode="async", staleness={"kind": "areal", "eta": 1}, answers=VARIED, times={"update": 2.0, "logprob": 0.0})
    given["cluster"]["network"] = {"fabric": "one_switch", "hosts": [{"gpu": "h100_sxm", "count": 2}]}
    result = sim.run(given)
    moved = rows(result, "deliveries")
    assert len(moved) == 3
    syncs = rows(result, "rl_syncs")
    assert (syncs["moved"] > syncs["paused"]).all()
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_a_validation_stops_engines_too():
    result = asynchronous(validation={"every": 2, "time": 30.0})
    steps, syncs = rows(result, "rl_steps"), rows(result, "rl_syncs")
    assert steps["validation"].tolist() == pytest.approx([0.0, 30.0] * 3)
    assert ((syncs["resumed"] - syncs["moved"]) > 30.0).tolist() == [False, True] * 3
    usual = plan(scenario(), kind="bucketed").seconds
    assert steps["sync"].tolist() == pytest.approx([usual] * 6, abs=0.02)


# -- what is left behind ------------------------------------------------------------
def left(**changes):
    """Objects of groups, trajectories and requests alive when a run ends, and entries of what keeps them by number."""
    found = {}
    real = Generation.end

    def end(self):
        real(self)
        kinds = Counter(type(one) for one in gc.get_objects() if type(one) in KINDS)
        kept = (self._visits, self._missing, self._grading, self.ledger._live, self.record._times, self.complete, self.scored, self.pending)
        found.update({f"{kind.__module__}.{kind.__name__}": kinds[kind] for kind in KINDS})
        found["entries"] = sum(len(one) for one in kept) + self.runner.running()

    with mock.patch.object(Generation, "end", end):
        played(**{"prompts": 4, "answers": {"value": 60, "cap": 100}, "times": {"update": 0.5, "logprob": 0.0}, **changes})
    return found


@pytest.mark.parametrize("changes", [
    {}, {"tail": {"kind": "over_sample"}}, {"tail": {"kind": "divided", "chunk": 25}}, {"reward_at": "batch"},
    {"mode": "async", "staleness": {"kind": "areal", "eta": 1}}, {"mode": "async", "staleness": {"kind": "nemo_rl"}},
    {"mode": "async", "staleness": {"kind": "slime"}, "redundant": 1}, {"dynamic_sampling": {}},
    {"mode": "async", "staleness": {"kind": "verl"}, "interrupt": {"abort": "resume"}, "tail": {"kind": "consolidate"}},
    AGENTS, AGENTS | {"mode": "async", "staleness": {"kind": "slime"}},
], ids=["plain", "more", "divided", "batch", "areal", "nemo", "slime", "sampled", "resume", "agents", "restarted"])  # fmt: skip
def test_nothing_is_left_of_what_was_trained_on(changes):
    few, many = (left(steps=steps, **changes) for steps in (10, 40))
    assert all(many[key] <= few[key] + 48 for key in few), (few, many)
