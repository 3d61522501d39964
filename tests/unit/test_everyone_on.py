"""A scenario with everything switched on that agents bring: it is read, changed, written out, and reruns itself byte for byte."""
from __future__ import annotations

import jsonschema
import pytest
import round_trip
import yaml
from agent_samples import CALLS
from click.testing import CliRunner
from scenarios import written

import sim
from sim.cli import main
from sim.spec.schema import catalogue, json_schema
from workloads.programs import presets

TEXT = """\
name: base
seed: 3
duration: 120s
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - name: serve
      gpu: h100_sxm
      replicas: 2
      engine: {batcher: {kind: vllm_v1, order: {kind: ttl_priority}}, retention: {kind: ttl, seconds: 4s, firm: true}}
  router: {kind: session_affinity, by: program}
  gate: {kind: kv_capacity, every: 1s, fill: 0.9, acting_token_weight: 0.5, half_life: 10s}
  sandboxes:
    - name: swe
      autoscale: {min: 1, max: 4, every: 2s, provision: {median: 3s, sigma: 0.3}, policy: {kind: hpa, target: {busy: 0.3}}}
      node: {preset: general_64, memory: 64GB}
      kind: microvm
      cores: 0.5
      memory: {base: 512MB, burst: {median: 800MB, sigma: 0.5, max: 2GB}, burst_time: 1.5s}
      limit: 4GB
      disk: 2GB
      images: {count: 12, size: {median: 3.5GB, sigma: 0.4}, zipf: 1, store: hub, cache: 0.4}
      boot: {median: 2s, sigma: 0.5}
      boot_concurrency: 4
      boot_timeout: 60s
      fail: 0.02
      snapshot: {restore: 2s, save: 1s}
      warm: 2
      exec: {slots: 40, overhead: 50ms}
      idle_timeout: 30s
      crash: 1
      oversubscription: {cpu: 2, memory: 1.5}
      quota: {coders: 30}
      max_queue: 50
      place: image
    - {name: check, nodes: 1, node: compute_64, memory: 1GB, boot: 500ms, price_per_hour: 2.5}
  network:
    fabric: hgx_leaf_spine
    hosts: [{gpu: h100_sxm, count: 1}]
    stores: [{name: hub, kind: registry, bandwidth: 5GB/s}]
workloads:
  - kind: agents
    name: coders
    concurrency: 4
    num_sessions: 8
    turns: {dist: geometric, mean: 2}
    think_time: {median: 3s, sigma: 1, max: 30s}
    mix: {coder: 3, helper: 1}
    agents:
      coder:
        system: 2000
        task: {median: 300, sigma: 0.6}
        message: {median: 80, sigma: 0.6}
        calls: {dist: negbinom, mean: 5, sd: 3, min: 1}
        output: {median: 60, sigma: 0.6, max: 400}
        final: {median: 150, sigma: 0.5}
        tools: {bash: 0.6, search: 0.3, ask: 0.1}
        parallel_tools: {mixture: [{p: 0.8, dist: fixed, value: 1}, {p: 0.2, dist: fixed, value: 2}]}
        spawns: [{agent: scout, share: 0.15, count: 3, join: 2, result: {median: 80, sigma: 0.3}}, {agent: scout, calls: [2]}]
        context: {max: 12000, compact_at: 0.8, summary: 600, kept: 200, edits: 0.1}
        budget: {calls: 40, tokens: 2000000, time: 30m, depth: 2, agents: 20}
        sandbox: {pool: swe, at: first_use, image: own, keep: true}
        retries: {max: 2, backoff: 500ms}
        model: serve
      helper: {turns: 1, task: 500, calls: 2, output: 40, tools: {search: 1}}
      scout: {system: 800, task: 120, calls: 3, output: 30, tools: {bash: 1}}
      judge: {task: 60, output: 4}
    tools:
      bash:
        {time: {mixture: [{p: 0.9, median: 300ms, sigma: 0.8}, {p: 0.1, median: 8s, sigma: 0.6}]}, observation: {median: 200, sigma: 0.8},
         sandbox: true, cores: 2, timeout: 30s, fail: 0.05, hang: 0.01, retries: 1}
      search: {time: {mean: 1s, cv: 1}, observation: 400, api: web}
      ask: {model: {agent: judge, task: 90}, observation: 10}
    apis: {web: {rate: 120 per minute, burst: 4, concurrency: 2, queue: 20}}
  - kind: evals
    name: bench
    tasks: 6
    samples: 2
    start: 10s
    within: 2s
    concurrency: 8
    lengths: {kind: fixed, input: 300, output: 60}
    sandbox: {pool: check, at: start}
    tools: {tests: {time: 2s, observation: 1, sandbox: true, timeout: 60s}}
    grade: {tool: tests, clean_sandbox: true}
  - {kind: agent_trace, name: recorded, path: calls.csv, format: calls, rate: 0.5, num_sessions: 4, tool_scale: 0.5, max_wait: 20s}
slo: {ttft_p95: 1s}
prices: {book: neocloud}
"""


