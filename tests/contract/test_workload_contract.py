"""Every registered workload and every kind of lengths keeps its contract; a new kind needs one line of minimal options here."""
from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import simpy

from sim.core.registry import FORMATS, LENGTHS, WORKLOADS
from sim.core.request import Request
from sim.core.rng import stream
from sim.core.tables import TABLES, TRAIN_STATES
from sim.policy.sync.base import Ends

FIXED = {"kind": "fixed", "input": 100, "output": 10}
TRACE = "arrival_s,input_tokens,output_tokens\n0.5,10,1\n0.5,20,2\n7,30,3\n"
CLIENTS = "client,t_s,rate,cv,pattern,shape\n4,0,1.5,1,Gamma,1\n9,10,2,3,Weibull,0.4\n"
AGENTS = (
    "session_id,agent_id,arrival_s,input_tokens,output_tokens,api_time_s\n"
    "a,main,0,100,10,1\na,sub,2,50,5,1\na,main,4,200,10,1\nb,main,0,70,9,1\nb,main,3,90,9,1\n"
)
MINIMAL_WORKLOADS = {
    "agents": {
        "rate": 2, "num_sessions": 5, "turns": 2, "think_time": 1, "tools": {"bash": {"time": {"mean": 0.3}, "observation": 70}},
        "agents": {
            "main": {"system": 50, "message": 30, "calls": 3, "output": 10, "tools": {"bash": 1},
                     "spawns": [{"agent": "sub", "calls": [1]}]},
            "sub": {"task": 20, "output": {"mean": 30, "cv": 1}},
        },
    },
    "agent_trace": {"path": "AGENTS", "rate": 2, "num_sessions": 5},
    "clients": {"preset": "servegen_m_small", "rate": 2, "num_requests": 10},
    "closed": {"concurrency": 3, "num_requests": 10, "lengths": FIXED},
    "constant": {"rate": 2, "num_requests": 10, "lengths": FIXED},
    "diurnal": {"rate": 2, "peak_to_mean": 2, "num_requests": 10, "lengths": FIXED},
    "evals": {
        "tasks": 3, "samples": 2, "agents": {"main": {"system": 50, "task": 30, "calls": 2, "output": 10, "tools": {"bash": 1}}},
        "tools": {"bash": {"time": {"mean": 0.3}, "observation": 70}}, "grade": {"tool": "bash"},
    },
    "flash_crowd": {"rate": 2, "spikes": [{"at": 1, "height": 5, "hold": 10}], "num_requests": 10, "lengths": FIXED},
    "gamma": {"rate": 2, "cv": 2, "num_requests": 10, "lengths": FIXED},
    "hawkes": {"rate": 2, "branching": 0.5, "decay": 5, "num_requests": 10, "lengths": FIXED},
    "mmpp": {"states": [{"rate": 0, "mean_stay": 1}, {"rate": 9, "mean_stay": 2}], "num_requests": 10, "lengths": FIXED},
    "poisson": {"rate": 2, "num_requests": 10, "lengths": FIXED},
    "preset": {"preset": "azure_conv_2023", "num_requests": 10},
    "servegen": {"path": "CLIENTS", "lengths": FIXED},
    "sessions": {"rate": 2, "num_sessions": 5, "turns": 3, "shared_prefix": 50, "think_time": 1, "lengths": FIXED},
    "trace": {"path": "TRACE"},
    "train": {"steps": 3, "batch": 4, "lengths": FIXED, "teacher": {"model": "serve"}, "checkpoint": {"every": 2, "store": "disks"}},
    "rl": {
        "mode": "async", "staleness": {"kind": "areal", "eta": 1}, "steps": 3, "prompts": 4, "samples": 2, "prompt": 8,
        "answers": {"mean": 30, "sigma": 0.8, "cap": 100},
    },
    "transfers": {"source": "train", "target": "serve", "every": 2, "times": 3},
    "weibull": {"rate": 2, "shape": 0.5, "num_requests": 10, "lengths": FIXED},
}
MINIMAL_LENGTHS = {
    "empirical": {"input": [[0, 1], [1, 100]], "output": [[0, 1], [1, 100]]},
    "fixed": {"input": 100, "output": 10},
    "lognormal": {"input": {"mean": 100, "sigma": 1}, "output": {"median": 10, "p99": 100}},
    "preset": {"name": "azure_conv_2023"},
    "scaled": {"lengths": {"kind": "fixed", "input": 100, "output": 10}, "input": 1.2},
    "uniform": {"input": [1, 100], "output": [1, 10]},
}


STATES = next(column.labels for column in TRAIN_STATES if column.name == "state")


class Cost:
    """Of a checkpoint."""

    def checkpoint_seconds(self):
        return 0.5

    def checkpoint_bytes(self):
        return 1e9


class Trains:
    def __init__(self, env):
        self.env, self.spec, self.model = env, SimpleNamespace(name="train"), Cost()

    def enter(self, state):
        assert state in STATES

    def update(self, lengths, epochs=1, mini_batches=1, stated=None):
        assert all(type(n) is int and n >= 1 for n in lengths)
        yield self.env.timeout(1e-3 * sum(lengths))

    def logprob(self, lengths, state, stated=None):
        assert state in STATES
        yield self.env.timeout(1e-4 * sum(lengths))


class Controls:
    """Of a pool whose requests all run at once."""

    longest = 10**6, "max_model_len"

    def __init__(self, env):
        self.env = env

    def pause(self, wait="none"):
        return self.env.timeout(0)

    def resume(self):
        pass

    def update(self, how, kv="keep", clear_prefix=True):
        return self.env.timeout(how)

    def progress(self, request):
        return int(min((self.env.now - request.arrival) * 100, request.output))


