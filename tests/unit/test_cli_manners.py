"""What all verbs have in common: data on stdout and talk on stderr, JSON where it is asked for, no colours in a pipe, three exit codes."""
from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from test_calibrate import CHIP, shapes
from test_cli_validate import ROW

from sim.cli import main

RUN = """\
name: small
seed: 1
model: meta-llama/Llama-3.1-8B
cluster: {pools: [{gpu: h100_sxm, replicas: 2}]}
workloads: [{kind: poisson, rate: 4, num_requests: 40, lengths: {kind: fixed, input: 500, output: 20}}]
slo: {ttft_p99: 1s}
prices: {book: neocloud}
"""
CHOICES = "plan: {gpu: [h100_sxm], replicas: {range: {min: 1, max: 2}}, replications: 2, meets: 0.5}\n"
SPACE = "sweep: {space: {workloads.0.rate: {choices: [4, 8]}}}\n"
SPOKEN = {
    "run", "sweep", "compare", "plan", "capacity", "pareto", "validate", "calibrate", "workload", "report", "show", "schema", "kinds",
    "new", "completion",
}  # fmt: skip
COLOURS = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
NEVER = "slo.ttft_p99=1ms"

# Each verb on small input, with the files of `folder`.
VERBS = {
    "run": "run run.yaml",
    "run -o": "run run.yaml -o out",
    "run --replications": "run run.yaml --replications 2",
    "run --batches": "run run.yaml --batches 2",
    "sweep": "sweep sweep.yaml --jobs 1",
    "compare": "compare run.yaml --what-if seed=2 --replications 2",
    "plan": "plan plan.yaml --brief --jobs 1",
    "capacity": "capacity run.yaml --replications 1 --jobs 1",
    "pareto": "pareto plan.yaml --jobs 1",
    "validate": "validate runs.csv -o out --jobs 1",
    "calibrate fit": f"calibrate fit kernels.csv --gpu {CHIP} -o mine.yaml",
    "calibrate check": f"calibrate check kernels.csv --gpu {CHIP}",
    "calibrate plot": f"calibrate plot kernels.csv --gpu {CHIP} -o out.svg",
    "workload show": "workload show run.yaml",
    "workload fit": "workload fit log.csv --kind poisson --seeds 5",
    "report": "report result",
    "show": "show run.yaml",
    "schema": "schema",
    "kinds": "kinds router",
    "new": "new plan",
    "completion": "completion bash",
}
READERS = {
    "run": "run none.yaml", "sweep": "sweep none.yaml", "compare": "compare none.yaml", "plan": "plan none.yaml",
    "capacity": "capacity none.yaml", "pareto": "pareto none.yaml", "validate": "validate none.csv -o out",
    "calibrate fit": "calibrate fit none.csv --gpu h100_sxm", "calibrate check": "calibrate check none.csv --gpu h100_sxm",
    "calibrate plot": "calibrate plot none.csv --gpu h100_sxm -o out.svg",
    "calibrate measure": "calibrate measure -o none/x.csv --device cpu",
    "workload fit": "workload fit none.csv", "workload show": "workload show none.yaml", "report": "report none", "show": "show none.yaml",
    "kinds": "kinds none", "new": "new -o none/x.yaml", "completion": "completion none",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Input for every verb, and a result."""
    home = tmp_path_factory.mktemp("manners")
    (home / "run.yaml").write_text(RUN)
    (home / "plan.yaml").write_text(RUN + CHOICES)
    (home / "sweep.yaml").write_text(RUN + SPACE)
    pd.DataFrame([ROW]).to_csv(home / "runs.csv", index=False)
    pd.DataFrame({"arrival_s": np.arange(400) / 2, "input_tokens": 100, "output_tokens": 10}).to_csv(home / "log.csv", index=False)
    shapes().to_csv(home / "kernels.csv", index=False)
    assert CliRunner().invoke(main, ["run", str(home / "run.yaml"), "-o", str(home / "result"), "-q"]).exit_code == 0
    return home


@pytest.fixture
def burstsim(folder, tmp_path, monkeypatch):
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return lambda line, *more: CliRunner().invoke(main, [*line.split(), *more], prog_name="burstsim")


def leaves(group, *names):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *names, name)
        else:
            yield " ".join((*names, name)), command


LEAVES = dict(leaves(main))


def test_the_verbs():
    assert set(main.commands) == SPOKEN


@pytest.mark.parametrize("verb", LEAVES)
def test_every_verb_has_json_and_help(verb):
    command = LEAVES[verb]
    assert any("--json" in param.opts for param in command.params)
    assert command.help
    assert all(param.help for param in command.params if isinstance(param, click.Option) and param.name != "device")
    done = CliRunner().invoke(main, [*verb.split(), "-h"])
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_json_is_all_there_is_on_stdout(burstsim, verb):
    done = burstsim(VERBS[verb], "--json")
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    assert json.loads(done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_talk_is_on_stderr(burstsim, verb):
    """Nothing is said on stdout of where files are, and verbs that write none say nothing at all."""
    done = burstsim(VERBS[verb])
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    assert not any(line.startswith(("written to", "note:", "error:")) for line in done.stdout.splitlines())
    wrote = "-o" in VERBS[verb].split() or verb == "report"
    assert ("written to" in done.stderr) == wrote
    assert bool(done.stdout) == (verb not in ("report", "calibrate plot"))
    assert "\x1b" not in done.output


@pytest.mark.parametrize("verb", READERS)
def test_bad_input_leaves_with_2(burstsim, verb, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = burstsim(READERS[verb])
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr or repr(done.exception)
    assert "none" in done.stderr
    assert "error" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", [verb for verb in READERS if verb not in ("new", "kinds", "completion")])
def test_bad_input_is_not_data(burstsim, verb):
    done = burstsim(READERS[verb], "--json")
    assert (done.exit_code, done.stdout) == (2, "")


@pytest.mark.parametrize("verb", LEAVES)
def test_an_unknown_option_leaves_with_2(burstsim, verb):
    done = burstsim(verb, "--nothing")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--nothing" in done.stderr


@pytest.mark.parametrize("verb", ["run", "run --replications", "plan", "capacity"])
def test_an_slo_that_is_not_met_leaves_with_1(burstsim, verb):
    done = burstsim(VERBS[verb], "--set", NEVER, "--json")
    assert done.exit_code == 1, done.stderr or repr(done.exception)
    assert json.loads(done.stdout)


@pytest.mark.parametrize("verb", ["run", "sweep", "compare", "plan", "pareto", "validate"])
def test_quiet_is_quiet(burstsim, verb):
    done = burstsim(VERBS[verb], "-q")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_a_pipe_gets_no_colours_even_where_the_terminal_has_a_bar(folder):
    """stderr is a terminal that takes colours, stdout a pipe."""
    ours, theirs = pty.openpty()
    words = ["sweep", "sweep.yaml", "--jobs", "1", "--json"]
    env = os.environ | COLOURS
    done = subprocess.Popen([sys.executable, "-m", "sim.cli", *words], cwd=folder, stdout=subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    said, _ = done.communicate(timeout=60)
    bar = os.read(ours, 1 << 16)
    os.close(ours)
    assert done.returncode == 0
    assert len(json.loads(said)) == 2
    assert b"\x1b" in bar
    assert b"sweeping" in bar


def test_forced_colours_do_not_reach_a_pipe(folder):
    env = os.environ | COLOURS
    for words, code in ((["run", "run.yaml"], 0), (["run", "none.yaml"], 2)):
        done = subprocess.run([sys.executable, "-m", "sim.cli", *words], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == code
        assert "\x1b" not in done.stdout + done.stderr


SCRIPTS = [("bash", "complete -o nosort -F"), ("zsh", "#compdef burstsim"), ("fish", "complete --no-files")]


@pytest.mark.parametrize(("shell", "said"), SCRIPTS)
def test_the_script_of_a_shell(burstsim, shell, said):
    done = burstsim(f"completion {shell}")
    assert (done.exit_code, done.stderr) == (0, "")
    assert said in done.stdout
    assert "_BURSTSIM_COMPLETE" in done.stdout


@pytest.mark.parametrize(("typed", "wanted"), [
    ("", {"run", "new", "completion"}), ("new ", {"serve", "agents", "sweep"}), ("kinds ro", {"router"}), ("workload ", {"fit", "show"}),
    ("run --rep", {"--replications"}), ("run ", {"file"}),
])  # fmt: skip
def test_what_is_typed_is_completed(typed, wanted):
    """As the script of bash asks for it."""
    words = f"burstsim {typed}"
    env = {"_BURSTSIM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = CliRunner().invoke(main, [], env=env, prog_name="burstsim")
    found = {line.split(",")[0 if line.startswith(("file", "dir")) else 1] for line in done.output.splitlines()}
    assert wanted <= found
