"""Reinforcement learning on a page: the step and what it goes to, who waits for whom, staleness, answers, rewards, publications, money; and
the same under verl's names. Drawings are in `rl_plots.py`.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sim.report.section import Panel, Sheet
from sim.report.words import counted, dollars, number, percent, scaled, seconds

Figures = Mapping[str, Any]
Rows = list[tuple[str, str]]
MODES = {
    "sync_colocated": "in turns on the same GPUs", "sync_disaggregated": "in turns, on GPUs of their own",
    "one_step_off": "one step off", "async": "asynchronous",
}  # fmt: skip
PARTS = {
    "generate": "Waiting for answers", "reward": "Waiting for rewards", "data": "Waiting for data", "logprob": "Log-probabilities",
    "reference": "The reference's", "update": "Update", "sync": "Weights on their way", "switch": "GPUs changing hands",
    "checkpoint": "Checkpoint", "validation": "Validation", "other": "Other",
}  # fmt: skip
PASSES = ("logprob", "reference", "update")
STATES = {
    "pending": "to begin again", "running": "running", "partial": "stopped half-way", "done": "waiting for rewards", "scored": "scored",
    "accepted": "waiting for the trainer", "rejected": "rejected", "stale_dropped": "dropped, too old", "trained": "trained on",
}  # fmt: skip
STANDING = {"update": "for new weights", "drain": "for others to stop"}
OUTCOMES = ("timeout", "failed", "cancelled")
# What verl calls a figure, and what `summary.json` does under `rl` and the name of the run.
OURS = {
    "timing_s/step": "step_s.mean", "timing_s/gen": "exposed_gen_s and the switch", "timing_s/wait_prev_gen": "exposed_gen_s",
    "timing_s/generate_sequences": "generate_s", "timing_s/reward": "exposed_reward_s", "timing_s/update_weights": "exposed_sync_s",
    "timing_s/old_log_prob": "breakdown.seconds.logprob", "timing_s/ref": "breakdown.seconds.reference",
    "timing_s/update_actor": "breakdown.seconds.update", "timing_s/save_checkpoint": "breakdown.seconds.checkpoint",
    "timing_s/testing": "breakdown.seconds.validation", "perf/time_per_step": "step_s.mean", "perf/mfu/actor": "mfu.update_full_attention",
    "response_length/mean": "lengths.trained.mean", "response_length/clip_ratio": "lengths.trained_cut",
    "critic/rewards/mean": "groups.mean_reward", "fully_async/trainer/idle_ratio": "trainer_idle_frac",
    "fully_async/rollouter/idle_ratio": "rollout.idle_frac", "fully_async/partial/partial_ratio": "staleness.partial_ratio",
    "fully_async/partial/max_partial_span": "staleness.max_partial_span",
}  # fmt: skip


def runs(summary: Figures) -> dict[str, Figures]:
    """The figures of each run that made a step."""
    return {name: one for name, one in (summary["rl"] or {}).items() if one}


def cards(summary: Figures) -> Iterator[tuple[str, str, str]]:
    """(name, value, more) of what a run is asked for first."""
    found = runs(summary)
    for name, one in found.items():
        of = f", {name}" if len(found) > 1 else ""
        steps, spread, rollout, share = one["steps"], one["step_s"], one["rollout"], one["breakdown"]["share"]
        skipped = f", the first {'' if steps['skipped'] == 1 else str(steps['skipped']) + ' '}left out" if steps["skipped"] else ""
        yield f"A step{of}", seconds(spread["mean"]), f"p99 {seconds(spread['p99'])}; {counted(steps['counted'], 'step')}{skipped}"
        passes = percent(sum(share[part] for part in PASSES))
        if one["colocated"]:
            yield f"GPUs generate{of}", percent(share["generate"]), f"of a step; updates and log-probabilities {passes}"
        else:
            yield (f"Trainer waits{of}", percent(one["trainer_idle_frac"]),
                   f"for answers {percent(share['generate'])}, for rewards {percent(share['reward'])} of a step")  # fmt: skip
        standing = sum(part or 0.0 for part in rollout["paused_frac"].values())
        yield (f"Rollout bubble{of}", percent(rollout["bubble"]),
               f"of full batches; engines without a step {percent(rollout['idle_frac'])}, paused {percent(standing)}")  # fmt: skip
        if one["staleness"]:
            lags, partial = one["staleness"], one["staleness"]["partial_ratio"]
            yield (f"Staleness{of}, mean", number(lags["lag_mean"]["mean"]),
                   f"versions; at most {number(lags['lag_submit']['max'])} since begun; {percent(partial)} written by several")  # fmt: skip
        rates, money = one["throughput"], one["money"]
        yield (f"Tokens trained on{of}", f"{number(rates['trained_tokens_per_s_per_gpu'])}/s",
               f"per GPU; generated {number(rates['generated_tokens_per_s_per_gpu'])}, "
               f"useful {number(rates['useful_tokens_per_s_per_gpu'])}")  # fmt: skip
        price = None if money["usd_per_trained_sample"] is None else 1e3 * money["usd_per_trained_sample"]
        yield f"Dollars per step{of}", dollars(money["usd_per_step"]), f"{dollars(price)} per 1,000 samples trained on"


def panels(summary: Figures) -> Iterator[Panel]:
    """Each run in figures."""
    found = runs(summary)
    for name, one in found.items():
        of = f" of {name}" if len(found) > 1 else ""
        yield Panel(f"Reinforcement learning{of}", _whole(one))
        yield Panel(f"Rollouts{of}", _rollouts(one))
        yield Panel(f"Answers{of}", _answers(one))
        if one["staleness"]:
            yield Panel(f"Staleness{of}", _staleness(one["staleness"]))


def _whole(one: Figures) -> Rows:
    gpus, spread, money, groups = one["gpus"], one["step_s"], one["money"], one["groups"]
    shared = f"{gpus['all']:,}, shared" if one["colocated"] else f"{gpus['rollout']:,} generate, {gpus['train']:,} train"
    return [
        ("Rollouts and training", MODES[one["mode"]]), ("GPUs", shared),
        ("Versions made", f"{one['steps']['made']:,}"),
        *((f"A step, {part}", seconds(spread[part])) for part in ("mean", "p50", "p99")),
        ("A round of generation", seconds(one["generate_s"])),
        ("MFU in updates, attention in full", percent(one["mfu"]["update_full_attention"])),
        ("Groups trained on, per step", number(groups["trained_per_step"])),
        ("Groups ready at the end of a step", number(groups["ready_at_end_of_step"])),
        *((f"Groups {STATES[state]}", f"{count:,}") for state, count in groups["states"].items()),
        ("Mean reward", number(groups["mean_reward"])),
        ("GPU-hours per step", number(money["gpu_hours_per_step"])),
        ("A million useful tokens", dollars(money["usd_per_million_useful_tokens"])),
    ]  # fmt: skip


def _rollouts(one: Figures) -> Rows:
    rollout, rates, waste = one["rollout"], one["throughput"], one["waste"]
    stood = {words: rollout["paused_frac"].get(why) for why, words in STANDING.items()}
    rows = [
        ("Replicas", f"{rollout['replicas']:,}"),
        ("Without a step, of the time awake", percent(rollout["idle_frac"])),
        *((f"Paused {words}", percent(share)) for words, share in stood.items() if share),
        *([("Asleep", percent(rollout["asleep_frac"]))] if rollout["asleep_frac"] else []),
        ("Tokens not generated, of what full batches would", percent(rollout["bubble"])),
        ("Batch, mean and full", f"{number(rollout['mean_batch'])} of {number(rollout['full_batch'])}"),
        ("Context, mean", f"{number(rollout['mean_context'])} tokens"),
        ("Tokens per second and rollout GPU", number(rates["generated_tokens_per_s_per_rollout_gpu"])),
        ("Samples per second", number(rates["samples_per_s"])),
        ("Preemptions", f"{rollout['preemptions']:,}"),
        ("Prompt tokens computed again", scaled(float(waste["recomputed_tokens"])).strip()),
    ]  # fmt: skip
    if rollout["recompute_s"]:
        rows.append(("Of a replica's step, to compute them", seconds(rollout["recompute_s"])))
    return [*rows, ("Generated in vain, of all tokens", percent(waste["share"]))]


def _answers(one: Figures) -> Rows:
    lengths, latency, tail = one["lengths"], one["latency"], one["tail"]
    rows = []
    for key, words in (("generated", "generated"), ("trained", "trained on")):
        spread = lengths[key] or {}
        parts = ", ".join(number(spread.get(part) and round(spread[part])) for part in ("mean", "p50", "p99"))
        rows.append((f"Tokens {words}: mean, p50, p99", parts))
    rows += [
        ("Trained on over generated, means", number(lengths["trained_over_generated"])),
        ("Ran into the limit", percent(lengths["generated_cut"])),
    ]  # fmt: skip
    if (lengths["turns"] or 1.0) > 1:
        rows.append(("Calls of the model", number(lengths["turns"])))
    for key, words in (("sample_s", "A sample"), ("group_s", "A group"), ("buffer_s", "Then ready and waiting")):
        spread = latency[key] or {}
        rows.append((f"{words}: p50, p99", f"{seconds(spread.get('p50'))}, {seconds(spread.get('p99'))}"))
    rows.append(("Tokens per second of the longest", number(latency["longest_sample_tokens_per_s"])))
    if tail:
        rows += [
            ("The last 10% of samples, of a round's time", percent(tail["last_10_percent"])),
            ("First to last replica to finish, of it", percent(tail["first_to_last"])),
            *((f"Still running at {percent(float(moment))} of it", percent(share)) for moment, share in tail["running_at"].items()),
        ]  # fmt: skip
    return rows


def _staleness(found: Figures) -> Rows:
    if not found["lag_submit"]["max"]:
        return [("All samples", "of the version that was updated")]
    names = {"lag_submit": "since their group began", "lag_oldest": "since their first token", "lag_mean": "over their tokens"}
    rows = [(f"Versions {words}: mean, most", f"{number(found[key]['mean'])}, {number(found[key]['max'])}") for key, words in names.items()]
    limit = found["bound"]
    if limit:
        rows.append((f"Beyond the bound of {number(limit['versions'])}", f"{limit['violations']:,} ({percent(limit['violations_share'])})"))
    return [
        *rows, ("Written by several versions", percent(found["partial_ratio"])),
        ("Versions between first and last token, most", f"{found['max_partial_span']:,}"),
        ("Groups dropped as too old", f"{found['stale_dropped_groups']:,}"),
    ]  # fmt: skip


def sheets(summary: Figures) -> Iterator[Sheet]:
    """Where a step goes, graders, publications, tokens in vain, verl's names."""
    found = runs(summary)
    for name, one in found.items():
        of = f" of {name}" if len(found) > 1 else ""
        yield _parts(one, of)
        if one["rewards"]:
            yield _graders(one["rewards"], of)
        if one["syncs"]:
            yield _syncs(one["syncs"], of)
        yield _waste(one["waste"], of)
        yield _verl(one["verl"], of)


