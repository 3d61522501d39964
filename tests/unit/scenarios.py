"""A good scenario, and ways to spoil it."""
from __future__ import annotations

import pytest

from sim.core.errors import BadInput
from sim.spec.load import load

GOOD = """\
name: chat
seed: 1
duration: 30m
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - name: serve
      gpu: h100_sxm
      replicas: 2
      parallel: {tp: 2}
      precision: fp8
      gpu_memory: 80GB
      engine:
        max_num_seqs: 128
  router: {kind: round_robin}
workloads:
  - kind: poisson
    rate: 4
    num_requests: 1e3
    lengths: {kind: fixed, input: 1000, output: 100}
slo: {ttft_p99: 500ms}
"""


def written(tmp_path, text, name="x.yaml"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems_of(path, sets=(), lookup=False):
    with pytest.raises(BadInput) as error:
        load(path, sets, lookup=lookup)
    return error.value.problems


def good(old="", new=""):
    assert old in GOOD
    return GOOD.replace(old, new, 1)
