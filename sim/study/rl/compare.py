"""Which way of running reinforcement learning won, by what, and why: runs of one job in several modes, each against the first.

Two runs are compared by the seconds of a step, those of the other scaled to as many trained samples. A step is work one after the other,
less what overlaps:

    step = generation + rewards, log-probabilities, updates, weights, ... - overlap

where generation is all that a version's answers take (a round; where there are none, the seconds of steps of the mean engine per version),
and overlap is what of it the trainer did not wait for. So the gain is, exactly, the sum of what each part became shorter by and the overlap
gained. Splitting GPUs makes both roles slower, x_g and x_h times; asynchronous work pays where the longer of g x_g and h x_h is less than
the g + h of taking turns, and it can lose.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sim.study.result import Result
from sim.study.why.reason import lasting

# Terms of a gain: the parts of a step that each is made of, generation and overlap apart.
TERMS = {
    "logprob": ("logprob", "reference"), "update": ("update",), "reward": ("reward",), "sync": ("sync", "switch"),
    "other": ("checkpoint", "validation", "data", "other"),
}  # fmt: skip
WORDS = {
    "overlap": "overlap", "generation": "generation", "recompute": "prompts computed again", "logprob": "log-probabilities",
    "update": "updates", "reward": "rewards", "sync": "weights and GPUs changing hands", "other": "the rest",
}  # fmt: skip
# Of the first run's step: a difference below it is none.
SAME = 0.02
# Of the mean length of the first run's samples: more than that, and work was saved by training on other answers.
BIASED = 0.05


class Comparison(NamedTuple):
    """`rows`, one per run, by which figures are compared with the first; `lines`: who won, and for each of the others why."""

    rows: list[dict[str, Any]]
    lines: list[str]

    @property
    def text(self) -> str:
        """The lines as one."""
        return " ".join(self.lines)


def compare(results: Mapping[str, Result]) -> Comparison:
    """Runs by name, the first being what others are compared with. Each must hold one run of reinforcement learning with a step that
    counts; raises ValueError for one that does not.
    """
    return compare_figures({name: _only(name, result.summary["rl"]) for name, result in results.items()})


def _only(name: str, found: Mapping[str, Any] | None) -> Mapping[str, Any]:
    some = [one for one in (found or {}).values() if one is not None]
    if len(some) != 1:
        raise ValueError(f"{name} holds {len(some)} runs of reinforcement learning with a step; one is compared")
    figures: Mapping[str, Any] = some[0]
    return figures


def compare_figures(runs: Mapping[str, Mapping[str, Any]]) -> Comparison:
    """The same of figures, as `summary["rl"]` has those of one run."""
    first = next(iter(runs.values()))
    rows = [{"name": name, **_row(one, first)} for name, one in runs.items()]
    best = min(rows, key=lambda row: row["step_s"])
    lines = [f"{best['name']} is the fastest: {lasting(best['step_s'])} a step"
             + (f", {best['speedup']:.2f} times as fast as {rows[0]['name']}." if best is not rows[0] else ".")]  # fmt: skip
    lines += [f"{row['name']} {_verdict(row, rows[0])}" for row in rows[1:]]
    return Comparison(rows, lines)


def _row(one: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """A run in figures. `terms`: seconds of the first run's step that it saves (negative: loses) by each cause; they sum to `saved_s`."""
    mine, base = _work(one, _samples(first) / _samples(one)), _work(first, 1.0)
    terms = {name: base[name] - mine[name] for name in mine if name not in ("overlap", "step")}
    terms["overlap"] = mine["overlap"] - base["overlap"]
    gpus, speedup = one["gpus"]["all"], base["step"] / mine["step"]
    return {
        "mode": one["mode"], "gpus": dict(one["gpus"]), "step_s": mine["step"], "speedup": speedup,
        "speedup_per_gpu": speedup * first["gpus"]["all"] / gpus, "saved_s": base["step"] - mine["step"], "terms": terms,
        "generation_s": mine["generation"] + mine["recompute"], "update_s": mine["update"], "train_s": mine["update"] + mine["logprob"],
        "x_generation": _times(mine["generation"] + mine["recompute"], base["generation"] + base["recompute"]),
        "x_update": _times(mine["update"], base["update"]), "wait_s": one["breakdown"]["seconds"]["generate"],
        "breakdown": dict(one["breakdown"]["seconds"]), "trainer_idle_frac": one["trainer_idle_frac"],
        "rollout_idle_frac": one["rollout"]["idle_frac"], "bubble": one["rollout"]["bubble"],
        "lag_mean": one["staleness"]["lag_mean"]["mean"] if one["staleness"] else None, "usd_per_step": one["money"]["usd_per_step"],
        "x_length": _times(_length(one), _length(first)),
    }  # fmt: skip


