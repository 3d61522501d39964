"""What lies in the folder of a page, so that every figure of the page can be traced: (file, rows, what it holds) of each."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sim.study.result import ALWAYS, Result

File = tuple[str, str, str]
SCENARIO = ("scenario.yaml", "", "The scenario with every default filled in; it runs as it is.")
# What a row of each table of a run is.
ROWS: Mapping[str, str] = MappingProxyType({
    "requests": "Requests: when each arrived, began and ended, its tokens, and why it failed. Latencies are computed of it.",
    "stretches": "Runs of engine steps of a replica: times, tokens, KV blocks. Throughput, busy GPUs, MFU and energy are computed of it.",
    "stalls": "Times in which a request that had begun got no tokens.",
    "replicas": "Replicas: their GPUs, their lives and their KV cache.",
    "transfers": "Keys and values that were moved.",
    "adapters": "Adapters that were loaded for requests.",
    "stages": "Requests of cascades: answers, and verdicts on them.",
    "flows": "What was sent over the network, and how long it took.",
    "links": "Links of the network.",
    "usage": "How busy links were, by bins of time.",
    "slowdowns": "Stretches whose collectives other traffic slowed down.",
    "deliveries": "Weights, checkpoints and copies that workloads sent.",
    "starts": "Stages of the start and the end of replicas.",
    "held": "Requests that no replica was ready for.",
    "gate": "Calls that were held while their program was paused.",
    "places": "Hosts that replicas stand on.",
    "scaling": "What autoscalers saw and wanted.",
    "attempts": "Requests that callers sent for a call, tries and hedges.",
    "losses": "Requests that were let in and failed.",
    "pauses": "Times in which a replica made no step.",
    "lendings": "Shared GPUs that changed hands.",
    "requeues": "Requests that went through the front door again.",
    "agents": "Agents: how each began and ended, and what it used.",
    "turns": "Calls of a model by agents.",
    "tool_calls": "Calls of tools by agents.",
    "sandboxes": "Sandboxes: when each was asked for, was there and ended.",
    "sandbox_nodes": "CPU nodes of sandboxes.",
    "train_steps": "Steps of trainers.",
    "train_states": "What trainers did when.",
    "rl_steps": "Steps of reinforcement learning, and what their time went to.",
    "rl_groups": "Groups of samples of a prompt, and what became of them.",
    "rl_samples": "Samples: tokens, versions, rewards, staleness.",
    "rl_waste": "Tokens that were generated in vain, and why.",
    "rl_syncs": "New weights on their way to the engines.",
    "rl_grades": "Rewards that were asked for.",
})  # fmt: skip


def of_run(result: Result, several: bool = False) -> list[File]:
    """Of a run, with the tables that it has rows in; `several`: with those of replications or batches."""
    return list(_of_run(result, several))


def _of_run(result: Result, several: bool) -> Iterator[File]:
    yield "summary.json", "", "The figures of cards, panels and tables, under the names that What each figure means lists."
    yield SCENARIO
    yield "meta.json", "", "Seed, version and digest; of each pool its memory, its prices, and the figures assumed with their sources."
    if several:
        yield "replications.json", "", "How many replications or batches there are, and the interval of every figure."
        yield "replications.parquet", "", "A row for each replication or batch, with its seed, its verdict and every figure."
    for name, table in result.tables.items():
        if len(table) or name in ALWAYS:
            yield f"{name}.parquet", f"{len(table):,}", ROWS[name]


def of_sweep(rows: int) -> list[File]:
    """Of a sweep of so many finished runs."""
    return [
        ("points.parquet", f"{rows:,}", "A row for each run: point, replication, keys, verdict, every figure, and why there is none."),
        ("journal.jsonl", f"{rows + 1:,}", "The same as it was finished, from which a sweep that was killed goes on; first what is swept."),
        SCENARIO,
    ]


def of_comparison(rows: int) -> list[File]:
    """Of a comparison with so many differences."""
    return [
        ("comparison.json", "", "All that this page says: scenarios, differences, waterfalls, keys that differ."),
        ("comparison.parquet", f"{rows:,}", "A row for each figure and scenario: difference, interval, p."),
    ]


def of_plan(runs: int, answered: bool) -> list[File]:
    """Of a plan that took so many runs, with the answer where there is one."""
    best = [
        ("best.yaml", "", "The answer as a scenario; it runs as it is."),
        ("best/", "", "The run of the answer, whole, with a page that says what its figures stand on."),
    ]
    return [
        ("plan.json", "", "All that this page says: the answer, layouts, levers, sensitivity, growth."),
        ("runs.csv", f"{runs:,}", "A row for each run of the search: layout, replicas, traffic, seed, figures, whether the SLO held."),
        SCENARIO, *(best if answered else ()),
    ]  # fmt: skip


def of_points(kind: str, rows: int, what: str) -> list[File]:
    """Of a study that saves its points under its name, as JSON and as a table."""
    return [
        (f"{kind}.json", "", "All that this page says."),
        (f"{kind}.{'parquet' if kind == 'ladder' else 'csv'}", f"{rows:,}", what),
        SCENARIO,
    ]  # fmt: skip


def of_ladder(rows: Sequence[Mapping[str, Any]]) -> list[File]:
    """Of a ladder: its rows, and the folder of each step."""
    steps = [(f"{row['folder']}/", "", f"The run of {row['name']}, whole, with its page.") for row in rows]
    return [*of_points("ladder", len(rows), "A row for each step, with every figure of it."), *steps]


def of_accuracy(**tables: int) -> list[File]:
    """Of a comparison with measured runs; the rows of each table by its name."""
    what = {
        "errors": "A row for each figure of each run: measured, predicted, error.", "could_not": "Runs that were not simulated, and why.",
        "requests": "Requests of runs that are replayed one by one: measured and predicted.",
        "held_out": "The same, with constants fitted to all other models.",
    }  # fmt: skip
    found = [(f"{name}.csv", f"{rows:,}", what[name]) for name, rows in tables.items()]
    return [("summary.json", "", "Every figure of this page, and more of each kind."), *found]
