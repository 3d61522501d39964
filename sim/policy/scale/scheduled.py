"""Replicas by the time of day and the day of the week, as a cron table has it (KEDA's cron scaler, AWS scheduled scaling).

A line of the table holds from its time on until the next line's; before the first of the week the last one holds. The run begins on a
Monday at 00:00; `offset` says how much later by local time, so that a time zone, or a run that begins on a Thursday, is one number.
"""
from __future__ import annotations

import dataclasses
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from sim.core.units import Seconds
from sim.policy.scale.base import Seen
from sim.spec.frozen import Spec

DAY, WEEK = 86400, 7 * 86400
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


def seconds(at: str) -> int:
    """Seconds since midnight. Raises ValueError.

    >>> seconds("08:30"), seconds("23:59:59")
    (30600, 86399)
    """
    match = _CLOCK.fullmatch(at.strip())
    if not match:
        raise ValueError(f"found '{at}'; a time of day is wanted, such as '08:30' (00:00 to 23:59:59)")
    return int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3] or 0)


def _time(at: str) -> str:
    seconds(at)
    return at


class Line(Spec):
    """From `at` on, so many replicas; on `days`, all by default."""

    at: Annotated[str, AfterValidator(_time)]
    replicas: Annotated[int, Field(ge=0, le=10**6)]
    days: tuple[Day, ...] = Field(DAYS, min_length=1)

    def times(self) -> list[int]:
        """Seconds since Monday 00:00, ascending."""
        return [DAYS.index(day) * DAY + seconds(self.at) for day in sorted(set(self.days), key=DAYS.index)]


@dataclasses.dataclass
class Scheduled:
    """`table`: lines such as {at: '08:00', replicas: 40, days: [mon, fri]}; `offset` may be negative."""

    sees: ClassVar[str] = "counts"

    table: Annotated[tuple[Line, ...], Field(min_length=1)]
    offset: Seconds = 0.0
    _times: list[int] = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)
    _replicas: list[int] = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        taken: dict[int, int] = {}
        for number, line in enumerate(values["table"]):
            twice = [time for time in line.times() if time in taken]
            if twice:
                day, first = DAYS[twice[0] // DAY], taken[twice[0]]
                yield f"table.{number}.at", f"found '{line.at}' on {day} again, as in table.{first}; one line for a time is wanted"
            taken |= dict.fromkeys(line.times(), number)

    def want(self, seen: Seen) -> int:
        if not self._times:
            lines = sorted((time, line.replicas) for line in self.table for time in line.times())
            self._times, self._replicas = [time for time, _ in lines], [replicas for _, replicas in lines]
        # Index -1 before the first line of the week: the last one of the week before.
        return self._replicas[bisect_right(self._times, (seen.time + self.offset) % WEEK) - 1]
