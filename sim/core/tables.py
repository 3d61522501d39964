"""The tables that every run writes: what a row is, and what its columns mean. Times are seconds.

A table that a run has no rows for stays empty and is not saved. Metrics are never stored here: `study/metrics.py` derives them.
"""
from __future__ import annotations

from sim.core.record import Column, Table
from sim.core.request import STATUSES

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
    Column("waiting", "i4", "requests queued at this replica during the stretch"),
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
    Column("kept_peak_blocks", "i4", "most free KV blocks kept at once for sessions that paused"),
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
    Column("stage", "i4", "a stage of its start; warm: kept without traffic; drain: takes no more, and finishes what it has",
           ("wait", "provision", "image", "weights", "init", "capture", "warm", "drain")),
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
TABLES = {
    "requests": REQUESTS, "stretches": STRETCHES, "stalls": STALLS, "replicas": REPLICAS, "transfers": TRANSFERS, "adapters": ADAPTERS,
    "stages": STAGES, "flows": FLOWS, "links": LINKS, "usage": USAGE, "starts": STARTS, "held": HELD, "places": PLACES, "scaling": SCALING,
    "attempts": ATTEMPTS,
    "losses": LOSSES, "slowdowns": SLOWDOWNS, "deliveries": DELIVERIES,
}  # fmt: skip


def tables() -> dict[str, Table]:
    """Empty tables of a run."""
    return {name: Table(name, columns) for name, columns in TABLES.items()}
