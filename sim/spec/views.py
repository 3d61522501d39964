"""How old the front door's picture of the replicas is."""
from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sim.core.units import Seconds
from sim.spec.frozen import Spec

Hour = 3600.0


class Views(Spec):
    """Replicas report every `period`, and a report reaches the front door after `delay`: what routers and admission see is between `delay`
    and `delay` + `period` old. Before the first report replicas are taken to be empty.

    What the front door knows by itself is never old: with `own_count`, how many requests it has sent to a replica that have not ended, as
    the gateways of llm-d, Dynamo and SGLang count them. Without it that number is a report's too: many front doors share the load, and none
    knows what the others have sent.
    """

    period: Annotated[Seconds, Field(gt=0, le=Hour)]
    delay: Annotated[Seconds, Field(ge=0, le=Hour)] = 0.0
    own_count: bool = True
