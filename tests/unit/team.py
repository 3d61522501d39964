"""A good scenario of agents with tools, sandboxes, sub-agents and a gate, to be spoiled."""
from __future__ import annotations

from scenarios import problems_of

TEAM = """\
name: team
duration: 60s
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - name: serve
      gpu: h100_sxm
      replicas: 2
  router: {kind: session_affinity}
  gate: {kind: kv_capacity}
  sandboxes:
    - name: swe
      nodes: 4
      node: general_64
      cores: 1
      memory: {base: 256MB, burst: 800MB, burst_time: 2s}
      limit: 2GB
      disk: 1GB
      images: {count: 20, size: 3GB}
      boot: 2s
      boot_timeout: 60s
      snapshot: {restore: 2s}
      exec: {slots: 100, overhead: 50ms}
      quota: {agents: 40}
      place: image
workloads:
  - kind: agents
    rate: 0.5
    num_sessions: 4
    turns: 2
    think_time: {median: 5s, sigma: 1}
    agents:
      lead:
        system: 3000
        message: {mean: 200, cv: 1}
        calls: 3
        output: 50
        tools: {bash: 0.7, search: 0.2, ask: 0.1}
        spawns: [{agent: scout, share: 0.1, count: 3, join: 2, task: 100, result: 50}]
        context: {max: 32000, compact_at: 0.8, summary: 800}
        budget: {calls: 50, tokens: 1000000, time: 30m, depth: 2, agents: 10}
        sandbox: {pool: swe, at: start}
        retries: {max: 2, backoff: 1s}
      scout: {task: 100, calls: 2, output: 20, tools: {search: 1}}
      judge: {task: 50, output: 5}
    tools:
      bash: {time: 1s, observation: 300, sandbox: true, cores: 2, timeout: 60s, fail: 0.05, hang: 0.01, retries: 1}
      search: {time: {mean: 2s, cv: 1}, observation: 500, api: web}
      ask: {model: {agent: judge}, observation: 20}
    apis: {web: {rate: 10 per second, burst: 20, concurrency: 8}}
prices: {book: neocloud}
"""


def refused(path, line, message):
    """Check that the scenario is refused, at this line with this message."""
    found = problems_of(path, lookup=True)
    places = [(problem.file, problem.line) for problem in found if message in problem.message]
    assert (str(path), line) in places, "\n".join(map(str, found))
