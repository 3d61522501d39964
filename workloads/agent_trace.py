"""Recorded sessions of agents, replayed: who calls what and after whom as recorded, when as fast as this cluster answers.

Each call is sent when all answers it waited for are there and its recorded wait (for tools, or the user) is over; sub-agents run side by
side and are joined. Prompts share what the recording says. Formats are in workloads/programs/readers.
"""
from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.registry import FILE
from sim.core.units import CENTURY
from workloads._prefixes import beginnings
from workloads.base import BLOCK, Client, Clients, Count, NonNegativeSeconds, PositiveSeconds, Rate, Traffic
from workloads.programs.cast import cast
from workloads.programs.readers.base import Reading, ZeroTokens, load, unknown
from workloads.programs.replay import Cast, Stage
from workloads.programs.script import Recorded, Script

BACK = 1.0
Scale = Annotated[float, Field(ge=0, le=1e9)]
Ratio = Annotated[float, Field(ge=1e-9, le=1e9)]


@dataclass(kw_only=True)
class AgentTrace(Traffic):
    """`path` and `format` (`auto` or a name): one file, a folder, or several files of one recording.

    Sessions begin as recorded, `rate_scale` times as often; or as a Poisson process of `rate` sessions per second; or `concurrency` users
    begin the next when one is over. `sessions`: the names of those to replay, by default all, in the order of the file. `num_sessions`: so
    many; where there are fewer, `rate` and `concurrency` begin again with the first, as a session of its own. Only those that begin within
    `duration` of `start`.

    `tool_scale` and `think_scale` multiply recorded waits for tools (and sub-agents) and for users; 0: none. `max_wait` is the longest.
    `max_context`: a session ends before a call whose prompt and answer would be longer (`too_long: end`), or is left out (`drop`), or such
    prompts are cut at their end (`truncate`). `zero_tokens`: calls without a prompt or an answer are an error, left out (`skip`), or
    take one token (`one`). `system: shared`: system prompts of one length are the same in all sessions, where the recording tells their
    lengths; `own`: sessions share nothing but `shared_prefix` and, after it, one of `prefixes`.

    `prompts`: whether the recorded tokens of a prompt are all that is sent (`whole`) or what is new in it (`added`); `auto` goes by the
    format. Where there is text without a count, `characters_per_token` of it are a token; `output_tokens` are taken for answers of unknown
    length.
    """

    path: Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], FILE]
    format: str = "auto"
    rate_scale: Ratio = 1.0
    rate: Rate | None = None
    concurrency: Clients | None = None
    sessions: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    num_sessions: Count | None = None
    start: NonNegativeSeconds = 0.0
    duration: PositiveSeconds | None = None
    tool_scale: Scale = 1.0
    think_scale: Scale = 1.0
    max_wait: NonNegativeSeconds | None = None
    max_context: Count | None = None
    too_long: Literal["end", "drop", "truncate"] = "end"
    zero_tokens: ZeroTokens = "error"
    system: Literal["own", "shared"] = "own"
    prompts: Literal["auto", "whole", "added"] = "auto"
    characters_per_token: Annotated[float, Field(gt=0, le=100)] = 4.0
    output_tokens: Count | None = None
    _recorded: Recorded | None = field(default=None, init=False, repr=False, compare=False)
    _cast: Cast | None = field(default=None, init=False, repr=False, compare=False)
    _chosen: list[Script] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from unknown(values["format"])
        if values["rate"] is not None and values["concurrency"] is not None:
            yield "concurrency", "rate is given too; sessions begin by the one or by the other"
        if values["rate_scale"] != 1 and (values["rate"] is not None or values["concurrency"] is not None):
            yield "rate_scale", "not used here: it is for sessions that begin as recorded, and rate or concurrency says otherwise"
        if values["too_long"] != "end" and values["max_context"] is None:
            yield "too_long", "not used here: without max_context nothing is too long"
        if values["system"] == "shared" and (values["shared_prefix"] or values["prefixes"]):
            yield "system", "shared_prefix or prefixes is given too, and both begin the prompts; one of them is enough"

    @property
    def closed_loop(self) -> bool:
        return self.concurrency is not None

    def prepare(self) -> list[str]:
        paths = [self.path] if isinstance(self.path, str) else list(self.path)
        how = Reading(self.zero_tokens, {"auto": None, "whole": True, "added": False}[self.prompts], self.characters_per_token,
                      self.output_tokens)  # fmt: skip
        found = load(paths, self.format, how)
        self._fits(found, paths[0])
        self._recorded = found
        scales = self.tool_scale, self.think_scale, math.inf if self.max_wait is None else self.max_wait
        self._cast, kept, said = cast(found, self._picked(found, paths[0]), scales, (self.max_context, self.too_long))
        if not kept:
            raise BadInput([Problem(f"every session has a call longer than {self.max_context} tokens", "max_context", paths[0])])
        self._chosen = self._timed(kept, paths[0])
        return [*found.remarks, *said]

    def expected(self) -> int | None:
        made = self._ready()[1]
        if self.duration is not None or not all(made.prompts):
            return None
        count = self.num_sessions or len(self._chosen)
        return sum(self._chosen[number % len(self._chosen)].size for number in range(count))

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        if self.start > world.env.now:
            yield world.env.timeout(self.start - world.env.now)
        starts = None if self.system == "shared" else beginnings(world, self.shared_prefix, self.prefixes)
        stage = Stage(world, *self._ready(), starts)
        numbers = iter(range(self.num_sessions or len(self._chosen)))
        if self.concurrency is not None:
            yield world.env.all_of([world.env.process(self._user(stage, numbers)) for _ in range(self.concurrency)])
            return
        running: list[Any] = []
        for number, at in zip(numbers, self._begins(world), strict=False):
            if self.duration is not None and at >= self.duration:
                break
            if self.start + at > world.env.now:
                yield world.env.timeout(self.start + at - world.env.now)
            running = [one for one in running if not one.triggered] if len(running) >= BLOCK else running
            running.append(self._begin(stage, number))
        yield world.env.all_of(running)

    def _begin(self, stage: Stage, number: int) -> Any:
        time, place = divmod(number, len(self._chosen))
        return stage.begin(self._chosen[place], time)

    def _user(self, stage: Stage, numbers: Iterator[int]) -> Generator[Any, Any, None]:
        for number in numbers:
            began = stage.env.now
            yield self._begin(stage, number)
            if stage.env.now == began:
                # Else users who are always turned away at once would come back without end in one instant.
                yield stage.env.timeout(BACK)
            if self.duration is not None and stage.env.now >= self.start + self.duration:
                return

    def _begins(self, world: Client) -> Iterator[float]:
        """When sessions begin, after `start`."""
        if self.rate is None:
            yield from (script.start / self.rate_scale for script in self._chosen)
            return
        rng, now = world.rng("arrivals"), 0.0
        while True:
            times = now + np.cumsum(rng.standard_exponential(BLOCK) / self.rate)
            yield from times.tolist()
            now = times[-1]

    def _ready(self) -> tuple[Recorded, Cast]:
        if self._recorded is None or self._cast is None:
            raise RuntimeError("prepare() has not been called")
        return self._recorded, self._cast

    def _fits(self, found: Recorded, path: str) -> None:
        """Raise BadInput where the recording has no use for an option."""
        wrong = []
        if self.system == "shared" and not any(any(script.system) for script in found.sessions):
            wrong.append(Problem("the recording does not tell how long its system prompts are; shared_prefix says it", "system", path))
        if (self.shared_prefix or self.prefixes) and found.across:
            why = "the recording says already what its sessions share, by ids that are the same in all"
            wrong += [Problem(why, key, path) for key in ("shared_prefix", "prefixes") if vars(self)[key]]
        if wrong:
            raise BadInput(wrong)

    def _picked(self, found: Recorded, path: str) -> list[Script]:
        if self.sessions is None:
            return found.sessions
        by_name = {script.name: script for script in found.sessions}
        missing = [name for name in self.sessions if name not in by_name]
        if missing:
            raise BadInput([Problem(f"there is no session '{name}'; {did_you_mean(name, by_name)}", "sessions", path) for name in missing])
        return [by_name[name] for name in self.sessions]

    def _timed(self, chosen: list[Script], path: str) -> list[Script]:
        """The sessions in the order in which they begin. Raises BadInput where as recorded is unknown."""
        if self.rate is not None or self.concurrency is not None:
            if self.rate is not None and self.duration is None and (self.num_sessions or len(chosen)) / self.rate > CENTURY:
                raise BadInput([Problem(f"found {self.rate:g}; at that rate the sessions take more than 100 years", "rate", path)])
            return chosen
        untold = [script.name for script in chosen if script.start != script.start]
        if len(chosen) == 1 and untold:
            return [chosen[0]._replace(start=0.0)]
        if untold:
            names = ", ".join(untold[:3]) + (", ..." if len(untold) > 3 else "")
            what = f"of {len(untold)} of {len(chosen)} sessions the recording does not tell when they began ({names})"
            raise BadInput([Problem(f"{what}; give rate (sessions per second) or concurrency (users)", "rate", path)])
        if self.num_sessions is not None and self.num_sessions > len(chosen):
            what = f"found {self.num_sessions}; the recording has {len(chosen)}, and more of them need rate or concurrency"
            raise BadInput([Problem(what, "num_sessions", path)])
        return sorted(chosen, key=lambda script: script.start)
