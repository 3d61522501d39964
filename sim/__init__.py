"""burstsim: a discrete-event simulator of GPU clusters under LLM inference, bursty RL post-training and agentic work.

    import sim
    result = sim.run("scenario.yaml")
    result.summary["ttft_s"]["p99"]

Names are imported when first used, so that `import sim` costs nothing.
"""
from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from sim.core.errors import BadInput
    from sim.spec.load import dump, load, loads
    from sim.spec.scenario import Scenario
    from sim.study.result import Result
    from sim.study.run import run

    __version__: str

__all__ = ["BadInput", "Result", "Scenario", "__version__", "dump", "load", "loads", "run"]

_HOMES = {
    "BadInput": "sim.core.errors",
    "Result": "sim.study.result",
    "Scenario": "sim.spec.scenario",
    "dump": "sim.spec.load",
    "load": "sim.spec.load",
    "loads": "sim.spec.load",
    "run": "sim.study.run",
}


def __getattr__(name: str) -> typing.Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        value: typing.Any = version("burstsim")
    elif name in _HOMES:
        value = vars(importlib.import_module(_HOMES[name]))[name]
    else:
        raise AttributeError(f"module 'sim' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
