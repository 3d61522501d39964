"""What a replica's engine is told: vLLM's arguments, by their names and with their defaults, whatever framework it is."""
from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from sim.core.units import Bytes, Seconds
from sim.spec.fit import release
from sim.spec.fitting import clashes, filled, misplaced
from sim.spec.frozen import Spec
from sim.spec.lora import Lora
from sim.spec.tiers import KvTier

Positive = Annotated[int, Field(ge=1)]
Sequences = Annotated[int, Field(ge=1, le=65_536)]
Budget = Annotated[int, Field(ge=1, le=10_000_000)]
BlockSize = Annotated[int, Field(ge=1, le=1024)]
Int32 = Annotated[int, Field(ge=1, le=2**31 - 1)]
OrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Chance = Annotated[float, Field(ge=0, le=1)]
Drafted = Annotated[int, Field(ge=1, le=32)]
Framework = Literal["vllm", "sglang", "trtllm"]


def _release(version: Any) -> Any:
    if not isinstance(version, str):
        raise ValueError(f"found {version!r}; write a version in quotes, such as '0.15.1', or 0.10 is read as 0.1")
    if not release(version):
        raise ValueError(f"found '{version}'; the number of a release is wanted, such as '0.15.1'")
    return version


Version = Annotated[str, BeforeValidator(_release)]


def _form(acceptance: Any) -> str:
    return "list" if isinstance(acceptance, (list, tuple)) else "chance"


Accepted = Annotated[Annotated[Chance, Tag("chance")] | Annotated[tuple[Chance, ...], Tag("list")], Discriminator(_form)]


class Speculation(Spec):
    """vLLM's speculative_config, and what no engine knows beforehand: how many of the drafted tokens are accepted.

    `acceptance` is one chance a: a drafted token is accepted, given that all before it in its draft were, so that the first i of a draft
    are with a^i. Or it is a list, one entry per position, of what vLLM logs as per-position acceptance rates: the share of drafts of which
    the first i tokens were accepted, so that it never rises. 0.8 and [0.8, 0.64, 0.512] say the same.

    `model` is the draft model, or the config.json of an EAGLE head's layers; without one such a head is one layer of the target's sizes.
    `sampling`: every request advances by the expected number of tokens, or by one drawn anew in each step.
    """

    method: Literal["draft_model", "eagle", "eagle3", "mtp", "ngram"]
    model: str | None = None
    num_speculative_tokens: Drafted
    acceptance: Accepted
    sampling: Literal["expected", "sampled"] = "expected"
    draft_tensor_parallel_size: Positive | None = Field(None, description="1 or the target's; default: the target's")

    @property
    def rates(self) -> tuple[float, ...]:
        """The share of drafts of which the first i + 1 tokens are accepted, for each position i."""
        if isinstance(self.acceptance, tuple):
            return self.acceptance
        return tuple(self.acceptance ** (i + 1) for i in range(self.num_speculative_tokens))

    @property
    def queries(self) -> int:
        """New tokens that a decoder brings to a step: its last one, and its draft."""
        return self.num_speculative_tokens + 1

    @model_validator(mode="after")
    def _consistent(self) -> Speculation:
        rates, k = self.rates, self.num_speculative_tokens
        if len(rates) != k:
            raise ValueError(f"acceptance has {len(rates)} entries; one for each of num_speculative_tokens ({k}) is wanted, or one number")
        for before, rate in pairwise(rates):
            if rate > before:
                raise ValueError(
                    f"acceptance rises from {before:g} to {rate:g}; an entry is the share of drafts accepted up to its position, as vLLM "
                    "logs it. Of chances given that all before were accepted, write the running product"
                )
        if self.method == "draft_model" and self.model is None:
            raise ValueError("model is missing; method draft_model needs one, a catalogue name or the path of a config.json")
        for key, value in (("model", self.model), ("draft_tensor_parallel_size", self.draft_tensor_parallel_size)):
            if self.method in ("mtp", "ngram") and value is not None:
                raise ValueError(f"{key} is for the methods draft_model, eagle and eagle3; {self.method} has no use for it")
        return self


