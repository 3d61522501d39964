"""Compare scenarios by replications that share their luck: what differs, by how much, and whether it is more than chance.

Replication k of each scenario has the same seed, so that arrivals, lengths and draws are the same wherever the scenarios are, and the
difference of each pair is free of what they have in common (common random numbers; Law, Simulation Modeling and Analysis, section 11.2).
Results in folders are compared as they are; where all of them have one seed, they are pairs too.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import sim
from sim.core.errors import BadInput
from sim.spec.load import loads
from sim.spec.scenario import Scenario
from sim.study.compare.change import changes, plain
from sim.study.compare.comparison import Comparison
from sim.study.compare.waterfall import Waterfall, waterfall
from sim.study.figures import known, main
from sim.study.replicate.interval import REPLICATIONS
from sim.study.replicate.replicate import Plan, given, prepare, replications, row
from sim.study.replicate.replications import SAVED, Replications, saved, table_of
from sim.study.replicate.window import MSER, Warmup
from sim.study.result import Result
from sim.study.validate.store import program

DEFAULT = 10  # replications of each scenario
Source = Scenario | Replications | Mapping[str, Any] | str | Path


class Asked(NamedTuple):
    """`n` replications of each scenario (None: as many as folders hold, else DEFAULT), the `warmup` left out, and the `figure` of the
    waterfall.
    """

    n: int | None = None
    warmup: Warmup = None
    figure: str | None = None


def compare(
    *sources: Source, n: int | None = None, warmup: Warmup = None, figure: str | None = None, names: Sequence[str] | None = None,
) -> Comparison:  # fmt: skip
    """Compare scenarios (paths, mappings or Scenarios), results in folders, or what `replicate` gave, the first with each other one.

    `figure`: the dotted name of one whose difference is split among the keys that differ. Raises BadInput for fewer than two scenarios or
    replications, for unknown figures, and for what a run refuses.
    """
    opened = open_all(sources)
    labels = list(names) if names is not None else _labels(opened)
    return compared(dict(zip(labels, opened, strict=True)), Asked(n, warmup, figure), jobs=os.cpu_count() or 1)


def what_if(
    scenario: Scenario | Mapping[str, Any] | str | Path, sets: Mapping[str, Any], *, n: int = DEFAULT, warmup: Warmup = None,
    figure: str | None = None,
) -> Comparison:  # fmt: skip
    """A scenario against itself with some keys changed: `what_if("chat.yaml", {"cluster.pools.0.gpu": "h200_sxm"})`. As `compare`."""
    base = given(scenario)
    return compared({base.name: base, changed_name(sets): changed(base, sets)}, Asked(n, warmup, figure), jobs=os.cpu_count() or 1)


def open_all(sources: Sequence[Source]) -> list[Scenario | Replications]:
    """Scenarios, and results of folders. Raises BadInput for folders that are damaged, or of different states of the program."""
    folders = [Path(one) for one in sources if isinstance(one, (str, Path)) and Path(one).is_dir()]
    found = [_opened(Path(one)) if isinstance(one, (str, Path)) and Path(one) in folders
             else one if isinstance(one, Replications) else given(one) for one in sources]  # fmt: skip
    programs = {saved(folder)[0]["program"]: folder for folder in folders if (folder / SAVED).is_file()}
    if programs and any(isinstance(one, Scenario) for one in found):
        programs[program()] = Path("this burstsim")
    if len(programs) > 1:
        said = ", ".join(f"{place} {name}" for name, place in programs.items())
        raise BadInput(f"made by different states of the program ({said}), whose figures do not compare; run the scenarios anew")
    return found


def _opened(folder: Path) -> Replications:
    """The replications in a folder, or its one run."""
    if (folder / SAVED).is_file():
        found = Replications.open(folder)
        if found.method == REPLICATIONS:
            return found
    result = Result.open(folder)
    if result.meta["version"] != sim.__version__:
        raise BadInput(f"{folder} holds a result of burstsim {result.meta['version']}, and this is {sim.__version__}; run it again")
    said = result.meta.get("warmup")
    warmup: Warmup = None if not said else MSER if said["until"] else said["seconds"]
    return Replications(result.scenario, table_of([row(0, result)]), 1, warmup)


def changed(base: Scenario, sets: Mapping[str, Any]) -> Scenario:
    """A scenario with dotted keys set to other values. Where a kind changes, the options of the old one go. Raises BadInput."""
    kinds = {key.removesuffix(".kind"): {"kind": value} for key, value in sets.items() if key.endswith(".kind")}
    return loads(plain(base), kinds | {key: value for key, value in sets.items() if not key.endswith(".kind")})


def changed_name(sets: Mapping[str, Any]) -> str:
    """What a scenario with keys changed is called.

    >>> changed_name({"cluster.pools.0.gpu": "h200_sxm", "seed": 3})
    'gpu=h200_sxm, seed=3'
    """
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in sets.items())


def compared(
    given: Mapping[str, Scenario | Replications], asked: Asked, folder: Path | None = None, *, jobs: int = 1,
    progress: Callable[..., None] | None = None,
) -> Comparison:  # fmt: skip
    """As `compare`, `jobs` replications at a time. With a folder, those of each scenario are kept in a folder of their own in it, and gone
    on with. `progress(done, total, name)` is for the whole.
    """
    if len(given) < 2:
        raise BadInput(f"found {len(given)} scenarios; two or more that differ are wanted, or one and a --what-if")
    ready = {label: one for label, one in given.items() if isinstance(one, Replications)}
    n, warmup, seed = _terms(given, ready, asked)
    remarks = _remarks(given, ready, seed)
    done, total = 0, n * (len(given) - len(ready))

    def run(label: str, scenario: Scenario, place: Path | None) -> Replications:
        nonlocal done
        spent, found = done, None
        for found in replications(scenario, Plan(n, warmup=warmup), place, jobs=jobs):
            done = spent + len(found)
            if progress is not None:
                progress(done, max(total, done), "replications")
        assert found is not None
        return found

    runs = {}
    for number, (label, one) in enumerate(given.items()):
        if isinstance(one, Replications):
            runs[label] = one
            continue
        place = folder / place_of(number, label) if folder is not None else None
        if place is not None:
            prepare(one.model_copy(update={"seed": seed}), warmup, place, False)
        runs[label] = run(label, one.model_copy(update={"seed": seed}), place)
    (_, base), *others = runs.items()
    differing = {label: changes(base.scenario, one.scenario) for label, one in others}
    paired = len({one.scenario.seed for one in runs.values()}) == 1
    falls: dict[str, Waterfall] = {}
    if asked.figure is not None:
        if not paired or n < 2:
            raise BadInput("a waterfall needs two or more replications that share their luck; run the scenarios anew, with one seed")
        for label, one in others:
            ends = tuple(run_.values(known(asked.figure, run_.names, "--figure")).astype(float).to_numpy()[:n] for run_ in (base, one))
            values = _values(asked.figure, lambda scenario, label=label: run(label, scenario, None))  # type: ignore[misc]
            if differing[label]:
                falls[label] = waterfall(base.scenario, differing[label], asked.figure, (ends[0], ends[1]), values)
    return Comparison(runs, differing, paired, falls, asked.figure, (*remarks, *_lacking(runs)))


def place_of(number: int, label: str) -> str:
    """The folder of a scenario in that of a comparison.

    >>> place_of(1, "configs/chat.yaml, tp=2")
    '2-configs-chat-yaml-tp-2'
    """
    words = "".join(letter if letter.isalnum() else " " for letter in label.lower()).split()
    return "-".join([str(number + 1), *words])[:60]


def _values(figure: str, run: Callable[[Scenario], Replications]) -> Callable[[Scenario], np.ndarray]:
    def of(scenario: Scenario) -> np.ndarray:
        found = run(scenario)
        return np.asarray(found.values(known(figure, found.names)).astype(float).to_numpy())

    return of


def _terms(given: Mapping[str, Any], ready: Mapping[str, Replications], asked: Asked) -> tuple[int, Warmup, int]:
    """How many replications, which warm-up and which seed the scenarios are run with: those of folders where there are some."""
    if asked.n is not None and asked.n < 2:
        raise BadInput(f"found {asked.n} for the replications; an interval needs 2 or more")
    warmups = {str(one.warmup): label for label, one in ready.items()}
    if asked.warmup is not None and len(ready) < len(given):
        warmups[str(asked.warmup)] = "--warmup"
    if len(warmups) > 1:
        said = ", ".join(f"{label} {warmup}" for warmup, label in warmups.items())
        raise BadInput(f"the warm-ups left out differ ({said}), so that the figures are not of the same thing; run them anew with one")
    few = min((len(one) for one in ready.values()), default=asked.n or DEFAULT)
    if asked.n is not None and few < asked.n:
        which = next(label for label, one in ready.items() if len(one) == few)
        held = "one run" if few == 1 else f"{few} replications"
        raise BadInput(f"the folder of {which} holds {held}, fewer than the {asked.n} asked for; run more of them first")
    if few < 2 and len(ready) < len(given):
        raise BadInput("a folder holds one run, which can be compared with other runs in folders only; run its scenario anew")
    warmup = next((one.warmup for one in ready.values()), asked.warmup)
    seed = next((one.scenario.seed for one in [*ready.values()]), next(iter(given.values())).seed if not ready else 0)
    return asked.n or few, warmup, seed


def _remarks(given: Mapping[str, Scenario | Replications], ready: Mapping[str, Replications], seed: int) -> list[str]:
    other = [label for label, one in given.items() if isinstance(one, Scenario) and one.seed != seed]
    lines = [f"{', '.join(other)}: run with the seed {seed} of the others, so that they share their luck."] if other else []
    if len({one.scenario.seed for one in ready.values()}) > 1:
        lines.append("The folders have different seeds: the replications do not share their luck, and are compared without pairs (Welch).")
    if min((len(one) for one in ready.values()), default=2) < 2:
        lines.append("One run each: whether a difference is more than chance cannot be told; run with --replications.")
    counts = {len(one) for one in ready.values()}
    if len(counts) > 1 and min(counts) > 1:
        lines.append(f"The folders hold {', '.join(map(str, sorted(counts)))} replications; as many pairs are made as there can be.")
    return lines


def _lacking(runs: Mapping[str, Replications]) -> list[str]:
    lacking = [f"{', '.join(main(run.missing))} of {label}" for label, run in runs.items() if main(run.missing)]
    return [f"Undefined in some replications, and left out: {'; '.join(lacking)}."] if lacking else []


def _labels(opened: Sequence[Scenario | Replications]) -> list[str]:
    """Names that differ."""
    names = [one.scenario.name if isinstance(one, Replications) else one.name for one in opened]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]
