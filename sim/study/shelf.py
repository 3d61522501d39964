"""The files of a study, in a folder that is there."""
from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path


def put(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files, each whole or not at all. What a process left that was killed is written over: one process at a time has the folder."""
    for name, text in texts.items():
        aside = folder / f".{name}.part"
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(folder / name)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
