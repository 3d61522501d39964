"""The values of the last so many seconds, for windows that an autoscaler looks back over."""
from __future__ import annotations

from collections import deque


class Recent:
    """Values with their times (s), of the `length` seconds up to the newest, its begin left out; times never run backwards."""

    __slots__ = ("_values", "length")

    def __init__(self, length: float):
        self.length = length
        self._values: deque[tuple[float, float]] = deque()

    def add(self, time: float, value: float) -> None:
        """The newest value always stays, whatever the length."""
        values = self._values
        values.append((time, value))
        while len(values) > 1 and values[0][0] <= time - self.length:
            values.popleft()

    def clear(self) -> None:
        self._values.clear()

    def highest(self) -> float:
        return max(value for _, value in self._values)

    def lowest(self) -> float:
        return min(value for _, value in self._values)

    def total(self) -> float:
        return sum(value for _, value in self._values)

    def mean(self) -> float:
        """Every value counts alike. Raises ZeroDivisionError when there is none."""
        return self.total() / len(self._values)

    def since(self, time: float) -> float:
        """The mean of the values after `time`, the newest at least."""
        kept = [value for at, value in self._values if at > time] or [self._values[-1][1]]
        return sum(kept) / len(kept)
