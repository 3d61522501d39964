"""What several sources make together: extended files, `--set`, paths, and the catalogues."""
from __future__ import annotations

import time

import pytest
from scenarios import GOOD, good, problems_of, written

from sim.spec.load import load


class TestExtends:
    def test_merges_deep_and_replaces_lists(self, tmp_path):
        written(tmp_path, GOOD, "base.yaml")
        path = written(tmp_path, "extends: base.yaml\nname: more\nslo: {tpot_p99: 50ms}\nworkloads:\n"
                                 "  - {kind: poisson, rate: 9, num_requests: 5, lengths: {kind: fixed, input: 1, output: 1}}\n")
        scenario = load(path, lookup=False)
        assert (scenario.name, scenario.seed) == ("more", 1)
        assert (scenario.slo.ttft_p99, scenario.slo.tpot_p99) == (0.5, 0.05)
        assert [w["rate"] for w in scenario.workloads] == [9.0]

    def test_another_kind_replaces_the_options(self, tmp_path):
        written(tmp_path, good("  router:", "  admission: {kind: max_queue, limit: 4}\n  router:"), "base.yaml")
        path = written(tmp_path, "extends: base.yaml\ncluster: {admission: {kind: always}}\n")
        assert load(path, lookup=False).cluster.admission == {"kind": "always"}
        path = written(tmp_path, "extends: base.yaml\ncluster: {admission: {limit: 5}}\n")
        assert load(path, lookup=False).cluster.admission["limit"] == 5

    def test_problems_name_the_file_each_value_came_from(self, tmp_path):
        base = written(tmp_path, good("seed: 1", "seed: -1"), "bases/base.yaml")
        middle = written(tmp_path, "extends: base.yaml\nslo: {ttft_p98: 1s}\n", "bases/middle.yaml")
        top = written(tmp_path, "extends: bases/middle.yaml\n\nduration: 1q\n")
        found = problems_of(top)
        assert found[0].file == str(top)
        assert {(p.path, p.file, p.line) for p in found} == {
            ("seed", str(base), 2), ("slo.ttft_p98", str(middle), 2), ("duration", str(top), 3),
        }

    def test_a_broken_base_is_named_itself(self, tmp_path):
        base = written(tmp_path, "a: 1\nb: [\n", "base.yaml")
        found = problems_of(written(tmp_path, "extends: base.yaml\n"))
        assert (found[0].file, found[0].line) == (str(base), 3)

    @pytest.mark.parametrize(("text", "fragment"), [
        ("extends: missing.yaml", "no such file"),
        ("extends: [a.yaml]", "found a list; the path of a YAML file is wanted"),
        ("extends:", "found null"),
        ("extends: .", "is a folder"),
        ("extends: list.yaml", "holds a list; a mapping is wanted"),
        ("extends: x.yaml", "in a circle"),
        ("extends: y.yaml", "in a circle"),
    ])
    def test_bad_bases(self, tmp_path, text, fragment):
        written(tmp_path, "[1]", "list.yaml")
        written(tmp_path, "extends: ./x.yaml", "y.yaml")
        found = problems_of(written(tmp_path, "name: a\n" + text))
        assert len(found) == 1
        assert fragment in found[0].message
        assert found[0].path == "extends"


class TestSet:
    def test_values_are_yaml(self, tmp_path):
        path = written(tmp_path, GOOD)
        scenario = load(path, [
            "cluster.pools.0.replicas=7", "cluster.pools.0.engine.cuda_graph=no", "cluster.router={kind: least_loaded}",
            "slo.tpot_p99=50ms", "workloads.0.rate=1e1", "duration=", "name=a=b",
        ], lookup=False)
        pool = scenario.cluster.pools[0]
        assert (pool.replicas, pool.engine.cuda_graph) == (7, False)
        assert (scenario.slo.tpot_p99, scenario.duration, scenario.name) == (0.05, None, "a=b")
        assert scenario.cluster.router["kind"] == "least_loaded"
        assert scenario.workloads[0]["rate"] == 10.0
        assert load(path, {"cluster.pools.0.replicas": 7}, lookup=False).cluster.pools[0].replicas == 7

    def test_makes_missing_mappings(self, tmp_path):
        path = written(tmp_path, good("slo: {ttft_p99: 500ms}\n"))
        assert load(path, ["slo.e2e_p99=5s"], lookup=False).slo.e2e_p99 == 5.0

    @pytest.mark.parametrize(("text", "path", "fragment"), [
        ("nonsense", "", "KEY=VALUE is wanted"),
        ("=3", "", "KEY=VALUE is wanted"),
        ("a..b=3", "", "KEY=VALUE is wanted"),
        ("cluster.pools.1.replicas=3", "cluster.pools.1.replicas", "an index from 0 to 0 is wanted"),
        ("cluster.pools.serve.replicas=3", "cluster.pools.serve.replicas", "has no item 'serve'"),
        ("cluster.pools.-1.replicas=3", "cluster.pools.-1.replicas", "has no item '-1'"),
        ("seed.x=3", "seed.x", "seed is 1, not a mapping"),
        ("cluster.pools.0.precision.kv=fp8", "cluster.pools.0.precision.kv", "precision is 'fp8', not a mapping"),
        ("seed=[1", "seed", "not valid YAML"),
        ("seed={a: 1, a: 2}", "seed.a", "given twice"),
        ("seed=-1", "seed", "found -1"),
        ("cluster.pools.0.replica=3", "cluster.pools.0.replica", "did you mean replicas?"),
        ("cluster.router.kind=rr", "cluster.router.kind", "unknown router kind 'rr'"),
        ("made.up.key=3", "made", "unknown key of the scenario"),
    ])
    def test_bad(self, tmp_path, text, path, fragment):
        found = problems_of(written(tmp_path, GOOD), [text])
        assert [(p.path, p.file, p.line) for p in found] == [(path, "--set", 0)]
        assert fragment in found[0].message

    def test_several_at_once(self, tmp_path):
        assert len(problems_of(written(tmp_path, GOOD), ["x", "seed.y=1"])) == 2


