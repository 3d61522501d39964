"""Problems as they are said."""
from __future__ import annotations

import doctest

import pytest

from sim.core import errors
from sim.core.errors import BadInput, Problem, did_you_mean


@pytest.mark.parametrize(("problem", "text"), [
    (Problem("wrong"), "wrong"),
    (Problem("wrong", "a.b"), "a.b: wrong"),
    (Problem("wrong", "a.b", "x.yaml"), "x.yaml: a.b: wrong"),
    (Problem("wrong", "", "x.yaml", 3), "x.yaml:3: wrong"),
    (Problem("wrong", "a.b", "x.yaml", 3), "x.yaml:3: a.b: wrong"),
])
def test_problem_text(problem, text):
    assert str(problem) == text


def test_bad_input_holds_problems():
    assert BadInput("no").problems == [Problem("no")]
    both = BadInput([Problem("one", "a"), Problem("two", "b")])
    assert str(both) == "a: one\nb: two"


def test_survives_being_rebuilt():
    """SimPy rebuilds a failing process's exception as `type(e)(*e.args)`."""
    error = BadInput([Problem("one", "a")])
    again = type(error)(*error.args)
    assert again.problems == error.problems


def test_nearest_names():
    assert did_you_mean("h100", ["h100_sxm", "h100_pcie", "l4"]) == "did you mean h100_sxm or h100_pcie?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", [f"a{i:02}" for i in range(30)]).endswith("a22, a23 and 6 more")
    assert doctest.testmod(errors).failed == 0
