"""The studies that look for an answer: the cheapest cluster (plan), the most traffic (capacity), the frontier (pareto)."""
