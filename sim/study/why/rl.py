"""What a step of reinforcement learning waits for, as shares of it: reasons beside those of `why.py`, each with the evidence for it.

The critical path is the trainer's: what it waits for binds, and what it does not wait for does not. Where it waits for answers, rollouts
bind, and their tail says whether more GPUs would help; where rollouts stand idle and it does not wait, it binds itself. Shares are of the
step where not said otherwise.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.study.why.reason import Reason, lasting

if TYPE_CHECKING:
    from sim.study.metrics import Facts

# Of a round: below it, the last tenth of the samples is no tail worth a word.
TAIL = 0.2
# Of the prompts computed, those computed again.
AGAIN = 0.1
# Of the samples, those that a limit cut.
CUT = 0.05
WORDS = {
    "logprob": "log-probabilities of the policy", "reference": "log-probabilities of the reference", "update": "the update",
    "checkpoint": "checkpoints", "validation": "validation", "data": "loading data",
}  # fmt: skip


def reasons(facts: Facts) -> Iterator[Reason | None]:
    """Of each run; nothing where there are none."""
    found = facts.rl or {}
    for name, one in found.items():
        if one is not None:
            said = f"{name}: " if len(found) > 1 else ""
            for reason in (_rollouts(one), _trainer(one), _tail(one), _reward(one), _sync(one), _stops(one), _again(one), _waste(one),
                           _cut(one)):  # fmt: skip
                yield None if reason is None else reason._replace(text=said + reason.text)


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _rollouts(one: dict[str, Any]) -> Reason | None:
    """The trainer waits for answers."""
    share, seconds = one["breakdown"]["share"]["generate"], one["breakdown"]["seconds"]["generate"]
    engines, rounds = one["rollout"], one["tail"]
    text = f"the trainer waited for answers in {_percent(share)} of a step ({lasting(seconds)} of {lasting(one['step_s']['mean'])})."
    if _trainer(one) is not None:
        return Reason("rl_rollouts", share, f"Answers: {text}")
    text = f"Rollouts bind: {text}"
    idle, turns = engines["idle_frac"] or 0.0, one["lengths"]["turns"] or 1.0
    if turns > 1:
        return Reason("rl_rollouts", share, text + f" A sample makes {turns:.3g} calls, and engines had a step in {_percent(1 - idle)} of "
                      "the time: what samples wait for between calls counts too.")  # fmt: skip
    if rounds and rounds["last_10_percent"] > TAIL:
        return Reason("rl_rollouts", share, text + _floor(one))
    if idle < 0.1:
        batch = f" in batches of {engines['mean_batch']:.3g}" if engines["mean_batch"] else ""
        return Reason("rl_rollouts", share, text + f" Engines had a step in {_percent(1 - idle)} of the time{batch}: more of them, or "
                      "shorter answers, shorten the step.")  # fmt: skip
    return Reason("rl_rollouts", share, text)


def _floor(one: dict[str, Any]) -> str:
    """What more GPUs cannot help."""
    speed = one["latency"]["longest_sample_tokens_per_s"]
    if not speed:
        return ""
    return (
        f" Its end is a tail: the longest answers ran at {speed:.3g} tokens/s, which no further GPU raises; a lower cap, answers cut off, "
        "over-sampling or asynchronous rollouts shorten it."
    )


def _trainer(one: dict[str, Any]) -> Reason | None:
    """Rollouts stand idle, and the trainer does not wait for them."""
    parts, idle = one["breakdown"]["share"], one["rollout"]["idle_frac"]
    waits = parts["generate"] + parts["reward"]
    if one["mode"] not in ("async", "one_step_off") or idle is None or idle <= max(waits, 0.05):
        return None
    most = max(("update", "logprob", "reference"), key=lambda part: parts[part])
    paused = sum(share or 0.0 for share in one["rollout"]["paused_frac"].values())
    ready = one["groups"]["ready_at_end_of_step"]
    held = f" {ready:.3g} groups were ready when it ended." if ready >= 1 else ""
    stale = "the bound on staleness lets no more begin" if one["mode"] == "async" else "a batch is generated for one step at a time"
    return Reason("rl_trainer", idle, (
        f"The trainer binds: rollouts stood idle in {_percent(idle)} of the time, {_percent(paused)} for new weights, else as {stale}; "
        f"the trainer waited in {_percent(waits)}, and {WORDS[most]} took {_percent(parts[most])} of a step.{held} A faster trainer "
        "shortens the step; fewer GPUs for rollouts would cost little."
    ))  # fmt: skip


def _tail(one: dict[str, Any]) -> Reason | None:
    rounds = one["tail"]
    if rounds is None or rounds["last_10_percent"] <= TAIL:
        return None
    idle = f", and engines stood idle in {_percent(rounds['idle_frac'])} of it" if rounds["idle_frac"] else ""
    gap = rounds["first_to_last"]
    apart = f"; the first engine was done {_percent(gap)} of a round before the last" if gap else ""
    return Reason("rl_tail", rounds["last_10_percent"], (
        f"A long tail: the last 10% of the samples took {_percent(rounds['last_10_percent'])} of a round ({lasting(rounds['round_s'])})"
        f"{idle}{apart}."
    ))  # fmt: skip


def _reward(one: dict[str, Any]) -> Reason | None:
    share, graders = one["breakdown"]["share"]["reward"], one["rewards"]
    if not share:
        return None
    text = f"Rewards: all answers were there, and the trainer waited for grades in {_percent(share)} of a step"
    if graders:
        name, worst = max(graders.items(), key=lambda item: item[1]["longest_s"] or 0.0)
        took = worst["time_s"]
        if took:
            queue = worst["queue_s"]["mean"] / took["mean"] if took["mean"] else 0.0
            late = worst["outcomes"].get("timeout", 0) / max(worst["count"], 1)
            text += f" ({name}: {lasting(took['p50'])} at p50, {lasting(worst['longest_s'])} at most, {_percent(queue)} of the time in line"
            text += f", {late:.2%} ran into the time-out)" if late else ")"
    return Reason("rl_reward", share, text + ". More graders, shorter time-outs, or grading each answer as it ends hide them.")


def _sync(one: dict[str, Any]) -> Reason | None:
    parts = one["breakdown"]["share"]
    share = parts["sync"] + parts["switch"]
    if not share:
        return None
    moved = one["syncs"]
    what = f", {lasting(moved['time_s']['mean'])} each from begin to end for {moved['gb_per_replica']:.3g} GB a replica" if moved else ""
    both = f", and GPUs changing hands {_percent(parts['switch'])}" if parts["switch"] else ""
    return Reason("rl_sync", share, f"New weights: the trainer stood still for them in {_percent(parts['sync'])} of a step{both}{what}.")


def _stops(one: dict[str, Any]) -> Reason | None:
    parts = one["breakdown"]["share"]
    share = {name: parts[name] for name in ("checkpoint", "validation", "data")}
    said = ", ".join(f"{WORDS[name]} {_percent(part)}" for name, part in share.items() if part >= 0.005)
    return Reason("rl_stops", sum(share.values()), f"Stops: of a step, {said}.") if said else None


def _again(one: dict[str, Any]) -> Reason | None:
    engines = one["rollout"]
    if not engines["recomputed_tokens"] or engines["recomputed_tokens"] < AGAIN * engines["prefilled_tokens"]:
        return None
    share = engines["recomputed_tokens"] / engines["prefilled_tokens"]
    took = lasting(engines["recompute_s"] or 0.0)
    lost = f"{engines['preemptions']:,} preemptions" if engines["preemptions"] else "no preemption"
    return Reason("rl_recomputed", share, (
        f"Computed again: {_percent(share)} of the prompt tokens that engines computed they had computed before ({lost}; caches "
        f"thrown away at publications: {one['waste']['forgotten_tokens']:,} tokens). It took {took} of each engine per step."
    ))  # fmt: skip


def _waste(one: dict[str, Any]) -> Reason | None:
    lost = one["waste"]
    if not lost["total"] or not lost["share"]:
        return None
    first = sorted(lost["by_share"].items(), key=lambda item: -item[1])[:3]
    said = ", ".join(f"{name.replace('_', ' ')} {_percent(share)}" for name, share in first)
    return Reason("rl_waste", lost["share"], f"Tokens in vain: {_percent(lost['share'])} of all that were generated ({said}).")


def _cut(one: dict[str, Any]) -> Reason | None:
    """A limit of length decides for many what comes of them."""
    share, turns = one["lengths"]["generated_cut"], one["lengths"]["turns"] or 1.0
    if not share or share < CUT:
        return None
    limit = "the context of the agent or the engines' max_model_len" if turns > 1 else "the cap of answers or of the tail policy"
    return Reason("rl_cut", share, f"Cut off: {_percent(share)} of the samples that ended ran into a limit, {limit}, and count as wrong.")
