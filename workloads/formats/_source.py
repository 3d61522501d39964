"""A trace file in memory, unpacked, and what was found wrong with it."""
from __future__ import annotations

import errno
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from sim.core.errors import BadInput, Problem

LISTED = 10
MOST_BYTES = 4 << 30
FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
PARQUET = b"PAR1"


@dataclass
class Findings:
    """Problems of one file: all are counted, the first ten are kept."""

    file: str
    total: int = 0
    kept: list[Problem] = field(default_factory=list)

    def add(self, message: str, line: int = 0) -> None:
        self.total += 1
        if len(self.kept) < LISTED:
            self.kept.append(Problem(message, file=self.file, line=line))

    def stop(self) -> None:
        """Raise BadInput when there is anything to say."""
        if self.total > len(self.kept):
            self.kept.append(Problem(f"{self.total} problems in all; the first {LISTED} are given", file=self.file))
        if self.kept:
            raise BadInput(self.kept)


@dataclass
class Source:
    """`data`: the file's bytes, unpacked. `unit`: what its rows are counted in, `line` or `row`.

    `identity`: whether what the prompts share is to be read too.
    """

    path: str
    data: bytes
    findings: Findings
    unit: str = "line"
    identity: bool = False

    @property
    def name(self) -> str:
        """The file's name without its folder: for remarks, which are kept with results that travel."""
        return Path(self.path).name

    def found(self, what: str, lines: np.ndarray, advice: str = "") -> None:
        """Note one problem that many rows have, with their count and the first of them."""
        rows = f"{len(lines)} row has" if len(lines) == 1 else f"{len(lines)} rows have"
        self.findings.add(f"{rows} {what} ({listed(self.unit, lines)}){advice}", int(lines[0]) if self.unit == "line" else 0)

    def fail(self, message: str, line: int = 0) -> NoReturn:
        """Raise BadInput with everything found so far and this."""
        self.findings.add(message, line)
        self.findings.stop()
        raise AssertionError("unreachable: findings.stop() raises when there are any")

    def opening(self) -> str:
        """The file's first line, shortened, for an error."""
        first = self.data.lstrip()[:200].split(b"\n")[0].decode("utf-8", "replace").strip()
        return f"it begins with {first[:80]!r}"


def open_source(path: str) -> Source:
    """Read a file, gzipped or not, whatever its name ends in. Raises BadInput when it cannot be read or cannot be a trace."""
    source = Source(path, b"", Findings(path))
    if "://" in path:
        source.fail("nothing is fetched from the network; download the file and name it here")
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        source.fail("this is a device or a pipe; name a plain file")
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        source.fail(_missing(Path(path)))
    except IsADirectoryError:
        source.fail("this is a folder; name a file in it")
    except OSError as error:
        source.fail(f"the file cannot be read: {errno.errorcode.get(error.errno or 0, '')} {error.strerror}")
    while data[:2] == b"\x1f\x8b":
        data = _unzipped(source, data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        source.fail("the file is empty")
    _only_text(source, data)
    source.data = data
    return source


def listed(unit: str, lines: np.ndarray, most: int = 5) -> str:
    """The first few line or row numbers, in words.

    >>> listed("line", np.array([2, 5, 9]), most=2)
    'lines 2, 5, ...'
    """
    numbers = ", ".join(str(line) for line in lines[:most].tolist())
    return f"{unit}{'s' if len(lines) > 1 else ''} {numbers}{', ...' if len(lines) > most else ''}"


def _missing(path: Path) -> str:
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return f"there is no such file, and no folder {path.parent}"
    near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=3, cutoff=0.6)
    return "there is no such file" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _unzipped(source: Source, data: bytes) -> bytes:
    parts = []
    try:
        while data:
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(data, MOST_BYTES - sum(map(len, parts))))
            if member.unconsumed_tail:
                source.fail(f"unpacked it is larger than {MOST_BYTES >> 30} GiB; split it, or cut out the part wanted")
            if not member.eof:
                source.fail("the gzip file ends too early; the download or the copy of it is incomplete")
            # Zero bytes after the last member are padding, as gzip itself takes them.
            data = member.unused_data.lstrip(b"\0")
    except zlib.error as error:
        source.fail(f"the gzip file is damaged ({error})")
    return b"".join(parts)


def _only_text(source: Source, data: bytes) -> None:
    if data[:4] == PARQUET:
        return
    for magic, what in FOREIGN.items():
        if data.startswith(magic):
            source.fail(f"this is {what}; unpack or export it as CSV, JSONL or Parquet (gzip may stay)")
    if data[:2] in UTF16:
        source.fail("the text is UTF-16; save it as UTF-8")
    if b"\0" in data[:65536]:
        source.fail("this is a binary file; CSV, JSONL or Parquet is wanted (gzip may stay)")
