"""What a framework of reinforcement learning does where a table of published runs does not say: its defaults, by name.

Every default that is used comes back with its source, since a gate or a group size that was really another one moves a step more than any
kernel. What the page that published a run says of it, beside the table, is in PAGES.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Framework:
    """`gate`: the kind of its bound on staleness, `bound`: its key, `usual`: its default. `share`: of all GPUs, those that generate in an
    asynchronous run that does not say. `mini_batch`: groups of an optimizer step (0: the whole batch), or `mini_batches` of them in a
    version; `trigger`: updates in one of an asynchronous run. `logprob`: asynchronous runs compute the policy's log-probabilities too.
    `reward`: of synchronous runs. `whole`: its bound counts versions. `source` of it all.
    """

    gate: str
    bound: str
    usual: float
    source: str
    share: float = 0.5
    samples: int = 16
    prompts: int = 0
    mini_batch: int = 0
    mini_batches: int = 1
    trigger: int = 1
    logprob: bool = False
    reference: bool = False
    max_num_seqs: int = 256
    memory: float = 0.8
    reward: dict[str, Any] = field(default_factory=lambda: {"rewards": [{"kind": "rule"}]})
    interrupt: dict[str, str] = field(default_factory=lambda: {"wait": "none", "kv": "recompute", "abort": "resume"})
    whole: bool = True


KEEP = {"wait": "none", "kv": "keep", "abort": "never"}
RECOMPUTE = {"wait": "none", "kv": "recompute", "abort": "never"}
FRAMEWORKS = {
    "verl": Framework(
        "verl", "staleness_threshold", 0.1, "verl's recipes (DAPO: 512 prompts of 16 samples, mini-batches of 32) and fully_async.md",
        prompts=512, mini_batch=32, trigger=4, whole=False,
        reward={"rewards": [{"kind": "rule", "workers": 64}], "reward_at": "batch"},
    ),
    "areal": Framework(
        "areal", "eta", 4, "AReaL's paper: 3/4 of the GPUs generate, 4 mini-batches, eta 4 or 8",
        share=0.75, mini_batches=4, interrupt=RECOMPUTE,
    ),
    "nemo": Framework("nemo_rl", "max_trajectory_age_steps", 1, "NeMo-RL's GRPO recipes: one optimizer step a batch, log-probabilities of "
                      "policy and reference, weights updated in flight", logprob=True, reference=True, max_num_seqs=256, interrupt=KEEP),
    "skyrl": Framework("skyrl", "staleness", 4, "SkyRL's defaults", interrupt=KEEP),
    "prime": Framework("prime_rl", "max_off_policy_steps", 8, "prime-rl's defaults", interrupt=KEEP),
    "roll": Framework("rollart", "alpha", 1, "ROLL's async_generation_ratio", interrupt=RECOMPUTE, whole=False),
    "slime": Framework("slime", "", 0, "slime's fully asynchronous example", samples=8,
                       interrupt={"wait": "none", "kv": "recompute", "abort": "restart"}),
    "openrlhf": Framework("areal", "eta", 1, "OpenRLHF's async_queue_size 1, as a bound on what is started", interrupt=RECOMPUTE),
}  # fmt: skip
OTHER = Framework("areal", "eta", 1, "an unknown framework: AReaL's rule of a bound on what is started", interrupt=RECOMPUTE)


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

    >>> framework_of("NeMo RL")[0].gate, framework_of("ROLL Flash")[0].gate, framework_of("home-made")[1]
    ('nemo_rl', 'rollart', False)
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
