"""A scenario with everything switched on that moves a fleet: it is read, changed, written out, and reruns itself byte for byte."""
from __future__ import annotations

import pytest
import round_trip
from scenarios import written

import sim
from sim.spec.load import steps

TEXT = """\
name: base
seed: 3
duration: 30s
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - name: enter
      role: prefill
      gpu: h100_sxm
      region: us
      weight: 2
      power_cap: 600
      replicas: 2
      warm: 1
      autoscale:
        {min: 1, max: 4, every: 2s, lag: 500ms,
         policy: {kind: hpa, target: {concurrency: 2, kv: 0.5}, scale_down: {stabilization_window: 5s}}}
      start: {provision: {median: 1s, p99: 2s}, image: {store: hub, size: 2GB}, weights: {store: s3}, init: 1s, capture: 1s, cold: true}
      engine: {kv_tiers: [{kind: host, capacity: 20GB}, {kind: remote, capacity: 50GB, store: s3, bandwidth: 5GB/s}]}
    - {name: answer, role: decode, gpu: h100_sxm, region: us, weight: 1, autoscale: {max: 3, policy: {kind: kv_threshold}}}
    - {name: far, gpu: l40s, region: eu, weight: 1, replicas: 2, price_per_hour: 1.5}
  router: {kind: spill_over, then: {kind: weighted, by: turns}, threshold: 3, by: in_flight}
  admission: {kind: shed, limits: [{priority: 0, queue: 20, kv: 0.9}, {priority: 1, queue: 40}]}
  disaggregation: {short_prompt: 10, weight: 2, priority: 1}
  views: {period: 300ms, delay: 50ms, own_count: false}
  network:
    fabric: {preset: hgx_leaf_spine, oversubscription: 2}
    hosts: [{gpu: h100_sxm, count: 2, region: us}, {gpu: l40s, count: 1, region: eu}]
    stores: [{name: s3, bandwidth: 20GB/s, region: us}, {name: hub, kind: registry, bandwidth: 5GB/s, region: us}]
    wan: [{between: [us, eu], bandwidth: 10GB/s, latency: 40ms}]
    placement: {kind: spread}
workloads:
  - kind: mmpp
    name: chat
    states: [{rate: 2, mean_stay: 3s}, {rate: 12, mean_stay: 2s}]
    duration: 15s
    region: us
    lengths: {kind: lognormal, input: {mean: 400, sigma: 1, max: 4000}, output: {mean: 40, sigma: 0.5, max: 400}}
    client:
      timeout: {median: 20s, p99: 40s}
      first_token_timeout: {mean: 9s}
      retries: {max: 2, on: [timeout, abandoned], backoff: {first: 200ms, factor: 3, most: 5s, jitter: 0.2}, budget: 0.3, window: 5s}
      hedge: {after: p90, budget: 0.1}
  - kind: flash_crowd
    name: crowd
    rate: 2
    duration: 15s
    region: eu
    priority: 1
    spikes: [{at: 4s, height: 5, rise: 1s, hold: 2s, decay: 1s}]
    lengths: {kind: fixed, input: 300, output: 30}
  - {kind: transfers, source: s3, target: enter, every: 5s, times: 3, start: 4s, algorithm: pipeline, chunk: 256MB, weight: 0.5}
slo: {ttft_p95: 1s, tpot_p95: 50ms}
prices: {book: neocloud, commitment: {enter: reserved_1y}, reserved: {enter: 1}}
power: {pue: 1.3}
carbon: {pools: {far: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]}, regions: {us: us_virginia},
         start_hour: 8.5, embodied: {kg_per_gpu: 150, years: 5}}
"""


@pytest.fixture
def everything(tmp_path):
    return written(tmp_path, TEXT)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of it through the command line."""
    folder = tmp_path_factory.mktemp("everything")
    return round_trip.saved(written(folder, TEXT))


def test_what_is_written_out_is_read_back(everything):
    round_trip.written_out(everything)


def test_a_result_reruns_itself_byte_for_byte(one):
    round_trip.reruns(one, {"attempts", "deliveries", "flows", "links", "places", "replicas", "requests", "scaling", "starts", "transfers"})


def test_everything_did_something(one):
    result = sim.Result.open(one)
    summary = result.summary
    assert all(check["ok"] for check in summary["audit"].values())
    assert summary["requests"]["completed"] > 100
    for group in ("scaling", "regions", "network", "calls", "pools"):
        assert summary[group], group
    assert summary["scaling"]["started"] > 0
    assert summary["network"]["deliveries"]["weight_sync"]["count"] == 3
    assert summary["carbon"]["embodied_grams"] > 0
    assert summary["cost"]["usd_idle"] > 0


def test_each_part_can_be_set_from_outside(everything):
    sets = {
        "cluster.pools.0.autoscale.policy.scale_down.stabilization_window": "20s",
        "cluster.pools.0.autoscale.policy": "{kind: predictive, capacity: 2, season: 10m, slot: 10s, lead: 20s}",
        "cluster.pools.0.start.weights.store": "hub",
        "cluster.network.fabric": "superpod_rails",
        "cluster.network.wan.0.latency": "80ms",
        "cluster.views": "null",
        "workloads.0.client.hedge.after": "2s",
        "workloads.0.client": "null",
        "prices.commitment.far": "spot",
        "prices": "null",
        "carbon.regions.us": "us_texas",
    }
    for key, value in sets.items():
        round_trip.changed(everything, key, f"{key}={value}")


def test_a_scenario_on_top_changes_what_it_says(everything):
    top = """\
extends: x.yaml
name: top
cluster:
  network: {fabric: {oversubscription: 4}}
  admission: {kind: token_bucket, rate: 9, burst: 9}
carbon: {start_hour: 20}
"""
    before, scenario = sim.load(everything), sim.load(written(everything.parent, top, "top.yaml"))
    assert scenario.cluster.network.fabric.oversubscription == 4
    assert scenario.cluster.network.hosts == before.cluster.network.hosts
    assert (scenario.cluster.admission["kind"], scenario.carbon.start_hour) == ("token_bucket", 20)
    assert scenario.carbon.regions == before.carbon.regions


def test_steps_of_a_ladder_change_the_fleet(everything):
    ladder = """\
ladder:
  - {name: as it is}
  - {name: full bisection, set: {cluster.network.fabric.oversubscription: 1}}
  - {name: nobody asks twice, set: {workloads.0.client.hedge: null}}
  - {name: fixed, set: {cluster.pools.1.autoscale: null, cluster.pools.1.replicas: 3}}
"""
    scenario = sim.load(written(everything.parent, everything.read_text() + ladder, "ladder.yaml"))
    assert sim.load(written(everything.parent, sim.dump(scenario), "again.yaml")) == scenario
    *_, last = steps(scenario)
    assert (last.cluster.network.fabric.oversubscription, last.workloads[0]["client"].hedge) == (1, None)
    assert (last.cluster.pools[1].autoscale, last.cluster.pools[1].replicas) == (None, 3)
