"""Each invariant holds on good tables, and fails on a table that breaks it."""
from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic import edit, queue, serve

from sim.core.request import REJECTED, UNFINISHED
from sim.core.tables import tables
from sim.study.audit import audit


def small(**changes):
    return queue(0.7, 200, replicas=2, **changes)


def failed(result):
    return {name for name, entry in audit(result).items() if not entry["ok"]}


def test_good_tables_pass_everything():
    entries = audit(small())
    assert list(entries) == ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "tokens", "littles_law", "agents", "lives"]
    assert all(entry["ok"] and (entry["checked"] > 0 or name in ("I7", "agents")) and entry["detail"] for name, entry in entries.items())


def test_a_run_cut_off_passes():
    result = queue(1.3, 200, horizon=30.0)
    assert (result.tables["requests"]["status"] == UNFINISHED).any()
    assert failed(result) == set()
    assert audit(result)["littles_law"]["checked"] == 0


def test_an_empty_run_passes():
    assert failed(serve(np.empty(0), np.empty(0, dtype=int))) == set()


BREAKS = [
    ("requests", "request", 5, 4, "I1"),
    ("requests", "status", 5, 7, "I1"),
    ("requests", "status", 5, UNFINISHED, "I1"),
    ("requests", "status", 5, REJECTED, "I1"),
    ("requests", "replica", 5, -1, "I1"),
    ("requests", "output_tokens", 5, 100_000, "I1"),
    ("requests", "last_token", 5, math.nan, "I1"),
    ("replicas", "taken_blocks", 0, 3, "I2"),
    ("replicas", "peak_blocks", 1, 1001, "I2"),
    ("stretches", "blocks", 9, 1001, "I2"),
    ("requests", "admitted", 5, 0.0, "I3"),
    ("requests", "first_token", 5, 0.0, "I3"),
    ("requests", "last_token", 5, 1e9, "I3"),
    ("requests", "arrival", 5, 1e9, "I3"),
    ("stretches", "start", 9, 0.0, "I3"),
    ("stretches", "seconds", 9, -1.0, "I3"),
    ("stretches", "seconds", 9, 1e3, "I3"),
    ("requests", "last_token", 5, 1e9, "I4"),
    ("stretches", "seconds", 9, 1e-6, "I6"),
    ("stretches", "first_step", 9, 1e-6, "I6"),
    ("stretches", "steps", 9, 10**9, "I6"),
    ("requests", "output_tokens", 5, 100_000, "tokens"),
    ("stretches", "decoders", 9, 5, "tokens"),
    ("stretches", "decoders", 9, 5, "littles_law"),
    ("requests", "last_token", 5, 1e9, "littles_law"),
]


@pytest.mark.parametrize(("table", "column", "row", "value", "invariant"), BREAKS)
def test_a_corrupted_cell_is_found(table, column, row, value, invariant):
    result = small()
    edit(result.tables[table], column, row, value)
    assert invariant in failed(result)


def test_a_lost_request_is_found():
    assert failed(_with_meta(small(), arrived=201)) == {"I1"}


def _with_meta(result, **changes):
    result.meta.update(changes)
    return result


def lengthen(result, seconds):
    """The run, and its only replica, last so much longer."""
    result.meta["sim_s"] += seconds
    edit(result.tables["replicas"], "end", 0, result.meta["sim_s"])


def test_an_engine_that_waits_with_work_is_found():
    result = serve(np.array([0.0, 0.0]), np.array([5, 5]))
    shift = 10.0
    for row in (2, 3):
        edit(result.tables["stretches"], "start", row, float(result.tables["stretches"]["start"][row]) + shift)
    for column in ("admitted", "first_token", "last_token"):
        edit(result.tables["requests"], column, 1, float(result.tables["requests"][column][1]) + shift)
    lengthen(result, shift)
    assert failed(result) == {"I4"}


def test_an_engine_that_pauses_a_running_request_is_found():
    result = serve(np.array([0.0]), np.array([5]))
    edit(result.tables["stretches"], "start", 1, float(result.tables["stretches"]["start"][1]) + 1)
    edit(result.tables["requests"], "last_token", 0, float(result.tables["requests"]["last_token"][0]) + 1)
    lengthen(result, 1)
    assert failed(result) == {"I4", "littles_law"}


def test_a_pause_that_is_recorded_is_not_lost_time():
    """A second in which the one decoder waits for another's prompt, with the stretch to show for it."""
    result = serve(np.array([0.0]), np.array([5]))
    start = float(result.tables["stretches"]["start"][1])
    edit(result.tables["stretches"], "start", 1, start + 1)
    edit(result.tables["requests"], "last_token", 0, float(result.tables["requests"]["last_token"][0]) + 1)
    lengthen(result, 1)
    rows = [tuple(result.tables["stretches"][c.name][row].item() for c in result.tables["stretches"].columns) for row in (0, 1)]
    stretches = tables()["stretches"]
    for row in (rows[0], (start, 1.0, 1.0, 0, 1, 0, 0, 1, 10, 55.0, 0, 7, 1, 0.0), rows[1]):
        stretches.append(row)
    result.tables["stretches"] = stretches
    assert failed(result) == set()


def test_padding_of_static_batches_is_counted():
    """Two members of 3 and 5 tokens: both generate 5. A paged engine that emitted so many for them would be at fault."""
    def batch(kind):
        pools = [{"gpu": "h100_sxm", "engine": {"batcher": {"kind": kind}}}]
        result = serve(np.array([0.0, 9.0]), np.array([5, 3]), cluster={"pools": pools})
        for column in ("arrival", "admitted", "first_token", "last_token"):
            edit(result.tables["requests"], column, 1, float(result.tables["requests"][column][0]))
        stretches = tables()["stretches"]
        old = result.tables["stretches"]
        for row, decoders in ((0, 0), (1, 2)):
            values = {c.name: old[c.name][row].item() for c in old.columns} | {"decoders": decoders, "tokens": 4.0 * decoders}
            stretches.append(tuple(values.values()))
        result.tables["stretches"] = stretches
        return audit(result)

    assert batch("static")["tokens"]["ok"]
    assert batch("static")["littles_law"]["ok"]
    assert not batch("vllm_v1")["tokens"]["ok"]


def test_blocks_may_be_left_only_with_unfinished_requests():
    result = serve(np.array([0.0]), np.array([5]))
    edit(result.tables["replicas"], "left_blocks", 0, 1)
    edit(result.tables["replicas"], "taken_blocks", 0, int(result.tables["replicas"]["taken_blocks"][0]) + 1)
    assert failed(result) == {"I2"}


def test_the_digest_tells_tables_apart():
    first, again, other = (audit(queue(0.5, 100, seed=seed))["I5"]["detail"] for seed in (1, 1, 2))
    assert first == again != other
    assert "not checked by one run" in first