class TestPaths:
    TRACE = "workloads:\n  - {kind: trace, format: csv, path: t.csv}\n"

    def trace(self, text=None):
        return GOOD[: GOOD.index("workloads:")] + (text or self.TRACE)

    def test_relative_to_the_file_that_names_them(self, tmp_path, monkeypatch):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        written(tmp_path, self.trace(), "bases/base.yaml")
        path = written(tmp_path, "extends: bases/base.yaml\nmodel: ./config.json\n")
        scenario = load(path, lookup=False)
        assert scenario.workloads[0]["path"] == str(tmp_path / "bases" / "t.csv")
        assert scenario.model == str(tmp_path / "config.json")
        scenario = load(path, ["workloads.0.path=t.csv", "cluster.pools.0.gpu=my/gpu.yaml"], lookup=False)
        assert scenario.workloads[0]["path"] == str(elsewhere / "t.csv")
        assert scenario.cluster.pools[0].gpu == str(elsewhere / "my" / "gpu.yaml")

    def test_a_relative_scenario_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        written(tmp_path, self.trace(), "sub/x.yaml")
        assert load("sub/x.yaml", lookup=False).workloads[0]["path"] == str(tmp_path / "sub" / "t.csv")

    def test_catalogue_names_stay(self, tmp_path):
        assert load(written(tmp_path, GOOD), lookup=False).model == "meta-llama/Llama-3.1-8B"
        written(tmp_path, "{}", "local/model/config.json")
        path = written(tmp_path, good("meta-llama/Llama-3.1-8B", "local/model"))
        assert load(path, lookup=False).model == str(tmp_path / "local" / "model")

    def test_a_missing_file_is_said_with_its_line(self, tmp_path):
        found = problems_of(written(tmp_path, self.trace()), lookup=True)
        assert [(p.path, p.line) for p in found] == [("workloads.0.path", 17)]
        assert f"no such file: {tmp_path / 't.csv'}" in found[0].message


class TestCatalogue:
    @pytest.mark.parametrize(("old", "new", "path", "line", "fragment"), [
        ("gpu: h100_sxm", "gpu: h100_smx", "cluster.pools.0.gpu", 8, "did you mean h100_sxm"),
        ("gpu: h100_sxm", "gpu: h100_sxm\n      node: hgx_h10", "cluster.pools.0.node", 9, "hgx_h100"),
        ("Llama-3.1-8B", "Llama-3.1-8", "model", 4, "Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B", "''", "model", 4, "found an empty text"),
        ("gpu: h100_sxm", "gpu: ./none.yaml", "cluster.pools.0.gpu", 8, "none.yaml"),
        ("tp: 2", "tp: 3", "cluster.pools.0.parallel.tp", 10, "sizes that work: 1, 2, 4, 8"),
        ("tp: 2", "tp: 16", "cluster.pools.0.parallel.tp", 10, "sizes that work: 1, 2, 4, 8"),
        ("tp: 2", "tp: 64", "cluster.pools.0.parallel.tp", 10, "do not split 64 ways"),
    ])
    def test_unknown_or_impossible(self, tmp_path, old, new, path, line, fragment):
        found = problems_of(written(tmp_path, good(old, new)), lookup=True)
        assert {(p.path, p.line) for p in found} == {(path, line)}
        assert any(fragment in p.message for p in found)

    def test_a_gpu_in_the_wrong_node(self, tmp_path):
        found = problems_of(written(tmp_path, good("gpu: h100_sxm", "gpu: l4\n      node: hgx_h100")), lookup=True)
        assert ("cluster.pools.0.node", 9) in {(p.path, p.line) for p in found}

    def test_together_with_the_schema(self, tmp_path):
        text = good("h100_sxm", "h1000").replace("seed: 1", "seed: x").replace("rate: 4", "rat: 4")
        found = problems_of(written(tmp_path, text), lookup=True)
        assert {p.path for p in found} == {"seed", "cluster.pools.0.gpu", "workloads.0.rate", "workloads.0.rat"}

    def test_a_good_one_loads_fast(self, tmp_path):
        path = written(tmp_path, GOOD)
        load(path)
        spent = []
        for _ in range(5):
            began = time.process_time()
            load(path)
            spent.append(time.process_time() - began)
        assert min(spent) < 0.015
