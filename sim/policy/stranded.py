"""Fragmentation: free GPUs that none of the replicas one would like to place can use.

The measure of FGD (Weng et al., Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent, USENIX
ATC 2023) for whole GPUs: those of a host are fragments for a replica when the host has too few of them free, when they are of the wrong
kind or, here, when the replica as a whole finds no place. FGD weighs this over a mix of tasks; a GPU counts here when it is a fragment for
all that are given.
"""
from __future__ import annotations

from collections.abc import Sequence

from sim.policy.place.base import Host, Wanted
from sim.policy.room import kinds, usable


def stranded(hosts: Sequence[Host], pending: Sequence[Wanted]) -> int:
    """The number of free GPUs that no replica of `pending` can use; 0 when none is pending."""
    if not pending:
        return 0
    useful: set[int] = set()
    for wanted in dict.fromkeys(pending):
        for kind in kinds(wanted, hosts):
            useful.update(usable(wanted, kind))
    return sum(len(host.free) for host in hosts if host.number not in useful)
