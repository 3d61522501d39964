"""Cascades: a small model answers first, and what it does not answer well enough goes on to a larger one."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sim.core.units import Seconds
from sim.spec.frozen import Spec

Chance = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Escalate(Spec):
    """Which requests go on: a share of all, those `above` a number of tokens, or a share of each workload. A plain number is a share."""

    share: Chance | None = None
    by: Literal["output_tokens", "input_tokens"] | None = None
    above: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    classes: dict[str, Chance] | None = Field(None, description="share by the workload's name; those not named stay")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"found {str(value).lower()}; a share such as 0.3 is wanted, or {{by: output_tokens, above: 500}}")
        return value if isinstance(value, Mapping) else {"share": value}

    @model_validator(mode="after")
    def _one(self) -> Escalate:
        if (self.by is None) != (self.above is None):
            raise ValueError("by and above belong together, such as {by: output_tokens, above: 500}")
        if sum(way is not None for way in (self.share, self.by, self.classes)) != 1:
            raise ValueError("say it in one way: a share such as 0.3, {by: output_tokens, above: 500}, or {classes: {chat: 0.2}}")
        return self


class Verifier(Spec):
    """Who judges an answer: something that takes `seconds`, or a model that reads prompt and answer and writes `output_tokens`."""

    seconds: Seconds | None = Field(None, ge=0, le=3600)
    model: str | None = Field(None, description="a pool or a model that a pool serves")
    output_tokens: Tokens | None = Field(None, description="of the model's judgement; default: 1")

    @model_validator(mode="after")
    def _one(self) -> Verifier:
        if (self.seconds is None) == (self.model is None):
            raise ValueError("say either seconds or model: how long a verdict takes, or which model gives it")
        if self.output_tokens is not None and self.model is None:
            raise ValueError("output_tokens is given, but a verifier that takes seconds writes none")
        return self


class Cascade(Spec):
    """Requests for `from` that are not answered well enough are sent on to `to`; both name a pool or a model.

    The next stage gets the same prompt, with `include_answer` followed by the answer it is to better; its answer is `output_scale` times
    as long.
    """

    __annotations__["from"] = "str"  # a keyword of Python, which no field can be written as
    to: str
    escalate: Escalate
    verifier: Verifier = Verifier(seconds=0.0)
    include_answer: bool = False
    output_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0

    @property
    def start(self) -> str:
        """What stands at `from`."""
        return str(vars(self)["from"])
