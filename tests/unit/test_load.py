"""Scenarios from YAML: what is read, and everything that can be wrong with them, said with its file and line."""
from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import GOOD, good, problems_of, written

from sim.core.errors import BadInput
from sim.spec.load import dump, load, loads
from sim.spec.yaml_marks import Dumper, parse


def test_reads(tmp_path):
    scenario = load(written(tmp_path, GOOD), lookup=False)
    pool = scenario.cluster.pools[0]
    assert (scenario.name, scenario.seed, scenario.duration) == ("chat", 1, 1800.0)
    assert (pool.parallel.tp, pool.gpu_memory, pool.engine.max_num_seqs, pool.engine.max_num_batched_tokens) == (2, 80e9, 128, 2048)
    assert pool.precision.model_dump(exclude={"edges"}) == {"attention": "fp8", "mlp": "fp8", "lm_head": "bf16", "kv": "bf16"}
    assert pool.engine.batcher == {"kind": "vllm_v1", "order": {"kind": "fcfs"}}
    assert (scenario.cluster.router["kind"], scenario.cluster.admission["kind"]) == ("round_robin", "always")
    workload = scenario.workloads[0]
    assert (workload["num_requests"], workload["start"], workload["lengths"]["input"]) == (1000, 0.0, 1000)
    assert scenario.slo.ttft_p99 == 0.5


def test_a_mapping_gives_the_same(tmp_path):
    mapping = parse(GOOD, "", tmp_path).data
    before = repr(mapping)
    assert loads(mapping, lookup=False) == load(written(tmp_path, GOOD), lookup=False)
    assert repr(mapping) == before


def test_dump_reads_back(tmp_path):
    scenario = load(written(tmp_path, GOOD), lookup=False)
    text = dump(scenario)
    assert load(written(tmp_path, text, "again.yaml"), lookup=False) == scenario
    assert dump(load(tmp_path / "again.yaml", lookup=False)) == text
    assert list(yaml.safe_load(text))[:5] == ["name", "description", "seed", "duration", "model"]
    assert "gpu_memory_utilization: 0.9" in text


