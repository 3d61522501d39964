"""Files of studies are whole or not there."""
from __future__ import annotations

from pathlib import Path

import pytest

from sim.study.shelf import put


def test_texts_and_bytes_replace_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    put(tmp_path, {"a.txt": "é\n", "b.bin": b"\x00\xff"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": "é\n".encode(), "b.bin": b"\x00\xff"}


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    real = Path.write_bytes

    def full(path, data):
        real(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        put(tmp_path, {"a.txt": "a new text", "b.txt": "another"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}
