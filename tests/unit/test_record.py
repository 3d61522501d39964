"""Tables of facts: what goes in comes out, in memory, spooled, and saved."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core import record, tables
from sim.core.record import Column, Table

COLUMNS = (
    Column("id", "i8", "number"),
    Column("at", "f8", "when, s"),
    Column("how", "i4", "how it ended", ("good", "bad")),
    Column("why", "i4", "why", ("",)),
    Column("small", "i4", "a count"),
)


@pytest.fixture
def small(monkeypatch):
    """Chunks of 4 rows, and files after 10."""
    monkeypatch.setattr(record, "CHUNK", 4)
    monkeypatch.setattr(record, "KEEP", 10)


def fill(table, rows):
    for i in range(rows):
        table.append((i, i / 3 if i % 5 else float("nan"), i % 2, table.label("why", f"reason {i % 3}"), -i))


def holds(table, rows):
    i = np.arange(rows)
    assert len(table) == rows
    np.testing.assert_array_equal(table["id"], i)
    np.testing.assert_array_equal(table["at"], np.where(i % 5, i / 3, np.nan))
    np.testing.assert_array_equal(np.array(table.labels["how"])[table["how"]] if rows else [], np.array(["good", "bad"])[i % 2])
    np.testing.assert_array_equal(
        np.array(table.labels["why"])[table["why"]] if rows else [], np.char.add("reason ", (i % 3).astype(str)) if rows else []
    )
    np.testing.assert_array_equal(table["small"], -i)


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 9, 10, 11, 12, 13, 40, 101])
def test_round_trips(small, tmp_path, rows):
    table = Table("facts", COLUMNS)
    fill(table, rows)
    holds(table, rows)
    table.save(tmp_path / "facts.parquet")
    again = Table.open(tmp_path / "facts.parquet")
    assert again.name == "facts"
    assert [c[:1] + c[2:3] for c in again.columns] == [c[:1] + c[2:3] for c in COLUMNS]
    assert {c.name: np.dtype(c.dtype) for c in again.columns} == {c.name: np.dtype(c.dtype) for c in COLUMNS}
    assert again.labels == table.labels
    holds(again, rows)
    for column in COLUMNS:
        assert table[column.name].dtype == np.dtype(column.dtype)
        assert again[column.name].dtype == np.dtype(column.dtype)


def test_memory_is_bounded(small):
    table = Table("facts", COLUMNS)
    fill(table, 1000)
    assert table._parts
    assert table._chunked + len(table._rows) < record.KEEP + record.CHUNK
    holds(table, 1000)


def test_reading_does_not_disturb_writing(small, tmp_path):
    table = Table("facts", COLUMNS)
    for rows in range(0, 30, 3):
        for i in range(rows, rows + 3):
            table.append((i, i / 3 if i % 5 else float("nan"), i % 2, table.label("why", f"reason {i % 3}"), -i))
        holds(table, rows + 3)


def test_a_label_that_comes_late_is_known_in_earlier_files(small, tmp_path):
    table = Table("facts", COLUMNS)
    fill(table, 12)
    table.append((12, 4.0, 0, table.label("why", "at last"), -12))
    table.save(tmp_path / "facts.parquet")
    again = Table.open(tmp_path / "facts.parquet")
    assert again.labels["why"][again["why"][12]] == "at last"
    assert list(again.to_pandas()["why"][:3]) == ["reason 0", "reason 1", "reason 2"]


def test_labels_keep_any_text(tmp_path):
    table = Table("facts", (Column("why", "i4", "why", ()),))
    texts = ["", "two\nlines", "größer", "a,b"]
    for text in texts:
        table.append((table.label("why", text),))
    table.save(tmp_path / "facts.parquet")
    assert list(Table.open(tmp_path / "facts.parquet").to_pandas()["why"]) == texts


def test_saved_twice_is_the_same_bytes(small, tmp_path):
    for name in ("a", "b"):
        table = Table("facts", COLUMNS)
        fill(table, 50)
        table.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pandas_columns(small):
    table = Table("facts", COLUMNS)
    fill(table, 6)
    frame = table.to_pandas(["id", "how"])
    assert list(frame.columns) == ["id", "how"]
    assert list(frame["how"]) == ["good", "bad"] * 3


def test_unknown_column_and_wrong_row(small):
    table = Table("facts", COLUMNS)
    with pytest.raises(KeyError, match="did you mean small"):
        table["smal"]
    table.append((1, 2.0))
    with pytest.raises(ValueError, match=r"shorter|argument"):
        table["id"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.floats(width=64), st.integers(0, 1)), max_size=30))
def test_values_survive(tmp_path_factory, rows):
    table = Table("facts", COLUMNS[:3])
    for row in rows:
        table.append(row)
    path = tmp_path_factory.mktemp("facts") / "facts.parquet"
    table.save(path)
    again = Table.open(path)
    for index, name in enumerate(("id", "at", "how")):
        np.testing.assert_array_equal(again[name], np.array([row[index] for row in rows], dtype=again[name].dtype))


def test_tables_of_a_run():
    found = tables.tables()
    assert set(found) == set(tables.TABLES)
    assert all(len(table) == 0 for table in found.values())
    assert all(column.doc for table in found.values() for column in table.columns)