BAD = [
    ("unknown key", good("seed: 1", "sed: 1"), [("sed", 2, "unknown key of the scenario; did you mean seed?")]),
    ("unknown key deep", good("max_num_seqs", "max_num_seq"), [("cluster.pools.0.engine.max_num_seq", 14, "did you mean max_num_seqs?")]),
    ("key in the wrong place", good("replicas: 2", "replicas: 2\n      block_size: 16"),
     [("cluster.pools.0.block_size", 10, "it belongs to cluster.pools.engine")]),
    ("missing", good("model: meta-llama/Llama-3.1-8B\n"), [("model", 1, "missing; the scenario needs it")]),
    ("missing deep", good("      gpu: h100_sxm\n"), [("cluster.pools.0.gpu", 7, "missing")]),
    ("unknown kind", good("round_robin", "round_robbin"),
     [("cluster.router.kind", 15, "unknown router kind 'round_robbin'; did you mean round_robin?")]),
    ("unknown workload", good("kind: poisson", "kind: poison"), [("workloads.0.kind", 17, "did you mean poisson?")]),
    ("unknown nested kind", good("kind: fixed", "kind: fixde"),
     [("workloads.0.lengths.kind", 20, "unknown lengths kind 'fixde'; did you mean fixed?")]),
    ("option of another kind", good("round_robin", "round_robin, limit: 3"),
     [("cluster.router.limit", 15, "unknown key of kind 'round_robin'")]),
    ("nested option", good("output: 100", "outptu: 100"),
     [("workloads.0.lengths.output", 20, "missing"), ("workloads.0.lengths.outptu", 20, "did you mean output?")]),
    ("kind as a word", good("{kind: round_robin}", "round_robin"), [("cluster.router", 15, "such as {kind: round_robin}")]),
    ("no kind", good("kind: round_robin", ""), [("cluster.router", 15, "no 'kind' given")]),
    ("workload without kind", good("kind: poisson\n    ", ""), [("workloads.0", 17, "no 'kind' given")]),
    ("null kind", good("{kind: round_robin}", "null"), [("cluster.router", 15, "found null")]),
    ("wrong unit", good("30m", "30GB"), [("duration", 3, "'30GB' is a size; a duration is wanted")]),
    ("unknown unit", good("80GB", "80 gigs"), [("cluster.pools.0.gpu_memory", 12, "unknown unit 'gigs'")]),
    ("negative size", good("80GB", "-80GB"), [("cluster.pools.0.gpu_memory", 12, "a value above 0 is wanted")]),
    ("zero size", good("80GB", "0"), [("cluster.pools.0.gpu_memory", 12, "found 0; a value above 0 is wanted")]),
    ("zero", good("replicas: 2", "replicas: 0"), [("cluster.pools.0.replicas", 9, "found 0; a value of at least 1 is wanted")]),
    ("negative", good("rate: 4", "rate: -4"), [("workloads.0.rate", 18, "found -4; a value above 0 is wanted")]),
    ("zero duration", good("30m", "0s"), [("duration", 3, "a value above 0 is wanted")]),
    ("fraction", good("max_num_seqs: 128", "gpu_memory_utilization: 1.2"),
     [("cluster.pools.0.engine.gpu_memory_utilization", 14, "found 1.2; a value of at most 1 is wanted")]),
    ("nan", good("rate: 4", "rate: .nan"), [("workloads.0.rate", 18, "finite")]),
    ("inf", good("30m", ".inf"), [("duration", 3, "finite")]),
    ("overflow", good("rate: 4", "rate: 1e999"), [("workloads.0.rate", 18, "finite")]),
    ("text for a number", good("replicas: 2", "replicas: 4 replicas"),
     [("cluster.pools.0.replicas", 9, "found '4 replicas'; an integer is wanted")]),
    ("true for a number", good("replicas: 2", "replicas: true"), [("cluster.pools.0.replicas", 9, "found true; a number is wanted")]),
    ("half a replica", good("replicas: 2", "replicas: 2.5"), [("cluster.pools.0.replicas", 9, "found 2.5; an integer is wanted")]),
    ("null", good("replicas: 2", "replicas:"), [("cluster.pools.0.replicas", 9, "found null; an integer is wanted")]),
    ("null model", good("meta-llama/Llama-3.1-8B", "null"), [("model", 4, "found null; text is wanted")]),
    ("number for text", good("name: chat", "name: 2026"), [("name", 1, "found 2026; text is wanted; put it in quotes")]),
    ("list for a number", good("replicas: 2", "replicas: [2]"), [("cluster.pools.0.replicas", 9, "found a list; an integer is wanted")]),
    ("number for a mapping", good("{tp: 2}", "2"), [("cluster.pools.0.parallel", 10, "found 2; a mapping is wanted")]),
    ("mapping for a list", good("    - name: serve\n", "      name: serve\n"), [("cluster.pools", 6, "found a mapping; a list is wanted")]),
    ("list for a mapping", good("slo: {ttft_p99: 500ms}", "slo: [1]"), [("slo", 21, "a mapping is wanted")]),
    ("number format", good("fp8", "fp9"), [("cluster.pools.0.precision", 11, "did you mean fp8?")]),
    ("number format of a part", good("fp8", "{kv: int8}"),
     [("cluster.pools.0.precision.kv", 11, "found 'int8'; 'bf16', 'fp16' or 'fp8' is wanted")]),
    ("budget", good("max_num_seqs: 128", "max_num_batched_tokens: 128"),
     [("cluster.pools.0.engine", 13, "max_num_batched_tokens (128) is below max_num_seqs (256)")]),
    ("no pools", good(GOOD[GOOD.index("  pools:") : GOOD.index("  router:")], "  pools: []\n"),
     [("cluster.pools", 6, "found an empty list; at least 1 is wanted")]),
    ("no workloads", "model: m\ncluster: {pools: [{gpu: g}]}\nworkloads: []\n",
     [("workloads", 3, "found an empty list; at least 1 is wanted")]),
    ("workload is text", "model: m\ncluster: {pools: [{gpu: g}]}\nworkloads:\n  - poisson\n",
     [("workloads.0", 4, "such as {kind: poisson}")]),
    ("two pools of one name", good("  router:", "    - {gpu: l4, name: serve}\n  router:"), [("cluster", 5, "two pools are named serve")]),
    ("no cluster", "model: m\nworkloads: []\n", [("cluster", 1, "missing"), ("workloads", 2, "empty list")]),
    ("null cluster", "model: m\ncluster:\nworkloads: []\n",
     [("cluster", 2, "found null; a mapping is wanted"), ("workloads", 3, "empty list")]),
]


