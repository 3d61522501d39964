"""What tests of several files use."""
from __future__ import annotations

import os

import pytest
from studies import Studies


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    """One for all processes that run the tests."""
    base = tmp_path_factory.getbasetemp()
    return Studies((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "studies")
