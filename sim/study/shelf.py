"""The folder of a study: made before anything is run, replaced only when it holds such a study and that is asked for."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from sim.core.errors import BadInput


def prepare(folder: Path, saved: str, force: bool) -> None:
    """Make the folder. Raises BadInput when it holds anything, but for such a study (a file `saved`) with `force`, or cannot be written."""
    try:
        filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if filled and not (folder / saved).is_file():
            raise BadInput(f"{folder} is there already and holds no {saved}; choose another folder")
        if filled and not force:
            raise BadInput(f"{folder} exists and is not empty; choose another folder, or give --force to replace it")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise BadInput(f"cannot write to {folder}: no permission")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def put(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files, each whole or not at all."""
    for name, text in texts.items():
        aside = folder / f".{name}.{os.getpid()}.part"
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(folder / name)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
