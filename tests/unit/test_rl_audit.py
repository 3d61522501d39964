"""The books of reinforcement learning hold on good tables, and each of them fails on tables that break it."""
from __future__ import annotations

import math

import pytest
from rl_samples import NAME, rl_run
from synthetic import edit, put

from sim.study.audit import audit
from sim.study.facts import Tables
from sim.study.rl.audit import books


def faults(result):
    return books(Tables(result))[1]


@pytest.mark.parametrize("mode", ["sync_disaggregated", "async", "one_step_off"])
@pytest.mark.parametrize("lag", [0, 1])
def test_good_tables_pass(mode, lag):
    result = rl_run(mode=mode, lag=lag)
    checked, wrong = books(Tables(result))
    assert wrong == []
    assert checked == 3 + 6 + 12 + 3 + 12
    assert {name for name, entry in audit(result).items() if not entry["ok"]} == set()
    assert audit(result)["I8"]["checked"] > checked


BREAKS = [
    ("rl_groups", "group", 1, 0, "a group stands twice, or not at all"),
    ("rl_groups", "group", 5, 9, "a group stands twice, or not at all"),
    ("rl_samples", "group", 3, 7, "a sample of no group"),
    ("rl_samples", "lag_submit", 3, math.nan, "trained on without a staleness"),
    ("rl_samples", "lag_mean", 3, math.nan, "trained on without a staleness"),
    ("rl_samples", "masked", 3, 1, "a staleness that nobody trained on"),
    ("rl_samples", "lag_mean", 9, 1.5, "lags not in the order"),
    ("rl_samples", "lag_mean", 9, -0.5, "lags not in the order"),
    ("rl_samples", "lag_submit", 9, 2.0, "a lag since submission that is not its group's"),
    ("rl_samples", "oldest", 9, 0, "a lag that is not that of its oldest token"),
    ("rl_samples", "segments", 9, 3, "more versions wrote it than there were"),
    ("rl_samples", "tokens", 9, 0, "tokens that no version wrote"),
    ("rl_samples", "segments", 9, 0, "tokens that no version wrote"),
    ("rl_samples", "newest", 9, 3, "a token by a version after the one that trained"),
    ("rl_samples", "done", 9, math.nan, "kept that never ended"),
    ("rl_samples", "done", 9, 1.0, "a sample ends before it begins"),
    ("rl_samples", "scored", 9, 20.5, "a sample has its reward before its end"),
    ("rl_groups", "state", 3, 6, "trained and was not trained on"),
    ("rl_groups", "trained", 3, -1, "trained and was not trained on"),
    ("rl_groups", "ended", 3, math.nan, "gone without a time"),
    ("rl_groups", "done", 3, 9.0, "done before it has begun"),
    ("rl_groups", "scored", 3, 10.5, "scored before it has done"),
    ("rl_groups", "ended", 3, 10.5, "ended before it has scored"),
    ("rl_groups", "launched", 3, 3, "more or fewer samples than it launched"),
    ("rl_groups", "kept", 3, 1, "more or fewer samples kept than it says"),
    ("rl_samples", "kept", 6, 0, "more or fewer samples kept than it says"),
    ("rl_groups", "tokens", 3, 351, "tokens of a group that are not its samples'"),
    ("rl_groups", "submitted", 3, 2, "submitted to a version after the one that trained"),
    ("rl_steps", "version", 2, 4, "versions that are not 1, 2"),
    ("rl_steps", "start", 2, 21.0, "steps that do not follow each other"),
    ("rl_steps", "sync", 2, -1.0, "a part of a step is negative"),
    ("rl_steps", "update", 2, 9.0, "the parts of a step are more than its seconds"),
    ("rl_steps", "groups", 2, 1, "groups of a step that are not those trained on"),
    ("rl_steps", "samples", 2, 3, "samples of a step that are not those trained on"),
    ("rl_steps", "tokens", 2, 651, "tokens of a step that are not those trained on"),
    ("rl_steps", "length", 2, 651, "length of a step that are not those trained on"),
    ("rl_steps", "useful", 2, 650, "useful of a step that are not those trained on"),
    ("rl_samples", "reward", 11, 0.0, "useful of a step that are not those trained on"),
    ("rl_groups", "trained", 5, 1, "a version trained on more groups than it takes"),
    ("rl_groups", "trained", 5, 7, "a version trained on after the last that was begun"),
    ("rl_groups", "ended", 3, 20.5, "a group was taken outside the step that trained on it"),
    ("rl_samples", "tokens", 9, 250, "requests got 1950 tokens, groups have"),
    ("rl_syncs", "version", 2, 2, "publications out of order"),
    ("rl_syncs", "gathered", 2, 25.0, "times of a publication out of order"),
    ("rl_syncs", "resumed", 2, 28.0, "times of a publication out of order"),
    ("rl_syncs", "released", 2, 20.0, "times of a publication out of order"),
    ("rl_syncs", "stopped", 2, 1, "more samples were stopped than ran"),
    ("rl_grades", "end", 2, 0.0, "a grade ends before it begins"),
    ("rl_grades", "queued", 2, 0.6, "a grade ends before it begins"),
    ("rl_grades", "group", 2, 6, "a grade of no group"),
    ("rl_grades", "end", 2, math.nan, "a grade that has ended without a time"),
]


@pytest.mark.parametrize(("table", "column", "row", "value", "text"), BREAKS)
def test_a_corrupted_cell_is_found(table, column, row, value, text):
    result = rl_run(lag=1)
    edit(result.tables[table], column, row, value)
    if (column, value) == ("tokens", 250):
        # The group and the step agree with it, the requests do not.
        edit(result.tables["rl_groups"], "tokens", 4, 350)
    assert any(text in fault for fault in faults(result)), faults(result)
    assert not audit(result)["I8"]["ok"]


def test_a_step_on_fewer_groups_is_found_unless_they_were_filtered_or_failed():
    def short(**changes):
        result = rl_run(**changes)
        groups = result.tables["rl_groups"]
        edit(groups, "state", 5, groups.label("state", "rejected"))
        edit(groups, "trained", 5, -1)
        for row in (10, 11):
            for lag in ("submit", "oldest", "mean"):
                edit(result.tables["rl_samples"], f"lag_{lag}", row, math.nan)
        waste = result.tables["rl_waste"]
        put(waste, (0, 5, waste.label("reason", "failed"), 350))
        for column, value in (("groups", 1), ("samples", 2), ("tokens", 300), ("length", 500)):
            edit(result.tables["rl_steps"], column, 2, value)
        return result

    assert faults(short()) == [f"{NAME}: a version trained on fewer groups than it takes (1)"]
    assert faults(short(filtered=True)) == []
    result = short()
    edit(result.tables["rl_groups"], "reason", 5, result.tables["rl_groups"].label("reason", "failed"))
    assert faults(result) == []


def test_tokens_of_others_in_the_pool_are_not_taken_for_those_of_groups():
    result = rl_run(alone=False)
    edit(result.tables["requests"], "output_tokens", 0, 99)
    assert faults(result) == []


def test_a_run_that_ends_too_soon_says_why():
    result = rl_run()
    result.meta["rl"][0]["steps"] = 5
    assert any("fewer versions than wanted" in text for text in books(Tables(result))[1])
    result.meta["remarks"].append(f"{result.meta['rl'][0]['name']}: dynamic sampling gave up")
    assert books(Tables(result))[1] == []
