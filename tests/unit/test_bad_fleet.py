"""A fleet as nobody can mean it: each slip is answered with its file and line, what was found and what would be right.

Beside tests/unit/test_wiring.py (what stands where), test_attempts.py (callers) and test_money.py (prices) this has what only the whole can
tell: keys without effect, bounds that cross, replicas that fit nowhere, forgotten units.
"""
from __future__ import annotations

import pytest
from click.testing import CliRunner
from scenarios import problems_of, written

import sim
from sim.cli import main
from sim.core.errors import BadInput
from sim.core.registry import ADMISSIONS, ROUTERS

FLEET = """\
name: fleet
duration: 20s
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - name: us
      gpu: h100_sxm
      region: us
      replicas: 2
      weight: 2
      autoscale: {min: 1, max: 4, every: 5s, policy: {kind: hpa, target: {concurrency: 4}}}
      start: {image: {store: hub, size: 2GB}, weights: {store: s3}, init: 1s, capture: 1s}
      warm: 1
    - name: eu
      gpu: l40s
      region: eu
      weight: 1
      replicas: 2
  router: {kind: spill_over, then: {kind: weighted}, threshold: 4}
  admission: {kind: shed, limits: [{priority: 0, queue: 20}]}
  views: {period: 1s, delay: 100ms}
  network:
    fabric: hgx_leaf_spine
    hosts:
      - {gpu: h100_sxm, count: 2, region: us}
      - {gpu: l40s, region: eu}
    stores:
      - {name: s3, bandwidth: 20GB/s, region: us}
      - {name: hub, kind: registry, bandwidth: 5GB/s, region: us}
    wan: [{between: [us, eu], bandwidth: 10GB/s, latency: 40ms}]
workloads:
  - kind: poisson
    rate: 4
    num_requests: 20
    region: us
    lengths: {kind: fixed, input: 500, output: 20}
    client: {timeout: 30s, retries: {budget: 0.2}}
  - {kind: transfers, source: us, target: s3, what: checkpoint}
slo: {ttft_p99: 500ms}
prices: {book: neocloud}
carbon: {regions: {us: us_virginia, eu: 300}, start_hour: 8}
"""
POLICY, CLIENT = "{kind: hpa, target: {concurrency: 4}}", "{timeout: 30s, retries: {budget: 0.2}}"
START = "{image: {store: hub, size: 2GB}, weights: {store: s3}, init: 1s, capture: 1s}"
ROUTER, LIMITS = "{kind: spill_over, then: {kind: weighted}, threshold: 4}", "[{priority: 0, queue: 20}]"
TRANSFER, CARBON = "{kind: transfers, source: us, target: s3, what: checkpoint}", "{regions: {us: us_virginia, eu: 300}, start_hour: 8}"
H100 = "- {gpu: h100_sxm, count: 2, region: us}"


def transfers(options):
    return TRANSFER, f"{{kind: transfers, {options}}}"