def _samples(one: Mapping[str, Any]) -> float:
    """Samples trained on per step."""
    figures = one["throughput"]["trained_samples_per_s"], one["step_s"]["mean"]
    return float(figures[0] * figures[1])


def _length(one: Mapping[str, Any]) -> float:
    """Tokens of a sample that is trained on, the mean."""
    trained = one["lengths"]["trained"]
    return float(trained["mean"]) if trained else 0.0


def _work(one: Mapping[str, Any], scale: float) -> dict[str, float]:
    """Seconds of a step one after the other, and of those the seconds that overlap; `scale`: times as many samples."""
    parts, step = one["breakdown"]["seconds"], one["step_s"]["mean"]
    again = one["rollout"]["recompute_s"] or 0.0
    whole = one["generate_s"]
    if whole is None:
        whole = (1.0 - (one["rollout"]["idle_frac"] or 0.0)) * step * (1.0 - (one["rollout"]["asleep_frac"] or 0.0))
    found = {"generation": whole - again, "recompute": again, "overlap": whole - parts["generate"], "step": step}
    found |= {name: sum(parts[part] for part in of) for name, of in TERMS.items()}
    return {name: seconds * scale for name, seconds in found.items()}


def _times(mine: float, base: float) -> float | None:
    return mine / base if base > 0 else None


def _verdict(row: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """Whether a run won or lost against the first, and why."""
    saved, terms, step = row["saved_s"], row["terms"], first["step_s"]
    whose = f"{lasting(row['step_s'])} a step in place of {lasting(step)}"
    much = [name for name in sorted(terms, key=lambda name: -abs(terms[name])) if abs(terms[name]) >= SAME * step]
    gained = ", ".join(f"{WORDS[name]} {lasting(terms[name])}" for name in much if terms[name] > 0)
    lost = ", ".join(f"{WORDS[name]} {lasting(-terms[name])}" for name in much if terms[name] < 0)
    if abs(saved) < SAME * step:
        word = f"is as fast ({whose})"
    elif saved > 0:
        word = f"won: {whose}, {row['speedup']:.2f} times as fast"
    else:
        word = f"lost: {whose}"
    text = word + (f". Gained: {gained}" if gained else "") + (f". Lost: {lost}" if lost else "") + "."
    return text + _split(row, first) + _bias(row, first) + _fleet(row, first)


def _split(row: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """What splitting the GPUs did to both roles, and what of it decides."""
    x_g, x_h = row["x_generation"], row["x_update"]
    if row["mode"] not in ("async", "one_step_off") or x_g is None or x_h is None or first["mode"] in ("async", "one_step_off"):
        return ""
    g, h = first["generation_s"], first["train_s"]
    here = row["generation_s"], row["train_s"]
    longer, role = max(here), "generation" if here[0] >= here[1] else "training"
    gpus, before = row["gpus"], first["gpus"]
    than = "more" if longer > g + h else "less"
    return (
        f" Generation on {_gpus(gpus['rollout'])} (before: {before['rollout']}) took {x_g:.2f} times as long, updates on {gpus['train']} "
        f"(before: {before['train']}) {x_h:.2f} times: the longer of both is {role}, {lasting(longer)}, {than} than the {lasting(g + h)} "
        "of one after the other."
    )


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count != 1 else ''}"


def _bias(row: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """Whether it trains on other answers, shorter in the main, as over-sampling and dropping what is late do."""
    times = row["x_length"]
    if times is None or abs(times - 1) <= BIASED:
        return ""
    which, fast = "shorter" if times < 1 else "longer", row["speedup"] * times
    return f" It trains on {which} answers, {times:.2f} times as long: by tokens it is {fast:.2f} times as fast."


def _fleet(row: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    mine, base = row["gpus"]["all"], first["gpus"]["all"]
    return "" if mine == base else f" It has {mine} GPUs, {first['name']} {base}: per GPU it is {row['speedup_per_gpu']:.2f} times as fast."
