"""Parts of a scenario that may be named instead of written out: `fabric: nvl72`, or `{preset: nvl72, oversubscription: 2}`."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sim.core.errors import BadInput


def filled(value: Any, preset: Callable[[str], Any]) -> Any:
    """What a part says once its preset has been put under it, where it names one; `preset(name).values` are the keys of one.

    Raises ValueError for a name that the catalogue does not have, as validators do.
    """
    given = {"preset": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get("preset"), str):
        return given
    try:
        return {**preset(given["preset"]).values, **given}
    except BadInput as error:
        raise ValueError(str(error)) from None
