"""Every trajectory of every group is waited for: synchronous, unbiased, and as slow as the longest answer."""
from __future__ import annotations

import dataclasses

from sim.policy.tail.base import Tail


@dataclasses.dataclass
class WaitAll(Tail):
    """The default."""
