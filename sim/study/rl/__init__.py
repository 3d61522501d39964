"""The figures of reinforcement learning: steps, waits, staleness, waste, and their audit."""
