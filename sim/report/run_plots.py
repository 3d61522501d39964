"""What `Result.plot` is: one method for each drawing of a run, on axes that are given or on a figure of its own; called, an overview.

The drawings are those of the page (`plots.py` and its kin), a part of one at a time, in colours of a notebook (`paint.py`). A drawing that
a run has nothing for is refused, and `dir` leaves it out, so that completion offers what there is.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from sim.core.errors import BadInput, did_you_mean
from sim.report import agents, callers, economics, fleet, gantt, links, plots, rl_plots, sandboxes, sharing
from sim.report.axes import columns, on_axes
from sim.report.over_arrival import over_arrival
from sim.report.paint import LOOK
from sim.report.plots import LATENCIES, Drawing, Timeline
from sim.study.metrics import Facts
from sim.study.rl.run import Run, runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.study.result import Result

BROAD = 10.0  # inches
WIDE, HIGH = 12.0, 3.4  # inches of an overview, and of one of its rows
LAGS = tuple(name.removeprefix("lag_") for name, _ in rl_plots.LAGS)
# What people look at first, by what a run is of; of each the first that it has, as many as fill `PANELS`.
SIGHTS = {
    "gantt": ("gantt", "steps", "staleness", "samples", "gpus"), "replicas": ("replicas", "latency_over_time", "latency", "gpus"),
    "evals": ("evals", "agents", "sandboxes", "gpus"), "agents": ("agents", "tasks", "kv", "gpus"),
    "latency": ("latency", "queue", "gpus", "kv"),
}  # fmt: skip
PANELS = 4
Named = TypeVar("Named")


class Need(NamedTuple):
    """Whether a run has data for a drawing, and what it says when not."""

    met: Callable[[RunPlots], Any]
    lacking: str


class RunPlots:
    """Drawings of one run. Every method takes `axes`, by default those of a new figure, and returns the Axes it drew on. Raises BadInput
    where the run has no data for it, and for names it does not have.
    """

    def __init__(self, result: Result):
        self._result = result

    def __call__(self) -> np.ndarray:
        """An overview: the two to four drawings that people look at first, in one figure; the Axes of each, as an array."""
        from matplotlib import pyplot, rc_context

        chosen = self._sights()
        if not chosen:
            raise BadInput("nothing to draw: this run has no data for any plot")
        rows = [names if len(names) > 1 else names * 2 for names in chosen]
        tall = [self._charts[0].height if "gantt" in names else HIGH for names in chosen]
        # The first figure of all sets up how figures are shown, which is to last.
        figure = pyplot.figure(figsize=(WIDE, sum(tall)), layout="constrained")
        with rc_context(LOOK):
            axes = figure.subplot_mosaic(rows, height_ratios=tall)
            figure.suptitle(f"{self._result.scenario.name}: {self._result.summary['verdict']}")
        for name, one in axes.items():
            METHODS[name](self, axes=one)
        return np.array(list(axes.values()))

    def __dir__(self) -> list[str]:
        return [name for name, need in NEEDS.items() if need.met(self)]

    def __getstate__(self) -> dict[str, Result]:
        # A result that was drawn is sent elsewhere without what drawings keep, which cannot be.
        return {"_result": self._result}

    def latency(self, measure: str = "ttft", axes: Axes | None = None) -> Axes:
        """Share of completed requests at or below each latency (`ttft`, `tpot` or `e2e`), with the limit of the SLO."""
        self._wants("latency")
        drawing = plots.latency(self._facts, measure, self._times(measure))

        def draw(on: Any) -> None:
            drawing.parts[0](on)
            if on.get_legend_handles_labels()[1]:
                on.legend()

        return on_axes(axes, draw)

    def latency_over_time(self, measure: str = "ttft", axes: Axes | None = None) -> Axes:
        """Median and 95th percentile of a latency by the time of arrival, with the limit of the SLO."""
        self._wants("latency_over_time")
        self._times(measure)
        return on_axes(axes, over_arrival(self._facts, measure).parts[0])

    def arrivals(self, axes: Axes | None = None) -> Axes:
        """Arrivals per second over time."""
        self._wants("arrivals")
        return on_axes(axes, plots.traffic(self._facts, self._line).parts[0])

    def queue(self, axes: Axes | None = None) -> Axes:
        """Requests that wait for a first admission, over time."""
        self._wants("queue")
        return on_axes(axes, plots.traffic(self._facts, self._line).parts[1])

    def batch(self, axes: Axes | None = None) -> Axes:
        """Requests in service over time."""
        self._wants("batch")
        return on_axes(axes, plots.batch(self._facts, self._line).parts[0])

    def kv(self, axes: Axes | None = None) -> Axes:
        """KV blocks in use over time, of those of ready replicas."""
        self._wants("kv")
        return on_axes(axes, plots.batch(self._facts, self._line).parts[1])

    def gpus(self, axes: Axes | None = None) -> Axes:
        """What GPUs did over time, stacked: steps that only decode, steps with prompt chunks, passes of trainers that share them."""
        self._wants("gpus")
        return on_axes(axes, plots.gpu_time(self._facts, self._line).parts[0])

    def pools(self, axes: Axes | None = None) -> Axes:
        """How busy the GPUs of each pool were, over time."""
        self._wants("pools")
        return on_axes(axes, plots.pools(self._facts, self._line).parts[0])

    def replicas(self, pool: str | None = None, axes: Axes | None = None) -> Axes:
        """Replicas that are ready, start and drain, against those wanted, of a pool that is scaled (by default the first)."""
        self._wants("replicas")
        return on_axes(axes, _chosen(pool, self._fleets, "pool").parts[0])

    def starts(self, axes: Axes | None = None) -> Axes:
        """The stages of a start one after the other, from wanted to ready."""
        self._wants("starts")
        return on_axes(axes, self._starts[0].parts[0])

    def cost(self, axes: Axes | None = None) -> Axes:
        """Dollars over time; by the hour in a run of three hours and more."""
        self._wants("cost")
        return on_axes(axes, economics.course(self._facts).parts[0])

    def power(self, axes: Axes | None = None) -> Axes:
        """Power over time: of the GPUs; of the whole site, by the hour, in a run of three hours and more."""
        self._wants("power")
        return on_axes(axes, economics.course(self._facts).parts[1])

    def gantt(self, whole: bool = False, axes: Axes | None = None) -> Axes:
        """Who does what when in reinforcement learning: steps in the middle of the run, or the whole of it."""
        self._wants("gantt")
        chart = self._charts[-1 if whole else 0]

        def draw(on: Any) -> None:
            on.legend(handles=gantt.draw(on, chart), ncols=columns(on), handlelength=1.2)

        return on_axes(axes, draw, (BROAD, chart.height))

    def steps(self, run: str | None = None, axes: Axes | None = None) -> Axes:
        """What the seconds of each step of reinforcement learning went to, stacked; of a run by its name (by default the first)."""
        self._wants("steps")

        def draw(on: Any) -> None:
            rl_plots.breakdown(on, _chosen(run, self._runs, "run"))
            on.set_xlabel("version")
            on.set_title("seconds of a step")
            on.legend(ncols=columns(on), handlelength=1.2)

        return on_axes(axes, draw)

    def staleness(self, run: str | None = None, lag: str = "mean", axes: Axes | None = None) -> Axes:
        """Versions between the policy that is updated and the one that wrote, of samples trained on: `lag` since the group began
        (`submit`), since the first token (`oldest`), or the mean over tokens (`mean`).
        """
        self._wants("staleness")
        place = LAGS.index(_known(lag, LAGS, "lag"))
        (drawing,) = rl_plots.staleness(_chosen(run, self._stale, "run"), "")

        def draw(on: Any) -> None:
            drawing.parts[place](on)
            on.set_title("% of samples trained on, by staleness")
            on.set_xlabel(f"versions, {rl_plots.LAGS[place][1]}")

        return on_axes(axes, draw)

    def samples(self, run: str | None = None, axes: Axes | None = None) -> Axes:
        """Samples of reinforcement learning that run, over time."""
        self._wants("samples")
        return on_axes(axes, rl_plots.busy(self._facts, _chosen(run, self._runs, "run"), "").parts[0])

    def groups(self, run: str | None = None, axes: Axes | None = None) -> Axes:
        """Groups of samples that wait for rewards and for the trainer, over time."""
        self._wants("groups")
        return on_axes(axes, rl_plots.busy(self._facts, _chosen(run, self._runs, "run"), "").parts[1])

    def lengths(self, run: str | None = None, axes: Axes | None = None) -> Axes:
        """How long answers are that are generated, and those that are trained on."""
        self._wants("lengths")
        return on_axes(axes, _chosen(run, self._by_run(rl_plots.lengths), "run").parts[0])

    def agents(self, axes: Axes | None = None) -> Axes:
        """What agents' time goes to, by kind of agent."""
        self._wants("agents")
        return on_axes(axes, next(agents.lives(self._facts)).parts[0])

    def tasks(self, axes: Axes | None = None) -> Axes:
        """Share of tasks of agents done within each time."""
        self._wants("tasks")
        return on_axes(axes, next(agents.tasks(self._facts)).parts[0])

    def evals(self, axes: Axes | None = None) -> Axes:
        """Samples of evaluations that are over, over time."""
        self._wants("evals")
        return on_axes(axes, next(agents.progress(self._facts, self._result.summary["evals"])).parts[0])

    def sandboxes(self, pool: str | None = None, axes: Axes | None = None) -> Axes:
        """Sandboxes on nodes over time by what they do, of a pool (by default the first)."""
        self._wants("sandboxes")
        return on_axes(axes, _chosen(pool, self._boxes, "pool").parts[0])

    def links(self, axes: Axes | None = None) -> Axes:
        """Use of the busiest links of the network over time."""
        self._wants("links")
        return on_axes(axes, self._links[0].parts[0])

    def regions(self, axes: Axes | None = None) -> Axes:
        """Share of what comes from each region that is served in another one, over time."""
        self._wants("regions")

        def draw(on: Any) -> None:
            self._origins[0].parts[1](on)
            on.set_title("requests served elsewhere, %")
            on.legend(ncols=4)

        return on_axes(axes, draw)

    def lending(self, borrower: str | None = None, axes: Axes | None = None) -> Axes:
        """Who had the GPUs that a pool lends, over time; `borrower` is the pool that has them in turn (by default the first)."""
        self._wants("lending")
        return on_axes(axes, _chosen(borrower, self._turns, "borrower").parts[0])

    def _wants(self, name: str) -> None:
        if not NEEDS[name].met(self):
            raise BadInput(f"nothing to draw: {NEEDS[name].lacking}; this run has plots of {', '.join(dir(self)) or 'nothing'}")

    def _times(self, measure: str) -> np.ndarray:
        values = self._facts.times(_known(measure, tuple(LATENCIES), "measure"))
        if not len(values):
            raise BadInput(f"nothing to draw: no request of this run has a {measure.upper()}")
        return values

    def _sights(self) -> list[list[str]]:
        """Names of drawings by row: a Gantt chart takes a whole one."""
        there = self.__dir__()
        first = next((names for name, names in SIGHTS.items() if name in there), ())
        names = [name for name in (*first, *(other for other in there if other not in first)) if name in there]
        broad, names = [["gantt"]] * ("gantt" in names), [name for name in names if name != "gantt"]
        names = names[: PANELS - 2 * len(broad)]
        return [*broad, *(names[start : start + 2] for start in range(0, len(names), 2))]

    @functools.cached_property
    def _facts(self) -> Facts:
        return Facts(self._result)

    @functools.cached_property
    def _line(self) -> Timeline:
        return Timeline(self._facts)

    @functools.cached_property
    def _ran(self) -> bool:
        return bool(self._facts.span > 0 and len(self._result.tables["stretches"]))

    @functools.cached_property
    def _fleets(self) -> dict[str, Drawing]:
        return fleet.replicas(self._facts, self._result.summary)

    @functools.cached_property
    def _starts(self) -> list[Drawing]:
        return list(fleet.starts(self._facts, self._result.summary))

    @functools.cached_property
    def _boxes(self) -> dict[str, Drawing]:
        return sandboxes.drawings(self._facts, self._result.summary)

    @functools.cached_property
    def _links(self) -> list[Drawing]:
        return list(links.use(self._facts))

    @functools.cached_property
    def _origins(self) -> list[Drawing]:
        return list(callers.origins(self._facts, self._result.summary))

    @functools.cached_property
    def _turns(self) -> dict[str, Drawing]:
        return sharing.turns(self._facts)

    @functools.cached_property
    def _runs(self) -> dict[str, Run]:
        """Those that made a step, by name."""
        return {run.name: run for run in runs(self._facts) if len(run.steps)} if self._facts.end > 0 else {}

    @functools.cached_property
    def _charts(self) -> list[gantt.Chart]:
        return list(gantt.charts(self._facts))

    @functools.cached_property
    def _stale(self) -> dict[str, Run]:
        return {name: run for name, run in self._runs.items() if list(rl_plots.staleness(run, ""))}

    def _by_run(self, draw: Callable[[Run, str], Iterator[Drawing]]) -> dict[str, Drawing]:
        return {name: one for name, run in self._runs.items() for one in draw(run, "")}


