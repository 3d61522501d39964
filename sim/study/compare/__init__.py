"""Scenarios beside each other: what differs, how surely, and which change did it."""
