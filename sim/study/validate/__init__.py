"""Simulated beside measured: every run of a table of benchmarks is simulated, and the errors are gathered and summed up.

    runs.csv -read-> rows -case-> scenario + what was measured -predict-> figures -score-> errors -sum up-> summary

`validate` does all of it and keeps what is finished, so that an interrupted run goes on where it stopped.
"""
from __future__ import annotations

from sim.study.validate.table import Summary, validate

__all__ = ["Summary", "validate"]