# Changed text, its line, and what the message must say.
BAD = [
    # autoscalers
    ("min: 1, max: 4", "min: 5, max: 4", 11, "min (5) is above max (4); the bounds cross"),
    ("min: 1, max: 4", "min: 3, max: 4", 6, "replicas (2), the number at the start, is outside autoscale's min 3 and max 4"),
    ("every: 5s", "every: 0", 11, "found 0; a value above 0 is wanted"),
    (POLICY, "hpa", 11, "such as {kind: hpa}"),
    (POLICY, "{kind: hpa, target: {concurency: 4}}", 11, "did you mean concurrency?"),
    (POLICY, "{kind: hpa, target: {kv: 80}}", 11, "found 80; a share of at most 1 is wanted, such as 0.8 for 80 %"),
    (POLICY, "{kind: hpa, target: {busy: 2}}", 11, "found 2; a share of at most 1 is wanted"),
    (POLICY, "{kind: hpa, target: {kv: 0.8}, scale_down: {select_policy: disabled, policies: [{type: pods, value: 3}]}}", 11,
     "policies are given, but select_policy is disabled"),
    (POLICY, "{kind: scheduled, table: [{at: '08:00', replicas: 40}]}", 11, "found 40; from min 1 to max 4 of autoscale is wanted"),
    (POLICY, "{kind: concurrency, target: 3, scale_to_zero_grace: 60s}", 11, "with min 1 the last replica stays; write min: 0"),
    # cold starts
    (START, "{weights: {store: s4}}", 12, "no store 's4'; known: hub, s3"),
    (START, "{weights: {store: s3, bandwidth: 0}}", 12, "found 0; a value above 0 is wanted"),
    (START, "{weights: {bandwidth: 3}}", 12, "found 3 bytes/s; a link carries more: write the unit, such as 3GB/s or 3Gbps"),
    (START, "{weights: {size: 3GB}}", 12, "it belongs to cluster.pools.start.image"),
    (START, "{provision: 10s, weights: {cache: host}}", 12, "hosts are provisioned anew for every start"),
    (START, "{image: {size: 12}}", 12, "size is 12 bytes; an image has more: write the unit, such as 12GB"),
    (START, "{image: {time: 10s, size: 3GB}}", 12, "time is given, and size too"),
    (START, "{init: -3}", 12, "found -3; a duration of 0 or more is wanted"),
    ("      replicas: 2\n      weight: 2\n", "      replicas: 2\n      weight: 2\n      engine: {cuda_graph: false}\n", 13,
     "cuda_graph is false, so that no graph is captured; leave it out"),
    # what stands where
    (H100, "- {gpu: h100_sxm, count: 2}", 25, "no region is given while others have one; known: eu, us"),
    ("{name: s3, bandwidth: 20GB/s, region: us}", "{name: s3, bandwidth: 20GB/s}", 28, "no region is given while others have one"),
    ("bandwidth: 20GB/s", "bandwidth: 20", 28, "found 20 bytes/s; a link carries more"),
    ("bandwidth: 10GB/s", "bandwidth: -10GB/s", 30, "found '-10GB/s'; a value above 0 is wanted"),
    ("bandwidth: 10GB/s", "bandwidth: 10", 30, "write the unit, such as 10GB/s or 10Gbps"),
    ("    wan: [{between: [us, eu], bandwidth: 10GB/s, latency: 40ms}]\n", "", 26, "no wan connects region 'eu' with 'us'"),
    # the front door
    ("    region: us\n    lengths", "    lengths", 19, "no workload has a region, so that nothing spills over"),
    (ROUTER, "{kind: least_loaded}", 10, "router least_loaded heeds no weights; write router: {kind: weighted}, or leave weight out"),
    (ROUTER, "{kind: spill_over, threshold: 4, then: {kind: spill_over, threshold: 3}}", 19, "found spill_over again"),
    (ROUTER, "{kind: prefix_aware, prefix: 0, queue: 0, kv: 0}", 19, "all 0, so that all replicas are alike"),
    ("      weight: 1\n", "", 4, "some pools have a weight and eu none"),
    (LIMITS, "[{priority: 0}, {priority: 3}]", 20, "found no limit, so that nobody is ever turned away"),
    (LIMITS, "[{priority: 0, kv: 80}]", 20, "found 80; a value of at most 1 is wanted"),
    ("{period: 1s,", "{period: 0,", 21, "found 0; a value above 0 is wanted"),
    # callers
    (CLIENT, "{timeout: 1s, first_token_timeout: 3s}", 37, "first_token_timeout (3 s) comes after timeout (1 s), when the only attempt is"),
    (CLIENT, "{timeout: 1s, hedge: {after: 2s}}", 37, "hedge.after (2 s) comes after timeout (1 s)"),
    (CLIENT, "{retries: {backoff: {first: 2m}}}", 37, "first (120 s) is above most (60 s)"),
    # what moves
    (*transfers("source: s4, target: uss"), 38, "no pool and no store is named 'uss'; did you mean us?"),
    (*transfers("source: s3, target: hub"), 38, "found weights, but neither s3 nor hub is a pool with a model; give a size"),
    (*transfers("source: s3, target: s3, bytes: 1GB"), 38, "found 's3', where it comes from too; nothing would move"),
    (*transfers("source: s3, target: us, bandwidth: 3"), 38, "found 3 bytes/s; a link carries more"),
    (*transfers("source: s3, target: us, bytes: 1e300"), 38, "at most 1e+18 bytes"),
    (*transfers("source: s3, target: us, algorithm: tree, chunk: 3"), 38, "found 3 bytes; at least 4e+06 is wanted"),
    (*transfers("source: s3, target: us, algorithm: pipeline, bytes: 1GB, chunk: 3"), 38, "at least 1000 is wanted"),
    # money and carbon
    ("book: neocloud", "book: neocloud, commitment: {uss: spot}", 40, "no pool has this name; did you mean us?"),
    (CARBON, "{regions: {us: us_virginia}}", 41, "pool eu has no grid, and none is taken for it"),
    (CARBON, "{regions: {us: us_virginia, eu: -3}}", 41, "found -3; a value of at least 0 is wanted"),
    (CARBON, "{regions: {us: us_virginia, eu: 300}, grid: world}", 41, "each pool has a grid of its own or of its region; leave it out"),
    (CARBON, "{grid: 300, start_hour: 8}", 41, "one value for all hours does not tell them apart"),
    (CARBON, "{grid: {a: 3}}", 41, "found a mapping; a number is wanted"),
    (CARBON, "{grid: [1, 2, 3]}", 41, "found 3 values; 24 are wanted"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "message"), BAD, ids=[f"{line}-{message[:40]}" for _, _, line, message in BAD])
