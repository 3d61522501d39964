"""Runs of reinforcement learning in rounds, against what their parts come to by hand."""
from __future__ import annotations

import numpy as np
import pytest
from rl_runs import LOGPROB, REWARD, UPDATE, VARIED, faults, plan, played, rows, scenario

import sim
from sim.core.errors import BadInput
from workloads.rollouts.sampling import DynamicSampling

PARTS = ("wait", "reward", "data", "logprob", "reference", "update", "sync", "switch", "checkpoint", "validation")


def parts(result):
    """Seconds of each step by part, and in all."""
    steps = rows(result, "rl_steps")
    return steps[list(PARTS)], (steps["end"] - steps["start"]).to_numpy()


def mine(result):
    """Tokens that requests of the run got."""
    requests = rows(result, "requests")
    return int(requests.loc[requests["workload"] == "run", "output_tokens"].sum())


# -- times ------------------------------------------------------------
def test_a_step_is_the_sum_of_its_parts():
    result = played()
    steps, groups = rows(result, "rl_steps"), rows(result, "rl_groups")
    sync = plan(scenario(), kind="bucketed").seconds
    for number, step in steps.iterrows():
        batch = groups[groups["trained"] == number]
        generate = batch["done"].max() - batch["begun"].min()
        assert step["generate"] == step["wait"] == pytest.approx(generate, abs=1e-6)
        assert step["end"] - step["start"] == pytest.approx(generate + REWARD + LOGPROB + UPDATE + sync, abs=1e-6)
        assert (step["reward"], step["logprob"], step["update"]) == pytest.approx((REWARD, LOGPROB, UPDATE), abs=1e-6)
        assert step["sync"] == pytest.approx(sync, abs=1e-6)
    assert steps["start"].tolist() == [0.0, *steps["end"][:-1]]
    assert steps["tokens"].tolist() == [8 * 4 * 400] * 3
    assert steps["length"].tolist() == [8 * 4 * 500] * 3
    assert mine(result) == 3 * 8 * 4 * 400
    assert not len(rows(result, "rl_waste"))
    samples = rows(result, "rl_samples")
    assert (samples[["lag_submit", "lag_oldest", "lag_mean"]] == 0).all(axis=None)
    assert (samples["segments"] == 1).all()


def test_without_stated_times_the_physics_says_them():
    result = played(times={}, reference=True)
    steps, updates = rows(result, "rl_steps"), rows(result, "train_steps")
    assert steps["update"].to_numpy() == pytest.approx((updates["end"] - updates["start"]).to_numpy(), abs=1e-6)
    assert steps["reference"].to_numpy() == pytest.approx(steps["logprob"].to_numpy())
    assert (steps["logprob"] * 2 < steps["update"]).all()
    assert (rows(played(old_logprob=False), "rl_steps")["logprob"] == 0).all()


def test_updates_on_parts_of_a_batch():
    result = played(updates={"trigger": 4, "epochs": 2, "mini_batches": 2})
    steps, updates = rows(result, "rl_steps"), rows(result, "train_steps")
    assert steps["update"].tolist() == pytest.approx([4 * UPDATE] * 3)
    assert steps["logprob"].tolist() == pytest.approx([4 * LOGPROB] * 3)
    assert updates["samples"].tolist() == [8 * 2] * 12


