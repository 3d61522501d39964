"""What `burstsim workload show` can be shown: the workloads of a scenario, a workload on its own, options written out, or a log."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sim.core.errors import BadInput, Problem
from sim.core.registry import WORKLOADS, hints
from sim.spec import compose, outside
from sim.spec.yaml_marks import Document, parse
from workloads.fitting.figures import figures
from workloads.fitting.log import Log
from workloads.fitting.stand_in import ANSWER
from workloads.fitting.traffic import sent

DEFAULT = 600.0
YAML = (".yaml", ".yml")
ENDS = ("duration", "num_requests", "num_sessions")


class Shown(NamedTuple):
    """Traffic to be shown: `times` from 0 over `span` seconds. `shared`: the part of prompt tokens that were there before, or None."""

    name: str
    times: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    span: float
    tick: float
    shared: float | None

    def figures(self) -> dict[str, float]:
        """Every quantity, with `requests` and `shared_prompt` (NaN where nothing is known of it)."""
        return {
            "requests": float(len(self.times)), **figures(self.times, self.prompt, self.output, self.span, self.tick),
            "shared_prompt": np.nan if self.shared is None else self.shared,
        }  # fmt: skip


def is_log(what: str) -> bool:
    """Whether this names a log: neither YAML nor options."""
    return not what.lstrip().startswith("{") and Path(what).suffix.lower() not in YAML


def of_log(log: Log) -> list[Shown]:
    """A log, as one piece of traffic."""
    return [Shown(log.name, log.times, log.prompt, log.output, log.span, log.tick, log.shared)]


def of_workloads(what: str, duration: float | None, seed: int | None) -> tuple[list[Shown], list[str]]:
    """Each workload of a YAML file or of options in braces, then the sum of several; and remarks. Raises BadInput.

    `duration` cuts what they send; those that say no end of their own get it, or ten minutes. `seed`: by default the scenario's.
    """
    document = _document(what)
    raw = outside.absolute(document)
    remarks: list[str] = []
    checked = _checked(raw, document, duration, remarks)
    names = _names(checked)
    seed = raw.get("seed", 0) if seed is None else seed
    shown = []
    for number, (name, options) in enumerate(zip(names, checked, strict=True)):
        if not WORKLOADS.make(options).sends:
            remarks.append(f"{name}: sends no requests, so that there is nothing of it to show")
            continue
        try:
            shown.append(_shown(name, options, duration, seed, remarks))
        except BadInput as error:
            route = ("workloads", number)
            raise BadInput([_placed(problem, document, route) for problem in error.problems]) from None
    if not shown:
        message = "none of the workloads sends requests, so that there is nothing to show"
        raise BadInput([Problem(message, "workloads", document.places[()].file)])
    if len(shown) > 1:
        shown.append(_sum(shown))
    return shown, remarks


def _document(what: str) -> Document:
    if what.lstrip().startswith("{"):
        document = parse(what, "the workload", Path(), lines=False)
    else:
        document = compose.from_file(Path(what))
    data, places = document
    if isinstance(data, Mapping) and "kind" in data and "workloads" not in data:
        moved = {("workloads", 0, *route): place for route, place in places.items()}
        return Document({"workloads": [data]}, {(): places[()], ("workloads",): places[()], **moved})
    if not isinstance(data, Mapping) or not isinstance(data.get("workloads"), list) or not data["workloads"]:
        wanted = "a list `workloads`, or the options of one workload with its `kind`, is wanted"
        raise BadInput([Problem(f"there is no workload in it; {wanted}", file=places[()].file)])
    return document


def _checked(raw: Mapping[str, Any], document: Document, duration: float | None, remarks: list[str]) -> list[dict[str, Any]]:
    found, problems = [], []
    for number, options in enumerate(raw["workloads"]):
        options = _ended(options, raw.get("duration"), duration, remarks)
        checked, wrong = WORKLOADS.check(options)
        problems += [_placed(problem, document, ("workloads", number)) for problem in wrong]
        found.append(checked)
    if problems:
        raise BadInput(problems)
    return found


def _ended(options: Any, whole: Any, duration: float | None, remarks: list[str]) -> Any:
    """The options of a workload, with an end where it says none."""
    if not isinstance(options, dict) or options.get("kind") not in WORKLOADS.names():
        return options
    known = hints(WORKLOADS.find(options["kind"]))
    if "duration" not in known or any(options.get(end) is not None for end in ENDS):
        return options
    if duration is None and whole is None:
        remarks.append(f"{options.get('name') or options['kind']}: says no end, so ten minutes are shown; --duration shows more")
    return {**options, "duration": duration if duration is not None else DEFAULT if whole is None else whole}


def _shown(name: str, options: Mapping[str, Any], duration: float | None, seed: int, remarks: list[str]) -> Shown:
    found = sent(options, np.inf if duration is None else duration, seed, name)
    remarks += [f"{name}: {remark}" for remark in found.remarks]
    if not len(found.times):
        raise BadInput([Problem(f"'{name}' sends no request in the time shown")])
    if WORKLOADS.make(options).closed_loop:
        remarks.append(f"{name}: waits for answers, which are taken to need {1000 * ANSWER:g} ms a token; a cluster decides")
    # A count ends one mean gap after its last request; sessions go on beyond a duration, in which they only begin.
    last = float(found.times[-1])
    said = options.get("duration") if options.get("num_requests") is None else None
    natural = last * (1 + 1 / len(found.times)) if said is None else max(options.get("start", 0.0) + said, np.nextafter(last, np.inf))
    span = natural if duration is None else duration
    shared = None if found.shared is None else float(found.shared.sum() / found.prompt.sum())
    return Shown(name, found.times, found.prompt, found.output, float(max(span, 1e-9)), 0.0, shared)


def _sum(parts: list[Shown]) -> Shown:
    times = np.concatenate([part.times for part in parts])
    order = np.argsort(times, kind="stable")
    prompt = np.concatenate([part.prompt for part in parts])
    known = [part for part in parts if part.shared is not None]
    shared = sum(part.shared * part.prompt.sum() for part in known if part.shared is not None) / prompt.sum() if known else None
    output = np.concatenate([part.output for part in parts])
    return Shown("all", times[order], prompt[order], output[order], max(part.span for part in parts), 0.0, shared)


def _names(checked: list[dict[str, Any]]) -> list[str]:
    """As a run names them: by `name`, else by kind, and a number from the second of a kind on."""
    kinds = [options["kind"] for options in checked]
    return [options.get("name") or f"{kinds[i]}{kinds[:i].count(kinds[i]) or ''}" for i, options in enumerate(checked)]


def _placed(problem: Problem, document: Document, route: tuple[str | int, ...]) -> Problem:
    """The problem with the file and line of the nearest thing that was written."""
    if problem.file:
        return problem
    places = {".".join(map(str, at)): place for at, place in document.places.items()}
    path = ".".join([*map(str, route), *([problem.path] if problem.path else [])])
    near = path
    while near and near not in places:
        near = near.rpartition(".")[0]
    place = places.get(near, document.places[()])
    line = place.key if problem.message.startswith("unknown key") else place.value
    return problem._replace(path=path, file=place.file, line=line)
