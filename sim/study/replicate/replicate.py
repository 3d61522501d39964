"""Run a scenario several times over, each time with other luck, until there are enough.

Replication 0 is the scenario itself; the others differ from it in their seed alone. Replication k of two scenarios with the same seed has
the same luck (common random numbers), so that differences between them show sooner. Stopping at a wanted precision looks at the first n
replications, n growing one by one, whatever order they end in: the answer does not depend on how many run at a time.
"""
from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sim.core.errors import BadInput, Problem
from sim.core.rng import mix
from sim.spec.load import load, loads
from sim.spec.scenario import Scenario
from sim.study.figures import findings, flat, known
from sim.study.replicate.interval import REPLICATIONS, enough, wanted
from sim.study.replicate.replications import ABOUT, SAVED, Replications, key, saved, table_of
from sim.study.replicate.window import Warmup, warmed
from sim.study.result import Result, check_writable
from sim.study.run import run
from sim.study.validate.store import program

MOST = 1000  # replications at which a wanted precision is given up
SOON = 1.0  # seconds of runs for which processes are not worth their start, and between two saves


class Plan(NamedTuple):
    """`n` replications, and more, up to `most`, until each figure of `precision` has its relative half-width; `warmup` to be left out."""

    n: int
    precision: tuple[tuple[str, float], ...] = ()
    most: int | None = None
    warmup: Warmup = None


def seed(base: int, number: int) -> int:
    """The seed of a replication of a scenario whose seed is `base`; that of the first is `base` itself.

    >>> seed(7, 0), seed(7, 1) == seed(7, 1), seed(7, 1) != seed(7, 2), seed(7, 1) < 2**63
    (7, True, True, True)
    """
    return base if number == 0 else mix(base, number) >> 1


def seeded(scenario: Scenario, number: int) -> Scenario:
    """A replication of a scenario."""
    return scenario.model_copy(update={"seed": seed(scenario.seed, number)})


def replicate(
    scenario: Scenario | Mapping[str, Any] | str | Path, n: int = 10, *, precision: Mapping[str, float] | None = None,
    most: int | None = None, warmup: Warmup = None, folder: str | Path | None = None,
) -> Replications:  # fmt: skip
    """Run a scenario `n` times, and then until each figure of `precision` (such as {"ttft_s.p99": 0.05}) is known to that share of itself.

    `warmup`: seconds, or "mser", left out of each run (`window.py`). `folder`: keeps what is done, and is gone on with. Raises
    BadInput for fewer than two replications, for unknown figures, and for what a run refuses.
    """
    plan = Plan(n, tuple((precision or {}).items()), most, warmup)
    *_, found = replications(given(scenario), plan, Path(folder) if folder is not None else None, jobs=os.cpu_count() or 1)
    return found


def replications(
    scenario: Scenario, plan: Plan, folder: Path | None = None, *, jobs: int = 1, progress: Callable[..., None] | None = None,
) -> Iterator[Replications]:  # fmt: skip
    """As `replicate`, `jobs` at a time; yields what is finished after each, and last what was asked for.

    With a folder, the result of the first replication is saved in it, and the rows of all; rows that are there already are not run again.
    `progress(done, total, name)` is for the whole.
    """
    _able(scenario, plan)
    rows = _kept(scenario, plan.warmup, folder)
    put = time.monotonic()
    if 0 not in rows or (folder is not None and not (folder / "meta.json").is_file()):
        if progress is not None:
            progress(0, plan.n, "replications")
        result = warmed(run(scenario), plan.warmup)
        rows[0] = row(0, result)
        if folder is not None:
            result.save(folder)
    each = float(rows[0]["figures"]["run.cpu_s"])
    names = list(rows[0]["figures"])
    for name, _ in plan.precision:
        known(name, findings(names), "--precision")
    found, target, done = _found(scenario, plan, rows, plan.n), plan.n, False
    try:
        yield found
        while not done:
            missing = [number for number in range(target) if number not in rows]
            for one in _all(scenario, plan.warmup, missing, jobs if each * len(missing) > SOON else 1):
                rows[one["replication"]] = one
                found = _found(scenario, plan, rows, target)
                if progress is not None:
                    progress(len(found), target, "replications")
                if folder is not None and time.monotonic() - put > SOON:
                    found.save(folder)
                    put = time.monotonic()
                yield found
            done, target = _next(scenario, plan, rows, target)
        found = _found(scenario, plan, rows, target)
        found = _remarked(found, plan)
    finally:
        if folder is not None and (folder / "meta.json").is_file():
            found.save(folder)
    yield found


def given(scenario: Scenario | Mapping[str, Any] | str | Path) -> Scenario:
    """A scenario as `sim.run` takes it."""
    if isinstance(scenario, Scenario):
        return scenario
    return load(scenario) if isinstance(scenario, (str, Path)) else loads(scenario)


def prepare(scenario: Scenario, warmup: Warmup, folder: Path, force: bool) -> None:
    """See that replications can be saved in a folder, before the first of them runs. Those of the same scenario, warm-up and program are
    gone on with; others, and any other result, are replaced with `force`. Raises BadInput.
    """
    if (folder / SAVED).is_file() and not force:
        _kept(scenario, warmup, folder)
        return
    check_writable(folder, force)
    if folder.is_dir() and any(folder.iterdir()):
        import shutil

        shutil.rmtree(folder)