_IDLE, _NO_RL = "no engine of this run worked", "nothing learns by reinforcement in this run"
NEEDS: Mapping[str, Need] = {
    "latency": Need(lambda one: len(one._facts.times("e2e")), "no request of this run completed"),
    "latency_over_time": Need(lambda one: len(one._facts.times("e2e")) > 1, "fewer than two requests of this run completed"),
    "arrivals": Need(lambda one: one._ran, _IDLE), "queue": Need(lambda one: one._ran, _IDLE), "batch": Need(lambda one: one._ran, _IDLE),
    "kv": Need(lambda one: one._ran, _IDLE), "gpus": Need(lambda one: one._ran, _IDLE),
    "pools": Need(lambda one: one._ran and len(one._facts.pools) > 1, "there is no more than one pool in this run"),
    "replicas": Need(lambda one: one._fleets, "no replicas come or go in this run"),
    "starts": Need(lambda one: one._starts, "no replica started in this run"),
    "cost": Need(lambda one: one._ran, _IDLE), "power": Need(lambda one: one._ran, _IDLE),
    "gantt": Need(lambda one: one._runs, _NO_RL), "steps": Need(lambda one: one._runs, _NO_RL),
    "staleness": Need(lambda one: one._stale, "no sample of this run was stale"),
    "samples": Need(lambda one: one._runs, _NO_RL), "groups": Need(lambda one: one._runs, _NO_RL),
    "lengths": Need(lambda one: one._by_run(rl_plots.lengths), "too few samples were trained on in this run"),
    "agents": Need(lambda one: list(agents.lives(one._facts)), "there are no agents in this run"),
    "tasks": Need(lambda one: list(agents.tasks(one._facts)), "fewer than two tasks of agents were completed in this run"),
    "evals": Need(lambda one: list(agents.progress(one._facts, one._result.summary["evals"] or {})), "this run has no evaluations"),
    "sandboxes": Need(lambda one: one._boxes, "no sandbox was asked for in this run"),
    "links": Need(lambda one: one._links, "nothing was sent over a network in this run"),
    "regions": Need(lambda one: one._origins, "there are fewer than two regions in this run"),
    "lending": Need(lambda one: one._turns, "no pool of this run lends its GPUs"),
}  # fmt: skip
METHODS: Mapping[str, Callable[..., Any]] = {name: vars(RunPlots)[name] for name in NEEDS}


def _known(name: str, names: Sequence[str], what: str) -> str:
    if name not in names:
        raise BadInput(f"unknown {what} '{name}'; {did_you_mean(name, names)}")
    return name


def _chosen(name: str | None, there: Mapping[str, Named], what: str) -> Named:
    return next(iter(there.values())) if name is None else there[_known(name, tuple(there), what)]