@pytest.mark.parametrize(("text", "wanted"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_values(tmp_path, text, wanted):
    path = written(tmp_path, text)
    found = problems_of(path)
    assert [(p.path, p.line) for p in found] == [(key, line) for key, line, _ in wanted], "\n".join(map(str, found))
    for problem, (_, _, fragment) in zip(found, wanted, strict=True):
        assert fragment in problem.message
        assert problem.file == str(path)


BOMB = "a0: &a0 [x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
SYNTAX = [
    ("empty", "", 0, "is empty; a scenario is a mapping"),
    ("comments only", "# nothing\n", 0, "is empty"),
    ("a list", "- model: m\n", 0, "holds a list"),
    ("a word", "hello\n", 0, "holds 'hello'"),
    ("duplicate key", "model: a\ncluster: {}\nmodel: b\n", 3, "the key is given twice; first on line 1"),
    ("duplicate key deep", "cluster:\n  router: {kind: a, kind: b}\n", 2, "first on line 2"),
    ("tab", "cluster:\n\tpools: []\n", 2, "indent with spaces, not tabs"),
    ("open bracket", "cluster: {pools: [\nmodel: m\n", 3, "not valid YAML"),
    ("two colons", "model: a: b\n", 1, "not valid YAML"),
    ("two documents", "model: a\n---\nmodel: b\n", 2, "another document"),
    ("undefined alias", "model: a\ncluster: *nothing\n", 2, "undefined alias"),
    ("foreign tag", "model: !!python/object:os.system x\n", 1, "tag"),
    ("own tag", "a: 1\nmodel: !secret x\n", 2, "the tag '!secret' is not allowed"),
    ("mapping as key", "a: 1\n? {b: 1}\n: 2\n", 2, "a key must be text"),
    ("not UTF-8", b"name: a\nmodel: caf\xe9\n", 2, "not UTF-8 text (byte 0xe9)"),
    ("control character", "a: 1\nmodel: \x07\n", 2, "not valid YAML"),
    ("UTF-16", "model: a\n".encode("utf-16"), 1, "not UTF-8"),
    ("wrong merge", "a: 1\nb: {<<: 3}\n", 2, "'<<' takes a mapping"),
    ("deep flow", "a: " + "[" * 100_000, 1, "nested more than"),
    ("deep mappings", "{a: " * 100_000, 1, "nested more than"),
    ("deep block", "- " * 100_000, 1, "nested more than"),
    ("alias of itself", "a: &x [*x]\n", 1, "nested more than"),
    ("huge integer", "seed: " + "9" * 5000, 1, "not a valid int"),
    ("bomb", BOMB, 1, "unfolds into more than 100000 values"),
]


@pytest.mark.parametrize(("text", "line", "fragment"), [case[1:] for case in SYNTAX], ids=[case[0] for case in SYNTAX])
def test_bad_yaml(tmp_path, text, line, fragment):
    path = written(tmp_path, text)
    found = problems_of(path)
    assert len(found) == 1
    assert fragment in found[0].message
    assert (found[0].file, found[0].line) == (str(path), line)


def test_bad_files(tmp_path):
    written(tmp_path, "model: m", "folder/scenario.yaml")
    assert "did you mean" in problems_of(tmp_path / "folder")[0].message
    written(tmp_path, GOOD, "chat.yaml")
    assert f"no such file; did you mean {tmp_path / 'chat.yaml'}?" in problems_of(tmp_path / "chta.yaml")[0].message
    assert "there is no folder" in problems_of(tmp_path / "nowhere" / "x.yaml")[0].message
    assert "no such file" in problems_of(tmp_path / "nothing_like_it.yaml")[0].message
    assert "larger than 10 MB" in problems_of(written(tmp_path, b"#" * 10_000_001))[0].message
    assert "cannot be read" in problems_of("a\0b.yaml")[0].message


def test_everything_at_once(tmp_path):
    text = good("seed: 1", "sed: 1").replace("30m", "30q").replace("replicas: 2", "replicas: -1").replace("round_robin", "round")
    text = text.replace("rate: 4", "rate: 0").replace("input: 1000", "inputs: 1000").replace("ttft_p99", "ttft_p98")
    found = problems_of(written(tmp_path, text))
    assert [p.line for p in found] == [2, 3, 9, 15, 18, 20, 20, 21]


def test_scalars(tmp_path):
    numbers = parse("{a: 1e6, c: 010, f: 0x10, j: -.5, k: 1_000, l: 0o17, m: +3, n: 1., o: -.inf}", "", tmp_path).data
    assert numbers == {"a": 1e6, "c": 10, "f": 16, "j": -0.5, "k": 1000, "l": 15, "m": 3, "n": 1.0, "o": -math.inf}
    others = parse("{b: yes, d: 1:30, e: 2026-01-01, g: ~, h: True, i: '1', on: off, 1: x}", "", tmp_path).data
    assert others == {"b": "yes", "d": "1:30", "e": "2026-01-01", "g": None, "h": True, "i": "1", "on": "off", "1": "x"}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.sampled_from(
    ["1e6", "yes", "on", "null", "~", "<<", "010", "1:30", "true", ".inf", "0x1", "=", "- a", "a: b", " ", "1_0", "@x", "*a", "!t", "#"]
)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12))
@settings(max_examples=300, deadline=None)
def test_written_values_read_back(tmp_path_factory, value):
    text = yaml.dump({"top": value}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=140)
    assert parse(text, "", tmp_path_factory.getbasetemp()).data == {"top": value}


def test_anchors_and_merges(tmp_path):
    text = "base: &b\n  x: 1\n  y: {z: 2}\nother:\n  <<: *b\n  x: 3\nmore:\n  <<: [{x: 5}, *b]\nsame: *b\n"
    document = parse(text, "f", tmp_path)
    assert document.data["other"] == {"x": 3, "y": {"z": 2}}
    assert document.data["more"] == {"x": 5, "y": {"z": 2}}
    assert document.data["same"] == {"x": 1, "y": {"z": 2}}
    assert document.places["other", "x"].value == 6
    assert document.places["other", "y", "z"].value == 3


def test_byte_order_mark(tmp_path):
    assert load(written(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()), lookup=False).name == "chat"


@pytest.mark.parametrize("thing", [[], "text", None, 3])
def test_loads_wants_a_mapping(thing):
    with pytest.raises(BadInput, match="a scenario is a mapping"):
        loads(thing)
