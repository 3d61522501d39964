"""What YAML says of agents, tools and outside services: laws and limits, checked one by one; what only the whole can tell is in
`checks.py`.

Tokens, calls and seconds. A key left out means that there is no such limit, or nothing of the kind.
"""
from __future__ import annotations

import contextlib
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from sim.core.units import SECONDS, Seconds
from sim.spec.frozen import Spec
from sim.spec.law import Amounts, Law, Times

Tokens = Annotated[int, Field(ge=1, le=10**9)]
Some = Annotated[int, Field(ge=1, le=10**6)]
Chance = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e9)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]
ONE = Law(dist="fixed", value=1)
ZERO = Law(dist="fixed", value=0)
_RATE = re.compile(r"\s*([0-9.eE+]+)\s*(?:per|/)\s*(\w+)\s*")
UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, **SECONDS}


def _per_second(value: Any) -> Any:
    """`10 per second`, `600 per minute` or a number of calls per second."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match and match[2] in UNITS:
        with contextlib.suppress(ValueError):
            return float(match[1]) / UNITS[match[2]]
    if isinstance(value, str):
        raise ValueError(f"found '{value}'; a rate is wanted, such as 10 per second, 600 per minute or 10")
    return value


PerSecond = Annotated[
    float, BeforeValidator(_per_second), Field(gt=0, le=1e9), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]  # fmt: skip


def _joined(value: Any) -> Any:
    if value != "all" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"found {value!r}; all, or how many results are enough (at least 1), is wanted")
    return value


Join = Annotated[Literal["all"] | Some, BeforeValidator(_joined)]


def _from_preset(schema: dict[str, Any]) -> None:
    """A file need not say what a preset may."""
    schema.pop("required", None)


class ContextLimit(Spec):
    """`max`: tokens of prompt and answer together. Without `compact_at` an agent ends there; with it, a call that would exceed this share
    of `max` is preceded by one that writes a `summary`, which then stands for all but the system prompt, beside what is `kept` (files read
    again, the last messages): tokens that nobody writes.

    `edits`: the chance that a user's message but the first comes with a history that was rewritten (rewound, resumed, old results cleared):
    as long as it was, but only the system prompt is as before, so that the rest is computed anew.
    """

    max: Tokens | None = None
    compact_at: Annotated[float, Field(gt=0, le=1)] | None = None
    summary: Amounts | None = None
    kept: Amounts | None = None
    edits: Chance = 0.0


class Budget(Spec):
    """What an agent may use up. `calls` of models and prompt and answer `tokens` of its own, seconds of `time` from its beginning.

    `depth`: agents this deep have no sub-agents, the root being at 0; `agents`: of one session in all, beyond which there are no more.
    """

    calls: Some | None = None
    tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None
    time: PositiveSeconds | None = None
    depth: Annotated[int, Field(ge=0, le=64)] | None = None
    agents: Some | None = None


class Home(Spec):
    """The sandbox an agent works in. `at`: when it is asked for. `image`: one for each session, or one for all. `keep: false`: given back
    after each use, and asked for anew.
    """

    model_config = ConfigDict(json_schema_extra=_from_preset)

    pool: str
    at: Literal["start", "first_use"] = "first_use"
    image: Literal["own", "shared"] = "own"
    keep: bool = True


class CallRetries(Spec):
    """Of LLM calls that were turned away or failed: so many, after `backoff` seconds, then twice as many, and so on."""

    max: Annotated[int, Field(ge=0, le=100)] = 0
    backoff: Annotated[Seconds, Field(ge=0, le=86400)] = 1.0


class Spawn(Spec):
    """When an agent has others work for it, in place of using tools, and goes on when they are done.

    `share`: the chance of each LLM call of a turn but the last; or `calls`: after which calls of each turn (the first is 1). `count` sub-
    agents at once; `join: k`: the first k results are enough, and the others are called off. `task`: tokens of what each is told, by
    default its own `task`; `result`: tokens of what each hands back, by default its last answer.
    """

    agent: str
    share: Chance | None = None
    calls: Annotated[tuple[Some, ...], Field(min_length=1)] | None = None
    count: Amounts = ONE
    join: Join = "all"
    task: Amounts | None = None
    result: Amounts | None = None


class Kind(Spec):
    """A kind of agent. Tokens of the `system` prompt with the tool schema, of a user's `message`, of the first of them (`task`, which is
    also what a sub-agent is told), of an LLM call's `output` and of the `final` one of a turn.

    `turns`: messages in a session that begins with this kind, by default the workload's.

    `calls`: LLM calls per turn, of which each but the last ends in `parallel_tools` tool calls, drawn by the shares in `tools`, or spawns.
    """

    model_config = ConfigDict(json_schema_extra=_from_preset)

    turns: Amounts | None = None
    system: Annotated[int, Field(ge=0, le=10**8)] = 0
    message: Amounts | None = None
    task: Amounts | None = None
    calls: Amounts = ONE
    output: Amounts
    final: Amounts | None = None
    tools: dict[str, Weight] = Field(default_factory=dict)
    parallel_tools: Amounts = ONE
    spawns: tuple[Spawn, ...] = ()
    context: ContextLimit = ContextLimit()
    budget: Budget = Budget()
    sandbox: Home | None = None
    retries: CallRetries = CallRetries()
    model: str = ""


class Asks(Spec):
    """A tool that asks another agent, such as a judge: `task` tokens, by default the agent's own `task`."""

    agent: str
    task: Amounts | None = None


class Tool(Spec):
    """How long a tool takes and how many tokens it answers with, also when it fails (a message of the error).

    `fail`: the chance that a try comes to an error when it is over; `hang`: that it never ends of itself, but at `timeout`, which also ends
    what takes too long. Tries that did not succeed are repeated `retries` times. `sandbox`: it runs in the agent's sandbox, on `cores`.
    `api`: the service it goes through. `model`: it is an agent that is asked.
    """

    time: Times = ZERO
    observation: Amounts | None = None
    sandbox: bool = False
    cores: Annotated[float, Field(gt=0, le=1024)] = 1.0
    timeout: PositiveSeconds | None = None
    fail: Chance = 0.0
    hang: Chance = 0.0
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    api: str = ""
    model: Asks | None = None


class Quota(Spec):
    """A service that tools share: `rate` calls per second begin, `burst` at once after a pause, `concurrency` run at a time; the others
    wait in order of arrival. With `queue`, a call that finds so many waiting is refused.
    """

    rate: PerSecond | None = None
    burst: Some = 1
    concurrency: Some | None = None
    queue: Annotated[int, Field(ge=0, le=10**9)] | None = None