def _parts(one: Figures, of: str) -> Sheet:
    spent, share = one["breakdown"]["seconds"], one["breakdown"]["share"]
    rows = [[words, seconds(spent[part]), percent(share[part])] for part, words in PARTS.items() if spent[part]]
    rows.append(["All", seconds(one["step_s"]["mean"]), "100%"])
    note = "What the trainer did or waited for, the mean over the steps counted. What others do meanwhile does not show."
    return Sheet(f"Where a step{of} goes", ("Part", "Seconds", "Share"), rows, note)


def _graders(found: Figures, of: str) -> Sheet:
    rows = []
    for name, one in found.items():
        took, line, ended = one["time_s"] or {}, one["queue_s"] or {}, one["outcomes"]
        rows.append([
            name, f"{one['count']:,}", seconds(took.get("mean")), seconds(took.get("p99")), seconds(line.get("mean")),
            seconds(line.get("p99")), *(f"{ended.get(outcome, 0):,}" for outcome in OUTCOMES), percent(one["utilization"]),
        ])  # fmt: skip
    heads = ("Grader", "Verdicts", "Time, mean", "p99", "Queued, mean", "p99", "Timed out", "Failed", "Called off", "Used")
    note = "Time is from asked to answered, queue included. Used: of its servers, where their number is given."
    return Sheet(f"Who gave rewards{of}", heads, rows, note)


