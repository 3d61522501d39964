"""The tables that every run writes: what a row is, and what its columns mean. Times are seconds.

A table that a run has no rows for stays empty and is not saved. Metrics are never stored here: `study/metrics.py` derives them.
"""
from __future__ import annotations

from sim.core.record import Column, Table
from sim.core.request import STATUSES
from sim.core.tables_rl import TABLES as RL

REQUESTS = (
    Column("request", "i8", "number, in order of arrival"),
    Column("workload", "i4", "which workload sent it", ()),
    Column("session", "i8", "the session it belongs to, -1 if none"),
    Column("replica", "i4", "the replica that served it (row of `replicas`), -1 if none"),
    Column("arrival", "f8", "when it reached the front door, s"),
    Column("admitted", "f8", "when an engine first scheduled it, s (NaN: never)"),
    Column("first_token", "f8", "when its first token was out, s (NaN: never)"),
    Column("last_token", "f8", "when its last token was out, s (NaN: unfinished)"),
    Column("input_tokens", "i4", "prompt tokens"),
    Column("output_tokens", "i4", "tokens generated"),
    Column("wanted_tokens", "i4", "tokens that would have been generated"),
    Column("preemptions", "i4", "times its cache was dropped and recomputed"),
    Column("status", "i4", "how it ended", STATUSES),
    Column("reason", "i4", "why it was rejected or failed", ("",)),
    Column("cached_tokens", "i4", "prompt tokens found in the KV cache when it was first admitted"),
    Column("common_tokens", "i4", "of them, tokens of a system prompt that sessions share"),
    Column("overhead", "f8", "time outside the engine (API server, tokeniser, way back from afar), s; the times above are the engine's"),
)
STRETCHES = (
    Column("start", "f8", "begin of the run of steps, s"),
    Column("seconds", "f8", "its length, s"),
    Column("first_step", "f8", "length of its first step, s; step lengths grow linearly over the stretch"),
    Column("replica", "i4", "row of `replicas`"),
    Column("steps", "i4", "engine steps in it"),
    Column("decoders", "i4", "requests that got one token in each step"),
    Column("held", "i8", "KV tokens the decoders held before its first step; grows by `decoders` a step"),
    Column("prefills", "i4", "prompt chunks computed (then steps = 1)"),
    Column("prefill_tokens", "i4", "prompt tokens computed"),
    Column("prefill_pairs", "f8", "query-key pairs of those chunks: sum of n (before + (n + 1) / 2)"),
    Column("waiting", "i4", "requests queued at this replica at its end"),
    Column("blocks", "i4", "KV blocks in use at its end"),
    Column("paused", "i4", "requests that could have got a token but waited for the prompts"),
    Column("tokens", "f8", "tokens that its decoders got; with speculation, steps before a request's last count at the expected pace"),
)
STALLS = (
    Column("request", "i8", "the request that got no tokens: it was preempted, or handed on to a decode replica"),
    Column("replica", "i4", "row of `replicas`"),
    Column("start", "f8", "its last token before, s"),
    Column("end", "f8", "its next token, s"),
)
REPLICAS = (
    Column("pool", "i4", "the pool it belongs to", ()),
    Column("gpu", "i4", "GPU of the catalogue", ()),
    Column("gpus", "i4", "GPUs it occupies"),
    Column("start", "f8", "begin of its life: when its GPUs were its own, s"),
    Column("ready", "f8", "when it could take its first request, s (NaN: never)"),
    Column("end", "f8", "end of its life, s"),
    Column("blocks", "i4", "KV blocks it has"),
    Column("block_size", "i4", "tokens per KV block"),
    Column("peak_blocks", "i4", "most KV blocks in use at once"),
    Column("taken_blocks", "i8", "KV blocks taken over the run"),
    Column("returned_blocks", "i8", "KV blocks given back over the run"),
    Column("left_blocks", "i4", "KV blocks in use at the end"),
    Column("preemptions", "i4", "requests whose cache was dropped and recomputed"),
    Column("kept_peak_blocks", "i4", "most KV blocks kept at once for sessions that paused"),
    Column("kept_block_seconds", "f8", "their sum over time, block-seconds"),
)
TRANSFERS = (
    Column("kind", "i4", "why keys and values moved", ("handoff", "swap_in", "reload", "offload")),
    Column("request", "i8", "the request they belong to; offload: the one whose coming or going sent them"),
    Column("source", "i4", "the replica they came from (its host's memory or a lower tier where it is the target)"),
    Column("target", "i4", "the replica they went to"),
    Column("start", "f8", "when they were asked for, s"),
    Column("end", "f8", "when the last byte was in, s"),
    Column("bytes", "f8", "bytes moved"),
    Column("tokens", "i8", "tokens they belong to"),
    Column("tier", "i4", "the lower tier they came from (reload) or went to (offload)", ("", "host", "ssd", "remote")),
)
ADAPTERS = (
    Column("request", "i8", "a request that starts to run with an adapter, or starts again"),
    Column("adapter", "i4", "the adapter it asks for", ()),
    Column("replica", "i4", "row of `replicas`"),
    Column("time", "f8", "when it starts, s"),
    Column("source", "i4", "where the adapter was", ("slot", "host", "storage")),
    Column("seconds", "f8", "how long the engine waited for it before the step"),
)
STAGES = (
    Column("request", "i8", "a request of a cascade: an answer, or a model's verdict on one"),
    Column("root", "i8", "the first request of its chain"),
    Column("stage", "i4", "0 for the first service of the chain, 1 for the next"),
    Column("part", "i4", "what it is for", ("answer", "verdict")),
    Column("service", "i4", "the pool or model it was for", ()),
    Column("outcome", "i4", "what came of it", ("accepted", "escalated", "last", "refused", "open", "verdict")),
    Column("start", "f8", "when it was sent, s"),
    Column("end", "f8", "when the chain went on or its caller had the answer, verification included, s (NaN: never)"),
)
FLOWS = (
    Column("kind", "i4", "what moved: kv, weights, image, sync, checkpoint, ...", ()),
    Column("source", "i4", "where it came from", ()),
    Column("target", "i4", "where it went", ()),
    Column("start", "f8", "when it was asked for, s"),
    Column("end", "f8", "when the last byte was in, s (NaN: cut off or called off)"),
    Column("bytes", "f8", "bytes to be moved"),
    Column("moved", "f8", "bytes that were moved"),
    Column("weight", "f8", "its share beside others: a flow of weight 2 gets twice what one of weight 1 gets"),
    Column("priority", "i4", "flows of a higher one are served first"),
    Column("bound", "i4", "the link that held it back for most of its time; none: its own limit", ("",)),
)
LINKS = (
    Column("link", "i4", "a link of the network, one way", ()),
    Column("kind", "i4", "what it is", ()),
    Column("capacity", "f8", "bytes/s"),
    Column("latency", "f8", "s"),
    Column("bytes", "f8", "bytes it carried"),
    Column("busy", "f8", "seconds in which it carried anything"),
    Column("full", "f8", "seconds in which it carried all it can"),
)
USAGE = (
    Column("link", "i4", "row of `links`"),
    Column("start", "f8", "begin of a bin of time, s"),
    Column("seconds", "f8", "its length, s"),
    Column("bytes", "f8", "bytes the link carried in it"),
)
SLOWDOWNS = (
    Column("replica", "i4", "row of `replicas`"),
    Column("start", "f8", "begin of a stretch whose collectives were slowed down by other traffic, s"),
    Column("share", "f8", "of a link that they use, taken by that traffic"),
    Column("seconds", "f8", "what each of its steps took longer, s"),
)
DELIVERIES = (
    Column("workload", "i4", "which workload asked for it", ()),
    Column("what", "i4", "what was sent", ("weight_sync", "checkpoint", "copy")),
    Column("start", "f8", "when it began, s"),
    Column("end", "f8", "when the last receiver had all of it, s (NaN: cut off)"),
    Column("bytes", "f8", "bytes that each receiver gets"),
    Column("receivers", "i4", "replicas or stores that get them; 0: there was nobody to send or to receive"),
    Column("algorithm", "i4", "how it was spread", ("direct", "tree", "binomial", "pipeline")),
)
STARTS = (
    Column("replica", "i4", "row of `replicas`"),
    Column("stage", "i4", "a stage of its start; warm: kept without traffic; drain: takes no more, and finishes what it has; offload: its "
           "weights go to the host's memory, for GPUs that are shared",
           ("wait", "provision", "image", "weights", "init", "capture", "warm", "drain", "offload")),
    Column("start", "f8", "s"),
    Column("end", "f8", "s (NaN: cut off)"),
    Column("bytes", "f8", "bytes that were brought for it"),
    Column("source", "i4", "where they came from", ("",)),
)
HELD = (
    Column("request", "i8", "a request that no replica was ready for"),
    Column("start", "f8", "since when it was held, s"),
    Column("end", "f8", "when it was sent on or given up, s (NaN: never)"),
)
GATE = (
    Column("request", "i8", "a call that was held as its program was paused, or was new and there was no room"),
    Column("program", "i8", "the session that its program began with, -1: it is one of its own"),
    Column("paused", "f8", "when its program was paused, s (NaN: it was never let in)"),
    Column("start", "f8", "since when it was held, s"),
    Column("end", "f8", "when it was sent on or given up, s (NaN: never)"),
)
PLACES = (
    Column("replica", "i4", "row of `replicas`"),
    Column("host", "i4", "number of a host of the network"),
    Column("gpu", "i4", "number of a GPU in it that is the replica's from its start to its end"),
)
SCALING = (
    Column("time", "f8", "when an autoscaler looked, s"),
    Column("pool", "i4", "at which pool", ()),
    Column("ready", "i4", "replicas that take requests"),
    Column("starting", "i4", "replicas that do not yet"),
    Column("draining", "i4", "replicas that take no more and are not empty yet"),
    Column("wanted", "i4", "replicas its policy wants, within the bounds"),
    Column("in_flight", "i4", "requests at the ready replicas"),
    Column("queued", "i4", "of them, not admitted yet; and those held for the pool at the front door"),
    Column("stranded", "i4", "free GPUs that no waiting replica can use"),
)
ATTEMPTS = (
    Column("request", "i8", "a request sent for a caller's call"),
    Column("root", "i8", "the first request of that call"),
    Column("kind", "i4", "why it was sent", ("first", "retry", "hedge")),
    Column("outcome", "i4", "what came of it; late: another one of the call was first",
           ("answered", "late", "rejected", "timeout", "abandoned", "open")),
    Column("start", "f8", "when it was sent, s"),
    Column("end", "f8", "when its caller had the answer or gave it up, s (NaN: never)"),
)
LOSSES = (
    Column("request", "i8", "a request that was let in and failed"),
    Column("replica", "i4", "row of `replicas`, -1 if none"),
    Column("time", "f8", "when it left, s"),
    Column("stalled", "f8", "its last token, where it was preempted or handed on since then, s (NaN: it was not)"),
    Column("computed", "i4", "tokens of it in the KV cache then"),
)
PAUSES = (
    Column("replica", "i4", "row of `replicas`"),
    Column("start", "f8", "since when it made no step, s"),
    Column("end", "f8", "until when, s (NaN: cut off)"),
    Column("why", "i4", "drain: others were not there yet", ("update", "sleep", "drain")),
    Column("standing", "i4", "requests that had tokens before, and got the next one after it"),
    Column("forgotten", "i8", "tokens whose keys and values were thrown away, to be computed again but for what is found in the cache"),
)
LENDINGS = (
    Column("owner", "i4", "the pool whose GPUs are shared", ()),
    Column("borrower", "i4", "the pool they are shared with", ()),
    Column("kind", "i4", "lend: the owner gives them up; take_back: the borrower does", ("lend", "take_back")),
    Column("giver", "i4", "the replica that has the GPUs (row of `replicas`)"),
    Column("taker", "i4", "the replica that gets them, -1: none did, as it was called off or cut off"),
    Column("start", "f8", "begin of the hand-over: the giver takes no more requests, s"),
    Column("empty", "f8", "when the giver had none left, s (NaN: never)"),
    Column("served", "f8", "when the taker could take its first, s (NaN: never)"),
    Column("how", "i4", "how the giver got rid of its requests", ("drain", "preempt", "abort")),
    Column("sent_on", "i4", "requests that went to other replicas (rows of `requeues`)"),
    Column("called_off", "i4", "requests that failed for it"),
)
REQUEUES = (
    Column("request", "i8", "a request that went through the front door again"),
    Column("replica", "i4", "the replica it left (row of `replicas`), whose GPUs another pool got"),
    Column("time", "f8", "when, s"),
)
AGENTS = (
    Column("agent", "i8", "number of an agent, also that of its session in `requests`"),
    Column("root", "i8", "number of the agent that its session began with"),
    Column("parent", "i8", "number of the agent it works for, -1: it is a root"),
    Column("depth", "i4", "0 for a root, 1 for its sub-agents, and so on"),
    Column("workload", "i4", "whose it is", ()),
    Column("kind", "i4", "which kind of agent", ()),
    Column("start", "f8", "begin of its life, s"),
    Column("end", "f8", "end of its life, s (NaN: unfinished)"),
    Column("status", "i4", "how it ended: by itself; by its budget of calls, tokens or time, or the length of its context; because calls "
           "failed or it got no sandbox; because nobody waited for it any more; or with the run",
           ("completed", "calls", "tokens", "time", "context", "failed", "sandbox", "cancelled", "unfinished")),
    Column("calls", "i4", "LLM calls, retries and summaries included"),
    Column("tool_calls", "i4", "tool calls"),
    Column("prompt_tokens", "i8", "prompt tokens of its calls, found in a cache or not; of calls that were called off: none"),
    Column("output_tokens", "i8", "tokens generated in them"),
    Column("compactions", "i4", "times its context was replaced by a summary"),
    Column("llm_s", "f8", "seconds of its life waiting for models, pauses before retries included"),
    Column("tool_s", "f8", "seconds waiting for tools"),
    Column("sandbox_s", "f8", "seconds waiting for a sandbox"),
    Column("join_s", "f8", "seconds waiting for sub-agents"),
    Column("think_s", "f8", "seconds waiting for its user"),
)
TURNS = (
    Column("request", "i8", "an LLM call of an agent"),
    Column("agent", "i8", "row of `agents` by its number"),
    Column("turn", "i4", "messages its user had sent by then"),
    Column("cause", "i4", "why it was made: what was added to the context last; task: what a sub-agent was told; more: nothing was; "
           "summary: to write one; compaction: the first call after that; retry: of one that failed; edit: a user's message, the history "
           "before it rewritten",
           ("user", "task", "tool", "subagent", "more", "summary", "compaction", "retry", "edit")),
    Column("context", "i4", "prompt tokens"),
    Column("new", "i4", "of them, those that were not part of the call before it or its answer"),
    Column("gap", "f8", "seconds since that one ended (NaN: it is the first)"),
)
TOOL_CALLS = (
    Column("agent", "i8", "row of `agents` by its number"),
    Column("tool", "i4", "which tool; reset: the environment of a rollout was made ready", ()),
    Column("start", "f8", "when it was asked for, its sandbox being there, s"),
    Column("queued", "f8", "seconds of it waiting for a turn at a service, or for a slot in its sandbox"),
    Column("end", "f8", "when the agent had its answer, s"),
    Column("outcome", "i4", "what came of its last try; hang: it never would have ended; crash: its sandbox did",
           ("ok", "error", "timeout", "hang", "crash", "cancelled", "refused")),
    Column("tries", "i4", "how often it was tried"),
    Column("observation", "i4", "tokens it answered with"),
)
SANDBOXES = (
    Column("sandbox", "i8", "its number in its pool"),
    Column("pool", "i4", "a pool of sandboxes", ()),
    Column("node", "i4", "number of its node in the pool, -1: it never had a place"),
    Column("workload", "i4", "who asked for it; none: it was kept warm, and nobody took it", ("",)),
    Column("image", "i4", "number of its image"),
    Column("asked", "f8", "when its workload asked for it; none: when the pool made it, s"),
    Column("placed", "f8", "when its node took it in, s (NaN: never)"),
    Column("booted", "f8", "when it was ready, s (NaN: never)"),
    Column("granted", "f8", "when its workload got it, s (NaN: never)"),
    Column("released", "f8", "when it ended, s"),
    Column("outcome", "i4", "how: given back, or not wanted any more before it was there; crashed; idle for too long; never ready, by a "
           "failure or the time-out; refused by quota or a full line; warm, and nobody's; or with the run",
           ("released", "withdrawn", "crashed", "idle", "boot_failed", "timeout", "quota", "full", "warm", "unfinished")),
    Column("hit", "i4", "1: its node had its image"),
    Column("warm", "i4", "1: nobody had asked for it when it was made"),
    Column("execs", "i4", "commands run in it"),
    Column("killed", "i4", "of them, those killed for want of memory"),
    Column("busy_s", "f8", "seconds since it was granted with a command in it, waiting for a slot included"),
    Column("idle_s", "f8", "seconds without one"),
    Column("paused_s", "f8", "seconds in which it was written to disk, lay there or was brought back"),
    Column("slot_s", "f8", "seconds its commands waited for slots and for it to be brought back"),
    Column("cpu_s", "f8", "core-seconds of its commands"),
    Column("memory_s", "f8", "byte-seconds of memory"),
)
SANDBOX_NODES = (
    Column("pool", "i4", "a pool of sandboxes", ()),
    Column("node", "i4", "its number in the pool"),
    Column("start", "f8", "since when it is paid, s"),
    Column("ready", "f8", "when it took its first sandboxes, s (NaN: never)"),
    Column("end", "f8", "when it was given back, or the end of the run, s"),
    Column("cores", "f8", "cores of its CPUs"),
    Column("memory", "f8", "bytes"),
    Column("disk", "f8", "bytes for what sandboxes write, and for snapshots"),
    Column("peak_memory", "f8", "most bytes of memory in use"),
    Column("peak_disk", "f8", "most bytes of that disk in use"),
    Column("peak_images", "f8", "most bytes of images"),
    Column("pulled", "f8", "bytes of images pulled"),
    Column("cpu_s", "f8", "core-seconds of commands"),
)
TRAIN_STEPS = (
    Column("trainer", "i4", "a trainer of the cluster", ()),
    Column("workload", "i4", "who drives it", ()),
    Column("step", "i8", "number of the update, from 0; one that samples are accumulated for as they come has several rows"),
    Column("start", "f8", "its begin, s"),
    Column("end", "f8", "its end, s"),
    Column("samples", "i8", "samples trained on, once for each epoch"),
    Column("tokens", "i8", "their tokens"),
    Column("micro_batches", "i8", "micro-batches of each rank"),
    Column("flops", "f8", "FLOP of the model, attention counted causally, nothing that is recomputed"),
    Column("flops_full", "f8", "the same, attention counted as if it were not causal"),
    Column("computed", "f8", "FLOP that the GPUs computed, recomputation included"),
    Column("forward", "f8", "of the seconds of the update: forward passes of the mean rank"),
    Column("backward", "f8", "its backward passes"),
    Column("recompute", "f8", "activations computed again"),
    Column("network", "f8", "collectives that nothing hides"),
    Column("launch", "f8", "the host launching kernels, beyond the GPU's time"),
    Column("imbalance", "f8", "the mean rank waiting for the slowest"),
    Column("bubble", "f8", "the pipeline filling and draining"),
    Column("gradients", "f8", "gradients summed at the end, weights gathered at the begin, as far as nothing hides it"),
    Column("optimizer", "f8", "the optimizer's step"),
    Column("offload", "f8", "its states coming from the host's memory and going back"),
    Column("overhead", "f8", "the host, as the scenario states it"),
)
TRAIN_STATES = (
    Column("trainer", "i4", "a trainer of the cluster", ()),
    Column("state", "i4", "what it did",
           ("wait", "data", "logprob", "reference", "update", "publish", "checkpoint", "onload", "offload", "asleep", "down",
            "reward", "validate")),
    Column("start", "f8", "since when, s"),
    Column("end", "f8", "until when, s"),
)
TABLES = {
    "requests": REQUESTS, "stretches": STRETCHES, "stalls": STALLS, "replicas": REPLICAS, "transfers": TRANSFERS, "adapters": ADAPTERS,
    "stages": STAGES, "flows": FLOWS, "links": LINKS, "usage": USAGE, "starts": STARTS, "held": HELD, "places": PLACES, "scaling": SCALING,
    "attempts": ATTEMPTS, "agents": AGENTS, "turns": TURNS, "tool_calls": TOOL_CALLS,
    "sandboxes": SANDBOXES, "sandbox_nodes": SANDBOX_NODES,
    "gate": GATE, "losses": LOSSES, "pauses": PAUSES, "slowdowns": SLOWDOWNS, "deliveries": DELIVERIES,
    "lendings": LENDINGS, "requeues": REQUEUES,
    "train_steps": TRAIN_STEPS, "train_states": TRAIN_STATES, **RL,
}  # fmt: skip


def tables() -> dict[str, Table]:
    """Empty tables of a run."""
    return {name: Table(name, columns) for name, columns in TABLES.items()}