def _able(scenario: Scenario, plan: Plan) -> None:
    """Raises BadInput for a plan that cannot be followed."""
    problems = []
    if plan.n < 2:
        problems.append(f"found {plan.n} for the replications; an interval needs 2 or more")
    if plan.most is not None and not plan.precision:
        problems.append("--most bounds how many more replications a --precision may take, and none is given")
    elif plan.most is not None and plan.most < plan.n:
        problems.append(f"--most {plan.most} is below the {plan.n} replications wanted at least")
    problems += [f"the precision of {name} is {bound:g}; a share of the figure between 0 and 1 is wanted, such as 5%"
                 for name, bound in plan.precision if not 0 < bound < 1]  # fmt: skip
    if scenario.ladder or scenario.curve:
        what = "ladder" if scenario.ladder else "curve"
        problems.append(f"the scenario has a {what}, which is a study of its own; replications are of one run")
    if problems:
        raise BadInput([Problem(text) for text in problems])


def _kept(scenario: Scenario, warmup: Warmup, folder: Path | None) -> dict[int, dict[str, Any]]:
    """Rows of a folder by their numbers. Raises BadInput when they are of something else."""
    if folder is None or not (folder / SAVED).is_file():
        return {}
    said, table = saved(folder)
    again = "choose another folder, or give --force to replace it"
    if said["method"] != REPLICATIONS:
        raise BadInput(f"{folder} holds {said['method']} of one run; {again}")
    if said["key"] != key(scenario, warmup):
        what = "with another warm-up" if said["warmup"] != warmup else "of another scenario or seed"
        raise BadInput(f"{folder} holds replications {what}; {again}")
    if said["program"] != program():
        raise BadInput(f"{folder} holds replications made by another state of the program (burstsim {said['version']}); {again}")
    rows = {}
    for one in table.to_dict("records"):
        about = {name: one.pop(name) for name in ABOUT}
        figures = {str(name): value for name, value in one.items() if not pd.isna(value)}
        rows[int(about["replication"])] = about | {"figures": figures}
    return rows


def _all(scenario: Scenario, warmup: Warmup, missing: list[int], jobs: int) -> Iterator[dict[str, Any]]:
    """Rows as they end, in any order."""
    if min(jobs, len(missing)) <= 1:
        yield from (_one(scenario, warmup, number) for number in missing)
        return
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(_one)(scenario, warmup, number) for number in missing)


def _one(scenario: Scenario, warmup: Warmup, number: int) -> dict[str, Any]:
    try:
        return row(number, warmed(run(seeded(scenario, number)), warmup))
    except BadInput as error:
        where = f"replication {number} (seed {seed(scenario.seed, number)}): "
        raise BadInput([problem._replace(message=where + problem.message) for problem in error.problems]) from None


def row(number: int, result: Result) -> dict[str, Any]:
    """What is kept of a replication."""
    summary = result.summary
    ok = all(entry["ok"] for entry in summary["audit"].values())
    about = {"replication": number, "seed": result.meta["seed"], "verdict": summary["verdict"], "audit_ok": ok}
    return about | {"figures": flat(summary)}


def _found(scenario: Scenario, plan: Plan, rows: Mapping[int, dict[str, Any]], target: int) -> Replications:
    return Replications(scenario, table_of([row for number, row in rows.items() if number < target]), target, plan.warmup, plan.precision)


def _next(scenario: Scenario, plan: Plan, rows: Mapping[int, dict[str, Any]], target: int) -> tuple[bool, int]:
    """Whether there are enough replications, and how many those are; else how many to have next."""
    if not plan.precision:
        return True, plan.n
    most = max(plan.most or MOST, plan.n)
    for n in range(plan.n, target + 1):
        found = _found(scenario, plan, rows, n)
        if all(enough(found.interval(name), bound) for name, bound in plan.precision):
            return True, n
    if target >= most:
        return True, most
    need = max(wanted(found.interval(name), bound) for name, bound in plan.precision)
    # A spread seen in few runs may be too small or too large: at most twice as many next, and look again.
    return False, int(min(most, 2 * target, max(target + 1, need if math.isfinite(need) else most)))


def _remarked(found: Replications, plan: Plan) -> Replications:
    """With what to know before the intervals are trusted."""
    lines = []
    for name, bound in plan.precision:
        one = found.interval(name)
        if not enough(one, bound):
            known = f"{name} is known to {one.relative:.1%} of itself after {one.n} replications"
            lines.append(f"{known}, not to the {100 * bound:.3g}% asked for.")
    figures = found.table[findings(found.names)]
    if len(found) > 1 and all(figures.iloc[0].equals(figures.iloc[number]) for number in range(1, len(found))):
        lines.append("Every replication gave the same figures: nothing in the scenario is left to chance, and the intervals say nothing.")
    lacking = found.missing
    if lacking:
        shown = ", ".join(f"{name} ({count})" for name, count in list(lacking.items())[:3])
        lines.append(f"{len(lacking)} figures are undefined in some replications and have no interval: {shown}"
                     f"{', ...' if len(lacking) > 3 else ''}.")  # fmt: skip
    return Replications(found.scenario, found.table, found.wanted, found.warmup, found.precision, found.method, None, tuple(lines))
