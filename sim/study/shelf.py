"""The files of a study, in a folder that is there."""
from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path


def put(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write texts and tables by name, each whole or not at all. What a process left that was killed is written over: one process at a time
    has the folder.
    """
    for name, content in files.items():
        aside = folder / f".{name}.part"
        try:
            aside.write_bytes(content.encode() if isinstance(content, str) else content)
            aside.replace(folder / name)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
