"""Who runs the points of a study: processes of this machine, or the workers of a Ray or Dask cluster, all through joblib.

Work is handed out one piece at a time and comes back as it is finished, in any order, so that what is finished can be kept at once.
A cluster's address is tried before anything else, since Ray and Dask themselves wait for minutes for one that is not there.
"""
from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sim.core.errors import BadInput, did_you_mean

BACKENDS = {"loky": "joblib", "ray": "ray", "dask": "distributed"}  # and the library of each
PATIENCE = 5.0  # seconds to wait for a cluster's address
WORKERS = 10  # seconds to wait for a cluster's first worker
AHEAD = "2*n_jobs"  # pieces handed out before they are asked for
LOOK = 0.5  # seconds between two looks of a process at whether its parent is still there


class Crew(NamedTuple):
    """`backend`: loky (processes here, `jobs` of them, default: one for each core), ray or dask (a cluster at `address`)."""

    backend: str = "loky"
    jobs: int | None = None
    address: str | None = None

    def check(self) -> None:
        """Raise BadInput for a crew that cannot be had, within seconds."""
        if self.backend not in BACKENDS:
            raise BadInput(f"unknown backend '{self.backend}'; {did_you_mean(self.backend, BACKENDS)}")
        if self.backend == "loky" and self.address is not None:
            raise BadInput(f"the address {self.address} is of a cluster; name its kind too: backend ray, or backend dask")
        if self.jobs is not None and self.jobs < 1:
            raise BadInput(f"found {self.jobs} jobs; at least 1 is wanted")
        if self.backend == "loky":
            return
        if self.jobs is not None:
            raise BadInput(f"jobs are processes of this machine; a {self.backend} cluster knows its workers; leave jobs out")
        if self.address is None:
            raise BadInput(f"backend {self.backend} needs the address of its {_head(self.backend)}, such as {_example(self.backend)}")
        if importlib.util.find_spec(BACKENDS[self.backend]) is None:
            raise BadInput(f"backend {self.backend} is not installed; get it with: pip install 'burstsim[{self.backend}]'")
        _reach(self.address, self.backend)

    def each(self, work: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[Any]:
        """`work` of every piece, as each is finished; `check` first. Closed early, it ends its processes and what they were doing.

        Raises BadInput when the cluster is lost, or a process is ended from outside.
        """
        if self.backend == "loky" and self.count == 1:
            yield from map(work, pieces)
            return
        with _backend(self):
            import joblib

            with _deaf():
                found = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=AHEAD)(
                    joblib.delayed(work)(piece) for piece in pieces
                )
            with _quietly_closed(found), _lost(self):
                # Not `yield from`, which hands a close on to joblib before anything here can quieten it.
                for one in found:  # noqa: UP028
                    yield one

    @property
    def count(self) -> int:
        """Processes of this machine."""
        return self.jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.jobs or os.cpu_count() or 1


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes begun within ignore Ctrl-C from their first moment, not from `follow` on: a traceback of each, amid its imports, would
    say nothing. They inherit it; only a process's main thread can set it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


@contextlib.contextmanager
def _quietly_closed(found: Any) -> Iterator[None]:
    try:
        yield
    finally:
        with warnings.catch_warnings():
            # That work is cut short is what closing is for.
            warnings.simplefilter("ignore", UserWarning)
            found.close()


@contextlib.contextmanager
def _lost(crew: Crew) -> Iterator[None]:
    """What happens to workers, as something that a person can act on."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        yield
    except BrokenProcessPool:
        raise BadInput(f"a process was ended from outside, for want of memory as a rule; take fewer than {crew.count} jobs") from None
    except (OSError, TimeoutError) as error:
        raise BadInput(f"the {crew.backend} cluster at {crew.address} was lost: {error or type(error).__name__}") from None


@contextlib.contextmanager
def _backend(crew: Crew) -> Iterator[None]:
    with {"loky": _loky, "ray": _ray, "dask": _dask}[crew.backend](crew):
        yield


@contextlib.contextmanager
def _loky(crew: Crew) -> Iterator[None]:
    import joblib

    with joblib.parallel_config("loky", n_jobs=crew.count, initializer=follow, initargs=(os.getpid(),)):
        yield


@contextlib.contextmanager
def _dask(crew: Crew) -> Iterator[None]:
    import joblib
    from distributed import Client

    try:
        client = Client(crew.address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise BadInput(f"no Dask scheduler answers at {crew.address}: {error or type(error).__name__}") from None
    with client:
        deadline = time.monotonic() + WORKERS
        while not client.ncores():
            if time.monotonic() > deadline:
                raise BadInput(f"the Dask scheduler at {crew.address} has no workers; start some: dask worker {crew.address}")
            time.sleep(0.1)
        with joblib.parallel_config("dask", client=client, wait_for_workers_timeout=WORKERS):
            yield


@contextlib.contextmanager
def _ray(crew: Crew) -> Iterator[None]:
    import joblib
    import ray
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(RayBackend):
        """Ray's, whose results do come back one by one, though it does not say so."""

        supports_return_generator = True

    joblib.register_parallel_backend("ray", Backend)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=crew.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        token = "; where it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        raise BadInput(f"the Ray cluster at {crew.address} lets nobody in: {str(error).splitlines()[0]}{token}") from None
    try:
        with joblib.parallel_config("ray", n_jobs=max(1, int(ray.cluster_resources().get("CPU", 1)))):
            yield
    finally:
        ray.shutdown()


def _reach(address: str, backend: str) -> None:
    """Raise BadInput when nothing listens at an address."""
    host, colon, port = address.partition("://")[2 if "://" in address else 0].rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadInput(f"found the address '{address}'; HOST:PORT of the {_head(backend)} is wanted, such as {_example(backend)}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as line:
            answers = _speaks_http2(line) if backend == "ray" else True
        answers = answers and (backend != "dask" or asyncio.run(_is_scheduler(address)))
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise BadInput(f"no {backend.capitalize()} cluster can be reached at {address}: {why.lower()}") from None
    if not answers:
        raise BadInput(f"what listens at {address} is no {backend.capitalize()} cluster")


def _speaks_http2(line: socket.socket) -> bool:
    """Whether what listens greets as a server of gRPC does (RFC 9113, section 3.4), which a head node of Ray is.

    One that is encrypted is taken to be one.
    """
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    try:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        return line.recv(9)[3:4] == b"\x04"
    except TimeoutError:
        return False


async def _is_scheduler(address: str) -> bool:
    """Whether what listens says that it is a scheduler of Dask."""
    from distributed.core import rpc

    async with rpc(address) as scheduler:
        try:
            who = await asyncio.wait_for(scheduler.identity(), PATIENCE)
        except (OSError, TimeoutError, ValueError):
            return False
    return bool(who.get("type") == "Scheduler")


def _head(backend: str) -> str:
    return "scheduler" if backend == "dask" else "head node"


def _example(backend: str) -> str:
    return "tcp://10.0.0.1:8786" if backend == "dask" else "10.0.0.1:6379"


def follow(parent: int) -> None:
    """Run in a process of this machine: Ctrl-C is the parent's to handle, and when the parent is gone, however it ended, so is the work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)
