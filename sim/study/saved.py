"""What a study saved, read again only when it is whole: not cut off, not half of another version, not of a newer one.

Rows are looked at as far as pages and resumed studies need them. What a program wrote is not otherwise doubted: a figure that somebody
changed by hand is not found out.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sim
from sim.core.errors import BadInput, Problem
from sim.core.explain import show

LISTED = 3  # keys that an error names
DAMAGED = "it is damaged, or of another version; run the scenario again with --force"


def mapping_of(path: Path, what: str, again: str, keys: Iterable[str]) -> dict[str, Any]:
    """The mapping in a JSON file, which has at least these keys. `what` it holds, and how that is made `again`, are said where it does not.

    Raises BadInput, with the file, when it is missing, cannot be read, is cut off, is not finished, or is of a newer version.
    """
    try:
        said = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _none(path, what, error.strerror or f"{error}", again) from error
    except ValueError as error:
        raise _none(path, what, f"it is damaged, no whole JSON ({error})", again) from error
    if not isinstance(said, dict):
        raise _none(path, what, f"found {show(said)} in place of a mapping", again)
    check_version(said.get("version"), path)
    lacking = [key for key in keys if key not in said]
    if lacking:
        more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
        raise _none(path, what, f"it lacks {', '.join(lacking[:LISTED])}{more}", again)
    return said


def rows_of(said: Mapping[str, Any], name: str, path: Path, keys: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows under a key of what was saved, which have at least these keys. Raises BadInput, with the file, where they have not."""
    found = said[name]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise BadInput([Problem(f"found {show(found)}; a list of rows is wanted: {DAMAGED}", name, str(path))])
    wanted = list(keys)
    for number, row in enumerate(found):
        complete(row, f"{name}.{number}", path, wanted)
    return found


def complete(found: Any, name: str, path: Path, keys: Iterable[str]) -> None:
    """Raise BadInput, with the file, for what is under a key of what was saved and no mapping with at least these keys."""
    if not isinstance(found, dict):
        raise BadInput([Problem(f"found {show(found)}; a mapping is wanted: {DAMAGED}", name, str(path))])
    lacking = [key for key in keys if key not in found]
    if lacking:
        raise BadInput([Problem(f"it lacks {', '.join(lacking[:LISTED])}: {DAMAGED}", name, str(path))])


def check_version(version: Any, path: Path) -> None:
    """Raise BadInput for what a newer version of the program wrote; what an older one wrote is judged by what it holds."""
    if isinstance(version, str) and _number(version) > _number(sim.__version__):
        what = f"was written by burstsim {version}, and this is {sim.__version__}; use that version, or run its scenario again"
        raise BadInput([Problem(what, file=str(path))])


def _none(path: Path, what: str, why: str, again: str) -> BadInput:
    return BadInput([Problem(f"holds no {what} of this version: {why}; {again}", file=str(path))])


def _number(version: str) -> tuple[int, ...]:
    """
    >>> _number("0.10.0") > _number("0.9.2"), _number("1.0.dev1")
    (True, (1, 0))
    """
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0]))
