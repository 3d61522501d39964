"""What a plan chooses among: every combination of the choices in `plan`, each a scenario of its own but for how many replicas it has.

A layout that cannot be (memory, heads that do not divide, an unpriced GPU) is refused before any run, with the reason. Money is that of the
GPUs of all pools and trainers and of the nodes of sandboxes, whether used or not; of what is scaled, only the least is known before a run.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.physics.memory import divide, lacking
from sim.physics.step import EngineStep
from sim.spec import compose
from sim.spec.hardware import gpu, node
from sim.spec.keys import Keys
from sim.spec.layout import Parallel
from sim.spec.lending import lenders
from sim.spec.llm import llm
from sim.spec.load import located, plain, whole
from sim.spec.plan import Search
from sim.spec.prices import terms
from sim.spec.sandboxes import node_price
from sim.spec.scenario import Pool, Scenario
from sim.spec.trainer import Trainer
from sim.spec.training import home as host
from sim.spec.training import residual
from sim.spec.yaml_marks import Document
from sim.study.compare.counterparts import REPLACED, counterpart, place
from sim.study.plan.choices import home, misfits, of_axis
from sim.study.sweep.space import values

SAME = "it is the same as"
NODES = "nodes of sandboxes"
STUDY = ("ladder", "curve", "sweep", "plan")


@dataclass
class Layout:
    """`choices` by what they are called; `scenario` has one replica of the pool (`pool`: its place), None where `refused` says why.
    `lacking`: bytes on each GPU, of a model that does not fit.
    """

    choices: dict[str, Any]
    pool: int
    scenario: Scenario | None
    refused: str = ""
    lacking: float = 0.0

    @property
    def words(self) -> str:
        """What it is called."""
        return ", ".join(_word(name, value) for name, value in self.choices.items()) or "as written"

    def sized(self, replicas: int, scenario: Scenario | None = None) -> Scenario:
        """Its scenario, or that scenario of it, with so many replicas; of a pool that is scaled, at most so many."""
        made = scenario or self.whole
        pools = list(made.cluster.pools)
        mine = pools[self.pool]
        change: dict[str, Any] = {"replicas": replicas}
        if mine.autoscale is not None:
            least = min(mine.autoscale.min, replicas)
            change = {"autoscale": mine.autoscale.model_copy(update={"min": least, "max": replicas}), "replicas": max(least, 1)}
        pools[self.pool] = mine.model_copy(update=change)
        # A trainer on the GPUs of the pool has all of them.
        trainers = tuple(
            one.model_copy(update={"gpus": replicas * mine.parallel.gpus}) if one.shares == mine.name else one
            for one in made.cluster.trainers
        )
        return made.model_copy(update={"cluster": made.cluster.model_copy(update={"pools": tuple(pools), "trainers": trainers})})

    @property
    def fixed(self) -> bool:
        """Whether what it costs is known before a run: nothing comes and goes."""
        return self.mine.autoscale is None

    @property
    def least(self) -> int:
        """The fewest replicas that it may be sized to: of a pool that is scaled those that it keeps."""
        return 1 if self.mine.autoscale is None else max(1, self.mine.autoscale.min)

    @property
    def whole(self) -> Scenario:
        """The scenario of a layout that is not refused."""
        assert self.scenario is not None, self.refused
        return self.scenario

    @property
    def mine(self) -> Pool:
        """The pool that is sized."""
        return self.whole.cluster.pools[self.pool]

    @cached_property
    def step(self) -> EngineStep:
        """The step model of a replica."""
        return EngineStep(llm(self.mine.model or self.whole.model), gpu(self.mine.gpu), self.mine)

    @cached_property
    def room(self) -> int:
        """KV tokens of a replica."""
        found = divide(llm(self.mine.model or self.whole.model), gpu(self.mine.gpu), self.mine, "", self.residual)
        return found.blocks * self.mine.engine.block_size

    @property
    def residual(self) -> float:
        """Bytes on each GPU that a trainer leaves there."""
        return residual(self.whole.cluster, self.mine.name)

    def hourly(self, replicas: int) -> float:
        """Dollars per hour for GPUs and nodes of sandboxes with so many replicas; of what is scaled the least."""
        return math.fsum(self.bill(replicas).values())

    def bill(self, replicas: int) -> dict[str, float]:
        """The same by kind of GPU; `NODES` are those of sandboxes."""
        scenario, found = self.sized(replicas), dict[str, float]()
        owners = lenders(scenario.cluster)
        for pool in scenario.cluster.pools:
            if pool.name in owners:
                continue
            count = pool.replicas if pool.autoscale is None else pool.autoscale.min
            paid = terms(scenario.prices, pool, gpu(pool.gpu).name, gpu(pool.gpu).price_per_hour)
            kept = max(paid.reserved, 0)
            rate = (kept * (paid.price or 0.0)) + max(count - kept, 0) * (paid.beyond or 0.0) if kept else count * (paid.price or 0.0)
            found[pool.gpu] = found.get(pool.gpu, 0.0) + pool.parallel.gpus * rate
        for one in scenario.cluster.trainers:
            if one.shares is None:
                found[one.gpu] = found.get(one.gpu, 0.0) + _trainer(scenario, one)
        for boxes in scenario.cluster.sandboxes:
            count = boxes.autoscale.min if boxes.autoscale else boxes.nodes or 0
            found[NODES] = found.get(NODES, 0.0) + count * (node_price(scenario, boxes)[0] or 0.0)
        return found

    def gpus(self, replicas: int) -> int:
        """GPUs of all pools, as many as they may have, and of trainers with GPUs of their own."""
        cluster = self.sized(replicas).cluster
        owned = [(pool.autoscale.max if pool.autoscale else pool.replicas, pool) for pool in cluster.pools if pool.shares is None]
        return sum(count * pool.parallel.gpus for count, pool in owned) + sum(one.gpus for one in cluster.trainers if one.shares is None)

    def nodes(self, replicas: int) -> tuple[int, int]:
        """Nodes that all pools, as many replicas as they may have, and trainers take, and GPUs of those nodes that stay free.

        A replica lies within one node where it can; those of all pools and trainers on one kind of node share it, the largest first.
        """
        cluster, parts = self.sized(replicas).cluster, dict[str, list[int]]()
        for pool in cluster.pools:
            if pool.shares is None:
                count = pool.autoscale.max if pool.autoscale else pool.replicas
                parts.setdefault(pool.node or gpu(pool.gpu).node, []).extend([pool.parallel.gpus] * count)
        for one in cluster.trainers:
            if one.shares is None:
                parts.setdefault(one.node or gpu(one.gpu).node, []).append(one.gpus)
        free = [_packed(sizes, node(name).gpus) for name, sizes in parts.items()]
        return sum(map(len, free)), sum(map(sum, free))


class Layouts(Sequence[Layout]):
    """All layouts of a plan; each is made when it is asked for. Raises BadInput, at the lines of the file, for a search that is empty or
    contradicts itself.
    """

    def __init__(self, scenario: Scenario, search: Search, document: Document):
        self.search, self._scenario = search, scenario
        self.pool = _pool(scenario, search)
        # Changes go over what was written, so that what is left to its default may change with them.
        self._document = _bare(document)
        self.axes = _axes(scenario, search, self.pool, document)
        self._made: dict[int, Layout] = {}
        self._names: dict[str, tuple[tuple[int, ...], str]] = {}

    def __len__(self) -> int:
        return math.prod(len(choices) for choices in self.axes.values())

    def __getitem__(self, place: Any) -> Layout:
        if not 0 <= place < len(self):
            raise IndexError(place)
        if place not in self._made:
            self._made[place] = self._make(self.picks(place))
        return self._made[place]

    def picks(self, place: int) -> tuple[int, ...]:
        """Which choice of each axis a layout has."""
        found = []
        for size in reversed([len(choices) for choices in self.axes.values()]):
            place, pick = divmod(place, size)
            found.append(pick)
        return tuple(reversed(found))

    def place(self, picks: Sequence[int]) -> int:
        """The layout of these choices."""
        found = 0
        for pick, choices in zip(picks, self.axes.values(), strict=True):
            found = found * len(choices) + pick
        return found

    def _make(self, picks: tuple[int, ...]) -> Layout:
        picked = {name: choices[pick] for pick, (name, choices) in zip(picks, self.axes.items(), strict=True)}
        chosen, pool, missing = {name: value for name, (value, _) in picked.items()}, self.pool, 0.0
        try:
            document, pool, idle = self._changed([changes for _, changes in picked.values()])
            chosen = {name: value for (name, value), none in zip(chosen.items(), idle, strict=True) if not none}
            layout = Layout(chosen, pool, whole(self._shared(document, pool)))
            missing = lacking(llm(layout.mine.model or layout.whole.model), gpu(layout.mine.gpu), layout.mine, layout.residual)
            _ = layout.room, layout.hourly(1)  # refuses what does not fit, and what has no price
            if layout.least > self.search.counts[-1]:
                raise BadInput(f"it keeps at least {layout.least} replicas, and plan.replicas ends at {self.search.counts[-1]}")
        except BadInput as error:
            return Layout(chosen, pool, None, "; ".join(dict.fromkeys(problem.message for problem in error.problems)), missing)
        first, words = self._names.setdefault(repr(plain(layout.scenario)), (picks, layout.words))
        return layout if first == picks else Layout(chosen, pool, None, f"{SAME} {words}")

    def _changed(self, changes: Sequence[Mapping[str, Any]]) -> tuple[Document, int, list[bool]]:
        """The document with the changes of each axis, where the pool now stands, and which of the changes are idle: of what it lacks.

        What replaces all pools or trainers goes first; keys of the others are then those of the same names.
        """
        mine = self._scenario.cluster.pools[self.pool].name
        document = compose.change(self._document, {key: one[key] for one in changes for key in REPLACED if key in one})
        pool = place(document.data, "pools", mine)
        if pool is None:
            raise BadInput(f"it has no pool named '{mine}', which is the one that is sized")
        sets: dict[str, Any] = {}
        idle = []
        for one in changes:
            own = any(key in REPLACED for key in one)
            found = {key if own else counterpart(key, self._scenario, document.data): value for key, value in one.items()}
            idle.append(None in found)
            sets |= {key: value for key, value in found.items() if key is not None and key not in REPLACED}
        document = compose.change(document, sets)
        written = document.data["cluster"]["pools"][pool]
        scaled = written.get("autoscale")
        # What it begins with is that of `sized`.
        written["replicas"] = max(1, scaled.get("min", 1)) if isinstance(scaled, dict) else 1
        return document, pool, [none or self._given(one, document, mine) for none, one in zip(idle, changes, strict=True)]

    def _given(self, changes: Mapping[str, Any], document: Document, pool: str) -> bool:
        """Whether all that is changed are the GPUs of a trainer that has those of the pool, as many as there are."""
        keys = [counterpart(key, self._scenario, document.data) or "" for key in changes]
        trainers = document.data["cluster"].get("trainers") or ()
        shared = [f"cluster.trainers.{number}.gpus" for number, one in enumerate(trainers) if one.get("shares") == pool]
        return bool(keys) and all(key in shared for key in keys)

    def _shared(self, document: Document, pool: int) -> Document:
        """The same with trainers on the GPUs of the pool on all those that one replica has."""
        cluster = document.data["cluster"]
        mine = cluster["pools"][pool]
        each = Parallel.model_validate(mine["parallel"]).gpus if isinstance(mine.get("parallel"), dict) else 1
        for trainer in cluster.get("trainers") or ():
            if trainer.get("shares") == self._scenario.cluster.pools[self.pool].name:
                trainer["gpus"] = each
        return document


def _bare(document: Document) -> Document:
    """The document without studies."""
    data = {key: value for key, value in document.data.items() if key not in STUDY}
    return Document(data, {at: place for at, place in document.places.items() if not at or at[0] not in STUDY})


def _axes(scenario: Scenario, search: Search, pool: int, document: Document) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    """By name what may be chosen, each with the keys it sets."""
    bare, data = _bare(document), document.data
    mine, here = scenario.cluster.pools[pool], f"cluster.pools.{pool}"
    own = {"gpu": search.gpu, "parallel": search.parallel, "precision": search.precision}
    keys = {name: (f"{here}.{name}", axis) for name, axis in own.items() if axis is not None}
    keys |= {f"engine.{name}": (f"{here}.engine.{name}", axis) for name, axis in search.engine.items()}
    if search.commitment is not None:
        keys["commitment"] = (f"prices.commitment.{mine.name}", search.commitment)
    keys |= {key: (key, axis) for key, axis in search.vary.items()}
    problems = list(_contradictions(scenario, search, mine, here))
    known, found, clear = Keys(data, tuple(key for key, _ in keys.values())), {}, not problems
    for name, (key, axis) in keys.items():
        at = f"plan.vary.{name}" if name in search.vary else f"plan.{name}"
        try:
            integers = known.whole(key)
        except BadInput as error:
            problems += [problem._replace(path=at) for problem in error.problems]
            continue
        choices = values(axis, integers)
        if not choices:
            problems.append(Problem("nothing to choose from: no whole number lies between min and max", at))
        elif clear:
            problems += of_axis(bare, key, axis, choices, home(data, search, name))
        found[_called(name, scenario)] = [(choice, {key: choice}) for choice in choices]
    for number, one in enumerate(search.alternatives):
        for key in one.set:
            try:
                known.whole(key)
            except BadInput as error:
                problems += [problem._replace(path=f"plan.alternatives.{number}.set") for problem in error.problems]
        problems += misfits(bare, one.set, f"plan.alternatives.{number}.set") if clear else ()
    if search.alternatives:
        found["alternative"] = [(one.name, dict(one.set)) for one in search.alternatives]
    if problems:
        raise BadInput(located(problems, scenario))
    return found


def _contradictions(scenario: Scenario, search: Search, mine: Pool, here: str) -> Iterator[Problem]:
    size = f"{here}.replicas"
    for key in search.vary:
        word = key.removeprefix(f"{here}.")
        if key in (size, f"{here}.autoscale.max"):
            yield Problem("how many replicas the pool has is what is searched; bound it with plan.replicas", f"plan.vary.{key}")
        elif vars(search).get(word) is not None or word.removeprefix("engine.") in search.engine:
            yield Problem(f"plan.{word} chooses it already; leave one of them out", f"plan.vary.{key}")
    for number, one in enumerate(search.alternatives):
        for key in one.set:
            if key in search.vary or key == size:
                yield Problem(f"{key} is chosen elsewhere in the plan too; leave one of them out", f"plan.alternatives.{number}.set")
    if search.gpu is not None and mine.price_per_hour is not None:
        message = "the GPU is to be chosen, but the pool has a price_per_hour of its own, which would hold for all; name a price book"
        yield Problem(message, "plan.gpu")
    if search.commitment is not None and scenario.prices is None:
        yield Problem("GPUs are bought on other terms only with a price book; write prices: {book: neocloud}", "plan.commitment")


def _pool(scenario: Scenario, search: Search) -> int:
    names = [pool.name for pool in scenario.cluster.pools]
    if search.pool is None and len(names) == 1:
        return 0
    if search.pool is None:
        message = f"missing; there are several pools ({', '.join(names)}): say which is sized" if names else "there is no pool to be sized"
        raise BadInput(located([Problem(message, "plan.pool")], scenario))
    if search.pool not in names:
        raise BadInput(located([Problem(f"no pool is named '{search.pool}'; {did_you_mean(search.pool, names)}", "plan.pool")], scenario))
    return names.index(search.pool)


def _trainer(scenario: Scenario, one: Trainer) -> float:
    """Dollars per hour of a trainer with GPUs of its own."""
    bought = host(scenario.cluster, one) or Pool(name=one.name, gpu=one.gpu, price_per_hour=one.price_per_hour)
    paid = terms(scenario.prices, bought, gpu(one.gpu).name, gpu(one.gpu).price_per_hour)
    return one.gpus * (paid.price or 0.0)


def _word(name: str, value: Any) -> str:
    """
    >>> _word("parallel", {"tp": 2}), _word("gpu", "h100_sxm"), _word("engine.max_num_seqs", 64), _word("prefill parallel", {"tp": 4})
    ('tp 2', 'h100_sxm', 'max_num_seqs 64', 'prefill tp 4')
    >>> _word("prices.reserved", {"serve": 1}), _word("prices.reserved", {})
    ('reserved serve 1', 'reserved none')
    """
    if isinstance(value, Mapping):
        whose, _, key = name.rpartition(" ")
        what = key.rpartition(".")[2]
        said = [f"{one} {each}" for one, each in value.items()] or ["none"]
        # What a layout is made of speaks for itself.
        return " ".join([*([whose] if whose else []), *([] if what == "parallel" and value else [what]), *said])
    plainly = name in ("gpu", "precision", "commitment", "alternative")
    return str(value) if plainly else f"{name.rpartition('.')[2]} {value}"


def _called(key: str, scenario: Scenario) -> str:
    """A key of a pool or a trainer with the name of that one: `prefill replicas` for cluster.pools.0.replicas."""
    bought = re.fullmatch(r"prices\.reserved\.([^.]+)", key)
    if bought is not None:
        return f"{bought[1]} reserved"
    found = re.fullmatch(r"cluster\.(pools|trainers)\.(\d+)\.(.+)", key)
    if found is None:
        return key
    every: Sequence[Pool | Trainer] = scenario.cluster.pools if found[1] == "pools" else scenario.cluster.trainers
    return f"{every[int(found[2])].name} {found[3].removeprefix('engine.').replace('.', ' ')}"


def _packed(sizes: Sequence[int], room: int) -> list[int]:
    """GPUs that stay free on each node of `room` GPUs, first fit from the largest on.

    >>> _packed([4, 4, 4], 8), _packed([16, 4, 2], 8), _packed([5, 5, 3], 8)
    ([0, 4], [0, 0, 2], [0, 3])
    """
    free: list[int] = []
    for size in sorted(sizes, reverse=True):
        place = next((place for place, left in enumerate(free) if left >= size), None)
        if place is None:
            whole = -(-size // room)
            free += [0] * (whole - 1) + [whole * room - size]
        else:
            free[place] -= size
    return free
