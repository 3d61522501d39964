"""`burstsim new`: every template loads, is in the schema and runs, and so does each change its comments propose."""
from __future__ import annotations

import json
import re
import shlex

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

import sim
from sim.cli import main
from sim.cli.new import KINDS, PLACEHOLDER, template
from sim.spec.schema import json_schema
from sim.spec.yaml_marks import parse


def burstsim(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def checker():
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_is_in_the_schema_and_runs(kind, tmp_path, checker):
    out = tmp_path / "mine.yaml"
    assert burstsim("new", kind, "-o", out).exit_code == 0
    assert [error.message for error in checker.iter_errors(parse(out.read_text(), "", tmp_path).data)] == []
    done = burstsim("run", out, "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["verdict"] == "stable"
    assert summary["slo"]["met"] in (True, None)
    assert all(check["ok"] for check in summary["audit"].values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_its_comments_propose_can_be_set(kind, tmp_path, checker):
    out = tmp_path / "mine.yaml"
    out.write_text(template(kind))
    lines = re.findall(r"^#   (--set .*)$", template(kind), flags=re.M)
    assert len(lines) >= 3
    for line in lines:
        sets = [word for word in shlex.split(line) if word != "--set"]
        assert sim.dump(sim.load(out, dict(_pair(one) for one in sets))) != sim.dump(sim.load(out)), line


def _pair(text):
    key, _, value = text.partition("=")
    return key, yaml.safe_load(value)


@pytest.mark.parametrize("kind", KINDS)
def test_its_comments_name_verbs_and_options_there_are(kind):
    lines = re.findall(r"^#   burstsim (.*?)(?:  +#.*)?$", template(kind), flags=re.M)
    asides = re.findall(r"`burstsim ([^`]*)`", template(kind))
    assert lines
    for line in (*lines, *asides):
        verb, *words = shlex.split(line)
        known = {option for param in main.commands[verb].params for option in param.opts}
        assert not {word for word in words if word.startswith("-")} - known, line
        if verb == "kinds":
            assert burstsim("kinds", *words).exit_code == 0, line


def test_the_sweep_sweeps_and_the_plan_plans(tmp_path):
    for kind, words in (("sweep", ["--jobs", 1]), ("plan", ["--brief", "--jobs", 1])):
        burstsim("new", kind, "-o", tmp_path / f"{kind}.yaml")
        done = burstsim(kind, tmp_path / f"{kind}.yaml", "--json", *words)
        assert done.exit_code == 0, done.stderr
        assert len(json.loads(done.stdout)) > 1


def test_it_is_printed_where_no_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = burstsim("new", "rl")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == template("rl").replace(PLACEHOLDER, "rl.yaml")
    assert list(tmp_path.iterdir()) == []


def test_serving_is_what_most_begin_with(tmp_path):
    out = tmp_path / "a file.yaml"
    done = burstsim("new", "-o", out)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"written to {out}\n")
    assert f"burstsim run '{out}' -o" in out.read_text()
    assert out.read_text() == template("serve").replace(PLACEHOLDER, f"'{out}'")
    assert list(tmp_path.iterdir()) == [out]


def test_as_json_it_is_the_same_scenario(tmp_path):
    (tmp_path / "x.json").write_text(burstsim("new", "agents", "--json").stdout)
    (tmp_path / "x.yaml").write_text(burstsim("new", "agents").stdout)
    assert sim.load(tmp_path / "x.json") == sim.load(tmp_path / "x.yaml")


def test_a_file_is_replaced_only_when_asked(tmp_path):
    out = tmp_path / "x.yaml"
    out.write_text("mine")
    done = burstsim("new", "train", "-o", out)
    assert (done.exit_code, done.stdout, out.read_text()) == (2, "", "mine")
    assert "is there already" in done.stderr
    assert "--force" in done.stderr
    assert burstsim("new", "train", "-o", out, "--force").exit_code == 0
    assert sim.load(out).name == "my_training"


@pytest.mark.parametrize(("name", "said"), [(".", "is a folder"), ("none/x.yaml", "cannot write"), ("file/x.yaml", "cannot write")])
def test_what_cannot_be_written_is_refused(tmp_path, name, said):
    (tmp_path / "file").write_text("a file")
    done = burstsim("new", "plan", "-o", tmp_path / name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_kind_is_told_what_there_is():
    done = burstsim("new", "serv")
    assert done.exit_code == 2
    assert all(kind in done.stderr for kind in KINDS)