def test_what_the_loader_refuses(tmp_path, old, new, line, message):
    assert FLEET.count(old) == 1
    path = written(tmp_path, FLEET.replace(old, new))
    found = problems_of(path, lookup=True)
    assert (str(path), line) in [(p.file, p.line) for p in found if message in p.message], "\n".join(map(str, found))


EMPTY = FLEET.replace("min: 1", "min: 0").replace("      warm: 1\n", "")
EMPTY = EMPTY.replace("replicas: 2\n      weight: 2", "replicas: 0\n      weight: 2")
ON_HOSTS = "2 hosts hgx_h100 in us have 8 GPUs each, "
RUN = [
    ("warm: 1", "warm: 15", 6,
     f"replica 17 of 17 of pool us fits nowhere: {ON_HOSTS}at most 0 free together; 1 wanted; 1 host pcie_l40s in eu has l40s"),
    ("      weight: 2\n", "      weight: 2\n      parallel: {tp: 8, pp: 3}\n", 6,
     f"no replica of pool us fits, though all hosts are free: {ON_HOSTS}16 free"),
    ("    region: us\n    lengths", "    region: asia\n    lengths", 35,
     "no pool is in region 'asia', and no way leads there; known: eu, us"),
    ("  network:", "  regions: [{between: [us, eu], latency: 1ms}]\n  network:", 22, "leave one of them out"),
    ("      warm: 1\n", "      power_cap: 6000\n", 13,
     "found 6000 W; a cap of h100_sxm lies between 87 W (its lowest clock) and 700 W (its TDP)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "message"), RUN, ids=[message[:40] for *_, message in RUN])
def test_what_the_world_refuses(tmp_path, old, new, line, message):
    """Found after loading, and still with a line, with exit code 2 and without a trace."""
    assert FLEET.count(old) == 1
    path = written(tmp_path, FLEET.replace(old, new))
    done = CliRunner().invoke(main, ["run", str(path), "-o", str(tmp_path / "out")])
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr or repr(done.exception)
    assert f"{path}:{line}: " in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_pool_that_begins_with_none_has_to_fit_too(tmp_path):
    with pytest.raises(BadInput, match=r"no replica of pool us fits, though all hosts are free: .* room for 2 of 3 groups of 8"):
        sim.run(written(tmp_path, EMPTY.replace("      weight: 2\n", "      weight: 2\n      parallel: {tp: 8, pp: 3}\n")))


def test_pools_that_do_not_fit_are_told_together(tmp_path):
    text = FLEET.replace("warm: 1", "warm: 15").replace("      weight: 1\n      replicas: 2", "      weight: 1\n      replicas: 9")
    with pytest.raises(BadInput) as error:
        sim.run(written(tmp_path, text))
    assert [problem.path for problem in error.value.problems] == ["cluster.pools.0", "cluster.pools.1"]


def test_nobody_sends_where_no_replica_is(tmp_path):
    """A checkpoint of a pool without a ready replica moves nothing, and is recorded so."""
    result = sim.run(written(tmp_path, EMPTY))
    assert result.tables["deliveries"]["receivers"].tolist() == [0]
    assert result.summary["network"]["deliveries"]["checkpoint"]["in_vain"] == 1
    assert set(result.summary["regions"]) == {"us"}


def test_all_problems_at_once(tmp_path):
    text = FLEET.replace("min: 1, max: 4", "min: 5, max: 4").replace("bandwidth: 20GB/s", "bandwidth: 20")
    text = text.replace(LIMITS, "[{priority: 0}]")
    text = text.replace("neocloud", "neoclod").replace("{store: s3}", "{store: s33}").replace("eu: 300", "eu: -3")
    found = problems_of(written(tmp_path, text), lookup=True)
    assert {p.line for p in found} >= {11, 12, 20, 28, 40, 41}


# -- keys without effect ------------------------------------------------------------
PLAIN = {
    "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [{"gpu": "h100_sxm"}]},
    "workloads": [{"kind": "poisson", "rate": 4, "num_requests": 20, "lengths": {"kind": "fixed", "input": 100, "output": 10}}],
}  # fmt: skip


def plain(cluster=(), **workload):
    return PLAIN | {"cluster": PLAIN["cluster"] | dict(cluster), "workloads": [PLAIN["workloads"][0] | workload]}


SCALED = {"gpu": "h100_sxm", "autoscale": {"max": 3, "policy": {"kind": "slo", "late": 0.1}}}
IDLE = [
    (plain({"router": {"kind": "round_robin"}, "views": {"period": 1}}), "cluster.views",
     "router round_robin and admission always do not look"),
    (plain({"router": {"kind": "random"}, "views": {"period": 1}, "admission": {"kind": "token_bucket", "rate": 3, "burst": 3}}),
     "cluster.views", "router random and admission token_bucket do not look at replicas"),
    (plain({"pools": [{"gpu": "h100_sxm", "weight": 3}]}), "cluster.pools.0.weight", "router least_loaded heeds no weights"),
    (plain({"router": {"kind": "spill_over", "threshold": 3}}), "cluster.router", "no pool has a region, so that nothing spills over"),
    (plain({"pools": [SCALED]}), "cluster.pools.0.autoscale.policy.late", "without slo no request is late"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "path", "message"), IDLE, ids=[path for _, path, _ in IDLE])
def test_what_has_no_effect(raw, path, message):
    with pytest.raises(BadInput) as error:
        sim.loads(raw)
    assert [problem.path for problem in error.value.problems] == [path]
    assert message in error.value.problems[0].message


@pytest.mark.parametrize("raw", [
    plain({"router": {"kind": "round_robin"}, "views": {"period": 1}, "admission": {"kind": "max_queue", "limit": 3}}),
    plain({"router": {"kind": "session_affinity"}, "views": {"period": 1}}),
    plain({"pools": [{"gpu": "h100_sxm", "weight": 3}], "router": {"kind": "weighted"}}),
    plain(client={"retries": {}, "timeout": 3}), plain(client={"first_token_timeout": 3, "retries": {"on": ["abandoned"]}}),
    plain(client={"retries": {}}),
    plain(client={"timeout": 1, "first_token_timeout": 3, "hedge": {"after": 0.5}}),
    plain(client={"timeout": 1, "first_token_timeout": 3, "retries": {}}),
    plain({"pools": [SCALED]}) | {"slo": {"ttft_p99": 1}},
], ids=range(9))  # fmt: skip
def test_what_has_an_effect_is_left_alone(tmp_path, raw):
    scenario = sim.loads(raw)
    assert sim.load(written(tmp_path, sim.dump(scenario))) == scenario


def test_who_looks_at_nothing_says_so():
    for family, blind in ((ROUTERS, ["random", "round_robin"]), (ADMISSIONS, ["always", "token_bucket"])):
        assert [name for name in family.names() if vars(family.find(name)).get("sees") == "nothing"] == blind
