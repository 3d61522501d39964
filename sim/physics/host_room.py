"""What the memory of a host has to hold while its GPUs change hands, by trainer and engines (`physics/hybrid.py`) or by engines of two
pools (`spec/lending.py`): whoever gives GPUs up has all that it keeps in there before what is kept of the other leaves. All GPUs of a host
may do so at one time.
"""
from __future__ import annotations

from collections.abc import Mapping

from sim.core.errors import BadInput, Problem
from sim.spec.hardware import Node


def check(node: Node, gpus: int, held: Mapping[str, float], advice: str, where: str = "") -> float:
    """Bytes that a host holds for each of so many of its GPUs, `held` by what they are of. Raises BadInput at `where` when it has less; the
    `advice` says what would help.
    """
    each = sum(held.values())
    over = each * gpus - node.host_memory
    if over > 0:
        parts = " and ".join(f"{size / 1e9:.1f} GB of {name}" for name, size in held.items() if size)
        message = f"while GPUs change hands the memory of {node.name} holds {parts} for each of {gpus} GPUs, {over / 1e9:.0f} GB more than"
        raise BadInput([Problem(f"{message} its {node.host_memory / 1e9:.0f} GB; {advice}", where)])
    return each
