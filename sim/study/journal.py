"""What a study has finished, on disk as it is finished: one line of JSON for each run, behind a line that says of what study.

A line is written by one call and is on the disk (fsync) before the next begins, so that a study killed at any moment loses nothing that
was finished; the most that is left is a torn last line, which is dropped. One process writes: it holds a lock of the kernel's on `.lock`,
which ends with the process however that ends, so that a dead one's lock never has to be told from a live one's; the file names the process
for those who meet it. The lock is no good across machines whose shared disk does not carry locks.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import sim
from sim.core.errors import BadInput, Problem
from sim.core.registry import WORKLOADS
from sim.spec import outside
from sim.study.validate.store import program

NAME = "journal.jsonl"
LOCK = ".lock"
FORMAT = 1
SHOWN = 12  # differences that an error lists

Row = dict[str, Any]


class Kind(NamedTuple):
    """Of what a journal is: its `file`, the `word` for such a study, and the `keys` of a row that say which it is. `saved` is the file of
    an answer that makes the journal superfluous; a study without one keeps its journal.
    """

    file: str
    word: str
    keys: tuple[str, ...]
    saved: str = ""


SWEEP = Kind(NAME, "sweep", ("point", "replication"))


def decided(data: Mapping[str, Any]) -> Row:
    """What decides the rows of a study of a scenario, beside what is asked: `data`, its paths absolute, the files it names, the program."""
    files = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] for options in data["workloads"]
             for _, path in outside.named_files(WORKLOADS, options) if Path(path).is_file()}  # fmt: skip
    return {"version": sim.__version__, "program": program(), "files": files, "scenario": data}


class Journal:
    """The rows of one folder, open for further ones. `rows` are those that are finished."""

    def __init__(self, folder: Path, header: Mapping[str, Any], force: bool = False, kind: Kind = SWEEP):
        """Open the journal of a study, or begin one; `header` says what decides its rows, by key.

        Raises BadInput when another process is at it, when the folder holds something else, an answer that is complete or a damaged
        journal, and when it holds the journal of another study, with the difference; with `force` that one is begun anew. A journal that
        ends with its study is gone on with even then, if it can be: the same command is to go on, whatever its options.
        """
        self.path, self.rows = folder / kind.file, list[Row]()
        header = json.loads(json.dumps({"format": FORMAT, **header}))
        with contextlib.ExitStack() as stack:
            try:
                if not self.path.is_file():
                    _free(folder, force, kind)
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_locked(folder))
                if not self.path.is_file() or (force and not (kind.saved and _goes_on(self.path, header, kind))):
                    _begin(self.path, header)
                old, self.rows, good = _read(self.path, kind)
                if not self.rows and old != header:
                    # Nothing is lost by what was only begun.
                    _begin(self.path, header)
                    old, self.rows, good = _read(self.path, kind)
                _agree(folder, old, header, kind)
                self._file = stack.enter_context(self.path.open("r+b", buffering=0))
                self._file.truncate(good)
                self._file.seek(good)
            except OSError as error:
                raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error
            self._open = stack.pop_all()

    def put(self, row: Row) -> None:
        """Keep a row: it is on the disk when this returns. After a disk that is full the journal is as it was before."""
        line, end = json.dumps(row).encode() + b"\n", self._file.tell()
        try:
            # A raw write may take less than it is given, on a disk that fills up.
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(end)
            self._file.seek(end)
            raise
        self.rows.append(row)

    def remove(self) -> None:
        """Take the journal away: what it was kept for is done."""
        self.path.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()


def read(folder: Path, kind: Kind = SWEEP) -> tuple[dict[str, Any], list[Row]]:
    """The header and the finished rows of a journal, also of one that is being written. Raises BadInput where there is none."""
    path = folder / kind.file
    if not path.is_file():
        raise BadInput(f"{folder} holds no {kind.word}: {kind.file} is missing; a folder that one was written to with -o is wanted")
    try:
        header, rows, _ = _read(path, kind)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    return header, rows


def _read(path: Path, kind: Kind) -> tuple[dict[str, Any], list[Row], int]:
    """The header, the rows, and how many bytes of the file they take."""
    whole = path.read_bytes().split(b"\n")[:-1]
    lines: list[Any] = []
    for number, line in enumerate(whole, 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            if 1 < number == len(whole):
                whole = whole[:-1]  # The machine went down while it was written.
                break
            raise BadInput([Problem(f"is damaged; begin the {kind.word} anew with --force", "", str(path), number)]) from None
    header, *rows = lines or [None]
    if not isinstance(header, dict) or "format" not in header:
        what = f"is no journal of a {kind.word}; choose another folder, or begin anew with --force"
        raise BadInput([Problem(what, "", str(path), 1)])
    if header["format"] != FORMAT:
        what = f"was written in format {header['format']}; this version of burstsim reads format {FORMAT}"
        raise BadInput([Problem(f"{what}; use the version that wrote it ({header.get('version', 'not known')})", "", str(path), 1)])
    seen: dict[str, None] = {}
    for number, row in enumerate(rows, 2):
        full = isinstance(row, dict) and all(key in row for key in kind.keys)
        name = ", ".join(f"{key} {json.dumps(row[key])}" for key in kind.keys) if full else ""
        if not name or name in seen:
            what = f"has {name} a second time" if name else f"is no row of a {kind.word}"
            raise BadInput([Problem(f"{what}; begin the {kind.word} anew with --force", "", str(path), number)])
        seen[name] = None
    return header, rows, sum(len(line) + 1 for line in whole)


def _begin(path: Path, header: Mapping[str, Any]) -> None:
    """Put a journal without rows in place, whole or not at all."""
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    # The new name is on the disk only when the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _goes_on(path: Path, header: Mapping[str, Any], kind: Kind) -> bool:
    """Whether a journal is whole, and of this very study."""
    with contextlib.suppress(BadInput):
        return _read(path, kind)[0] == header
    return False


def _agree(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], kind: Kind) -> None:
    changes = list(differences(old, new))
    if not changes:
        return
    said = [f"{folder} holds another {kind.word}; choose another folder, or give --force to begin it anew; what has changed:"]
    said += [f"  {key}: {_words(before)} -> {_words(after)}" for key, before, after in changes[:SHOWN]]
    raise BadInput("\n".join(said + ([f"  and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else [])))


def differences(old: Any, new: Any, way: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with the old and the new one; None where there is none.

    >>> list(differences({"a": {"b": 1, "c": 2}, "d": [1, 2]}, {"a": {"b": 3}, "d": [1, 4], "c": 2}))
    [('a.b', 1, 3), ('a.c', 2, None), ('d.1', 2, 4), ('c', None, 2)]
    """
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{way}.{key}" if way else f"{key}")
    elif old != new:
        yield way, old, new


def _words(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 70 else f"{text[:67]}..."


def _free(folder: Path, force: bool, kind: Kind) -> None:
    """Raise BadInput when a folder without a journal holds more than a study leaves that was killed before its journal was in place, but
    for an answer that is to be replaced.
    """
    if not folder.is_dir() or all(path.name in (LOCK, f".{kind.file}.part") for path in folder.iterdir()):
        return
    if not kind.saved or not (folder / kind.saved).is_file():
        raise BadInput(f"{folder} is not empty and holds no {kind.word} ({kind.saved or kind.file}); choose another folder")
    if not force:
        raise BadInput(f"{folder} holds a {kind.word} that is complete; choose another folder, or give --force to replace it")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    import fcntl

    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "of another"
            raise BadInput(f"{folder} is being written by process {who}; wait for it, or choose another folder") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file
