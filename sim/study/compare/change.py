"""What two scenarios differ in, key by key, and the scenarios between them: some keys switched, the others not yet."""
from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sim.spec import load
from sim.spec.scenario import Scenario

NOTHING = "nothing"  # what a key holds that is not there
# Words about a scenario, and its luck: they change nothing that two scenarios are compared for.
WORDS = ("name", "description", "seed", "ladder", "curve", "sweep")


class Change(NamedTuple):
    """`key` with what stands there before and after, NOTHING where it does not stand."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.before)} → {_short(self.after)}"


def plain(scenario: Scenario) -> dict[str, Any]:
    """A scenario as a mapping of plain values, complete, without the studies that may be in it."""
    found: dict[str, Any] = {key: value for key, value in load.plain(scenario).items() if key not in WORDS[3:]}
    return found


def changes(before: Scenario, after: Scenario) -> list[Change]:
    """The keys that differ, in the order of the scenario. What changes its kind changes as a whole, and so does a list that grows."""
    one, other = ({key: value for key, value in plain(scenario).items() if key not in WORDS} for scenario in (before, after))
    return list(_differences(one, other, ()))


def switched(base: Scenario, some: Sequence[Change]) -> Scenario:
    """The scenario with some changes made. Raises BadInput when they do not go together without others."""
    data = plain(base)
    for change in some:
        *way, last = change.key.split(".")
        here: Any = data
        for part in way:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        if change.after == NOTHING:
            del here[last]
        else:
            here[int(last) if isinstance(here, list) else last] = copy.deepcopy(change.after)
    return load.loads(data)


def _differences(before: Any, after: Any, route: tuple[str, ...]) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before.get("kind") == after.get("kind"):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(key, NOTHING), after.get(key, NOTHING), (*route, str(key)))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, (*route, str(place)))
    elif before != after:
        yield Change(".".join(route), before, after)


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "kind" in value:
        return str(value["kind"])
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
