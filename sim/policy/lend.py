"""Whether GPUs are lent, by how much their owner has to do: a threshold to lend, one to take back, and patience before the former."""
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ByLoad:
    """Lends when the load was under `below` for `during` seconds, and takes back when it is over `above`; in between all stays."""

    below: float
    above: float
    during: float
    _since: float | None = field(default=None, init=False)

    def lends(self, now: float, load: float, lent: bool) -> bool:
        """Whether the GPUs are to be lent from now on, s; called in order of time, with whether they are.

        >>> rule = ByLoad(2.0, 6.0, 60.0)
        >>> [rule.lends(now, load, False) for now, load in ((0.0, 1.0), (30.0, 3.0), (60.0, 1.0), (120.0, 1.0))]
        [False, False, False, True]
        """
        if lent:
            self._since = None
            return load <= self.above
        if load >= self.below:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self.during
