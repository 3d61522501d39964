"""Kernels behind the measurements do what they say, and a replayed trace computes every token once."""
from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed, and only measuring needs it")

from calibrate.bench import elementwise, engine, paged, timing  # noqa: E402
from calibrate.bench.device import BF16, Bench  # noqa: E402
from calibrate.bench.work import Limits, Piece, Request  # noqa: E402
from calibrate.replay import compare, main, read, replay  # noqa: E402
from sim.core.errors import BadInput  # noqa: E402
from sim.physics.base import Cost, Work  # noqa: E402

TRACE = pd.DataFrame({"arrival_s": [0.0, 0.0, 0.0, 1e-4, 50.0], "input_tokens": [30, 100, 3, 70, 20], "output_tokens": [5, 8, 1, 3, 4]})
LIMITS = Limits(requests=3, tokens=48, length=128)


def gathered(q, k, v, at, copy):
    """A paged kernel as a GPU has it, from its tensors alone: page table, tokens in use, bounds of the queries."""
    out, bounds = [], at.cu_q.tolist()
    for i, used in enumerate(at.used.tolist()[: len(bounds) - 1]):
        pages = at.table[copy, i].long()
        keys, values = (x[pages].flatten(0, 1)[:used][None] for x in (k, v))
        out.append(paged.sdpa(q[bounds[i] : bounds[i + 1]][None], keys, values)[0])
    return torch.cat(out)


PAGED = paged.Kernel("gathered", "paged", 16, gathered)


def test_a_kernel_that_is_wrong_is_not_chosen(monkeypatch):
    bench = Bench("cpu")

    def blind(q, k, v, at, copy):
        return gathered(q, k, v, at._replace(table=at.table.flip(0)), copy)

    def broken(q, k, v, at, copy):
        raise RuntimeError("no kernel image")

    wrong = [paged.Kernel("blind", "paged", 16, blind), paged.Kernel("broken", "paged", 16, broken)]
    monkeypatch.setattr(paged, "_candidates", lambda bench: [*wrong, PAGED])
    assert paged.choose(bench).name == "gathered"
    assert "off by" in bench.refused["blind paged bfloat16"]
    assert bench.refused["broken paged bfloat16"] == "no kernel image"
    monkeypatch.setattr(paged, "_candidates", lambda bench: wrong)
    with pytest.raises(Exception, match="no attention here reads a KV cache of bfloat16"):
        paged.choose(Bench("cpu"))


def test_pages_of_all_copies_are_apart():
    there = paged.Sequences(Bench("cpu"), PAGED, [1, 2, 1], [40, 16, 5], 2, 3, BF16)
    spots = torch.cat([there.slots(copy, [40, 16, 5]) for copy in range(3)])
    assert len(set(spots.tolist())) == 3 * 61
    assert int(spots.max()) < len(there.flat()[0])
    assert there.slots(1).tolist() == [there.slots(1, [40, 16, 5])[i].item() for i in (39, 54, 55, 60)]


def test_elementwise_kernels_compute_what_they_are_named():
    torch.manual_seed(1)
    x, residual, weight = torch.randn(5, 256), torch.randn(5, 256), torch.randn(256)
    out, total = elementwise.rmsnorm_residual(x, residual, weight)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(x + residual, (256,), weight, 1e-5))
    small, scale = elementwise.fp8_quant(x)
    torch.testing.assert_close(small.float() * scale, x, rtol=0.07, atol=0.01)
    cos, sin = (t.float() for t in elementwise.positions(torch.arange(5)))
    k, v = torch.randn(5, 2, 128), torch.randn(5, 2, 128)
    keys, values, slots = torch.zeros(9, 2, 128), torch.zeros(9, 2, 128), torch.tensor([8, 0, 3, 4, 1])
    turned = elementwise.rope_kvwrite(k, k, v, cos, sin, keys, values, slots)
    torch.testing.assert_close(turned.norm(dim=-1), k.norm(dim=-1), rtol=0.01, atol=0)
    torch.testing.assert_close(turned[0], k[0])
    torch.testing.assert_close(keys[slots], turned)
    torch.testing.assert_close(values[slots], v)
    logits = torch.zeros(4, 300)
    logits[:, :7] = 50.0
    assert set(elementwise.topk_sample(logits).flatten().tolist()) <= set(range(7))


