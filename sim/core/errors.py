"""What a person typed that cannot be used, said so that it can be mended.

Everything wrong with an input is gathered first and raised once, as one `BadInput` holding a list of problems: a scenario with four typos
costs one attempt, not four. The command line prints it and leaves with exit code 2.
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SHOWN = 24  # names listed when none is near


class Problem(NamedTuple):
    """One thing that is wrong: where, what was found, and what would be right.

    `path` is the dotted key (`cluster.pools.0.gpu`) or empty; `file` and `line` (1-based) say where it was written, when known.
    """

    message: str
    path: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class BadInput(Exception):
    """The input cannot be used. Takes positional arguments only, because SimPy rebuilds exceptions from `args`."""

    def __init__(self, problems: Sequence[Problem] | str):
        super().__init__(problems)
        self.problems: list[Problem] = [Problem(problems)] if isinstance(problems, str) else list(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A closing clause for an error: the nearest known names, or all of them (a few, of many) when none is near.

    >>> did_you_mean("least_load", ["round_robin", "least_loaded"])
    'did you mean least_loaded?'
    >>> did_you_mean("zebra", ["a100", "h100"])
    'known: a100, h100'
    """
    names = sorted(known)
    # A part of a name, or a name with more around it (`NVIDIA H100 80GB`), says more than how many letters are alike.
    wanted = _letters(name)
    parts = [one for one in names if len(wanted) > 2 and (wanted in _letters(one) or _series(one) in wanted)]
    parts = [one for one in parts if _letters(one) == wanted] or parts
    near = difflib.get_close_matches(name, parts, n=3, cutoff=0) or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"known: {', '.join(names[:SHOWN])}{more}"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _series(name: str) -> str:
    """The first part of a name when it is one of a series, such as h100 of h100_sxm; else something that is in no name."""
    first = re.split(r"[^a-z0-9]", name.lower())[0]
    return first if len(first) > 1 and first[-1].isdigit() else " "
