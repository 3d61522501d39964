"""How much of a run a timeline draws."""
from __future__ import annotations

from typing import NamedTuple

from sim.core.errors import BadInput

EVENTS, REQUESTS = 2_000_000, 1_000
LEAST = 10_000


class Sizes(NamedTuple):
    """`events` at most in all, names not counted; at most `requests` each of requests, of sessions of agents, and of sandboxes."""

    events: int = EVENTS
    requests: int = REQUESTS

    def check(self) -> None:
        """Raises BadInput when nothing could be seen in it."""
        if self.events < LEAST:
            raise BadInput(f"a timeline of at most {self.events} events shows nothing; {LEAST} or more are wanted")
        if self.requests < 0:
            raise BadInput(f"a timeline cannot show {self.requests} requests; 0 or more are wanted")
