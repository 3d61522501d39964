"""What an agent has used up, and whether there is more."""
from __future__ import annotations

from workloads.programs.base import Over
from workloads.programs.options import Budget


class Spent:
    """Counts of one agent's calls of models, prompt and output tokens, tool calls and compactions; of a root, `agents` of its session."""

    __slots__ = ("_budget", "agents", "calls", "compactions", "output", "prompt", "tools")

    def __init__(self, budget: Budget):
        self._budget = budget
        self.agents = self.calls = self.compactions = self.output = self.prompt = self.tools = 0

    def may(self, tokens: int) -> None:
        """Another call, of so many tokens of prompt and answer, is about to be made. Raises Over when it would exceed the budget."""
        budget = self._budget
        if budget.calls is not None and self.calls >= budget.calls:
            raise Over("calls")
        if budget.tokens is not None and self.prompt + self.output + tokens > budget.tokens:
            raise Over("tokens")
        self.calls += 1
