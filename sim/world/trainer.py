"""A trainer: GPUs that are in one state at a time, and write down how long they were in each.

It knows nothing of where samples come from. Who drives it asks for an update or for log-probabilities, and waits; seconds come from
`sim.physics.trainer`. Its collectives do not share the links of a network with other traffic; checkpoints and weights that it sends do.

One that shares the GPUs of a pool is `asleep` while engines have them (`sim.world.colocated`), whatever it waits for meanwhile.
"""
from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from sim.core.errors import BadInput, Problem
from sim.physics import hybrid
from sim.physics.topology import Gpus
from sim.physics.trainer import Parts, TrainCost, TrainStep
from sim.policy.place.base import Wanted
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.trainer import Trainer as Spec
from sim.spec.training import seated
from sim.world.recorder import Recorder
from sim.world.site import Site

if TYPE_CHECKING:
    from sim.world.cluster import World

# What a trainer may do while engines have its GPUs: wait for others, and write a checkpoint of what lies in the host's memory then.
IDLE = ("wait", "data", "reward", "validate", "checkpoint", "asleep")


class Trainer:
    """`spec` bound to its model as `model`. `steps` counts updates that are done; `place`: its GPUs, on a network. `asleep`: engines have
    them.

    A process that drives it holds it alone: an update waits for nobody. States are those of the table `train_states`.
    """

    def __init__(self, env: Any, spec: Spec, model: TrainStep, recorder: Recorder):
        self.env, self.spec, self.model = env, spec, model
        self.steps = 0
        self.place: Gpus | None = None
        self.driver = ""
        self._recorder = recorder
        self._states, self._rows = recorder.tables["train_states"], recorder.tables["train_steps"]
        self._code = self._states.label("trainer", spec.name)
        self.asleep = spec.shares is not None
        self._state, self._since = "asleep" if self.asleep else "wait", 0.0

    @property
    def state(self) -> str:
        return self._state

    def enter(self, state: str) -> None:
        """Be in another state from now on; who is asleep, and would wait, stays so."""
        if self.asleep:
            assert state in IDLE, f"the GPUs of trainer {self.spec.name} are the engines' now: it cannot {state}"
        elif state != self._state:
            self._note(self.env.now)
            if self._state != "wait":
                # The run goes on at least until what it did was done.
                self._recorder.last = max(self._recorder.last, self.env.now)
            self._state = state

    def rest(self) -> None:
        """Leave the GPUs to the engines."""
        self.enter("asleep")
        self.asleep = True

    def rouse(self) -> None:
        """Have the GPUs again, and get ready."""
        self.asleep = False
        self.enter("onload")

    def spend(self, state: str, seconds: float) -> Generator[Any, Any, None]:
        """Be in a state for so long, then wait for what comes next."""
        self.enter(state)
        if seconds > 0:
            yield self.env.timeout(seconds)
        self.enter("wait")

    def update(
        self, lengths: Sequence[int], epochs: int = 1, mini_batches: int = 1, stated: float | None = None
    ) -> Generator[Any, Any, TrainCost]:
        """Train on samples of so many tokens, which is one row of `train_steps`; returns what it took. `stated`: seconds that it takes, in
        place of what the kernels say, as in the other passes.
        """
        cost = yield from self._row(_taking(self.model.update(lengths, epochs, mini_batches), stated))
        self.steps += 1
        return cost

    def accumulate(self, lengths: Sequence[int], stated: float | None = None) -> Generator[Any, Any, TrainCost]:
        """Train on some samples of the next step, as they come; a row of its own."""
        return (yield from self._row(_taking(self.model.accumulate(lengths), stated)))

    def finish(self, stated: float | None = None) -> Generator[Any, Any, TrainCost]:
        """End the step that samples were accumulated for; a row of its own."""
        cost = yield from self._row(_taking(self.model.finish(), stated))
        self.steps += 1
        return cost

    def logprob(
        self, lengths: Sequence[int], state: str = "logprob", stated: float | None = None
    ) -> Generator[Any, Any, TrainCost]:
        """Log-probabilities of samples, in state `logprob` or `reference`; returns what it took."""
        cost = _taking(self.model.logprob(lengths), stated)
        yield from self.spend(state, cost.seconds)
        return cost

    def close(self, end: float) -> None:
        """The clock has stopped: write down the state it was in last."""
        self._note(end)

    def _row(self, cost: TrainCost) -> Generator[Any, Any, TrainCost]:
        rows, begun = self._rows, self.env.now
        yield from self.spend("update", cost.seconds)
        rows.append((
            rows.label("trainer", self.spec.name), rows.label("workload", self.driver), self.steps, begun, self.env.now, cost.samples,
            cost.tokens, cost.micro_batches, cost.flops, cost.flops_full, cost.computed, *cost.parts,
        ))  # fmt: skip
        return cost

    def _note(self, until: float) -> None:
        if until > self._since:
            self._states.append((self._code, self._states.label("state", self._state), self._since, until))
        self._since = until


def _taking(cost: TrainCost, stated: float | None) -> TrainCost:
    """A cost that takes the stated seconds, by the parts that it has, where any are stated."""
    if stated is None:
        return cost
    if not cost.seconds:
        return cost._replace(parts=Parts(forward=stated))
    return cost._replace(parts=Parts(*(part * (stated / cost.seconds) for part in cost.parts)))


def trainers(world: World, site: Site | None) -> dict[str, Trainer]:
    """The trainers of a scenario by name, each with GPUs of the network where there is one. Raises BadInput with all that is wrong."""
    found, problems = {}, []
    for number, said in enumerate(world.scenario.cluster.trainers):
        where, spec = f"cluster.trainers.{number}", seated(world.scenario.cluster, said)
        pool = next((one for one in world.lifecycles if one.pool.name == spec.shares), None)
        try:
            model = TrainStep(llm(spec.model or world.scenario.model), spec, where)
            if pool is not None:
                hybrid.check(model, pool.opened.memory.weights, where)
        except BadInput as error:
            problems += error.problems
            continue
        found[spec.name] = trainer = Trainer(world.env, spec, model, world.recorder)
        if site is not None and pool is not None:
            trainer.place = Gpus(tuple(slot for life in pool.lives for slot in site.places[life.index]))
        elif site is not None:
            wanted = Wanted(spec.gpus // spec.parallel.tp, spec.parallel.tp, gpu(spec.gpu).name, spec.node or "", spec.region)
            # Replicas count up from 0.
            if site.take(-1 - number, wanted):
                trainer.place = Gpus(site.places[-1 - number])
            else:
                problems.append(Problem(f"its {spec.gpus} GPUs find no room: {site.why(wanted)}", where))
    if problems:
        raise BadInput(problems)
    return found
