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

from sim.core.errors import BadInput, Problem
from sim.spec.hardware import Gpu, gpu
from sim.spec.llm import Llm, llm, llm_names
from sim.study.validate import rl_lengths as lengths
from sim.study.validate.rl_framework import Page, framework_of, page_of
from sim.study.validate.rl_layout import WEIGHTS, engine_gpus, parallel, trainer
from sim.study.validate.rl_rows import batch_of
from sim.study.validate.rl_written import written
from sim.study.validate.scenario_of import gpu_named, model_named
from sim.study.validate.syncs import FRAMEWORK, LARGEST

POOL, TRAINER = "rollouts", "train"
# Versions that count, and those before them that do not: asynchronous runs fill their buffers first.
COUNTED, FIRST, ASYNC_FIRST, MOST_SKIPPED = 5, 1, 4, 1
# Tokens of the longest prompt, with room to spare.
MARGIN = 2048
BATCH_TOKENS = 8192
# Seconds that an engine's host adds to a step beside the kernels: 4 ms a step on top of the roofline fit verl's runs on 128 H20, of which
# small kernels and launches, priced here one by one, are 1.5 ms. One value for all rows; a scheduler that does not run ahead adds 7 ms by
# the fits to other servers, with which one answer at verl's limit would take longer than its whole round.
HOST = 2.5e-3
# Of a reported update or log-probabilities, what the driver takes beside them: samples dealt out, metrics, a step that is logged.
OTHER = 0.03
# Parts of a step that follow each other over the step, from which on the row contradicts itself.
CONTRADICTS = 1.05
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

    `inputs` are reported figures that were used, by column. `setup`: runs with one length law, and one base of speed-ups; `fits`: the
    generation time that its mean is fitted to, NaN: none. `skip`: versions at the begin that do not count; `steps`: those of the real run.
    `speedup`: which figure speed-ups are of.
    """

    id: str
    mode: str = ""
    scenario: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, float] = field(default_factory=dict)
    assumed: tuple[Assumed, ...] = ()
    reason: str = ""
    setup: tuple[Any, ...] = ()
    length: lengths.Length | None = None
    fits: float = math.nan
    skip: int = FIRST
    steps: float = math.nan
    speedup: str = "step_s"


def plan_of(row: Mapping[str, Any], law: lengths.Length | None = None) -> Plan:
    """The plan of a row as `rl_rows.read` gives it; `law`: of its setup, in place of the default where no mean length is published.

    A row may name a scenario written for it, where its columns cannot say what ran; one of checkpoint-engine is a sync of weights alone.
    """
    try:
        if row["scenario"]:
            return _written(row)
        return _sync(row) if row["framework"] == FRAMEWORK else _Reader(row, law).plan()
    except BadInput as error:
        why = "; ".join(problem.message for problem in error.problems)
        return Plan(row["id"], reason=f"{why} ({row['note']})" if row["note"] else why, measured=measured(row, ""))


def _written(row: Mapping[str, Any]) -> Plan:
    """The plan of a scenario of `rl_scenarios`."""
    told = written(row, FIRST)
    mode = told.scenario["workloads"][0]["mode"]
    return Plan(
        row["id"], mode, told.scenario, measured(row, mode), assumed=tuple(Assumed(*one) for one in told.assumed),
        setup=(row["source"], row["place"], row["model"], row["gpu"], row["n_gpus"]), skip=told.skip, steps=row["steps"],
        speedup=told.speedup,
    )  # fmt: skip


def _sync(row: Mapping[str, Any]) -> Plan:
    if not row["n_gpus"] > 0 or not row["gpu"]:
        raise BadInput("gpu and n_gpus are wanted of a sync of weights")
    size = f"{min(int(row['n_gpus']), LARGEST)} GPUs"
    said = (Assumed("GPUs of an engine", size, "judgement"), Assumed("precision", "that of the checkpoint", "judgement"))
    return Plan(
        row["id"], "weight sync", {"sync": {"model": row["model"], "gpu": gpu_named(row["gpu"]), "n_gpus": int(row["n_gpus"])}},
        measured(row, ""), assumed=said,
    )  # fmt: skip


def mode_of(row: Mapping[str, Any]) -> str:
    """The mode of a run, from the words of its table. Raises BadInput when they say none.

    >>> row = {"alloc_rollout_train": "4:12", "n_gpus": 16.0, "staleness": "1"}
    >>> mode_of(row | {"mode": "FSDP2 one-step-overlap"}), mode_of(row | {"mode": "sync", "alloc_rollout_train": ""})
    ('one_step_off', 'sync_colocated')
    """
    text, alloc = row["mode"].lower(), row["alloc_rollout_train"].lower()
    if re.search(r"one[-_ ]step", text):
        return "one_step_off"
    if re.search(r"async|off[-_ ]policy|pipelin", text):
        return "async"
    if re.search(r"sync|on[-_ ]policy|colocat|hybrid", text) or (not text and row["staleness"] in ("", "0")):
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
        self.framework, known = framework_of(row["framework"])
        self.page: Page = page_of(row)
        self.mode = self.assume("mode", self.page.runs, self.page.what) if self.page.runs else mode_of(row)
        self.keys = self.framework.keys(self.mode)
        parts = row["train_s"] + measured(row, self.mode).get("wait_s", math.nan)
        if parts > CONTRADICTS * row["step_s"]:
            self.assume("known inconsistent", f"{parts:g} s of waiting and updates in a step of {row['step_s']:g} s", "the row itself")
        if not known and self.mode == "async":
            self.assume("framework", f"{row['framework'] or 'not said'}: as {self.framework.preset}", self.framework.source)

    def assume(self, what: str, value: Any, source: str) -> Any:
        self.said.append(Assumed(what, str(value), source))
        return value

    def plan(self) -> Plan:
        row = self.row
        model, chip, (prompts, samples) = self._whole()
        if model.name.rpartition("/")[2].lower() != row["model"].lower():
            self.assume("model", model.name, f"the catalogue's nearest to '{row['model']}'")
        limit = self._limit()
        length = self._length(limit)
        rollout, train = self._split()
        bound, gate = self._gate()
        size = self._engine(model, chip, rollout)
        skip = FIRST if self.mode != "async" else ASYNC_FIRST + int(min(bound, MOST_SKIPPED))
        workload = {
            "kind": "rl", "name": "rl", "rollout": POOL, "trainer": TRAINER, "mode": self.mode, "steps": skip + COUNTED, "prompts": prompts,
            "samples": samples, "prompt": lengths.PROMPT, "answers": lengths.answers(length, limit),
            "solving": {"solve_rate_beta": [0.6, 0.6]},
            **gate, **self._updates(prompts), **self._rewards(), "sync": self.keys["sync"],
        }  # fmt: skip
        self.assume("prompts", f"{lengths.PROMPT['mean']} tokens, lognormal", "judgement: problems of competitions")
        value = f"lognormal, sigma {lengths.SIGMA}, {lengths.RHO} in common within a group"
        self.assume("spread of lengths", value, "judgement: 0.7 to 0.9")
        scenario = {
            "name": row["id"], "seed": 1, "model": model.name, "workloads": [workload],
            "cluster": {"pools": [self._pool(model, chip, rollout, size, limit)],
                        "trainers": [self._trainer(model, chip, train, limit)]},
        }  # fmt: skip
        # Only a round that is alone on all GPUs says how long answers were.
        fits = row["gen_s"] if self.mode == "sync_colocated" and length.how != "published" else math.nan
        same = (row["source"], model.name, chip.name, row["n_gpus"], limit, self._backend())
        return Plan(
            row["id"], self.mode, scenario, measured(row, self.mode), self._inputs(), tuple(self.said),
            setup=same, length=length, fits=fits, skip=skip, steps=row["steps"],
        )  # fmt: skip

    def _whole(self) -> tuple[Llm, Gpu, tuple[int, int]]:
        """Model, GPU and batch. Raises BadInput with all that is missing of them."""
        lacking: list[Problem] = []
        found: list[Any] = []
        for read in (self._model, self._chip, self._batch):
            try:
                found.append(read())
            except BadInput as error:
                lacking += error.problems
        if lacking:
            raise BadInput(lacking)
        return found[0], found[1], found[2]

    def _model(self) -> Llm:
        return llm(named(self.row["model"]))

    def _chip(self) -> Gpu:
        if not self.row["gpu"]:
            raise BadInput("gpu: is empty, and no other row of its source says on which it ran")
        return gpu(gpu_named(self.row["gpu"]))

    def _batch(self) -> tuple[int, int]:
        row, page, usual, source = self.row, self.page, self.framework.batch, self.framework.source
        samples = row["samples_per_prompt"] if row["samples_per_prompt"] > 0 else page.samples
        if not samples:
            samples = self.assume("samples of a prompt", usual.samples, source)
        prompts = row["prompts_per_step"] if row["prompts_per_step"] > 0 else page.prompts
        if not prompts and batch_of(row) > 0:
            prompts = batch_of(row) / samples
        elif not prompts and usual.prompts and row["algorithm"]:
            prompts = self.assume("prompts of a step", usual.prompts, source)
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
        tokens = f"{lengths.limited(found.mean, limit):,.0f} tokens with the limit"
        self.assume("mean length of answers", tokens, f"{found.how}: {found.source}")
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
        gate, interrupt = self.keys["staleness"], self.keys["interrupt"]
        default = gate.get(usual.bound, 0) if usual.usual is None else usual.usual
        said = re.search(r"\d+(\.\d+)?", self.row["staleness"])
        bound = float(said[0]) if said else self.assume("bound on staleness", default, usual.source)
        if said and said[0] != self.row["staleness"]:
            self.assume("bound on staleness", f"{bound:g}", f"the first number of '{self.row['staleness']}'")
        value = int(bound) if bound == int(bound) and usual.whole else bound
        if usual.whole and bound != int(bound):
            raise BadInput(f"staleness {bound:g} is no whole number of versions, which {gate['kind']} counts")
        self.assume("at a publication", ", ".join(f"{key} {value}" for key, value in interrupt.items()), usual.source)
        return math.ceil(bound), {"staleness": {**gate, **({usual.bound: value} if usual.bound else {})}, "interrupt": interrupt}

    def _updates(self, prompts: int) -> dict[str, Any]:
        row, usual = self.row, self.framework
        # Presets of rounds compute log-probabilities anew, and few frameworks here have one.
        rounds = self.mode.startswith("sync")
        updates, mini_batch = self.keys.get("updates", {}), usual.batch.mini_batch
        trigger = updates.get("trigger", 1)
        if self.mode != "async" or prompts % trigger:
            trigger = 1
        steps = max(1, prompts // mini_batch) if mini_batch else min(updates.get("mini_batches", 1), prompts)
        mini = max(1, steps // trigger)
        taking = {}
        if row["train_s"] > 0:
            taking["update"] = round(row["train_s"] * (1 + OTHER) / trigger, 3)
            what = f"{OTHER:.0%} of reported times of the trainer"
            self.assume("what is in no part of a reported step", what, "3 to 7 % of the steps that verl publishes")
        else:
            self.assume("steps of the optimizer in a version", mini * trigger, usual.source)
            self.assume("trainer", "kernels and 3.5 s of each step of the optimizer", "prime-rl: 3.2 s, verl: 3.9 s")
        if row["old_logprob_s"] > 0:
            taking["logprob"] = round(row["old_logprob_s"] * (1 + OTHER) / trigger, 3)
        if row["ref_s"] > 0:
            taking["reference"] = round(row["ref_s"] * (1 + OTHER) / trigger, 3)
        logprob = row["old_logprob_s"] > 0 or (row["train_s"] != row["train_s"] and (rounds or self.keys["old_logprob"]))
        reference = row["ref_s"] > 0 or (row["train_s"] != row["train_s"] and self.keys["reference"])
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
        value, rule, at = "a rule: 20 ms, and 1 % that hang for 5 s", {"kind": "rule"}, self.keys.get("reward_at")
        if at == "batch":
            value += f"; all of a batch at its end, by {self.framework.workers} processes"
            rule |= {"workers": self.framework.workers}
        self.assume("rewards", value, "judgement")
        return {"rewards": [rule], **({"reward_at": at} if at else {})}

    def _engine(self, model: Llm, chip: Gpu, gpus: int) -> int:
        if self.page.tp:
            size = self.assume("GPUs of an engine", self.page.tp, self.page.what)
        else:
            source = f"the fewest on which weights take {WEIGHTS:.0%} of the memory"
            size = self.assume("GPUs of an engine", engine_gpus(model, chip, gpus), source)
        if gpus % size:
            raise BadInput(f"{gpus} GPUs that generate are no whole number of engines of {size}")
        return int(size)

    def _pool(self, model: Llm, chip: Gpu, gpus: int, size: int, limit: int) -> dict[str, Any]:
        usual = self.framework
        longest = limit + MARGIN
        self.assume("engines", f"max_num_seqs {usual.max_num_seqs}, {usual.memory:.0%} of the memory", f"{usual.source}; 16 bits")
        source = "4 ms a step beside the roofline, small kernels included, which fit verl's runs on 128 H20: a judgement"
        self.assume("host", f"{1e3 * HOST:g} ms of each step of an engine", source)
        laid = parallel(size, model, chip)
        if laid.get("tp") != size:
            self.assume("layout of an engine", laid, "matrices are divided within a host")
        engine = {
            "max_num_seqs": usual.max_num_seqs, "max_num_batched_tokens": BATCH_TOKENS, "gpu_memory_utilization": usual.memory,
            "max_model_len": longest, "host_overhead": HOST,
        }  # fmt: skip
        return {"name": POOL, "gpu": chip.name, "replicas": gpus // size, "parallel": laid, "precision": "bf16", "engine": engine}

    def _trainer(self, model: Llm, chip: Gpu, gpus: int, limit: int) -> dict[str, Any]:
        keys = trainer(model, chip, gpus, limit + MARGIN, self.page.cp)
        if not self.row["train_s"] > 0:
            self.assume("layout of the trainer", f"{keys['backend']} {keys['parallel']}", "the first that fits")
        return {"name": TRAINER, "gpu": chip.name, "gpus": gpus, **({"shares": POOL} if self.mode == "sync_colocated" else {}), **keys}

    def _backend(self) -> str:
        """FSDP and Megatron runs of one page are different runs."""
        return "megatron" if "megatron" in self.row["mode"].lower() else ""

    def _inputs(self) -> dict[str, float]:
        return {name: self.row[name] for name in ("train_s", "old_logprob_s", "ref_s", "mean_response_tokens") if self.row[name] > 0}
