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
    from sim.report.rich import capacity_html as capacity_html
    from sim.report.rich import pareto_html as pareto_html
    from sim.report.rich import plan_html as plan_html
    from sim.report.rich import result_html as result_html
    from sim.report.run_plots import RunPlots as RunPlots
    from sim.spec.load import dump, load, loads
    from sim.spec.scenario import Scenario
    from sim.study.compare.compare import compare, what_if
    from sim.study.compare.comparison import Comparison
    from sim.study.plan.capacity import capacity
    from sim.study.plan.pareto import pareto
    from sim.study.plan.plan import Plan, plan
    from sim.study.replicate.replicate import replicate
    from sim.study.replicate.replications import Replications
    from sim.study.result import Result
    from sim.study.run import run
    from sim.study.sweep.result import Sweep
    from sim.study.sweep.sweep import sweep
    from sim.study.workers import Crew

    __version__: str

__all__ = [
    "BadInput", "Comparison", "Crew", "Plan", "Replications", "Result", "Scenario", "Sweep", "__version__", "capacity", "compare", "dump",
    "load", "loads", "pareto", "plan", "replicate", "run", "sweep", "what_if",
]

_HOMES = {
    "BadInput": "sim.core.errors",
    "Comparison": "sim.study.compare.comparison",
    "Crew": "sim.study.workers",
    "Plan": "sim.study.plan.plan",
    "Replications": "sim.study.replicate.replications",
    "Result": "sim.study.result",
    "RunPlots": "sim.report.run_plots",
    "Scenario": "sim.spec.scenario",
    "Sweep": "sim.study.sweep.result",
    "capacity": "sim.study.plan.capacity",
    "capacity_html": "sim.report.rich",
    "compare": "sim.study.compare.compare",
    "dump": "sim.spec.load",
    "load": "sim.spec.load",
    "loads": "sim.spec.load",
    "pareto": "sim.study.plan.pareto",
    "pareto_html": "sim.report.rich",
    "plan": "sim.study.plan.plan",
    "plan_html": "sim.report.rich",
    "replicate": "sim.study.replicate.replicate",
    "result_html": "sim.report.rich",
    "run": "sim.study.run",
    "sweep": "sim.study.sweep.sweep",
    "what_if": "sim.study.compare.compare",
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