class FakeCuda:
    """Just enough of torch.cuda to count launches: each takes 10 us of device time, a graph replays what was captured."""

    def __init__(self):
        self.now, self.captured, self.capturing, self.copies = 0.0, 0, False, []
        outer = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = outer.now

            def elapsed_time(self, other):
                return (other.at - self.at) * 1e3

            def synchronize(self):
                pass

        class CUDAGraph:
            def capture_begin(self):
                outer.capturing = True

            def capture_end(self):
                outer.capturing = False

            def replay(self):
                outer.now += 1e-5 * outer.captured

        self.Event, self.CUDAGraph = Event, CUDAGraph
        self.synchronize = self.empty_cache = lambda: None
        self.memory_reserved = self.memory_allocated = lambda: 0
        self.stream = lambda side: contextlib.nullcontext()

    def launch(self, i):
        self.copies.append(i)
        if self.capturing:
            self.captured += 1
        else:
            self.now += 1e-5


@pytest.mark.parametrize(("copies", "launches"), [(1, 20), (300, 300)])
def test_a_graph_holds_every_copy_and_one_launch_is_reported(monkeypatch, copies, launches):
    fake = FakeCuda()
    monkeypatch.setattr(timing, "torch", SimpleNamespace(cuda=fake, no_grad=torch.no_grad))
    bench = SimpleNamespace(cuda=True, side=None, settle=lambda: None)
    found = timing.measure(timing.Task(fake.launch, {}, copies=copies), bench)
    assert found.launches == fake.captured == launches
    assert (found.median, found.least) == (pytest.approx(1e-5), pytest.approx(1e-5))
    assert set(fake.copies) == set(range(copies))
    assert found.samples >= 3
    eager = timing.measure(timing.Task(fake.launch, {}, graph=False, per=2), bench)
    assert eager.median == pytest.approx(0.5e-5)

    def fails(i):
        if fake.capturing:
            raise ValueError("cannot be captured")

    with pytest.raises(ValueError, match="cannot be captured"):
        timing.measure(timing.Task(fails, {}), bench)
    assert not fake.capturing


def test_a_replay_computes_every_token_once():
    done = replay(TRACE, "cpu", limits=LIMITS)
    steps, requests = done
    assert (steps["seconds"] > 0).all()
    assert steps["prompt_tokens"].sum() == TRACE["input_tokens"].sum()
    assert steps["decoders"].sum() == (TRACE["output_tokens"] - 1).sum()
    assert (steps["decoders"] + steps["prompt_tokens"]).max() <= LIMITS.tokens
    assert steps["decoders"].max() >= 2
    chunks = [tuple(map(int, piece.split(":"))) for text in steps["chunks"] for piece in text.split()]
    assert {(48, 0), (30, 0), (18, 0)} & set(chunks)
    assert any(before for _, before in chunks)
    alone = steps[(steps["at_s"] >= 50) & (steps["decoders"] == 1)]
    assert alone["held"].tolist() == [20, 21, 22]
    assert (requests["first_token_s"] > requests["arrival_s"]).all()
    assert (requests["finish_s"] >= requests["first_token_s"]).all()
    assert requests["finish_s"].iloc[-1] < 51  # the idle stretch was skipped, not lived through


def test_iterations_are_held_against_a_step_model():
    steps = pd.DataFrame({"decoders": [2, 1], "held": [40, 9], "chunks": ["5:0 3:10", np.nan], "seconds": [0.02, 0.01]})
    seen: list[Work] = []

    class Model:
        def step(self, work):
            seen.append(work)
            return Cost(0.015, 0, 0, 0, 0)

    table = compare(steps, Model())
    assert seen == [Work(((5, 0), (3, 10)), 2, 40), Work((), 1, 9)]
    assert table["ape"].tolist() == pytest.approx([0.25, 0.5])
    assert compare(steps, lambda work: 0.01)["ape"].tolist() == pytest.approx([0.5, 0.0])