@pytest.mark.parametrize("workers", [1, 3])
def test_rewards_when_the_round_is_over_or_as_answers_end(workers):
    reward = [{"kind": "rule", "time": 0.1, "p_timeout": 0, "workers": workers}]
    early, late = (played(rewards=reward, reward_at=at, answers=VARIED) for at in ("trajectory", "batch"))
    waits = rows(late, "rl_steps")["reward"].tolist()
    assert waits == pytest.approx([0.1 * -(-32 // workers)] * 3, abs=1e-6)
    samples, groups = rows(early, "rl_samples"), rows(early, "rl_groups")
    for number, step in rows(early, "rl_steps").iterrows():
        done = np.sort(samples.loc[samples["group"].isin(groups.loc[groups["trained"] == number, "group"]), "done"])
        free = [0.0] * workers
        for one in done:
            free = sorted(free)
            free[0] = max(free[0], one) + 0.1
        assert step["reward"] == pytest.approx(max(free) - done[-1], abs=1e-6)
        assert step["reward"] < waits[0]


def test_now_and_then():
    """Data come one version ahead; checkpoints, validations."""
    result = played(data=30.0, checkpoint={"every": 2, "time": 4.0}, validation={"every": 3, "time": 7.0})
    steps, total = parts(result)
    usual = parts(played())[1][0]
    assert steps["data"].tolist() == pytest.approx([30.0, 30.0 - usual, 30.0 - usual - 4.0], abs=1e-6)
    assert steps["checkpoint"].tolist() == pytest.approx([0.0, 4.0, 0.0])
    assert steps["validation"].tolist() == pytest.approx([0.0, 0.0, 7.0], abs=1e-6)
    assert total == pytest.approx([usual + 30.0, 30.0 + 4.0, 26.0 + 7.0], abs=1e-6)
    states = rows(result, "train_states")
    for state, seconds in (("data", 90.0 - 2 * usual - 4.0), ("checkpoint", 4.0), ("update", 3 * UPDATE)):
        spent = states.loc[states["state"] == state]
        assert (spent["end"] - spent["start"]).sum() == pytest.approx(seconds, abs=1e-6), state


# -- shared GPUs ------------------------------------------------------------
def test_engines_sleep_while_the_trainer_has_their_gpus():
    result = played(colocated=True, switch={"to_train": 5.0, "to_rollout": 7.0}, answers=VARIED)
    steps, total = parts(result)
    assert steps.sum(axis=1).to_numpy() == pytest.approx(total, abs=1e-6)
    assert steps["switch"].to_numpy() == pytest.approx(12.0, abs=1e-6)
    assert (steps["sync"] == 0).all()
    worked_out = rows(played(colocated=True), "rl_steps")
    assert worked_out["sync"].to_numpy() == pytest.approx(plan(scenario(colocated=True), kind="ipc").seconds, abs=1e-6)
    assert (worked_out["switch"] > 0.1).all()
    sleeps = rows(result, "pauses").query("why == 'sleep'")
    works = rows(result, "train_states").query("state in ('logprob', 'update')")
    assert len(sleeps) == 2 * 3
    for _, work in works.iterrows():
        assert ((sleeps["start"] <= work["start"]) & (work["end"] <= sleeps["end"])).sum() == 2
    begun = rows(result, "stretches")["start"]
    ended = begun + rows(result, "stretches")["seconds"]
    assert not any(((begun < work["end"] - 1e-9) & (ended > work["start"] + 1e-9)).any() for _, work in works.iterrows())


# -- tails ------------------------------------------------------------
def test_over_sampling_keeps_the_first():
    result = played(tail={"kind": "over_sample"}, answers=VARIED)
    samples, groups = rows(result, "rl_samples"), rows(result, "rl_groups")
    assert groups["launched"].tolist() == [5] * 30
    for version, batch in groups.groupby(groups["begun"].rank(method="dense").astype(int) - 1):
        assert len(batch) == 10
        trained = batch[batch["trained"] == version]
        assert len(trained) == 8
        ends = trained["done"].max()
        assert not (batch.loc[batch["trained"] < 0, "done"] < ends).any()
        for number in trained["group"]:
            those = samples[samples["group"] == number]
            kept = those[those["kept"] == 1]
            assert len(kept) == 4
            assert not (those.loc[those["kept"] == 0, "done"] < kept["done"].max()).any()
    waste = rows(result, "rl_waste")
    assert set(waste["reason"]) <= {"surplus", "in_flight"}
    assert waste["tokens"].sum() + groups.loc[groups["state"] == "trained", "tokens"].sum() == mine(result)
    waited = played(answers=VARIED)
    assert rows(result, "rl_steps")["generate"].sum() < rows(waited, "rl_steps")["generate"].sum()


def test_what_is_stopped_goes_on_in_the_next_round():
    result = played(tail={"kind": "partial"}, answers=VARIED, steps=4)
    whole = played(answers=VARIED, steps=8)
    samples, groups = rows(result, "rl_samples"), rows(result, "rl_groups")
    trained = groups[groups["state"] == "trained"]
    assert len(trained) == 4 * 8
    assert (groups["launches"] == 1).all()
    assert rows(result, "rl_steps")["launched"].tolist() == [16, 8, 8, 8]
    across = samples[(samples["segments"] > 1) & samples["group"].isin(trained["group"])]
    assert len(across) > 5
    assert (across["newest"] > across["oldest"]).all()
    assert (across["lag_submit"] >= across["lag_oldest"]).all()
    assert (across["lag_oldest"] > across["lag_mean"]).all()
    # The answers are those that nobody stops: no token of theirs was made twice.
    both = samples[samples["group"].isin(trained["group"])].merge(rows(whole, "rl_samples"), on=["group", "number"])
    assert (both["tokens_x"] == both["tokens_y"]).all()
    assert rows(result, "rl_waste")["tokens"].sum() == 0
    assert samples["tokens"].sum() == mine(result)


def test_every_fifth_round_is_long():
    result = played(tail={"kind": "tail_batching"}, answers=VARIED, steps=10, times={"update": 0.1, "logprob": 0.0})
    steps, groups = rows(result, "rl_steps"), rows(result, "rl_groups")
    assert steps["launched"].tolist() == [10, 10, 10, 10, 8] * 2
    long = steps["generate"][[4, 9]].mean()
    assert long > 1.5 * steps["generate"][[0, 1, 2, 3, 5, 6, 7, 8]].mean()
    losers = groups[groups["reason"] == "loser"]
    for number, version in ((0, 4), (1, 9)):
        again = groups[groups["trained"] == version]
        assert again["prompt"].tolist() == losers["prompt"][8 * number : 8 * number + 8].tolist()
    assert (rows(result, "rl_samples")["lag_submit"].dropna() == 0).all()


def test_who_is_cut_is_masked_or_wrong():
    masked, kept = (played(tail={"kind": "truncate", "max_len": 350, "overlong": what}, answers=VARIED) for what in ("mask", "keep"))
    free = rows(played(answers=VARIED), "rl_samples")
    for result in (masked, kept):
        samples = rows(result, "rl_samples")
        assert samples["tokens"].tolist() == np.minimum(free["tokens"], 350).tolist()
        assert (samples["cut"] == (free["tokens"] > 350)).all()
    cut = rows(masked, "rl_samples")["cut"] == 1
    assert 10 < cut.sum() < 60
    assert (rows(masked, "rl_samples")["masked"] == cut).all()
    assert rows(masked, "rl_samples")["reward"].isna().equals(cut)
    assert rows(masked, "rl_steps")["samples"].sum() == 96 - cut.sum()
    assert (rows(kept, "rl_samples").loc[cut, "reward"] == 0).all()
    assert rows(kept, "rl_steps")["samples"].sum() == 96


@pytest.mark.parametrize("tail", [
    {"kind": "divided", "chunk": 64}, {"kind": "consolidate", "interval": "500ms"},
], ids=["divided", "gather"])  # fmt: skip
def test_answers_that_move_are_whole(tail):
    pool = {"engine": {"max_num_seqs": 8, "preemption_mode": "swap", "swap_space": "64GB"}}
    result, still = (played(pool=pool, answers=VARIED, tail=one) for one in (tail, {"kind": "wait_all"}))
    a, b = rows(result, "rl_samples"), rows(still, "rl_samples")
    assert (a["tokens"] == b["tokens"]).all()
    assert mine(result) == a["tokens"].sum() == mine(still)
    requests, replicas = rows(result, "requests"), result.tables["requests"]["replica"]
    assert len(requests) > len(rows(still, "requests"))
    assert set(replicas) == {0, 1}
    loads = rows(result, "transfers").query("kind == 'swap_in'")
    assert len(loads) > 0
    # What is brought is not computed again: the rest of a block at most, of each piece.
    more = result.tables["stretches"]["prefill_tokens"].sum() - still.tables["stretches"]["prefill_tokens"].sum()
    assert more <= 16 * (len(requests) - len(rows(still, "requests")))


# -- overlap and filters ------------------------------------------------------------
def test_gradients_are_summed_up_while_the_tail_runs():
    result = played(answers=VARIED, updates={"stream": 2}, steps=2)
    plain = parts(played(answers=VARIED, steps=2))[1]
    groups = rows(result, "rl_groups")
    for _, step in rows(result, "rl_steps").iterrows():
        scored = np.sort(groups.loc[groups["begun"] == step["start"], "scored"])
        free, used = step["start"], 0
        while used < 8:
            free = max(free, scored[used + 1])
            count = 8 - used if free >= scored[-1] else 2
            free += (LOGPROB + UPDATE) * count / 8
            used += count
        assert step["generate"] == pytest.approx(scored[-1] - REWARD - step["start"], abs=1e-6)
        assert step["start"] + step[list(PARTS[:6])].sum() == pytest.approx(free, abs=1e-6)
        assert (step["logprob"], step["update"]) == pytest.approx((LOGPROB, UPDATE))
    assert (parts(result)[1] < plain - 0.5).all()


@pytest.mark.parametrize("style", ["batch", "stream"])
def test_groups_without_a_gradient_are_generated_in_vain(style):
    sampling = {"style": style, "gen_batch_factor": 1.0, "max_num_gen_batches": 30}
    result = played(
        dynamic_sampling=sampling, solving={"solve_rate_beta": [0.6, 0.6]}, steps=30, answers={"mean": 40, "sigma": 0.5, "cap": 200},
        times={"update": 0.1, "logprob": 0.0}, rewards=[{"kind": "rule", "time": 0.01, "p_timeout": 0}],
    )  # fmt: skip
    groups, samples = rows(result, "rl_groups"), rows(result, "rl_samples")
    trained = groups[groups["state"] == "trained"]
    assert len(trained) == 240
    assert ((trained["reward"] > 0) & (trained["reward"] < 1)).all()
    assert set(groups["reason"]) == {"", "zero_variance", "surplus"}
    flat = groups[groups["reason"] == "zero_variance"]
    assert set(flat["reward"]) == {0.0, 1.0}
    share = 1 - len(flat) / (groups["done"].notna().sum())
    expected = 1 - 2 * np.prod([(0.6 + k) / (1.2 + k) for k in range(4)])
    assert share == pytest.approx(expected, abs=0.05)
    wanted = DynamicSampling(**sampling).generated(8, expected)
    assert rows(result, "rl_steps")["launched"].mean() == pytest.approx(wanted, rel=0.1)
    assert len(samples) == 4 * len(groups)


def test_a_filter_that_lets_too_little_through():
    hard = {"solving": {"solve_rate": 0.2, "drift_per_100_steps": -10.0}, "answers": {"value": 20, "cap": 40}}
    given = {"dynamic_sampling": {"max_num_gen_batches": 2, "gen_batch_factor": 1.5}, "steps": 9, **hard}
    result = sim.run(scenario(**given))
    done = len(rows(result, "rl_steps"))
    assert 0 < done < 9
    assert any("run: dynamic sampling gave up: of 24 groups" in text for text in result.meta["remarks"])
    assert not faults(result)
    given["solving"] = {"solve_rate": 0.04}
    with pytest.raises(BadInput, match=r"dynamic sampling gave up: of 24 groups \d were neither all right nor all wrong, and 8 are wanted"):
        sim.run(scenario(**given))


# -- a clock that stops ------------------------------------------------------------
@pytest.mark.parametrize("duration", [1.0, 2.0, 9.0, 16.9, 31.0])
@pytest.mark.parametrize("changes", [
    {}, {"tail": {"kind": "partial"}}, {"tail": {"kind": "divided", "chunk": 50}}, {"updates": {"stream": 1}}, {"colocated": True},
    {"dynamic_sampling": {"style": "stream", "rest": "resume"}}, {"reward_at": "batch"},
], ids=["plain", "partial", "divided", "stream", "colocated", "sampled", "batch"])  # fmt: skip
def test_cut_anywhere_the_tables_are_whole(changes, duration):
    result = played(duration=duration, answers=VARIED, **changes)
    groups, samples = rows(result, "rl_groups"), rows(result, "rl_samples")
    assert groups["group"].tolist() == list(range(len(groups)))
    assert len(samples) == groups["launched"].sum()
    assert mine(result) == samples["tokens"].sum() + rows(result, "rl_waste").query("reason == 'in_flight'")["tokens"].sum()
    assert samples["begun"].notna().all()


def test_agents_with_more_context_than_a_replica_holds_are_remarked_on():
    agent = {"task": 50, "calls": 2, "output": 20, "tools": {"look": 1}, "context": {"max": 200_000}}
    result = played(answers=None, prompt=None, agents={"solver": agent}, tools={"look": {"time": "1s", "observation": 10}}, steps=1)
    assert [text for text in result.meta["remarks"] if "agent solver may use 200,000 tokens" in text]
