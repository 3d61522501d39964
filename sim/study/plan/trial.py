"""One run, judged: whether it met its service levels, by how much it missed them, and what held it back. Small, to cross processes."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sim.core.errors import BadInput
from sim.spec.limits import worded
from sim.spec.scenario import Scenario
from sim.study.figures import flat
from sim.study.run import run
from sim.study.workers import Crew

SOON = 6.0  # seconds of runs in which processes are not worth their start
BLOCKS, BATCH, PROMPTS = "KV cache", "batch size", "prompt computation"


class Trial(NamedTuple):
    """`limits` are those of the SLO as `slo.limits` has them, `figures` all of the run by dotted names. `refused`: why it could not run."""

    met: bool
    verdict: str
    limits: tuple[dict[str, Any], ...]
    attainment: float | None
    target: float | None
    why: tuple[str, ...]
    figures: dict[str, float | bool]
    refused: str = ""

    @property
    def misses(self) -> list[tuple[str, float]]:
        """Limits that were missed, with measured over allowed, the worst first; an overloaded run misses `throughput` before them."""
        found = [(row["limit"], row["measured_s"] / row["limit_s"]) for row in self.limits if row["ok"] is False]
        found.sort(key=lambda one: -one[1])
        short = self.attainment is not None and self.target is not None and self.attainment < self.target
        if short and not found:
            found.append(("attainment", self.target / max(self.attainment or 0.0, 1e-9)))  # type: ignore[operator]
        return [("throughput", 1.0), *found] if self.verdict == "overloaded" else found

    def paid(self, least: float) -> float:
        """Dollars per hour that it cost, `least` where it does not say."""
        return float(self.figures.get("cost.usd_per_hour", least))

    @property
    def tightest(self) -> tuple[str, float]:
        """Of the limits the one nearest to being missed, or missed most, with measured over allowed."""
        return max(((row["limit"], row["measured_s"] / row["limit_s"]) for row in self.limits if row["measured_s"] is not None),
                   key=lambda one: one[1], default=("", 0.0))  # fmt: skip


def trial(scenario: Scenario) -> Trial:
    """Run it and judge it. What cannot be run is a trial that met nothing and says why."""
    try:
        summary = run(scenario).summary
    except BadInput as error:
        return Trial(False, "", (), None, None, (), {}, "; ".join(problem.message for problem in error.problems))
    slo, verdict = summary["slo"], summary["verdict"]
    met = bool(slo["met"]) and verdict != "overloaded"
    why = tuple(reason["text"] for reason in summary["why"])
    # The seconds that the machine took are not the run's.
    figures = {name: value for name, value in flat(summary).items() if name != "run.cpu_s"}
    return Trial(met, verdict, tuple(slo["limits"] or ()), slo["attainment"], slo["target"], why, figures)


def trials(scenarios: Sequence[Scenario], jobs: int = 1) -> Iterator[tuple[int, Trial]]:
    """The trial of each with its place, `jobs` at a time, as they end."""
    began = time.perf_counter()
    for place, scenario in enumerate(scenarios):
        left = (time.perf_counter() - began) / max(place, 1) * (len(scenarios) - place)
        if place and jobs > 1 and left > SOON:
            with contextlib.closing(Crew(jobs=jobs).each(_placed, list(enumerate(scenarios))[place:])) as rest:
                yield from rest
            return
        yield place, trial(scenario)


def _placed(piece: tuple[int, Scenario]) -> tuple[int, Trial]:
    return piece[0], trial(piece[1])


def binding(one: Trial) -> str:
    """What a run that failed ran out of, in a word or two.

    >>> binding(Trial(False, "overloaded", (), None, None, ("Queues at replicas: 90% of ...; 80% while the KV cache was full.",), {}))
    'throughput, by KV cache'
    """
    if one.refused:
        return "GPU memory" if "does not fit" in one.refused or "KV" in one.refused else "layout"
    misses = one.misses
    if not misses:
        return ""
    name = misses[0][0]
    by = _resource(one.why)
    what = worded(name)
    return f"{what}, by {by}" if by else what


def _resource(why: Sequence[str]) -> str:
    """What requests waited for most, of the reasons the run gives."""
    for words, name in (("Rollouts bind", "rollouts"), ("The trainer binds", "the trainer")):
        if any(text.startswith(words) for text in why):
            return name
    queues = next((text for text in why if text.startswith("Queues at replicas")), "")
    parts = queues.partition(";")[2]
    for words, name in (("KV cache was full", BLOCKS), ("the batch was full", BATCH), ("prompts before them", PROMPTS)):
        if words in parts.split(",")[0]:
            return name
    return "the GPUs" if any("Nothing but the GPUs" in text for text in why) else ""
