"""Runs of reinforcement learning without rounds: what each bound on staleness means in the loop, and who is lost, stopped or goes on."""
from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from rl_runs import LOGPROB, VARIED, plan, played, rows, scenario

import sim
from sim.core.errors import BadInput
from sim.policy.stale.slime import Slime

QUICK = {"update": 2.0, "logprob": 0.0}
RUN_KEYS = (
    "answers", "buffer", "duration", "dynamic_sampling", "interrupt", "redundant", "samples", "solving", "steps", "sync", "tail", "times",
    "updates",
)  # fmt: skip


def gated(kind, **options):
    """A run under a gate of this kind, with its options and those of the run."""
    checked = {key: options.pop(key) for key in list(options) if key in RUN_KEYS}
    return played(mode="async", staleness={"kind": kind, **options}, **{"steps": 6, "times": QUICK, **checked})


def lags(result):
    samples = rows(result, "rl_samples")
    return samples["lag_submit"].dropna()


def mine(result):
    requests = rows(result, "requests")
    return int(requests.loc[requests["workload"] == "run", "output_tokens"].sum())


# -- one step off ------------------------------------------------------------
@pytest.mark.parametrize(("update", "tokens"), [(20.0, 400), (0.5, 1000)], ids=["training", "generation"])
def test_one_step_off_costs_the_longer_of_both(update, tokens):
    result = played(mode="one_step_off", steps=5, times={"update": update, "logprob": LOGPROB}, answers={"value": tokens, "cap": 1000})
    steps, groups = rows(result, "rl_steps"), rows(result, "rl_groups")
    trained = groups[groups["state"] == "trained"]
    batches = trained.groupby("trained")
    generation = (batches["scored"].max() - batches["begun"].min()).to_numpy()
    assert steps["wait"].iloc[0] + steps["reward"].iloc[0] == pytest.approx(generation[0], abs=1e-6)
    seconds = (steps["end"] - steps["start"]).to_numpy()
    assert seconds[0] == pytest.approx(generation[0] + update + LOGPROB, abs=1e-6)
    sync = plan(scenario(), kind="bucketed").seconds
    assert seconds[1:] == pytest.approx(np.maximum(generation[1:], update + LOGPROB) + sync, abs=1e-6)
    exposed = (steps["wait"] + steps["reward"]).to_numpy()[1:]
    assert exposed == pytest.approx(np.maximum(generation[1:] - update - LOGPROB, 0.0), abs=1e-6)
    assert trained["submitted"].tolist() == [max(version - 1, 0) for version in range(5) for _ in range(8)]
    assert lags(result).tolist() == [0.0] * 32 + [1.0] * 128
    assert (rows(result, "rl_groups").query("state == 'running'")["submitted"] == 4).all()


# -- bounds ------------------------------------------------------------
@pytest.mark.parametrize("eta", [0, 1, 3])
@pytest.mark.parametrize("kind", ["areal", "skyrl"])
def test_lags_of_equal_answers_are_within_the_bound_and_reach_it(kind, eta):
    bound = {"eta": eta} if kind == "areal" else {"staleness": eta}
    result = gated(kind, **bound, times={"update": 5.0, "logprob": 0.0})
    found = lags(result)
    assert found.max() == eta
    assert rows(result, "rl_steps")["launched"].iloc[0] <= (eta + 1) * 8
    groups = rows(result, "rl_groups").query("state == 'trained'")
    assert groups.groupby("trained").size().tolist() == [8] * 6
    if not eta:
        steps, generation = rows(result, "rl_steps"), groups.groupby("trained")["done"].max() - groups.groupby("trained")["begun"].min()
        whole = (steps["end"] - steps["start"]).to_numpy()
        assert whole == pytest.approx(generation.to_numpy() + 1.0 + 5.0 + plan(scenario(), kind="bucketed").seconds, abs=1e-6)


def test_a_bound_in_expectation_is_broken_by_who_is_overtaken():
    """Nobody is dropped: whoever takes longest is trained on late, and its lag counted."""
    long = {"mean": 400, "sigma": 1.2, "cap": 3000}
    result = gated("areal", eta=1, answers=long, steps=10, times={"update": 0.5, "logprob": 0.0})
    assert lags(result).max() > 1
    assert not len(rows(result, "rl_groups").query("state == 'stale_dropped'"))


@pytest.mark.parametrize(("threshold", "most", "lag"), [(0.0, 8, 0), (0.5, 12, 1), (1.0, 16, 1)])
def test_verl_counts_what_was_started_since_the_last_publication(threshold, most, lag):
    result = gated("verl", staleness_threshold=threshold, times={"update": 15.0, "logprob": 0.0})
    groups, syncs = rows(result, "rl_groups"), rows(result, "rl_syncs")
    assert lags(result).max() == lag
    resumed = syncs["resumed"].tolist()
    # Nothing begins but as soon as a version is out: looking again every ten seconds changes nothing before that.
    assert set(groups["begun"]) <= {0.0, *resumed}
    assert (groups["begun"] == 0).sum() == most
    for number, time in enumerate(resumed[:-1]):
        held = ((groups["begun"] < time - 1e-9) & ~(groups["ended"] < time)).sum()
        assert (groups["begun"] == time).sum() == most - held, number


