"""Traces sent at the pace of the answers (`pace: answers`), and the benchmark files that say how long users paused."""
from __future__ import annotations

import numpy as np
import pytest
from driven import driven
from trace_samples import CSV, INFERENCEX, complaint

from workloads.formats.base import load
from workloads.trace import Trace

HEAD = "arrival_s,input_tokens,output_tokens,session_id,pause_s\n"
TWO = HEAD + "0,100,50,a,0\n1,200,10,b,0\n2,150,50,a,3\n9,300,10,b,0.5\n20,400,20,a,1\n"


@pytest.fixture
def file(tmp_path):
    def write(content, name="trace.csv"):
        path = tmp_path / name
        path.write_text(content)
        return str(path)

    return write


def sent(path, seconds=2.0, **options):
    """(time, prompt, session) of each request, answers taking so long."""
    world = driven({"kind": "trace", "path": path, "pace": "answers", **options}, service=lambda request: seconds)
    return [(request.arrival, request.prompt, request.session) for request in world.requests]


def test_a_turn_follows_the_answer_before_and_the_pause(file):
    assert sent(file(TWO)) == [(0.0, 100, 0), (1.0, 200, 1), (3.5, 300, 1), (5.0, 150, 0), (8.0, 400, 0)]
    slow = sent(file(TWO), 10.0)
    assert slow == [(0.0, 100, 0), (1.0, 200, 1), (11.5, 300, 1), (13.0, 150, 0), (24.0, 400, 0)]


def test_rows_without_a_session_keep_their_time(file):
    assert sent(file("arrival_s,input_tokens,output_tokens,pause_s\n0,1,9,0\n0.5,2,9,7\n")) == [(0.0, 1, -1), (0.5, 2, -1)]


def test_agents_of_a_session_wait_for_their_own_answers_only(file):
    head = "arrival_s,input_tokens,output_tokens,session_id,agent_id,pause_s\n"
    text = head + "0,1,9,s,main,0\n1,2,9,s,sub,0\n4,3,9,s,main,1\n4,4,9,s,sub,1\n"
    assert sent(file(text)) == [(0.0, 1, 0), (1.0, 2, 0), (3.0, 3, 0), (4.0, 4, 0)]


def test_pauses_are_scaled_with_the_times_and_go_with_their_rows(file):
    assert sent(file(TWO), time_scale=2, start=1) == [(1.0, 100, 0), (3.0, 200, 1), (6.0, 300, 1), (9.0, 150, 0), (13.0, 400, 0)]
    assert sent(file(TWO), window=[1, 10]) == [(0.0, 200, 1), (1.0, 150, 0), (2.5, 300, 1)]
    assert sent(file(TWO), limit=3) == [(0.0, 100, 0), (1.0, 200, 1), (5.0, 150, 0)]


def test_contents_stay_with_their_rows(file):
    world = driven({"kind": "trace", "path": file(TWO), "pace": "answers"}, service=lambda request: 2.0)
    first, other, last, second, third = world.requests
    assert second.content.keys[0] == third.content.keys[0] == first.content.keys[0]
    assert last.content.keys[0] == other.content.keys[0] != first.content.keys[0]


def test_a_context_ends_when_a_request_is_turned_away(file):
    world = driven({"kind": "trace", "path": file(TWO), "pace": "answers"}, refuse=lambda request: request.prompt == 150)
    assert [request.prompt for request in world.requests] == [100, 200, 300, 150]


def test_the_load_is_a_closed_loop_only_at_the_pace_of_answers():
    assert Trace(path="x", pace="answers").closed_loop
    assert not Trace(path="x").closed_loop


def test_a_trace_without_pauses_cannot_follow_answers(file):
    (problem,) = complaint(file(CSV), pace="answers")
    assert problem.path == "pace"
    assert "pause_s" in problem.message


@pytest.mark.parametrize("pause", ["-1", "soon", ""])
def test_bad_pauses(file, pause):
    (problem,) = complaint(file(HEAD + f"0,1,1,a,0\n1,1,1,a,{pause}\n"))
    assert problem.line == 3
    assert "pause_s" in problem.message


def test_inferencex_rows_in_order_of_time_with_what_was_shared(file):
    rows = load(file(INFERENCEX), identity=True)
    assert rows.arrival.tolist() == [0.0, 0.25, 37.5, 50.0]
    assert rows.session.tolist() == [1, 0, 1, 1]
    assert rows.prompt.tolist() == [1000, 5000, 1200, 1190]
    # Of the last one 5 chunks came for 300 tokens: its client had fallen behind.
    assert rows.output.tolist() == [90, 95, 97, 300]
    np.testing.assert_allclose(rows.pause, [0, 0, 5.5, 2.5])
    assert rows.content.ref.tolist() == [-1, -1, 0, 2]
    assert rows.content.shared.tolist() == [0, 0, 960, 1190]
    assert load(file(INFERENCEX)).content is None


def test_requests_that_failed_are_left_out_and_said(file):
    rows = load(file(INFERENCEX.replace("15,True", "15,False")))
    assert len(rows.prompt) == 3
    assert rows.remarks == ["trace.csv: left out 1 of 4 requests, which failed"]
    assert "no request" in complaint(file(INFERENCEX.replace("True", "False")))[0].message


def test_an_end_before_the_beginning_is_refused(file):
    (problem,) = complaint(file(INFERENCEX.replace("37.5,47.5", "37.5,17.5")))
    assert problem.line == 5
    assert "request_complete_time 17.5 is before request_start_time 37.5" in problem.message
