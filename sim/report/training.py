"""Trainers on a page: how well their GPUs were used, what a billion tokens cost, where an update's seconds and the trainer's time went."""
from __future__ import annotations

from typing import Any

from sim.report.section import Panel, Sheet
from sim.report.words import counted, dollars, number, percent, seconds

PARTS = {
    "forward": "forward", "backward": "backward", "recompute": "recomputation", "network": "network, not hidden",
    "launch": "launching kernels", "imbalance": "waiting for the slowest", "bubble": "pipeline bubble", "gradients": "summing gradients",
    "optimizer": "optimizer", "offload": "states over PCIe", "overhead": "host",
}  # fmt: skip
STATES = {
    "wait": "waiting", "data": "waiting for data", "logprob": "log-probabilities", "reference": "the reference's", "update": "updating",
    "publish": "publishing weights", "checkpoint": "checkpoint", "onload": "coming in", "offload": "going out", "asleep": "asleep",
    "down": "down",
}  # fmt: skip


def cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, more) of what trainers are asked for first."""
    found, shown = summary["training"] or {}, []
    for name, one in found.items():
        more = f"{percent(one['mfu_of_time'])} of all its time; {dollars(one['usd_per_billion_tokens'])} for a billion tokens"
        of = f" of {name}" if len(found) > 1 else ""
        shown.append((f"MFU{of or ' of the trainer'}", percent(one["mfu"]), more))
        if not summary["rl"] and one["step_s"]:
            steps = f"p99 {seconds(one['step_s']['p99'])}; {counted(one['steps'], 'update')}"
            shown.append((f"An update{of}", seconds(one["step_s"]["mean"]), steps))
    return shown


def panels(summary: dict[str, Any]) -> list[Panel]:
    """Each trainer in figures."""
    found = summary["training"] or {}
    return [Panel(f"Trainer {name}" if len(found) > 1 else "Trainer", _rows(one)) for name, one in found.items()]


def _rows(one: dict[str, Any]) -> list[tuple[str, str]]:
    spread = one["step_s"] or {}
    return [
        ("Updates", f"{one['steps']:,}"), ("Tokens", f"{one['tokens']:,}"),
        ("An update, mean and p99", f"{seconds(spread.get('mean'))}, {seconds(spread.get('p99'))}"),
        ("Tokens per second and GPU, updating", number(one["tokens_per_s_per_gpu"])),
        ("MFU, updating", percent(one["mfu"])), ("MFU if attention counts in full", percent(one["mfu_full_attention"])),
        ("MFU, of all its time", percent(one["mfu_of_time"])),
        ("A billion tokens", f"{dollars(one['usd_per_billion_tokens'])}, {number(one['kwh_per_billion_tokens'])} kWh"),
    ]  # fmt: skip


def sheets(summary: dict[str, Any]) -> list[Sheet]:
    """Where the seconds of updates and the time of trainers went."""
    found = summary["training"] or {}
    parts = [[_of(name, PARTS[part], found), percent(share)] for name, one in found.items()
             for part, share in (one["breakdown"] or {}).items() if share]  # fmt: skip
    times = [[_of(name, STATES.get(state, state), found), percent(share)] for name, one in found.items()
             for state, share in one["state_share"].items()]  # fmt: skip
    note = "Of the seconds of updates. Forward to launching are the mean rank's; what is hidden behind arithmetic does not show."
    return [Sheet("Where an update goes", ("Part", "Share"), parts, note), Sheet("What trainers did", ("State", "Share of the run"), times)]


def _of(name: str, what: str, found: dict[str, Any]) -> str:
    return f"{name}: {what}" if len(found) > 1 else what
