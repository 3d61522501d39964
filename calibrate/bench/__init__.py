"""Kernels timed on a real device, one file per kind. Needs torch, numpy, pandas and yaml only: the machine with the GPU may hold no more.

`grid` says which points, `device` owns the random operands, `timing` the clock; every other file turns a point into a `Task` to be timed.
"""
