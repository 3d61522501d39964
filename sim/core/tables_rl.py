"""The tables of reinforcement learning: what a row is, and what its columns mean. Times are seconds, lengths tokens.

A group is the samples of one prompt, a version is a policy that was published; version 0 is what the run begins with.
"""
from __future__ import annotations

from sim.core.record import Column
from sim.core.rollout import STATES

WORKLOAD = Column("workload", "i4", "the run of reinforcement learning", ())
RL_STEPS = (
    WORKLOAD,
    Column("version", "i8", "the version it made, from 1"),
    Column("start", "f8", "its begin: when the step before it ended, s"),
    Column("end", "f8", "when its version was out and the trainer could go on, s"),
    Column("wait", "f8", "of its seconds: the trainer waited for answers"),
    Column("reward", "f8", "it waited for rewards alone: all answers of its batch were there"),
    Column("data", "f8", "it waited for the data"),
    Column("logprob", "f8", "log-probabilities of the policy"),
    Column("reference", "f8", "those of the reference"),
    Column("update", "f8", "forward, backward and optimizer"),
    Column("sync", "f8", "weights on their way, as far as the trainer stood still for it"),
    Column("switch", "f8", "GPUs changed hands: states out and in, engines asleep and awake"),
    Column("checkpoint", "f8", "it stood still for a checkpoint"),
    Column("validation", "f8", "it stood still for a validation"),
    Column("generate", "f8", "from the first of its answers begun to the last one done, of a round; NaN where there are no rounds"),
    Column("groups", "i8", "groups trained on"),
    Column("samples", "i8", "samples trained on, those masked not counted"),
    Column("tokens", "i8", "tokens generated in them"),
    Column("length", "i8", "tokens in all: prompts, answers, and what tools said"),
    Column("useful", "i8", "tokens of groups with rewards that differ: the others have no advantage"),
    Column("launched", "i8", "groups begun since the step before"),
    Column("queued", "i8", "groups that were ready when it ended, and not taken"),
)
RL_GROUPS = (
    WORKLOAD,
    Column("group", "i8", "number, in order of start"),
    Column("prompt", "i8", "number of the prompt in the data"),
    Column("epoch", "i8", "times it was met before"),
    Column("state", "i4", "what became of it, or where it was when the run ended", STATES),
    Column("reason", "i4", "why it was rejected or dropped", ("",)),
    Column("launches", "i8", "times it began from nothing"),
    Column("launched", "i8", "samples launched"),
    Column("kept", "i8", "samples kept"),
    Column("begun", "f8", "when it first began, s"),
    Column("done", "f8", "when its last sample kept had ended, s (NaN: never)"),
    Column("scored", "f8", "when its rewards were there, s (NaN: never)"),
    Column("ended", "f8", "when it was taken by the trainer, rejected or dropped, s (NaN: neither)"),
    Column("submitted", "i8", "version it last began under"),
    Column("put", "i8", "version in use when it was accepted (-1: never)"),
    Column("trained", "i8", "version it was trained on for, less 1: the policy that was updated (-1: never)"),
    Column("tokens", "i8", "tokens of its samples that are kept"),
    Column("wasted", "i8", "tokens generated in vain, for whatever reason"),
    Column("reward", "f8", "mean reward (NaN: none)"),
)
RL_SAMPLES = (
    WORKLOAD,
    Column("group", "i8", "its group"),
    Column("number", "i4", "its number in the group"),
    Column("begun", "f8", "when it last began, s"),
    Column("done", "f8", "when it ended, s (NaN: never)"),
    Column("scored", "f8", "when its reward was there, s (NaN: never)"),
    Column("tokens", "i8", "tokens generated"),
    Column("length", "i8", "tokens in all: prompt, answer, and what tools said"),
    Column("turns", "i4", "calls of the model"),
    Column("segments", "i4", "versions that wrote it"),
    Column("oldest", "i8", "the first of them"),
    Column("newest", "i8", "the last of them"),
    Column("kept", "i4", "1: it counts in its group, 0: surplus"),
    Column("cut", "i4", "1: it ran into the limit"),
    Column("masked", "i4", "1: it is not trained on"),
    Column("right", "i4", "1: it is right"),
    Column("reward", "f8", "its reward (NaN: none)"),
    Column("lag_submit", "f8", "versions since its group began, where it was trained on (NaN: it was not)"),
    Column("lag_oldest", "f8", "versions since its first token"),
    Column("lag_mean", "f8", "versions since its tokens, their mean"),
)
RL_WASTE = (
    WORKLOAD,
    Column("group", "i8", "whose tokens they were"),
    Column("reason", "i4", "why they were in vain", ()),
    Column("tokens", "i8", "tokens generated"),
)
RL_SYNCS = (
    WORKLOAD,
    Column("version", "i8", "the version that went out"),
    Column("start", "f8", "when its weights were there to be sent, s"),
    Column("gathered", "f8", "when the trainer had them together, s"),
    Column("paused", "f8", "when all engines stood still, s"),
    Column("moved", "f8", "when all engines had the bytes, s"),
    Column("resumed", "f8", "when engines went on, s (NaN: the run ended)"),
    Column("released", "f8", "when the trainer went on, s"),
    Column("bytes", "f8", "bytes that each replica got"),
    Column("running", "i8", "samples that ran when engines stood still"),
    Column("stopped", "i8", "of them, those called off"),
    Column("held", "i8", "tokens of prompts and answers that they had by then"),
)
RL_GRADES = (
    WORKLOAD,
    Column("grader", "i4", "who gave the reward", ()),
    Column("group", "i8", "of which group"),
    Column("number", "i4", "of which sample"),
    Column("start", "f8", "when it was asked, s"),
    Column("queued", "f8", "of the time it took, seconds of waiting for a server"),
    Column("end", "f8", "when it was done, s (NaN: it was not)"),
    Column("outcome", "i4", "ok: a verdict; timeout: the limit of time, which is a verdict too; failed: no verdict; cancelled: not wanted",
           ("ok", "timeout", "failed", "cancelled", "unfinished")),
    Column("reward", "f8", "the reward (NaN: none)"),
)  # fmt: skip
TABLES = {
    "rl_steps": RL_STEPS, "rl_groups": RL_GROUPS, "rl_samples": RL_SAMPLES, "rl_waste": RL_WASTE, "rl_syncs": RL_SYNCS,
    "rl_grades": RL_GRADES,
}  # fmt: skip
