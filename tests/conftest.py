"""On a build machine hypothesis draws the same examples each time; elsewhere it goes on looking. And what is timed is timed alone."""
from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

settings.register_profile("build", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("build")


@pytest.fixture
def calm():
    """Without the collector's walks over all that other tests left behind, which are no cost of what is timed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
