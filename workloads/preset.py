"""Traffic like a published trace, without the trace: gamma arrivals and lengths fitted to its statistics.

It keeps the mean rate, the variation of the gaps and the law of the lengths; it does not keep slow swings of the rate over minutes or
hours, nor sessions. Where those matter, replay the trace itself.
"""
from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from workloads import presets
from workloads.base import Client, Count, NonNegativeSeconds, PositiveSeconds, Rate, Samples, Traffic, Variation, needs_an_end
from workloads.gamma import Gamma
from workloads.lengths.preset import Preset as PresetLengths
from workloads.lengths.scaled import Factor, Scaled


@dataclass(kw_only=True)
class Preset(Traffic):
    """`preset`: a name in workloads/presets. `rate` and `cv` default to the trace's own; `input_scale` and `output_scale` multiply its
    lengths. The rest is as for every open-loop kind.
    """

    closed_loop: ClassVar[bool] = False
    samples: Samples = 1
    preset: str
    rate: Rate | None = None
    cv: Variation | None = None
    input_scale: Factor = 1.0
    output_scale: Factor = 1.0
    start: NonNegativeSeconds = 0.0
    num_requests: Count | None = None
    duration: PositiveSeconds | None = None
    _gamma: Gamma = field(init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from needs_an_end(values)
        unknown = presets.unknown(values["preset"])
        if unknown:
            yield "preset", unknown
            return
        arrivals = presets.load(values["preset"]).arrivals
        for key in ("rate", "cv"):
            if values[key] is None and key not in arrivals:
                yield key, f"missing; the preset {values['preset']} knows only lengths: its source has no arrivals of a whole service"

    def prepare(self) -> list[str]:
        arrivals = presets.load(self.preset).arrivals
        self._gamma = Gamma(
            name=self.name,
            lengths=Scaled(lengths=PresetLengths(name=self.preset), input=self.input_scale, output=self.output_scale),
            rate=arrivals["rate"] if self.rate is None else self.rate,
            cv=arrivals["cv"] if self.cv is None else self.cv,
            start=self.start,
            num_requests=self.num_requests,
            duration=self.duration,
            shared_prefix=self.shared_prefix,
            prefixes=self.prefixes,
            samples=self.samples,
        )
        return self._gamma.prepare()

    def expected(self) -> int | None:
        return self._gamma.expected()

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        return self._gamma.drive(world)
