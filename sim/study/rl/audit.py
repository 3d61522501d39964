"""The books of reinforcement learning (I8): what was trained on has a version and a staleness, once; tokens, groups and seconds add up.

* samples: those trained on, and no others, have lags, submit >= oldest >= mean >= 0, which are those of their segments; times in order;
* tokens: of the requests of a run whose answers are single calls = kept, in vain, or under way; of a group = of its samples;
* groups: each has one row, and so many samples as it launched; trained ones were taken within the step that trained on them;
* steps: versions 1, 2, ... one after the other without gaps, their parts no longer than they are, on the groups, samples and tokens that
  say so, never on more groups than a version takes, nor on fewer where nothing filters them and none failed;
* publications and grades: times in order.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.study.facts import Tables
from sim.study.rl.run import PARTS, Rows, Run, runs
from sim.study.rl.waste import generated

SLACK = 1e-6
See = Callable[[str, np.ndarray], None]


def books(tables: Tables) -> tuple[int, list[str]]:
    """Rows looked at, and what is wrong."""
    faults: list[str] = []
    checked = 0
    for run in runs(tables):

        def see(what: str, bad: np.ndarray, name: str = run.name) -> None:
            count = int(np.count_nonzero(bad))
            if count:
                faults.append(f"{name}: {what} ({count})")

        numbers = run.groups["group"]
        see("a group without a number", numbers < 0)
        most = max(int(numbers.max(initial=-1)), int(run.samples["group"].max(initial=-1))) + 1
        see("a group stands twice, or not at all", np.bincount(numbers[numbers >= 0], minlength=most) != 1)
        unknown = (run.samples["group"] < 0) | (run.samples["group"] >= len(run.groups))
        see("a sample of no group", unknown)
        if faults:
            continue
        for check in (_samples, _groups, _steps, _trained, _tokens, _syncs, _grades):
            check(run, see)
        checked += sum(len(rows) for rows in (run.steps, run.groups, run.samples, run.rows("rl_syncs"), run.rows("rl_grades")))
    return checked, faults


def _samples(run: Run, see: See) -> None:
    rows, used = run.samples, run.version >= 0
    submit, oldest, mean = (rows[f"lag_{name}"] for name in ("submit", "oldest", "mean"))
    some = used & ~(np.isnan(submit) | np.isnan(oldest) | np.isnan(mean))
    see("a sample is trained on without a staleness", used & ~some)
    see("a sample has a staleness that nobody trained on", ~used & ~(np.isnan(submit) & np.isnan(oldest) & np.isnan(mean)))
    see("lags not in the order submit >= oldest >= mean >= 0", some & ~((submit >= oldest) & (oldest >= mean - SLACK) & (mean >= -SLACK)))
    group = _by_group(run)
    before = run.version - 1
    see("a lag since submission that is not its group's", some & (submit != before - run.groups["submitted"][group[rows["group"]]]))
    wrote = rows["segments"] > 0
    see("a lag that is not that of its oldest token", some & wrote & (oldest != before - rows["oldest"]))
    span = rows["newest"] - rows["oldest"] + 1
    see("more versions wrote it than there were", wrote & (rows["segments"] > span))
    see("tokens that no version wrote, or a version without", wrote != (rows["tokens"] > 0))
    see("a token by a version after the one that trained", used & wrote & (rows["newest"] > before))
    see("a sample is kept that never ended", used & np.isnan(rows["done"]))
    see("a sample ends before it begins", rows["done"] < rows["begun"] - SLACK)
    see("a sample has its reward before its end", rows["scored"] < rows["done"] - SLACK)


def _by_group(run: Run) -> np.ndarray:
    """The row of each group."""
    at = np.empty(len(run.groups), dtype="i8")
    at[run.groups["group"]] = np.arange(len(run.groups))
    return at


def _groups(run: Run, see: See) -> None:
    rows, trained = run.groups, run.groups["trained"] >= 0
    see("a group is trained and was not trained on, or the other way round", trained != (rows["state"] == rows.code("state", "trained")))
    final = np.isin(rows["state"], [rows.code("state", name) for name in ("trained", "rejected", "stale_dropped")])
    see("a group that is gone without a time, or is under way with one", final == np.isnan(rows["ended"]))
    for early, late in (("begun", "done"), ("done", "scored"), ("scored", "ended"), ("begun", "ended")):
        see(f"a group is {late} before it has {early}", rows[late] < rows[early] - SLACK)
    whose = run.samples["group"]
    count, kept = (np.bincount(whose, weights, len(rows))[rows["group"]] for weights in (None, run.samples["kept"]))
    see("a group with more or fewer samples than it launched", count != rows["launched"])
    see("a group with more or fewer samples kept than it says", kept != rows["kept"])
    tokens = np.bincount(whose, run.samples["tokens"] * (run.samples["kept"] == 1), len(rows))
    see("tokens of a group that are not its samples'", trained & (tokens[rows["group"]] != rows["tokens"]))
    see("a group is submitted to a version after the one that trained", trained & (rows["submitted"] > rows["trained"]))


def _steps(run: Run, see: See) -> None:
    steps = run.steps
    start, end, version = steps["start"], steps["end"], steps["version"]
    told = run.facts.result.scenario.duration is not None or any(text.startswith(f"{run.name}: ") for text in run.facts.meta["remarks"])
    see("fewer versions than wanted, and no reason", np.array([not told and len(steps) < run.one["steps"]]))
    see("versions that are not 1, 2, ...", version != np.arange(1, len(steps) + 1))
    see("steps that do not follow each other", np.abs(start[1:] - end[:-1]) > SLACK)
    parts = [steps["wait"], *(steps[part] for part in PARTS)]
    see("a part of a step is negative", np.min(parts, axis=0, initial=0.0) < -SLACK)
    see("the parts of a step are more than its seconds", sum(parts) > (end - start) * (1 + 1e-9) + SLACK)


def _trained(run: Run, see: See) -> None:
    """What steps say that they trained on."""
    steps, most = run.steps, len(run.steps) + 2
    version = run.groups["trained"] + 1
    groups = np.bincount(version[version > 0], minlength=most)
    see("a version trained on after the last that was begun", version >= most)
    used = run.version > 0
    samples = np.bincount(run.version[used], minlength=most)
    tokens, length = (np.bincount(run.version[used], run.samples[name][used], most) for name in ("tokens", "length"))
    useful = np.bincount(run.version[run.differs], run.samples["tokens"][run.differs], most)
    at = steps["version"]
    if (at >= most).any() or (at < 0).any():
        return
    for name, found in (("groups", groups), ("samples", samples), ("tokens", tokens), ("length", length), ("useful", useful)):
        see(f"{name} of a step that are not those trained on", steps[name] != found[at])
    see("a version trained on more groups than it takes", groups > run.one["prompts"])
    failed = np.any(run.groups["reason"] == run.groups.code("reason", "failed"))
    if not run.one["filtered"] and not failed:
        see("a version trained on fewer groups than it takes", steps["groups"] < run.one["prompts"])
    took = version > 0
    step = np.minimum(version, len(steps)) - 1
    if len(steps):
        inside = (run.groups["ended"] >= steps["start"][step] - SLACK) & (run.groups["ended"] <= steps["end"][step] + SLACK)
        see("a group was taken outside the step that trained on it", took & (version <= len(steps)) & ~inside)


def _tokens(run: Run, see: See) -> None:
    """Tokens that requests got = those of groups. Only where each answer is one call, and nobody else asks the pool."""
    tables = run.facts
    if not run.one["alone"] or (run.samples["turns"] > 1).any():
        return
    requests = tables.result.tables["requests"]
    code = requests.labels["workload"].index(run.name)
    mine = np.array([name == run.one["pool"] for name in tables.pool_of_replica], dtype=bool)
    asked = 0
    for page in tables.requests():
        # Who has lost its replica to another pool keeps the tokens that it has.
        rows = (page["workload"] == code) & ((page["replica"] < 0) | mine[page["replica"]])
        asked += int(page["output_tokens"][rows].sum(dtype="i8"))
    found = generated(run)
    see(f"requests got {asked} tokens, groups have {found}", np.array([asked != found]))


def _syncs(run: Run, see: See) -> None:
    rows = run.rows("rl_syncs")
    start, gathered, paused, moved, resumed, released = (rows[name] for name in
                                                         ("start", "gathered", "paused", "moved", "resumed", "released"))  # fmt: skip
    see("publications out of order", np.diff(rows["version"], prepend=0) < 1)
    late, early = np.fmax(paused, moved), np.fmin(paused, moved)
    see("times of a publication out of order",
        ~((start <= gathered + SLACK) & (gathered <= early + SLACK) & ~(late > resumed + SLACK) & (released >= start - SLACK)))
    see("more samples were stopped than ran", rows["stopped"] > rows["running"])


def _grades(run: Run, see: See) -> None:
    rows: Rows = run.rows("rl_grades")
    took = rows["end"] - rows["start"]
    see("a grade ends before it begins, or waits for longer than it takes", (rows["queued"] < -SLACK) | (took < rows["queued"] - SLACK))
    see("a grade of no group", (rows["group"] < 0) | (rows["group"] >= len(run.groups)))
    ended = rows["outcome"] != rows.code("outcome", "unfinished")
    see("a grade that has ended without a time, or the other way round", ended == np.isnan(rows["end"]))
