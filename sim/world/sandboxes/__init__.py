"""Sandboxes: CPU nodes and what runs on them, as a queued resource beside the GPUs."""
