"""A progress bar for runs that take longer than a second, on a terminal only. A thread of its own looks on; the run knows nothing of it."""
from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

PATIENCE = 1.0
PERIOD = 0.2

Poll = Callable[[], tuple[float, float | None, float]]


@contextlib.contextmanager
def progress(poll: Poll, patience: float = PATIENCE) -> Iterator[None]:
    """Show a bar on stderr while the body runs. `poll` tells (done, total or None, simulated seconds) and is called from a thread."""
    if not sys.stderr.isatty():
        yield
        return
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(poll, stop, patience), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(poll: Poll, stop: threading.Event, patience: float) -> None:
    if stop.wait(patience):
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        while True:
            done, total, seconds = poll()
            bar.update(task, completed=done, total=total, description=f"{done:,.0f} requests, {seconds:,.0f} s simulated")
            if stop.wait(PERIOD):
                return


@contextlib.contextmanager
def counted(what: str, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yields `progress(done, total, ...)` for work that counts its own parts: a bar on a terminal, nothing elsewhere."""
    if not shown or not sys.stderr.isatty():
        yield lambda done, total, *names: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        first = True

        def tell(done: float, total: float, *names: object) -> None:
            nonlocal first
            words = " ".join((what, *map(str, names)))
            # What was there before says nothing about how long the rest will take.
            (bar.reset if first else bar.update)(task, completed=done, total=total, description=words)
            first = False

        yield tell
