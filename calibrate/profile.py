"""Writing fits into a hardware profile: the datasheet part stays as it is written, the list of `fits` below it is replaced.

A fit of the same operation, dtype, framework and version replaces the old one; others stay. The file is written whole beside its target
and moved.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from sim.core.errors import BadInput
from sim.spec.fit import Fit
from sim.spec.hardware import profile_text

HEADER = "# Written by `burstsim calibrate fit`: seconds, bytes/s and plain numbers. `errors` are fractions, on shapes no fit has seen.\n"


def write(gpu: str, fits: Iterable[Fit], what: str, path: Path) -> None:
    """Write the profile of `gpu` with `fits` merged in to `path`. `what` says what was measured; it becomes the fits' source."""
    text = profile_text(gpu)
    head, old = _split(text)
    data = yaml.safe_load(text)
    name = _source_name(data["sources"], what)
    if name not in data["sources"]:
        entry = f'  {name}: {{kind: fitted, date: {date.today().isoformat()}, what: "{what}"}}\n'
        head = re.sub(r"(?m)^sources:\n((?:  .*\n)+)", lambda match: match.group(0) + entry, head, count=1)
    fresh = [_entry(fit, name) for fit in fits]
    keys = [_key(entry) for entry in fresh]
    merged = sorted([entry for entry in old if _key(entry) not in keys] + fresh, key=_key)
    body = head.rstrip("\n") + "\n\n" + HEADER + "fits:\n" + "".join(_text(entry) for entry in merged)
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(body, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error


def _split(text: str) -> tuple[str, list[dict[str, Any]]]:
    """What stands above the list of fits, and the list."""
    head = re.split(r"(?m)^(?:# Written by `burstsim calibrate fit`.*\n)?fits:", text)[0]
    return head, yaml.safe_load(text).get("fits", [])


def _source_name(sources: dict[str, Any], what: str) -> str:
    for name, entry in sources.items():
        if entry["what"] == what:
            return str(name)
    taken = [0, *(int(name[3:] or 1) for name in sources if re.fullmatch(r"fit\d*", name))]
    return f"fit{max(taken) + 1}"


def _entry(fit: Fit, source: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"op": fit.op, "dtype": fit.dtype, "framework": fit.framework, "version": fit.version}
    entry |= {"library": fit.library, "source": source, "points": fit.points, "prior": fit.prior, "parameters": dict(fit.parameters)}
    entry["hull"] = {name: [_short(low), _short(high)] for name, (low, high) in fit.hull.items()}
    if fit.errors:
        entry["errors"] = {"points": fit.errors.points, **{key: _short(getattr(fit.errors, key)) for key in ("median", "p95", "mape")}}
    return {key: value for key, value in entry.items() if value not in ("", {}, 0)}


def _short(number: float) -> float | int:
    return int(number) if float(number).is_integer() else float(f"{number:.3g}")


def _key(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    return str(entry["op"]), str(entry.get("dtype", "")), str(entry["framework"]), str(entry.get("version", ""))


def _text(entry: dict[str, Any]) -> str:
    """One fit: a line of what it is, then a line each of parameters, range and errors."""
    said = {key: value for key, value in entry.items() if key not in ("parameters", "hull", "errors")}
    lines = [f"  - {key}: {_flow(value)}" if i == 0 else f"    {key}: {_flow(value)}" for i, (key, value) in enumerate(said.items())]
    lines += [f"    {key}: {_flow(entry[key])}" for key in ("parameters", "hull", "errors") if key in entry]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w.]*", value):
        return '"' + value.replace('"', "'") + '"'
    return str(value)