def _syncs(one: Figures, of: str) -> Sheet:
    took = one["time_s"] or {}
    rows = [
        ["Publications", f"{one['count']:,}"],
        ["From weights ready to engines going on, mean and p99", f"{seconds(took.get('mean'))}, {seconds(took.get('p99'))}"],
        ["Of it, the trainer gathers", seconds(one["gather_s"])], ["Engines stand still", seconds(one["engines_pause_s"])],
        ["The trainer stands still", seconds(one["trainer_stall_s"])], ["Bytes, each replica", f"{scaled(1e9 * one['gb_per_replica'])}B"],
        ["Bytes per second, all replicas", "–" if one["gb_per_s"] is None else f"{scaled(1e9 * one['gb_per_s'])}B/s"],
        ["Samples that run then", number(one["running_samples"])], ["Of them called off", number(one["stopped_samples"])],
    ]  # fmt: skip
    return Sheet(f"New weights{of}", ("A publication, mean", ""), rows, "A version is out when all engines have it.")


def _waste(one: Figures, of: str) -> Sheet:
    order = sorted(one["tokens"], key=lambda reason: -one["tokens"][reason])
    rows = [[_words(reason), scaled(float(one["tokens"][reason])).strip(), percent(one["by_share"][reason])] for reason in order]
    if rows:
        rows.append(["all", scaled(float(one["total"])).strip(), percent(one["share"])])
    return Sheet(f"Tokens generated in vain{of}", ("Why", "Tokens", "Of all"), rows, "Over the whole run; of all tokens generated.")


def _verl(found: Figures, of: str) -> Sheet:
    rows = [[key, _figure(key, value), OURS.get(key, "")] for key, value in found.items() if value is not None]
    note = f"Means over the steps counted, to be put beside a log. Ours: the name in summary.json, under rl{' and the run' if of else ''}."
    return Sheet(f"Under verl's names{of}", ("verl", "Value", "Ours"), rows, note, tall=True)


def _figure(key: str, value: float) -> str:
    return seconds(value) if key.startswith("timing_s/") or key == "perf/time_per_step" else number(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
