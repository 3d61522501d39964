"""Quantities as people write them: `500ms`, `80GB`, `400Gbps`, `2h` in, plain SI floats out.

Inside the program there are only seconds, bytes, bytes per second, watts and dollars, so no name carries a unit. A bare number is taken
as the SI unit. Decimal prefixes are powers of 1000, `KiB`/`MiB`/`GiB`/`TiB` powers of 1024, and `bps`/`bit/s` are eighths of a byte.
`Seconds`, `Bytes` and `BytesPerSecond` are the annotations for the fields of a scenario or of a plug-in; a time beyond 100 years is refused
there, because a clock of 64 bits would no longer tell one engine step from the next. `Speed` is a link's: above 0, and not so low that its
unit was forgotten.
"""
from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40} | {
    prefix + "B": 1000.0**power for power, prefix in enumerate(["", "k", "M", "G", "T", "P"]) if prefix
} | {"KB": 1e3}
BYTES_PER_SECOND = {name + "/s": size for name, size in BYTES.items()} | {
    prefix + unit: 1000.0**power / 8 for power, prefix in enumerate(["", "k", "M", "G", "T"]) for unit in ("bps", "bit/s")
}
DIMENSIONS = {
    "duration": (SECONDS, "500ms, 30s, 2h"),
    "size": (BYTES, "80GB, 16GiB"),
    "bandwidth": (BYTES_PER_SECOND, "3.35TB/s, 400Gbps"),
}
CENTURY = 100 * 365.25 * 86400.0
SLOWEST = 1e3
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµ/]*)\s*")


def parse(value: Any, dimension: str) -> float:
    """The SI value of a number or of text such as `500ms`.

    `dimension` is `duration`, `size` or `bandwidth`. Raises ValueError naming what was found and what would be right.

    >>> parse("500ms", "duration"), parse("400Gbps", "bandwidth"), parse("16GiB", "size"), parse(2, "duration")
    (0.5, 50000000000.0, 17179869184.0, 2.0)
    """
    units, examples = DIMENSIONS[dimension]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"found {value!r}; a {dimension} is wanted, such as {examples}")
    if isinstance(value, (int, float)):
        number, unit = float(value), ""
    else:
        match = _QUANTITY.fullmatch(value)
        if not match:
            raise ValueError(f"found '{value}'; a {dimension} is wanted, such as {examples}")
        number, unit = float(match[1].replace("_", "")), match[2]
    if not math.isfinite(number):
        raise ValueError(f"found {value!r}; a finite {dimension} is wanted, such as {examples}")
    if unit and unit not in units:
        other = next((name for name, (table, _) in DIMENSIONS.items() if unit in table), "")
        what = f"'{value}' is a {other}" if other else f"'{value}' has the unknown unit '{unit}'"
        raise ValueError(f"{what}; a {dimension} is wanted, such as {examples} (units: {', '.join(units)})")
    return number * units.get(unit, 1.0)


def _field(dimension: str) -> Any:
    schema = {"anyOf": [{"type": "number"}, {"type": "string"}], "description": f"a {dimension}: {DIMENSIONS[dimension][1]}"}
    return BeforeValidator(lambda value: _checked(value, dimension)), WithJsonSchema(schema)


def _checked(value: Any, dimension: str) -> float:
    number = parse(value, dimension)
    if dimension == "duration" and abs(number) > CENTURY:
        raise ValueError(f"found {value!r}; a duration of at most 100 years is wanted")
    return number


Seconds = Annotated[float, *_field("duration")]
Bytes = Annotated[float, *_field("size")]
BytesPerSecond = Annotated[float, *_field("bandwidth")]


def _carries(speed: float) -> float:
    if speed < SLOWEST:
        raise ValueError(f"found {speed:g} bytes/s; a link carries more: write the unit, such as {speed:g}GB/s or {speed:g}Gbps")
    return speed


Speed = Annotated[BytesPerSecond, Field(gt=0), AfterValidator(_carries)]
