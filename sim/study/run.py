"""Run a scenario: build its world, let the clock run, keep the facts."""
from __future__ import annotations

import contextlib
import gc
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import sim
from sim.core.errors import BadInput, Problem
from sim.spec.load import dump, load, loads, located
from sim.spec.scenario import Scenario
from sim.study import assumptions
from sim.study.result import Result
from sim.study.rl.setup import setups
from sim.study.starts import most_replicas
from sim.world.cluster import World

Watch = Callable[[Callable[[], tuple[int, int | None, float]]], AbstractContextManager[None]]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; `at` is the simulated second it had reached."""

    def __init__(self, at: float):
        super().__init__(at)
        self.at = at


def run(scenario: Scenario | Mapping[str, Any] | str | Path, *, watch: Watch | None = None) -> Result:
    """Simulate a scenario (or the path of one, or a mapping as its YAML would give) and return what happened.

    The same scenario and seed give byte-identical tables. `watch` is entered around the run with a function that tells (requests ended,
    requests expected or None, simulated seconds). Of a scenario with a ladder only what it says before its first step is run
    (`sim.study.ladder.climb` runs the steps). Raises BadInput for what cannot be simulated, before the clock starts.
    """
    if isinstance(scenario, str | Path):
        scenario = load(scenario)
    elif not isinstance(scenario, Scenario):
        scenario = loads(scenario)
    try:
        world = World(scenario)
        remarks = [*world.start(), *_left(scenario)]
    except BadInput as error:
        raise BadInput(located(error.problems, scenario)) from None
    expected = world.expected()
    with watch(lambda: (world.recorder.ended, expected, world.env.now)) if watch else contextlib.nullcontext():
        spent = _simulate(world, scenario.duration)
    if not world.door.arrived and not world.recorder.tables["train_steps"]:
        raise BadInput("no request arrived: the workloads send nothing in the time given")
    _check_room(world)
    return Result(scenario, world.recorder.tables, _meta(world, [*remarks, *world.remarks, *_idle(world)], spent))


def _idle(world: World) -> list[str]:
    """Remarks on trainers that nobody drives."""
    return [f"trainer {trainer.spec.name}: no workload trains on it" for trainer in world.trainers.values() if not trainer.driver]


def _left(scenario: Scenario) -> list[str]:
    """What the scenario holds beside the one run that this is."""
    said = {
        "The ladder was not climbed: this is the scenario below its first step.": scenario.ladder,
        "The curve was not swept: this is the scenario at the load written.": scenario.curve,
        "Nothing was planned: this is the cluster as written; `burstsim plan` looks for the cheapest.": scenario.plan,
        "The sweep was not run: this is the scenario as written; `burstsim sweep` runs its points.": scenario.sweep,
    }
    return [text for text, there in said.items() if there]


def _check_room(world: World) -> None:
    """Raises BadInput when decode pools were too small for every single request, so that nothing was simulated."""
    small = [number for number, pool in enumerate(world.scenario.cluster.pools) if pool.role == "decode"]
    table = world.recorder.tables["requests"]
    if not small or "kv_capacity" not in table.labels["reason"]:
        return
    refused = table.labels["reason"].index("kv_capacity")
    if all((page["reason"] == refused).all() for page in table.pages()):
        least = min(int((page["input_tokens"] + page["wanted_tokens"]).min()) for page in table.pages())
        rooms = [(number, world.memories[number].blocks * world.scenario.cluster.pools[number].engine.block_size) for number in small]
        raise BadInput(located([
            Problem(f"its KV cache holds {room} tokens, fewer than the smallest request ({least}); give it more memory or GPUs",
                    f"cluster.pools.{number}") for number, room in rooms
        ], world.scenario))  # fmt: skip


def _simulate(world: World, duration: float | None) -> float:
    """Let the clock run to the end of the traffic, or to `duration`; returns the CPU seconds spent."""
    with _quiet_collector():
        began = time.process_time()
        try:
            # The events of `duration` itself still belong to the run.
            world.env.advance(math.inf if duration is None else math.nextafter(duration, math.inf))
        except KeyboardInterrupt:
            raise Interrupted(world.env.now) from None
        except BadInput as error:
            raise BadInput(located(error.problems, world.scenario)) from None
        world.close()
        return time.process_time() - began


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """A run makes millions of objects and no cycles worth looking for: what exists is set aside, and full collections are put off."""
    old = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*old)
        gc.unfreeze()


def _meta(world: World, said: list[str], spent: float) -> dict[str, Any]:
    scenario = world.scenario
    parts = list(zip(scenario.cluster.pools, world.models, world.memories, strict=True))
    pages, replicas = world.recorder.tables["requests"].pages(), world.recorder.tables["replicas"]
    longest = max((int((page["input_tokens"] + page["output_tokens"]).max(initial=0)) for page in pages), default=0)
    return {
        "version": sim.__version__,
        "seed": scenario.seed,
        "digest": hashlib.sha256(dump(scenario).encode()).hexdigest(),
        "sim_s": world.end,
        "cpu_s": spent,
        "events": next(world.env._eid),
        "arrived": world.door.arrived,
        "arrivals_end": world.door.last_arrival,
        "closed_loop": all(workload.closed_loop for workload in world.workloads),
        "remarks": [*(text for part in parts for text in assumptions.remarks(*part)), *assumptions.unpriced(scenario), *said],
        "pools": [assumptions.pool_facts(*part, longest, scenario) | {"replicas": most_replicas(replicas, part[0].name)}
                  for part in parts],
        **assumptions.site(scenario),
        "trainers": assumptions.trainers(scenario, [trainer.model for trainer in world.trainers.values()]),
        "sandboxes": assumptions.sandboxes(scenario, world.sandboxes.facts()),
        "rl": setups(world),
    }