def test_verl_runs_so_many_for_each_server():
    result = gated("verl", staleness_threshold=1.0, per_server=2)
    groups = rows(result, "rl_groups")
    for time in groups["begun"]:
        ended = groups["scored"].fillna(np.inf)
        assert ((groups["begun"] <= time) & (ended > time)).sum() <= 4


def test_a_gate_that_looks_now_and_then():
    """The queue is full when a version is out, and the trainer takes some of it at once: groups begin then, or when somebody looks."""
    changes = {"max_concurrent": 4, "max_queue": 12, "times": {"update": 7.0, "logprob": 0.0}, "steps": 4}
    at_once = gated("slime", **changes)
    with mock.patch.object(Slime, "poll", 3.0):
        polled = gated("slime", **changes)
    resumed = rows(polled, "rl_syncs")["resumed"].iloc[0]
    for result, wait in ((at_once, 0.0), (polled, 3.0)):
        groups = rows(result, "rl_groups")
        assert groups["ended"].min() < resumed < groups["ended"].unique()[1] + 1e-9
        begun = groups["begun"][groups["begun"] > resumed - 1e-6]
        assert begun.iloc[0] == pytest.approx(resumed + wait, abs=1e-6)
        assert (begun == begun.iloc[0]).sum() == 4


# -- who is lost ------------------------------------------------------------
def test_prime_rl_drops_what_has_tokens_of_old_versions():
    result = gated("prime_rl", max_off_policy_steps=1, max_inflight=24, answers=VARIED, steps=8)
    groups, samples, waste = (rows(result, name) for name in ("rl_groups", "rl_samples", "rl_waste"))
    lost = groups[groups["state"] == "stale_dropped"]
    assert len(lost) > 5
    assert set(lost["reason"]) == {"stale"}
    assert samples["lag_oldest"].max() <= 1
    # They went when a version came out, or with it.
    resumed = rows(result, "rl_syncs")["paused"].to_numpy()
    assert all(np.abs(resumed - time).min() < 1.0 for time in lost["ended"])
    assert waste.query("reason == 'stale'")["tokens"].sum() > 1000
    kept = groups.loc[groups["state"] == "trained", "tokens"].sum()
    under_way = samples.loc[samples["group"].isin(groups.loc[groups["ended"].isna(), "group"]), "tokens"].sum()
    assert kept + waste["tokens"].sum() + under_way == mine(result)


def test_rollart_gives_up_who_ends_too_late():
    result = gated("rollart", alpha=1.0, answers={"mean": 400, "sigma": 1.2, "cap": 3000}, steps=10, times={"update": 0.5, "logprob": 0.0})
    groups = rows(result, "rl_groups")
    assert lags(result).max() == 1
    lost = groups[groups["state"] == "stale_dropped"]
    assert len(lost) > 3
    assert (lost["submitted"] < 9).all()


def test_nemo_rl_trains_on_what_was_meant_for_the_step():
    result = gated("nemo_rl", max_trajectory_age_steps=2, answers=VARIED)
    groups = rows(result, "rl_groups").query("state == 'trained'")
    assert lags(result).max() == 2
    assert not len(rows(result, "rl_waste").query("reason == 'stale'"))
    # In the order in which they began: the trainer waits for the last of those, though later ones are there.
    assert groups.sort_values("group")["trained"].is_monotonic_increasing
    queued = rows(result, "rl_steps")["queued"]
    assert queued.max() > 0


@pytest.mark.parametrize("policy", ["restart", "resume", "drop"])
def test_slime_calls_off_what_runs(policy):
    result = gated("slime", abort_policy=policy, max_concurrent=16, answers=VARIED, steps=8)
    groups, samples, waste = (rows(result, name) for name in ("rl_groups", "rl_samples", "rl_waste"))
    stopped = rows(result, "rl_syncs")["stopped"].to_numpy()
    assert stopped[:-1].min() > 0
    trained = groups["state"] == "trained"
    if policy == "restart":
        assert groups["launches"].max() > 1
        assert waste.query("reason == 'restarted'")["tokens"].sum() > 0
        assert (samples["segments"] <= 1).all()
    elif policy == "resume":
        assert (groups["launches"] == 1).all()
        assert samples["segments"].max() > 1
        assert not len(waste)
    else:
        lost = groups[groups["state"] == "stale_dropped"]
        assert len(lost) > 0
        assert waste.query("reason == 'stale'")["tokens"].sum() == lost["wasted"].sum() > 0
        assert (samples["segments"] <= 1).all()
    under_way = samples.loc[samples["group"].isin(groups.loc[groups["ended"].isna(), "group"]), "tokens"].sum()
    assert groups.loc[trained, "tokens"].sum() + waste["tokens"].sum() + under_way == mine(result)