@pytest.fixture
def everyone(tmp_path):
    written(tmp_path, CALLS, "calls.csv")
    return written(tmp_path, TEXT)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of it through the command line."""
    folder = tmp_path_factory.mktemp("everyone")
    written(folder, CALLS, "calls.csv")
    return round_trip.saved(written(folder, TEXT))


def test_what_is_written_out_is_read_back(everyone):
    round_trip.written_out(everyone)


def test_a_result_reruns_itself_byte_for_byte(one):
    round_trip.reruns(one, {"agents", "turns", "tool_calls", "sandboxes", "sandbox_nodes", "requests"})


def test_everyone_did_something(one):
    summary = sim.Result.open(one).summary
    assert {name: check for name, check in summary["audit"].items() if not check["ok"]} == {}
    # Sessions of coders, samples of the benchmark, recorded sessions; one or the other may not be done when the clock stops.
    assert summary["agents"]["tasks"]["begun"] == 8 + 12 + 4
    assert summary["agents"]["agents"]["begun"] > 24 + 8
    assert summary["agents"]["tasks"]["completed"] > 16
    assert set(summary["tools"]["by_tool"]) >= {"bash", "search", "tests"}
    assert set(summary["sandboxes"]) == {"swe", "check"}
    assert summary["cost"]["usd_sandboxes"] > 0


def test_each_part_can_be_set_from_outside(everyone):
    sets = {
        "cluster.gate": "null",
        "cluster.gate.fill": "0.5",
        "cluster.sandboxes.0.warm": "0",
        "cluster.sandboxes.0.node": "memory_64",
        "cluster.sandboxes.0.autoscale.policy": "{kind: concurrency, target: 20}",
        "cluster.sandboxes.0.images.size": "5GB",
        "cluster.sandboxes.0.snapshot": "null",
        "workloads.0.turns": "1",
        "workloads.0.agents.coder.spawns": "[{agent: scout, share: 0.5}]",
        "workloads.0.agents.coder.budget.time": "60s",
        "workloads.0.tools.bash.time": "2s",
        "workloads.0.apis.web.rate": "5 per second",
        "workloads.1.samples": "3",
        "workloads.2.too_long": "drop",
    }
    for key, value in sets.items():
        more = ["workloads.2.max_context=2000"] if key.endswith("too_long") else []
        round_trip.changed(everyone, key, f"{key}={value}", *more)


def test_a_scenario_on_top_changes_what_it_says(everyone):
    top = """\
extends: x.yaml
name: top
cluster: {gate: {every: 3s}, router: {kind: prefix_aware}}
"""
    before, scenario = sim.load(everyone), sim.load(written(everyone.parent, top, "top.yaml"))
    assert (scenario.cluster.gate["every"], scenario.cluster.gate["fill"], scenario.cluster.router["kind"]) == (3, 0.9, "prefix_aware")
    assert scenario.cluster.sandboxes == before.cluster.sandboxes
    assert scenario.workloads == before.workloads


def test_a_preset_is_changed_key_by_key(everyone):
    preset = "- {kind: agents, rate: 1, num_sessions: 2, preset: chat, turns: 1, agents: {assistant: {context: {max: 9000}}}}"
    text = everyone.read_text().split("workloads:\n")[0].split("  sandboxes:")[0] + f"workloads:\n  {preset}\n"
    [workload] = sim.load(written(everyone.parent, text, "preset.yaml")).workloads
    assert (workload["agents"]["assistant"].context.max, workload["agents"]["assistant"].context.compact_at) == (9000, 0.9)
    assert (workload["turns"].at(0.5), workload["think_time"].at(0.5)) == (1, 0)


# -- what editors and lists know ------------------------------------------------------------
def test_editors_know_the_keys_of_agents():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in check.iter_errors(yaml.safe_load(TEXT))] == []
    for old, new in (
        ("final:", "finale:"), ("timeout: 30s, fail", "time_out: 30s, fail"), ("burst: 4,", "bursts: 4,"), ("boot_concurrency", "boots"),
        ("preset: general_64", "presets: general_64"), ("compact_at", "compact"), ("clean_sandbox", "clean"),
        ("format: calls", "format: call"), ("kind: kv_capacity", "kind: kv_capacty"), ("join: 2", "join: 0"),
    ):  # fmt: skip
        assert TEXT.count(old) == 1, old
        assert list(check.iter_errors(yaml.safe_load(TEXT.replace(old, new)))), new
    one = {"kind": "agents", "rate": 1, "num_sessions": 3, "preset": "swe_agent", "agents": {"main": {"sandbox": {"at": "first_use"}}}}
    whole = {"model": "m", "cluster": {"pools": [{"gpu": "h100_sxm"}]}, "workloads": [one]}
    assert list(check.iter_errors(whole)) == []
    assert list(check.iter_errors(whole | {"workloads": [one | {"preset": "swe_agnet"}]}))


def test_lists_have_what_agents_bring():
    assert [kind.kind for kind in catalogue("agent_preset")] == presets.names()
    assert all(kind.doc for family in ("agent_preset", "agent_format", "cpu_node") for kind in catalogue(family))
    shown = CliRunner().invoke(main, ["kinds", "workload"]).output
    assert "tools: dict of text, {time, observation, sandbox, cores, timeout, fail, hang, retries, api, model}, default {}" in shown
    assert "turns: number or distribution, default 1.0" in shown
    for family in ("cpu_node", "agent_preset", "agent_format", "gate"):
        assert CliRunner().invoke(main, ["kinds", family]).output.startswith(family)
