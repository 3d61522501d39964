"""A fitted workload as YAML: a base that a scenario `extends`, or that runs with `--set model=... --set cluster.pools=...`."""
from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sim.core.errors import BadInput
from workloads.fitting.fit import Fit

WIDTH = 140


def text(fit: Fit) -> str:
    """The file's text: what it was made of, how near it came, and the workload."""
    import yaml

    from sim.spec.yaml_marks import Dumper

    missed = [row.quantity.words for row in fit.rows if row.verdict != "met"]
    met = len(fit.rows) - len(missed)
    lines = [
        f"# Fitted by `burstsim workload fit` to {fit.log.name}: {len(fit.log.times):,} requests in {fit.log.span:,.0f} s.",
        f"# Kind {fit.best.kind}, chosen and judged on what follows the first {fit.cut:,.0f} s, then fitted to the whole log.",
        f"# {met} of {len(fit.rows)} figures were within their limits{'; not: ' + ', '.join(missed) if missed else ''}.",
        "# Use it as a base: `extends: THIS FILE` in a scenario with a model and a cluster.",
    ]
    wrapped = [part for line in lines for part in _wrapped(line)]
    return "\n".join(wrapped) + "\n" + yaml.dump({"workloads": [fit.workload]}, Dumper=Dumper, sort_keys=False, width=WIDTH)


def save(content: str | bytes, path: Path) -> None:
    """Put it into the file, whole or not at all. Raises BadInput when it cannot be written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _wrapped(line: str) -> list[str]:
    import textwrap

    return textwrap.wrap(line, WIDTH, subsequent_indent="#   ") if len(line) > WIDTH else [line]