class EngineOptions(Spec):
    """vLLM's engine arguments, by their names, whatever the `framework`. `exact_steps` runs one event per step: slow, for checking."""

    framework: Framework = Field("vllm", description="whose kernels and host overhead to expect, where the GPU's profile knows them")
    framework_version: Version | None = Field(None, description="release whose host and front end to expect, such as '0.15.1'")
    async_scheduling: bool = Field(True, description="the next step is scheduled while the GPU runs; without, the host waits in between")
    attention: Literal["flash", "naive"] = Field("flash", description="naive writes the scores to memory: what FlashAttention saves")
    # One value for all: with even routing, measured TPOT of gpt-oss-120b (H100, B200), Kimi-K2.5 and Qwen3-235B is over-predicted, most at
    # batches of 16 to 64, where the number of experts reached decides; with 0.7 the three come out closest.
    expert_skew: Annotated[float, Field(ge=0, le=3)] = Field(0.7, description="power by which tokens prefer some experts; 0: evenly")
    max_num_seqs: Sequences = 256
    max_num_batched_tokens: Budget = 2048
    max_model_len: Int32 | None = Field(None, description="longest prompt + output; default: the model's own limit")
    block_size: BlockSize = 16
    gpu_memory_utilization: Fraction = 0.9
    num_gpu_blocks_override: Int32 | None = None
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: OrNone = Field(0, description="most prompt tokens of one request in a step; 0: no limit")
    stream_interval: Positive = Field(1, description="tokens sent to the client at a time, after the first: ITL is between those")
    enable_prefix_caching: bool = Field(True, description="requests share the KV blocks of equal beginnings, as far as workloads say")
    paged: bool = Field(True, description="false: each request reserves its KV blocks in one range on admission, as before PagedAttention")
    kv_reservation: Literal["max", "pow2", "oracle"] | None = Field(None, description="how many then; default: max, max_model_len tokens")
    preemption_mode: Literal["recompute", "swap"] = Field("recompute", description="swap: a preempted cache waits in the host's memory")
    swap_space: Bytes | None = Field(None, gt=0, description="host memory of a GPU for that; default: 4 GiB; only if swapped")
    cuda_graph: bool = True
    cudagraph_capture_sizes: tuple[Sequences, ...] | None = Field(None, description="default: vLLM's, up to min(2 * max_num_seqs, 512)")
    host_overhead: Seconds | None = Field(None, ge=0, le=60, description="CPU time per step not hidden by the GPU; default: the profile's")
    frontend_overhead: Seconds | None = Field(None, ge=0, le=60, description="API server, tokeniser: added to TTFT; default: the profile's")
    speculative_config: Speculation | None = Field(None, description="draft tokens ahead and verify them together; default: no drafts")
    lora: Lora | None = Field(None, description="adapters that requests may ask for; default: none")
    kv_tiers: tuple[KvTier, ...] = Field((), description="where KV blocks are kept beside the GPU, the nearest first")
    kv_offload: Literal["write_through", "on_evict"] | None = Field(None, description="when tiers get them; default: write_through")
    kv_reload: Literal["faster", "always"] | None = Field(None, description="or compute what is faster computed; default: faster")
    retention: dict[str, Any] = Field(default_factory=lambda: {"kind": "lru"}, description="of a session's cache while it pauses")
    frontend_per_token: Seconds = Field(0.0, ge=0, le=1e-3, description="what the tokeniser adds to that for each token of the prompt")
    exact_steps: bool = False
    batcher: dict[str, Any] = Field(default_factory=lambda: {"kind": "vllm_v1"})

    @model_validator(mode="before")
    @classmethod
    def _silent(cls, value: Any) -> Any:
        return filled(value, cls.model_fields) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _fitting(self) -> EngineOptions:
        wrong = clashes(dict(self), self.batcher) if {"batcher", "paged", "kv_reservation"} & self.model_fields_set else []
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _kept(self) -> EngineOptions:
        wrong = misplaced(dict(self), [(tier.kind, tier.has_speed) for tier in self.kv_tiers], self.retention)
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _swapped(self) -> EngineOptions:
        if self.swap_space is not None and self.preemption_mode != "swap":
            raise ValueError("swap_space is given, but nothing is swapped; set preemption_mode: swap or leave it out")
        return self

    @model_validator(mode="after")
    def _budget(self) -> EngineOptions:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is below max_num_seqs ({self.max_num_seqs}); "
                "every running request needs one token a step, so it must be at least as large"
            )
        return self