def test_a_full_buffer_loses_the_oldest():
    result = gated("unbounded", max_concurrent=16, buffer={"cap": 10}, times={"update": 8.0, "logprob": 0.0})
    groups = rows(result, "rl_groups")
    lost = groups[groups["state"] == "stale_dropped"]
    assert len(lost) > 10
    assert rows(result, "rl_steps")["queued"].max() <= 10
    free = gated("unbounded", max_concurrent=16, times={"update": 8.0, "logprob": 0.0})
    assert lags(free).max() > lags(result).max()
    fresh = gated("unbounded", max_concurrent=16, buffer={"order": "fresh"}, times={"update": 8.0, "logprob": 0.0})
    assert lags(fresh).mean() < lags(free).mean()


def test_more_samples_than_needed():
    result = gated("areal", eta=1, redundant=2, answers=VARIED)
    samples, groups = rows(result, "rl_samples"), rows(result, "rl_groups")
    assert set(groups["launched"]) == {6}
    trained = groups[groups["state"] == "trained"]
    assert set(trained["kept"]) == {4}
    for number in trained["group"]:
        those = samples[samples["group"] == number]
        kept = those[those["kept"] == 1]
        assert not (those.loc[those["kept"] == 0, "done"] < kept["done"].max()).any()
    assert rows(result, "rl_waste").query("reason == 'surplus'")["tokens"].sum() > 0


def test_a_filter_makes_room_and_gives_up():
    beta = {"solving": {"solve_rate_beta": [0.6, 0.6]}, "answers": {"mean": 40, "sigma": 0.5, "cap": 200}}
    result = gated("areal", eta=1, dynamic_sampling={"max_num_gen_batches": 50}, steps=20, **beta)
    groups = rows(result, "rl_groups")
    assert groups.query("state == 'trained'").groupby("trained").size().tolist() == [8] * 20
    assert len(groups[groups["reason"] == "zero_variance"]) == pytest.approx(160 / 0.494 - 160, rel=0.25)
    hard = {"solving": {"solve_rate": 0.2, "drift_per_100_steps": -10.0}, "answers": {"value": 20, "cap": 40}}
    ended = gated("areal", eta=1, dynamic_sampling={"max_num_gen_batches": 2, "gen_batch_factor": 1.0}, steps=30, **hard)
    assert 0 < len(rows(ended, "rl_steps")) < 30
    assert any("dynamic sampling gave up" in text for text in ended.meta["remarks"])


def test_groups_that_were_lost_keep_their_places_under_verl():
    """That is said, in place of looking at the bound for ever."""
    result = gated("verl", staleness_threshold=1.1, dynamic_sampling={"max_num_gen_batches": 50}, steps=30, samples=2, answers={
        "value": 20, "cap": 40,
    })  # fmt: skip
    assert 0 < len(rows(result, "rl_steps")) < 30
    assert any("none runs, and staleness lets no other begin before a version is out" in text for text in result.meta["remarks"])


def test_a_run_of_which_nothing_can_be_used_is_given_up():
    given = scenario(mode="async", staleness={"kind": "areal", "eta": 1}, tail={"kind": "truncate", "max_len": 10})
    with pytest.raises(BadInput, match=r"of 80 groups that ended none could be trained on: .* or all answers were cut"):
        sim.run(given)


# -- a part of a batch at a time ------------------------------------------------------------
def test_local_updates_and_gradients_as_groups_come():
    parts = gated("verl", staleness_threshold=1.0, updates={"trigger": 4}, answers=VARIED)
    steps, updates = rows(parts, "rl_steps"), rows(parts, "train_steps")
    assert updates["samples"].tolist() == [2 * 4] * 24
    assert steps["update"].tolist() == pytest.approx([8.0] * 6)
    stream = gated("verl", staleness_threshold=1.0, updates={"stream": 1}, answers=VARIED)
    assert rows(stream, "rl_steps")["update"].tolist() == pytest.approx([2.0] * 6)
    assert rows(stream, "rl_steps")["samples"].tolist() == [32] * 6
    whole = gated("verl", staleness_threshold=1.0, answers=VARIED)
    assert rows(stream, "rl_steps")["wait"].sum() < rows(whole, "rl_steps")["wait"].sum()


@pytest.mark.parametrize("duration", [0.7, 3.0, 8.0])
@pytest.mark.parametrize("changes", [
    {"kind": "areal", "eta": 1}, {"kind": "prime_rl", "max_off_policy_steps": 1, "max_inflight": 20}, {"kind": "slime"},
    {"kind": "nemo_rl", "sync": {"kind": "delta"}}, {"kind": "areal", "eta": 1, "interrupt": {"abort": "resume"}},
    {"kind": "rollart", "interrupt": {"wait": "drain"}}, {"kind": "areal", "eta": 2, "tail": {"kind": "consolidate", "interval": "200ms"}},
], ids=["areal", "prime", "slime", "pull", "resume", "drain", "gather"])  # fmt: skip
def test_cut_anywhere_the_tables_are_whole(changes, duration):
    result = gated(**changes, duration=duration, answers=VARIED)
    groups, samples = rows(result, "rl_groups"), rows(result, "rl_samples")
    assert groups["group"].tolist() == list(range(len(groups)))
    assert len(samples) == groups["launched"].sum()
