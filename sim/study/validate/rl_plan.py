"""One published run of reinforcement learning as a scenario, by stated rules: a row in, a plan out, and what it assumes in words.

A row's own columns come first, then what its page says beside the table, then the defaults of its framework. Reported times of updates
and log-probabilities are inputs (`train_s`, `old_logprob_s`, `ref_s`); a step, a wait and, but for the fit of a length law to a synchronous
colocated run, a generation are never.
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sim.core.errors import BadInput
from sim.spec.hardware import Gpu, gpu
from sim.spec.llm import Llm, llm, llm_names
from sim.study.validate import rl_lengths as lengths
from sim.study.validate.rl_framework import Framework, Page, framework_of, page_of
from sim.study.validate.rl_layout import WEIGHTS, engine_gpus, parallel, trainer
from sim.study.validate.rl_rows import batch_of
from sim.study.validate.scenario_of import gpu_named, model_named

POOL, TRAINER = "rollouts", "train"
# Versions that are made, those at the begin that do not count, and one more for each version that answers may be old: buffers fill first.
ROUNDS, FIRST = 6, 1
ASYNC_ROUNDS, ASYNC_FIRST = 10, 4
BATCH_TOKENS = 8192
# Seconds that an engine's host adds to a step beside the kernels. The guide's 4 ms a step are all that comes on top of the roofline; small
# kernels and launches, priced here one by one, are 1.5 ms of them.
HOST = 2.5e-3
NOTED = {"gen_share": r"rollout ([\d.]+) ?%", "reward_share": r"reward ([\d.]+) ?%", "train_share": r"train ([\d.]+) ?%"}
THROUGHPUT = re.compile(r"throughput ([\d.]+) ?(k?) tokens/s")
OTHER_NAMES = {"deepseek-671b": "deepseek-ai/DeepSeek-V3"}


class Assumed(NamedTuple):
    """Something the row does not say: what, the value taken, and its source."""

    what: str
    value: str
    source: str


@dataclass(frozen=True)
class Plan:
    """`scenario` as its YAML would give, `measured` figures by metric; with a `reason` it cannot be done and the scenario is empty.

    `inputs` are reported figures that were used, by column. `setup`: runs with one length law; `fits`: the generation time that its mean is
    fitted to, NaN: none. `group`: runs whose speed-ups are over the same base; `skip`: versions at the begin that do not count.
    """

    id: str
    mode: str = ""
    scenario: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, float] = field(default_factory=dict)
    assumed: tuple[Assumed, ...] = ()
    reason: str = ""
    setup: tuple[Any, ...] = ()
    group: tuple[Any, ...] = ()
    length: lengths.Length | None = None
    fits: float = math.nan
    skip: int = FIRST
    steps: float = math.nan


def plan_of(row: Mapping[str, Any], law: lengths.Length | None = None) -> Plan:
    """The plan of a row as `rl_rows.read` gives it; `law`: of its setup, in place of the default where no mean length is published."""
    try:
        return _Reader(row, law).plan()
    except BadInput as error:
        return Plan(row["id"], reason="; ".join(problem.message for problem in error.problems), measured=measured(row, ""))


def mode_of(row: Mapping[str, Any]) -> str:
    """The mode of a run, from the words of its table. Raises BadInput when they say none.

    >>> row = {"alloc_rollout_train": "4:12", "n_gpus": 16.0, "staleness": "1"}
    >>> mode_of(row | {"mode": "FSDP2 one-step-overlap"}), mode_of(row | {"mode": "sync", "alloc_rollout_train": ""})
    ('one_step_off', 'sync_colocated')
    """
    text, alloc = row["mode"].lower(), row["alloc_rollout_train"].lower()
    if re.search(r"one[-_ ]step", text):
        return "one_step_off"
    if "async" in text:
        return "async"
    if "sync" in text or (not text and row["staleness"] in ("", "0")):
        return "sync_disaggregated" if ":" in alloc else "sync_colocated"
    raise BadInput(f"mode '{row['mode']}' says neither sync, async nor one-step-off")


def measured(row: Mapping[str, Any], mode: str) -> dict[str, float]:
    """Published figures by metric. Of an asynchronous run gen_s is what the trainer waited, unless that has a cell of its own."""
    found = {"step_s": row["step_s"], "tok_s_gpu": row["tok_s_gpu"], "total_h": row["total_h"], "speedup_vs_sync": row["speedup_vs_sync"]}
    found["wait_s"] = row["wait_prev_gen_s"]
    if mode == "async" and row["wait_prev_gen_s"] != row["wait_prev_gen_s"]:
        found["wait_s"] = row["gen_s"]
    else:
        found["gen_s"] = row["gen_s"]
    for metric, pattern in NOTED.items():
        said = re.search(pattern, row["note"])
        found[metric] = float(said[1]) / 100 if said else math.nan
    said = THROUGHPUT.search(row["note"])
    found["tok_s"] = float(said[1]) * (1000 if said[2] else 1) if said else math.nan
    if row["steps"] != row["steps"]:
        found.pop("total_h")
    return {metric: value for metric, value in (found | row["figures"]).items() if value == value}


def named(written: str) -> str:
    """The catalogue's name of a model as tables of RL write it: with the maker's prefix or the variant left out.

    >>> named("R1-Distill-Qwen-1.5B"), named("Qwen3-235B"), named("DeepSeek V3")
    ('deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B', 'Qwen/Qwen3-235B-A22B', 'deepseek-ai/DeepSeek-V3')
    """
    written = OTHER_NAMES.get(written.lower(), written)
    try:
        return model_named(written)
    except BadInput as error:
        plain = _plain(written)
        near = [name for name in llm_names() if (short := _plain(name.rpartition("/")[2])).endswith(plain) or short.startswith(plain)]
        if not near:
            raise error
        return llm(min(near, key=lambda name: (len(name), name))).name


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


class _Reader:
    """Reads one row; what it assumes is kept as it goes."""

    def __init__(self, row: Mapping[str, Any], law: lengths.Length | None):
        self.row, self.law = row, law
        self.said: list[Assumed] = [Assumed(*filled) for filled in row["filled"]]
        self.mode = mode_of(row)
        self.framework, known = framework_of(row["framework"])
        self.page: Page = page_of(row)
        if not known:
            self.assume("framework", f"{row['framework'] or 'not said'}: as {self.framework.gate}", self.framework.source)

    def assume(self, what: str, value: Any, source: str) -> Any:
        self.said.append(Assumed(what, str(value), source))
        return value

    def plan(self) -> Plan:
        row = self.row
        if not row["gpu"]:
            raise BadInput("gpu: is empty; nothing says on which GPU it ran")
        model, chip = llm(named(row["model"])), gpu(gpu_named(row["gpu"]))
        if model.name.rpartition("/")[2].lower() != row["model"].lower():
            self.assume("model", model.name, f"the catalogue's nearest to '{row['model']}'")
        prompts, samples = self._batch()
        limit = self._limit()
        length = self._length(limit)
        rollout, train = self._split()
        bound, gate = self._gate()
        size = self._engine(model, chip, rollout)
        versions = ROUNDS if self.mode != "async" else ASYNC_ROUNDS + 2 * min(bound, 6)
        skip = FIRST if self.mode != "async" else ASYNC_FIRST + min(bound, 6)
        workload = {
            "kind": "rl", "name": "rl", "rollout": POOL, "trainer": TRAINER, "mode": self.mode, "steps": int(versions), "prompts": prompts,
            "samples": samples, "prompt": lengths.PROMPT, "answers": lengths.answers(length, limit), "solving": {"solve_rate_beta": [0.6, 0.6]},
            **gate, **self._updates(prompts), **self._rewards(),
        }  # fmt: skip
        self.assume("prompts", f"{lengths.PROMPT['mean']} tokens, lognormal", "judgement: problems of competitions")
        self.assume("spread of lengths", f"lognormal, sigma {lengths.SIGMA}, {lengths.RHO} in common within a group", "guide: 0.7 to 0.9")
        self.assume("answers that never end", f"{lengths.LOOPS:.1%} of the wrong ones, half being wrong", "judgement")
        scenario = {
            "name": row["id"], "seed": 1, "model": model.name, "workloads": [workload],
            "cluster": {"pools": [self._pool(model, chip, rollout, size, limit)],
                        "trainers": [self._trainer(model, chip, train, limit)]},
        }  # fmt: skip
        colocated = self.mode == "sync_colocated"
        fits = row["gen_s"] if (colocated and length.how not in ("published", "fitted")) or (self.law and self.law.how == "fitted") else math.nan
        fits = fits if colocated and length.how != "published" else math.nan
        return Plan(
            row["id"], self.mode, scenario, measured(row, self.mode), self._inputs(), tuple(self.said),
            setup=(row["source"], model.name, chip.name, row["n_gpus"], limit, self._backend()),
            group=(row["source"], model.name, chip.name, row["n_gpus"], limit, self._backend()),
            length=length, fits=fits, skip=int(skip), steps=row["steps"],
        )  # fmt: skip

    def _batch(self) -> tuple[int, int]:
        row, page, usual = self.row, self.page, self.framework
        samples = row["samples_per_prompt"] if row["samples_per_prompt"] > 0 else page.samples
        if not samples:
            samples = self.assume("samples of a prompt", usual.samples, usual.source)
        prompts = row["prompts_per_step"] if row["prompts_per_step"] > 0 else page.prompts
        if not prompts and batch_of(row) > 0:
            prompts = batch_of(row) / samples
        elif not prompts and usual.prompts and row["algorithm"]:
            prompts = self.assume("prompts of a step", usual.prompts, usual.source)
        if prompts == page.prompts and page.prompts:
            self.assume("prompts and samples of a step", f"{page.prompts} x {samples:g}", page.what)
        if not prompts:
            raise BadInput("prompts_per_step: is empty, and neither its page nor the note says how many samples a step has")
        if prompts != int(prompts):
            raise BadInput(f"{batch_of(row):g} samples of a step are no whole number of groups of {samples:g}")
        return int(prompts), int(samples)

    def _limit(self) -> int:
        if self.row["max_response_tokens"] > 0:
            return int(self.row["max_response_tokens"])
        mean = self.row["mean_response_tokens"]
        return int(self.assume("limit of answers", max(lengths.LIMIT, int(8 * mean) if mean > 0 else 0), "judgement"))

    def _length(self, limit: int) -> lengths.Length:
        mean = self.row["mean_response_tokens"]
        found = lengths.published(mean, limit) if mean > 0 else self.law or lengths.default(self.row)
        self.assume("mean length of answers", f"{lengths.limited(found.mean, limit):,.0f} tokens with the limit", f"{found.how}: {found.source}")
        return found

    def _split(self) -> tuple[int, int]:
        """GPUs that generate and GPUs that train; both are all of them where they are shared."""
        row = self.row
        pair = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*", row["alloc_rollout_train"])
        first, second = (float(pair[1]), float(pair[2])) if pair else (0.0, 0.0)
        total = row["n_gpus"] if row["n_gpus"] > 0 else first + second
        if not total:
            raise BadInput("n_gpus: is empty, and alloc_rollout_train does not say it either")
        if self.mode == "sync_colocated":
            return int(total), int(total)
        if not pair:
            share = self.framework.share
            self.assume("split", f"{share:.0%} of the GPUs generate", self.framework.source)
        elif not first or not second:
            raise BadInput(f"alloc_rollout_train '{row['alloc_rollout_train']}' leaves one side without a GPU")
        elif first + second > total and first + second != 100:
            raise BadInput(f"alloc_rollout_train '{row['alloc_rollout_train']}' is more than the {total:g} GPUs")
        else:
            share = first / (first + second)
        rollout = round(total * share)
        return rollout, int(total) - rollout

    def _gate(self) -> tuple[float, dict[str, Any]]:
        """How many versions old answers may be, and the keys of the workload that say so."""
        usual = self.framework
        if self.mode != "async":
            return 1.0, {}
        said = re.search(r"\d+(\.\d+)?", self.row["staleness"])
        bound = float(said[0]) if said else self.assume("bound on staleness", usual.usual, usual.source)
        if said and said[0] != self.row["staleness"]:
            self.assume("bound on staleness", f"{bound:g}", f"the first number of '{self.row['staleness']}'")
        value = int(bound) if bound == int(bound) and usual.whole else bound
        if usual.whole and bound != int(bound):
            raise BadInput(f"staleness {bound:g} is no whole number of versions, which {usual.gate} counts")
        gate = {"kind": usual.gate, **({usual.bound: value} if usual.bound else {})}
        self.assume("at a publication", ", ".join(f"{key} {value}" for key, value in usual.interrupt.items()), usual.source)
        return math.ceil(bound), {"staleness": gate, "interrupt": dict(usual.interrupt)}

    def _updates(self, prompts: int) -> dict[str, Any]:
        row, usual = self.row, self.framework
        colocated, found = self.mode.startswith("sync"), {}
        trigger = usual.trigger if self.mode == "async" and prompts % usual.trigger == 0 else 1
        steps = max(1, prompts // usual.mini_batch) if usual.mini_batch else min(usual.mini_batches, prompts)
        mini = max(1, steps // trigger)
        taking = {}
        if row["train_s"] > 0:
            taking["update"] = round(row["train_s"] / trigger, 3)
        else:
            self.assume("steps of the optimizer in a version", mini * trigger, usual.source)
            self.assume("trainer", "kernels and 3.5 s of each step of the optimizer", "prime-rl: 3.2 s, verl: 3.9 s")
        if row["old_logprob_s"] > 0:
            taking["logprob"] = round(row["old_logprob_s"], 3)
        if row["ref_s"] > 0:
            taking["reference"] = round(row["ref_s"], 3)
        logprob = row["old_logprob_s"] > 0 or (row["train_s"] != row["train_s"] and (colocated or usual.logprob))
        reference = row["ref_s"] > 0 or (row["train_s"] != row["train_s"] and usual.reference)
        found = {"updates": {"trigger": trigger, "mini_batches": mini}, "old_logprob": bool(logprob), "reference": bool(reference)}
        if taking:
            found["times"] = taking
        if self.mode == "sync_colocated":
            found |= self._switch(row["train_s"] > 0)
        return found

    def _switch(self, stated: bool) -> dict[str, Any]:
        """Of GPUs that are shared: what a reported update holds already, and what the page says."""
        switch = {}
        if stated:
            switch["to_train"] = self.assume("switch to training", 0.0, "verl's update_actor, which is an input, loads the states itself")
        if self.page.to_rollout is not None:
            switch["to_rollout"] = self.assume("switch to generation, s", self.page.to_rollout, self.page.what)
        return {"switch": switch} if switch else {}

    def _rewards(self) -> dict[str, Any]:
        value = "a rule, 20 ms, and 1 % that hang for 5 s"
        self.assume("rewards", value, "guide's preset of a math run")
        return {"rewards": [{"kind": "rule"}]}

    def _engine(self, model: Llm, chip: Gpu, gpus: int) -> int:
        if self.page.tp:
            size = self.assume("GPUs of an engine", self.page.tp, self.page.what)
        else:
            size = self.assume("GPUs of an engine", engine_gpus(model, chip), f"the fewest on which weights take {WEIGHTS:.0%} of the memory")
        if gpus % size:
            raise BadInput(f"{gpus} GPUs that generate are no whole number of engines of {size}")
        return int(size)

    def _pool(self, model: Llm, chip: Gpu, gpus: int, size: int, limit: int) -> dict[str, Any]:
        usual = self.framework
        longest = limit + 1024
        self.assume("engines", f"max_num_seqs {usual.max_num_seqs}, {usual.memory:.0%} of the memory", f"{usual.source}; 16 bits")
        self.assume("host", f"{1e3 * HOST:g} ms of each step of an engine", "guide: 4 ms a step beside the roofline, small kernels included")
        laid = parallel(size, model, chip)
        if laid.get("tp") != size:
            self.assume("layout of an engine", laid, "matrices are divided within a host")
        engine = {
            "max_num_seqs": usual.max_num_seqs, "max_num_batched_tokens": BATCH_TOKENS, "gpu_memory_utilization": usual.memory,
            "max_model_len": longest, "host_overhead": HOST,
        }  # fmt: skip
        return {"name": POOL, "gpu": chip.name, "replicas": gpus // size, "parallel": laid, "precision": "bf16", "engine": engine}

    def _trainer(self, model: Llm, chip: Gpu, gpus: int, limit: int) -> dict[str, Any]:
        keys = trainer(model, chip, gpus, limit + 1024, self.page.cp)
        if not self.row["train_s"] > 0:
            self.assume("layout of the trainer", f"{keys['backend']} {keys['parallel']}", "the first that fits")
        return {"name": TRAINER, "gpu": chip.name, "gpus": gpus, **({"shares": POOL} if self.mode == "sync_colocated" else {}), **keys}

    def _backend(self) -> str:
        """FSDP and Megatron runs of one page are different runs."""
        return "megatron" if "megatron" in self.row["mode"].lower() else ""

    def _inputs(self) -> dict[str, float]:
        return {name: self.row[name] for name in ("train_s", "old_logprob_s", "ref_s", "mean_response_tokens") if self.row[name] > 0}


def framework_named(row: Mapping[str, Any]) -> Framework:
    """The framework of a row."""
    return framework_of(row["framework"])[0]
