"""On a build machine hypothesis draws the same examples each time; elsewhere it goes on looking."""
from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("build", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("build")
