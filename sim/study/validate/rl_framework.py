"""What a framework of reinforcement learning does where a table of published runs does not say: its defaults, by name.

They are those of its preset in `workloads/presets/rl/`, so that a published run is simulated as a user's would be. Here stands what presets
do not say, which belongs to pools, clusters or batches. Every default that is used comes back with its source, since a gate or a group size
that was really another one moves a step more than any kernel. What the page that published a run says of it, beside the table, is in PAGES.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from sim.core.registry import WORKLOADS


class Batch(NamedTuple):
    """Prompts of a step (0: not known), samples of each, and groups of an optimizer step (0: not known)."""

    prompts: int
    samples: int
    mini_batch: int


@dataclass(frozen=True)
class Framework:
    """`preset` of its asynchronous runs, `rounds` and `one_step` of those modes where it has others, `recipe` of its batches. `bound`: the
    key of its gate that a published staleness is, `whole`: which counts versions; `usual`: one in place of the preset's. `share`: of all
    GPUs, those that generate in an asynchronous run that does not say. `workers`: processes that compute rewards of a batch at its end.
    `source` of it all.
    """

    preset: str
    bound: str
    source: str
    rounds: str = ""
    one_step: str = ""
    recipe: str = ""
    usual: float | None = None
    whole: bool = True
    share: float = 0.5
    samples: int = 16
    workers: int = 0
    max_num_seqs: int = 256
    memory: float = 0.8

    def keys(self, mode: str) -> dict[str, Any]:
        """The keys of a workload that says nothing but its mode and the preset for that."""
        name = {"async": "", "one_step_off": self.one_step}.get(mode, self.rounds) or self.preset
        return _completed({"preset": name, "mode": mode})

    @property
    def batch(self) -> Batch:
        """That of the recipe."""
        if not self.recipe:
            return Batch(0, self.samples, 0)
        said = _completed({"preset": self.recipe})
        return Batch(said["prompts"], said["samples"], said["prompts"] // said["updates"]["mini_batches"])


FRAMEWORKS = {
    "verl": Framework(
        "verl_async", "staleness_threshold", "verl's recipes (DAPO: 512 prompts of 16 samples, mini-batches of 32) and fully_async.md",
        rounds="verl_sync", one_step="verl_one_step_off", recipe="dapo", whole=False, workers=64,
    ),
    "areal": Framework("areal_reasoning", "eta", "AReaL's paper: 3/4 of the GPUs generate, 4 mini-batches, eta 4 or 8", share=0.75),
    "nemo": Framework("nemo_rl", "max_trajectory_age_steps", "NeMo-RL's GRPO recipes: one optimizer step a batch, log-probabilities of "
                      "policy and reference, weights updated in flight"),
    "skyrl": Framework("skyrl", "staleness", "SkyRL's defaults"),
    "prime": Framework("prime_rl", "max_off_policy_steps", "prime-rl's defaults"),
    "roll": Framework("roll", "alpha", "ROLL's async_generation_ratio", whole=False),
    "slime": Framework("slime_async", "", "slime's fully asynchronous example", rounds="slime", samples=8),
    "openrlhf": Framework("openrlhf", "eta", "OpenRLHF's async_queue_size 1, as a bound on what is started"),
}  # fmt: skip
OTHER = Framework("areal", "eta", "an unknown framework: AReaL's rule of a bound on what is started", usual=1)


@dataclass(frozen=True)
class Page:
    """What a page says of its runs, where `source` and, given, `model`, `mode` and `place` are found in the row (regular expressions).
    `tp`, of engines; `cp` of the trainer; `to_rollout`: seconds until engines serve, of colocated runs; `runs`: the mode, where the
    table's word is another.
    """

    source: str
    what: str
    model: str = ""
    mode: str = ""
    place: str = ""
    tp: int = 0
    cp: int = 0
    prompts: int = 0
    samples: int = 0
    runs: str = ""
    to_rollout: float | None = None


PAGES = (
    Page(r"fully_async\.md", "its text: engines of 4 GPUs, sequence parallelism 4", tp=4, cp=4),
    Page(r"one_step_off\.md", "its text: 512 prompts, engines of 2 GPUs; its gen less its generate_sequences is what waking takes: 74 s",
         mode="FSDP", tp=2, cp=4, prompts=512, samples=16, to_rollout=74.0),
    Page(r"one_step_off\.md", "its text: 512 prompts, engines of 2 GPUs; its gen less its generate_sequences is what waking takes: 45 s",
         mode="Megatron", tp=2, cp=4, prompts=512, samples=16, to_rollout=45.0),
    Page(r"NeMo-RL.*performance", "its text: engines of 32 GPUs", model="DeepSeek", tp=32),
    Page(r"NeMo-RL.*performance", "its text: engines of 16 GPUs", model="235B", tp=16),
    Page(r"NeMo-RL.*performance", "its text: engines of 2 GPUs", model="30B", tp=2),
    Page(r"RollPacker", "the paper: engines of 2 GPUs", tp=2),
    Page(r"AReaL paper", "its table 7 varies eta of one system, which is synchronous at 0", place="Table 7", runs="async"),
)  # fmt: skip


def framework_of(written: str) -> tuple[Framework, bool]:
    """The framework, and whether it is known.

    >>> framework_of("NeMo RL")[0].preset, framework_of("ROLL Flash")[0].preset, framework_of("home-made")[1]
    ('nemo_rl', 'roll', False)
    """
    plain = re.sub(r"[^a-z]", "", written.lower())
    for name, found in FRAMEWORKS.items():
        if plain.startswith(name):
            return found, True
    return OTHER, False


def page_of(row: Any) -> Page:
    """What the page that published a row says beside it; one that says nothing where it is not known."""
    for page in PAGES:
        patterns = ((page.source, "source"), (page.model, "model"), (page.mode, "mode"), (page.place, "place"))
        if all(re.search(pattern, row[column]) for pattern, column in patterns):
            return page
    return Page("", "")


def _completed(options: dict[str, Any]) -> dict[str, Any]:
    rl: Any = WORKLOADS.find("rl")
    found: dict[str, Any] = rl.complete(options)
    return found