class World:
    def __init__(self):
        self.env = simpy.Environment()
        self.name, self.pool, self.networked, self.where = "contract", "serve", False, "workloads.0"
        self.sent, self.moved, self.noted = [], [], []
        self.fresh = 1
        self.count = 0

    def rng(self, name):
        return stream(3, f"{self.name}/{name}")

    def keys(self, count):
        first, self.fresh = self.fresh, self.fresh + count
        return first

    def request(self, prompt, output, session=-1, content=None, reply=0):
        request = Request(len(self.sent), self.env.now, prompt, output, session=session)
        request.content, request.reply = content, reply
        return request

    def submit(self, request):
        content = request.content
        shared = None if content is None else (tuple(content.keys), tuple(content.ends), content.common, request.reply)
        self.sent.append((self.env.now, request.prompt, request.output, request.session, shared))

    def call(self, request):
        self.submit(request)
        request.generated = request.output
        return self.env.timeout(0.25 + request.output / 100, request)

    def number(self):
        self.count += 1
        return self.count - 1

    def label(self, table, column, text):
        assert any(one.name == column and one.labels is not None for one in TABLES[table])
        return 0

    def note(self, table, row):
        assert len(row) == len(TABLES[table])
        self.noted.append((table, row))

    def closing(self, call):
        self.closed = call

    def trainer(self, name):
        return Trains(self.env)

    def control(self, pool):
        return Controls(self.env)

    def ends(self, trainer, pool):
        return Ends(1e9, 1e9, 300, 0.1, 8, 1, 4, 1, 1, 50e9, 50e9, 450e9, False)

    def cancel(self, request, reason="cancelled"):
        pass

    def transfer(self, order):
        assert order.size is None or order.size > 0
        self.moved.append((self.env.now, order))
        return self.env.timeout(0.5, order.size)


@pytest.fixture
def files(tmp_path):
    """The path of each file that minimal options name."""
    paths = {}
    for name, text in (("TRACE", TRACE), ("CLIENTS", CLIENTS), ("AGENTS", AGENTS)):
        paths[name] = str(tmp_path / f"{name.lower()}.csv")
        (tmp_path / f"{name.lower()}.csv").write_text(text)
    return paths


def workload(kind, files):
    assert kind in MINIMAL_WORKLOADS, f"give the workload '{kind}' minimal options in this file"
    options = {key: files.get(str(value), value) for key, value in MINIMAL_WORKLOADS[kind].items()}
    checked, problems = WORKLOADS.check({"kind": kind, **options})
    assert problems == []
    return WORKLOADS.make(checked)


def sent_by(kind, files):
    made, world = workload(kind, files), World()
    assert isinstance(made.name, str)
    assert all(isinstance(remark, str) for remark in made.prepare())
    expected = made.expected()
    world.env.process(made.drive(world))
    world.env.run()
    assert bool(world.sent) is made.sends
    assert world.sent or world.moved
    assert expected in (None, len(world.sent))
    return world.sent or world.moved


@pytest.mark.parametrize("kind", WORKLOADS.names())
def test_a_workload_ends_and_sends_what_can_be_served(kind, files):
    sent = sent_by(kind, files)
    at = [row[0] for row in sent]
    assert at == sorted(at)
    assert at[0] >= 0
    if not WORKLOADS.find(kind).sends:
        return
    for _, prompt, output, session, shared in sent:
        assert type(prompt) is type(output) is type(session) is int
        assert prompt >= 1
        assert output >= 1
        if shared is not None:
            keys, ends, common, reply = shared
            assert len(keys) == len(ends) == len(set(keys))
            assert list(ends) == sorted(set(ends))
            assert all(0 < end <= prompt for end in ends)
            assert 0 <= common <= (ends[-1] if ends else 0)
            assert all(type(number) is int for number in (*keys, *ends, common, reply))
            assert min((*keys, 1)) >= 1
            assert reply not in keys


@pytest.mark.parametrize("kind", WORKLOADS.names())
def test_a_workload_repeats_itself(kind, files):
    assert sent_by(kind, files) == sent_by(kind, files)


@pytest.mark.parametrize("kind", WORKLOADS.names())
def test_one_object_drives_two_worlds_alike(kind, files):
    made = workload(kind, files)
    worlds = World(), World()
    for world in worlds:
        made.prepare()
        world.env.process(made.drive(world))
        world.env.run()
    assert len({repr((world.sent, world.moved, world.noted)) for world in worlds}) == 1


@pytest.mark.parametrize("kind", WORKLOADS.names())
def test_unknown_keys_of_a_workload_are_refused(kind):
    _, problems = WORKLOADS.check({"kind": kind, **MINIMAL_WORKLOADS[kind], "colour": "red"})
    assert [problem.path for problem in problems] == ["colour"]


@pytest.mark.parametrize("kind", LENGTHS.names())
def test_lengths_are_whole_positive_and_repeatable(kind):
    checked, problems = LENGTHS.check({"kind": kind, **MINIMAL_LENGTHS[kind]})
    assert problems == []
    law = LENGTHS.make(checked)
    assert law.prepare() == []
    for count in (0, 1, 1000):
        first, second = (law.draw(stream(0, "lengths"), count) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert a.dtype == np.int64
            assert len(a) == count
            assert (a == b).all()
            assert (a >= 1).all()


@pytest.mark.parametrize("name", FORMATS.names())
def test_a_format_does_not_take_what_is_not_a_trace(name):
    form = FORMATS.find(name)()
    for head in (b"", b"hello\n", b"a,b\n1,2\n", b"{}\n", b"[1, 2]\n", b"\xff\xfe\x00"):
        assert form.sniff("x.csv", head) is False
    assert list(inspect.signature(form.read).parameters) == ["source"]
