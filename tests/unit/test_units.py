"""Quantities as people write them."""
from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core import units


@pytest.mark.parametrize(("text", "dimension", "value"), [
    ("500ms", "duration", 0.5), ("30m", "duration", 1800.0), ("2h", "duration", 7200.0), ("1d", "duration", 86400.0),
    ("15us", "duration", 15e-6),
    ("15µs", "duration", 15e-6), (" 1.5 s ", "duration", 1.5),
    ("1e3ms", "duration", 1.0), (".5s", "duration", 0.5), ("-1s", "duration", -1.0),
    (3, "duration", 3.0), ("3", "duration", 3.0), ("1_000s", "duration", 1000.0),
    ("80GB", "size", 80e9), ("80 GB", "size", 80e9), ("16GiB", "size", 16 * 2**30), ("4KB", "size", 4000.0), ("4kB", "size", 4000.0),
    ("400Gbps", "bandwidth", 50e9), ("3.35TB/s", "bandwidth", 3.35e12), ("100Mbit/s", "bandwidth", 12.5e6), ("8bps", "bandwidth", 1.0),
])
def test_reads(text, dimension, value):
    assert units.parse(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(("value", "dimension", "fragment"), [
    ("80GB", "duration", "'80GB' is a size; a duration is wanted"),
    ("30q", "duration", "unknown unit 'q'"),
    ("fast", "duration", "found 'fast'"),
    ("", "size", "found ''"),
    ("1.2.3s", "duration", "found '1.2.3s'"),
    (True, "duration", "found True"),
    (None, "size", "found None"),
    ([1], "size", "found [1]"),
    (math.nan, "duration", "finite"),
    (math.inf, "size", "finite"),
    ("1e999s", "duration", "finite"),
])
def test_refuses(value, dimension, fragment):
    with pytest.raises(ValueError, match="wanted") as error:
        units.parse(value, dimension)
    assert fragment in str(error.value)


@given(st.sampled_from(sorted(units.DIMENSIONS)), st.floats(-1e12, 1e12), st.data())
def test_a_unit_is_a_factor(dimension, number, data):
    table = units.DIMENSIONS[dimension][0]
    unit = data.draw(st.sampled_from(sorted(table)))
    assert units.parse(f"{number!r}{unit}", dimension) == number * table[unit]


def test_no_unit_means_two_things():
    """Only `m` could be mistaken, so no unit is shared between dimensions."""
    tables = [set(table) for table, _ in units.DIMENSIONS.values()]
    assert sum(map(len, tables)) == len(set.union(*tables))


def test_examples():
    assert doctest.testmod(units).failed == 0