def rerun(monkeypatch):
    """Graphs for the CPU: what was captured runs again on the same buffers."""
    record = {}

    class CUDAGraph:
        def pool(self):
            return "pool"

        def replay(self):
            self.out.copy_(record["real"](*self.inputs))

    @contextlib.contextmanager
    def capture(graph, pool):
        yield
        graph.inputs, graph.out = record["last"]

    monkeypatch.setattr(engine, "torch", SimpleNamespace(**{**vars(torch), "cuda": SimpleNamespace(CUDAGraph=CUDAGraph, graph=capture)}))
    real = engine.Engine._forward

    def forward(self, *inputs):
        record["real"] = lambda *again: real(self, *again)
        out = real(self, *inputs)
        record["last"] = (inputs, out)
        return out

    monkeypatch.setattr(engine.Engine, "_forward", forward)


def test_pages_and_graphs_change_nothing_of_what_is_computed(monkeypatch):
    limits, prompts = Limits(8, 64, 64), (20, 33, 5)

    def tokens(graphs):
        made = engine.Engine("cpu", limits)
        if graphs:
            made._capture()
        requests = [Request(i, prompt, 6) for i, prompt in enumerate(prompts)]
        assert all(made.admit(request) for request in requests)
        drawn = []
        for step in range(6):
            ran = made.step([Piece(request, request.prompt if step == 0 else 1) for request in requests])
            assert ran == (graphs and step > 0)
            for request in requests:
                request.computed += request.prompt if step == 0 else 1
            drawn.append([request.last for request in requests])
        for request in requests:
            made.release(request)
        assert sorted(made.spare) == list(range(1, len(made.spare) + 1))
        return drawn

    plain = tokens(False)
    assert len({tuple(step) for step in plain}) > 1

    def agree(others):
        """Batches of another size may round otherwise, and a token once changed changes the next; a wrong page changes all."""
        return np.mean(np.array(others)[:3] == np.array(plain)[:3]) > 0.6

    monkeypatch.setattr(engine, "choose", lambda bench: PAGED)
    assert agree(tokens(False))
    rerun(monkeypatch)
    assert agree(tokens(True))


def test_requests_wait_for_pages(monkeypatch):
    monkeypatch.setattr(engine, "choose", lambda bench: PAGED)
    made = engine.Engine("cpu", Limits(4, 64, 64))
    many = [Request(i, 30, 20) for i in range(8)]
    took = [made.admit(request) for request in many]
    assert took == [True] * 4 + [False] * 4  # 16 pages of 16 tokens, four for each
    assert len({page for request in many for page in request.pages}) == 16
    made.release(many[0])
    assert made.admit(many[4])


@pytest.mark.parametrize(
    ("text", "said"),
    [("arrival_s,input_tokens\n0,1\n", "no column output_tokens"), ("arrival_s,input_tokens,output_tokens\n", "no requests"),
     ("arrival_s,input_tokens,output_tokens\n0,5,1\n0,0,1\n", ":3: input_tokens")],
)  # fmt: skip
def test_a_bad_trace_is_refused(tmp_path, text, said):
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(BadInput, match=said):
        read(tmp_path / "trace.csv")


def test_a_trace_is_replayed_from_the_command_line(tmp_path, capsys):
    TRACE.to_csv(tmp_path / "trace.csv", index=False)
    out = tmp_path / "steps.csv"
    assert main([str(tmp_path / "trace.csv"), "--device", "cpu", "-o", str(out), "--layers", "1"]) == 0
    assert "5 of 5 requests" in capsys.readouterr().out
    assert len(pd.read_csv(out)) > 5
    assert pd.read_csv(tmp_path / "steps.requests.csv")["finish_s"].notna().all()
    with pytest.raises(BadInput, match="128 of one request"):
        replay(TRACE.assign(input_tokens=500), "cpu", limits=LIMITS)
