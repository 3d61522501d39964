"""A sweep of speed against cost: which loads, and which changes of the scenario beside them."""
from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from sim.spec.frozen import Spec

Load = Annotated[int, Field(ge=1, le=100_000)]
Values = Annotated[tuple[Any, ...], Field(min_length=1)]


class Curve(Spec):
    """Run the scenario at each concurrency of its one closed workload, for every combination of the values of `vary`.

    Every run sends `rounds` requests per client, which keeps what the beginning and the end are worth small.
    """

    concurrency: Annotated[tuple[Load, ...], Field(min_length=1)]
    vary: dict[str, Values] = Field(default_factory=dict, description="dotted keys with their values, such as cluster.pools.0.parallel.tp")
    rounds: Load = 8
