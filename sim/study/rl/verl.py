"""The figures of a run under the names that verl logs them by, to be put beside a real log: means over the steps that count.

`timing_s/gen` is what the trainer waits for answers, as verl has it in asynchronous modes too; where GPUs change hands it has the switch in
it, which `generate_sequences` has not. `perf/throughput` is tokens of prompts and answers per second and GPU. verl's MFU does not halve
attention for its causal mask. A sample is a prompt's whole group to verl's asynchronous trainer, and a trajectory is one of its answers.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.study.rl.run import Run


def verl(run: Run, figures: dict[str, Any]) -> dict[str, float | int | None]:
    """`figures` are those of the run that are known by now."""
    parts = {name: float(seconds.mean()) for name, seconds in run.parts.items()}
    trained = run.trained
    tokens, length = run.samples["tokens"][trained], run.samples["length"][trained]
    asked, cut, rewards = length - tokens, run.samples["cut"][trained], run.samples["reward"][trained]
    stale = run.samples["lag_submit"][trained] > 0
    groups = np.unique(run.samples["group"][trained][stale])
    whole = run.column("length")
    found: dict[str, float | int | None] = {
        "timing_s/step": float(run.took.mean()),
        "timing_s/gen": parts["generate"] + parts["switch"],
        "timing_s/generate_sequences": figures["generate_s"],
        "timing_s/reward": parts["reward"], "timing_s/old_log_prob": parts["logprob"], "timing_s/ref": parts["reference"],
        "timing_s/update_actor": parts["update"], "timing_s/update_weights": parts["sync"],
        "timing_s/save_checkpoint": parts["checkpoint"], "timing_s/testing": parts["validation"],
        "perf/total_num_tokens": float(whole.mean()), "perf/time_per_step": float(run.took.mean()),
        "perf/throughput": float((whole / (run.took * run.gpus)).mean()),
        "perf/mfu/actor": figures["mfu"]["update_full_attention"],
        **_spread("response_length", tokens), "response_length/clip_ratio": _mean(cut),
        **_spread("prompt_length", asked),
        "critic/rewards/mean": _mean(rewards),
        "fully_async/trainer/idle_ratio": figures["trainer_idle_frac"],
        "fully_async/rollouter/idle_ratio": figures["rollout"]["idle_frac"],
        "fully_async/count/stale_samples_processed": len(groups),
        "fully_async/count/stale_trajectory_processed": int(stale.sum()),
        "fully_async/partial/total_partial_num": int((run.samples["segments"][trained] > 1).sum()),
        "fully_async/partial/partial_ratio": _mean(run.samples["segments"][trained] > 1),
        "fully_async/partial/max_partial_span": int((run.samples["newest"] - run.samples["oldest"])[trained].max(initial=0)),
    }  # fmt: skip
    if run.one["mode"] == "one_step_off":
        found["timing_s/wait_prev_gen"] = parts["generate"]
    return found


def _spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    some = len(values) > 0
    return {f"{name}/mean": _mean(values), f"{name}/max": float(values.max()) if some else None,
            f"{name}/min": float(values.min()) if some else None}  # fmt: skip


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
