"""Programs in Python that break down: what they raise is told with the file and line of whoever wrote them, and nothing is written."""
from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from scenarios import written
from team import TEAM, refused

from sim.cli import main

PROGRAMS = '''\
from dataclasses import dataclass
from workloads.programs.base import Role
from workloads.programs.options import Home


class Base:
    def begin(self, agent):
        agent.told(100)
        yield from agent.call(20)


@dataclass
class Raises(Base):
    def run(self, agent):
        yield from self.begin(agent)
        {}["nothing"]


@dataclass
class Leaves(Base):
    def run(self, agent):
        yield from self.begin(agent)
        raise SystemExit(0)


@dataclass
class Yields(Base):
    def run(self, agent):
        yield from self.begin(agent)
        yield agent.call(20)


@dataclass
class Tool(Base):
    def run(self, agent):
        yield from self.begin(agent)
        yield from agent.use("serch")


@dataclass
class Other(Base):
    def run(self, agent):
        yield from self.begin(agent)
        yield from agent.spawn("scuot")


@dataclass
class Inner(Base):
    def run(self, agent):
        yield from self.begin(agent)
        yield from agent.spawn(Raises())


@dataclass
class Thinks(Base):
    def run(self, agent):
        yield from self.begin(agent)
        yield from agent.think(-3)


@dataclass
class Half(Base):
    def run(self, agent):
        agent.told(100)
        yield from agent.call(2.5)


@dataclass
class Negative(Base):
    def run(self, agent):
        agent.told(-300)
        yield from agent.call(2)


@dataclass
class Model(Base):
    def run(self, agent):
        yield from self.begin(agent)
        yield from agent.call(3, model="gpt-5")


@dataclass
class Pool(Base):
    def run(self, agent):
        yield from self.begin(agent)
        yield from agent.hold("nowhere")


@dataclass
class Roleless(Base):
    role = "reviewer"

    def run(self, agent):
        yield from self.begin(agent)


@dataclass
class Away(Base):
    role = Role(name="away", sandbox=Home(pool="sew"))

    def run(self, agent):
        yield from self.begin(agent)


@dataclass
class Unmade(Base):
    def __post_init__(self):
        raise RuntimeError("not today")

    def run(self, agent):
        yield from self.begin(agent)
'''
PROGRAM = re.sub(r"    turns: 2\n    think_time: .*\n", "    program: team.py:NAME\n", TEAM)


@pytest.mark.parametrize(("name", "said", "message"), [
    ("Raises", '{}["nothing"]', "Raises raises KeyError: 'nothing'"),
    ("Leaves", "raise SystemExit(0)", "Leaves raises SystemExit: 0"),
    ("Yields", "yield agent.call(20)", "only what waits can be: yield from agent.call(300)"),
    ("Tool", 'agent.use("serch")', "there is no tool 'serch'; did you mean search?"),
    ("Other", 'agent.spawn("scuot")', "there is no agent 'scuot'; did you mean scout?"),
    ("Inner", '{}["nothing"]', "Raises raises KeyError: 'nothing'"),
    ("Thinks", "agent.think(-3)", "found -3; seconds of 0 or more are wanted"),
    ("Half", "agent.call(2.5)", "cannot be interpreted as an integer"),
    ("Negative", "agent.told(-300)", "found -300; at least 0 is wanted"),
    ("Model", 'model="gpt-5"', "the workload did not name 'gpt-5' before the run"),
    ("Pool", 'agent.hold("nowhere")', "no pool of sandboxes is named 'nowhere'; known: swe"),
])  # fmt: skip
def test_what_goes_wrong_in_a_program_is_told_with_its_line(tmp_path, name, said, message):
    file = written(tmp_path, PROGRAMS, "team.py")
    path = written(tmp_path, PROGRAM.replace("NAME", name))
    done = CliRunner().invoke(main, ["run", str(path), "-o", str(tmp_path / "out")])
    assert (done.exit_code, done.stdout) == (2, ""), repr(done.exception)
    line = next(number for number, text in enumerate(PROGRAMS.splitlines(), 1) if said in text)
    assert done.stderr.startswith(f"error: {file}:{line}: program: "), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "message"), [
    ("Roleless", "its role is 'reviewer'; a Role of workloads.programs.base is wanted"),
    ("Away", "no pool of sandboxes is named 'sew'; did you mean swe?"),
    ("Unmade", "Unmade raises RuntimeError: not today"),
])  # fmt: skip
def test_what_a_program_says_of_itself_is_checked_before_the_run(tmp_path, name, message):
    written(tmp_path, PROGRAMS, "team.py")
    line = 27 if name == "Unmade" else 30  # options are wrong, which are not written
    refused(written(tmp_path, PROGRAM.replace("NAME", name)), line, message)


def test_what_stands_beside_a_program_is_checked_too(tmp_path):
    written(tmp_path, PROGRAMS, "team.py")
    text = PROGRAM.replace("NAME", "Raises").replace("api: web", "api: wob").replace("agent: judge", "agent: jugde")
    path = written(tmp_path, text)
    refused(path, 47, "service 'wob' is defined nowhere; did you mean web? Or define it under apis")
    refused(path, 48, "there is no agent 'jugde'; did you mean judge?")
