"""Waiting for several agents: for all, or for the first k that hand something back, whereupon the others are called off at that instant."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workloads.programs.base import Ended

if TYPE_CHECKING:
    from workloads.programs.agent import Agent


class Join:
    """`event` succeeds with what became of those joined, in the order in which they began: all, or of the first `enough` (None: all)."""

    __slots__ = ("_children", "_enough", "_found", "_left", "_useful", "event")

    def __init__(self, env: Any, children: Sequence[Agent], enough: int | None):
        self.event = env.event()
        self._children = list(children)
        self._enough = len(children) if enough is None else min(enough, len(children))
        self._left, self._useful = len(children), 0
        self._found: dict[int, Ended] = {}
        for child in children:
            child.process.callbacks.append(self._one)

    def _one(self, process: Any) -> None:
        if self.event.triggered or not process.ok:
            return  # joined already, or a child's program broke down, which ends the run
        ended: Ended = process.value
        self._found[ended.agent] = ended
        self._left -= 1
        self._useful += ended.result > 0
        if self._left and self._useful < self._enough:
            return
        for child in self._children:
            if child.number not in self._found:
                child.stop("cancelled")
        self.event.succeed([self._found[child.number] for child in self._children if child.number in self._found])
