"""Reading a hardware profile: checked values with their provenance, and everything that is wrong with it at once.

A profile is one YAML file. Its `sources:` map names where figures come from, and every figure is `{value: 3.35TB/s, source: <id>}`.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.explain import show
from sim.core.units import parse
from sim.spec.dtype import DTYPES
from sim.spec.fit import FRAMEWORKS, LIMIT, PARAMETERS, Errors, Fit, optional, release, wanted

KINDS = ("measured", "fitted", "datasheet", "judgement")
FLOPS_DTYPES = ("bf16", "fp16", "fp8", "int8", "int4", "nvfp4")
_FIT_KEYS = ("op", "dtype", "framework", "version", "library", "source", "points", "prior", "parameters", "hull", "errors")
_PARAMETER_KINDS = {"seconds": "duration0", "rate": "bandwidth", "fraction": "utilisation", "number": "number0"}


@dataclass(frozen=True)
class Figure:
    """A number and how it is known: `kind` is one of KINDS (best first), `source` says what it was read from, `date` when (ISO)."""

    value: float
    kind: str
    source: str
    date: str


class Profile:
    """A profile while it is read: hands out checked values and gathers everything that is wrong with them."""

    def __init__(self, path: Traversable):
        self.file = str(path)
        self.problems: list[Problem] = []
        self.figures: dict[str, Figure] = {}
        self.data = self._load(path)
        self.sources = self._sources()

    def _load(self, path: Traversable) -> dict[str, Any]:
        try:
            # The C loader is some eight times faster; it is absent where PyYAML was built without libyaml.
            data = yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            raise BadInput([Problem(f"not valid YAML: {error.problem}", file=self.file, line=line)]) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput([Problem(f"not valid YAML: {error}", file=self.file)]) from None
        if not isinstance(data, dict):
            raise BadInput([Problem("a mapping of keys is wanted", file=self.file)])
        return data

    def _sources(self) -> dict[str, tuple[str, str, str]]:
        found = self._map(self.data.get("sources"), "sources", None)
        sources = {}
        for name, entry in found.items():
            fields = self._map(entry, f"sources.{name}", ("kind", "what", "date"))
            if len(fields) == 3 and fields["kind"] not in KINDS:
                self.wrong(f"sources.{name}.kind", f"found '{fields['kind']}'; one of {', '.join(KINDS)} is wanted")
            elif len(fields) == 3:
                sources[str(name)] = (str(fields["kind"]), str(fields["what"]), str(fields["date"]))
        return sources

    def wrong(self, path: str, message: str) -> None:
        self.problems.append(Problem(message, path, self.file))

    def _map(self, found: Any, path: str, keys: tuple[str, ...] | None) -> dict[str, Any]:
        """The mapping, if it is one and has exactly `keys` (None: any, but some); else empty, with the problems noted."""
        if not isinstance(found, dict) or (keys is None and not found):
            self.wrong(path, "missing; a mapping is wanted" if found is None else f"found {found!r}; a mapping is wanted")
            return {}
        if keys is None:
            return found
        for key in found:
            if key not in keys:
                self.wrong(f"{path}.{key}", f"unknown key; {did_you_mean(str(key), keys)}")
        for key in keys:
            if key not in found:
                self.wrong(f"{path}.{key}", "missing")
        return found if set(found) == set(keys) else {}

    def text(self, key: str, known: tuple[str, ...] = ()) -> str:
        found = self.data.get(key)
        if not isinstance(found, str) or not found:
            self.wrong(key, "missing; text is wanted" if found is None else f"found {found!r}; text is wanted")
            return ""
        if known and found not in known:
            self.wrong(key, f"found '{found}'; {did_you_mean(found, known)}")
        return found

    def names(self, key: str) -> tuple[str, ...]:
        found = self.data.get(key)
        if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
            self.wrong(key, "a list of names is wanted")
            return ()
        return tuple(found)

    def figure(self, key: str, kind: str) -> float:
        """The value of the top-level figure `key`."""
        return self._figure(self.data.get(key), key, kind)

    def _figure(self, found: Any, key: str, kind: str) -> float:
        if found is None:
            self.wrong(key, "missing; a figure {value: ..., source: ...} is wanted")
            return 1.0
        entry = self._map(found, key, ("value", "source"))
        return self.number(entry["value"], key, kind, entry["source"]) if entry else 1.0

    def number(self, value: Any, key: str, kind: str, source: Any) -> float:
        """Check and convert one value, and note its provenance. `kind` is a key's meaning as in GPU_FIGURES."""
        try:
            number = _convert(value, kind)
        except ValueError as error:
            self.wrong(key, str(error))
            return 1.0
        if self._known(source, key):
            self.figures[key] = Figure(number, *self.sources[str(source)])
        return number

    def _known(self, source: Any, path: str) -> bool:
        """Whether `sources` has it; notes the problem where it has not."""
        if isinstance(source, dict | list):
            self.wrong(path, f"found {show(source)} as source; the name of an entry of sources is wanted, such as source: datasheet")
            return False
        if str(source) not in self.sources:
            self.wrong(path, f"source '{source}' is not in sources; {did_you_mean(str(source), self.sources)}")
            return False
        return True

    def flops(self) -> dict[str, float]:
        found = self._map(self.data.get("flops"), "flops", None)
        for dtype in found:
            if dtype not in FLOPS_DTYPES:
                self.wrong(f"flops.{dtype}", f"unknown dtype; {did_you_mean(str(dtype), FLOPS_DTYPES)}")
        if found and "bf16" not in found:
            self.wrong("flops.bf16", "missing; the attention kernels are held against it")
        return {dtype: self._figure(entry, f"flops.{dtype}", "number") for dtype, entry in found.items()}

    def fits(self, origin: str) -> tuple[Fit, ...]:
        """The kernels measured on this GPU, `origin`; none where the profile has no `fits`."""
        found = self.data.get("fits", [])
        if not isinstance(found, list):
            self.wrong("fits", f"found {found!r}; a list of fits is wanted")
            return ()
        fits = [fit for i, entry in enumerate(found) if (fit := self._fit(entry, f"fits.{i}", origin))]
        keys = [(fit.op, fit.dtype, fit.framework, fit.version) for fit in fits]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            self.wrong("fits", f"two fits of {' '.join(filter(None, key))}; one is wanted")
        return tuple(fits)

    def _fit(self, entry: Any, path: str, origin: str) -> Fit | None:
        before = len(self.problems)
        if not isinstance(entry, dict):
            self.wrong(path, f"found {entry!r}; a mapping is wanted")
            return None
        for key in entry:
            if key not in _FIT_KEYS:
                self.wrong(f"{path}.{key}", f"unknown key; {did_you_mean(str(key), _FIT_KEYS)}")
        op, dtype, framework = (str(entry.get(key, "")) for key in ("op", "dtype", "framework"))
        for key, value, known in (("op", op, PARAMETERS), ("framework", framework, FRAMEWORKS), ("dtype", dtype, ("", *DTYPES))):
            if value not in known:
                self.wrong(f"{path}.{key}", f"found '{value}'; {did_you_mean(value, [str(word) for word in known])}")
        version, source = entry.get("version", ""), entry.get("source")
        if not isinstance(version, str) or (version and not release(version)):
            self.wrong(f"{path}.version", f"found {version!r}; the number of a release in quotes is wanted, such as \"0.15\"")
        self._known(source, f"{path}.source")
        if len(self.problems) > before:
            return None
        parameters = self._parameters(entry.get("parameters"), op, dtype, f"{path}.parameters")
        hull = self._hull(entry.get("hull", {}), f"{path}.hull")
        errors = self._errors(entry.get("errors"), f"{path}.errors")
        if len(self.problems) > before:
            return None
        kind, what, date = self.sources[str(source)]
        said = {key: str(entry.get(key, "")) for key in ("version", "library", "prior")} | {"points": int(entry.get("points", 0))}
        return Fit(op, dtype, framework, parameters, origin, kind, f"{what} ({date})", hull=hull, errors=errors, **said)  # type: ignore[arg-type]

    def _parameters(self, found: Any, op: str, dtype: str, path: str) -> dict[str, float]:
        kinds = dict(wanted(op, dtype))
        if isinstance(found, dict):
            kinds |= {str(name): kind for name in found if (kind := optional(op, str(name))) and str(name) not in kinds}
        entry = self._map(found, path, tuple(kinds))
        values = {}
        for name, kind in kinds.items() if entry else ():
            try:
                values[name] = _convert(entry[name], _PARAMETER_KINDS[kind])
            except ValueError as error:
                self.wrong(f"{path}.{name}", str(error))
        return values

    def _hull(self, found: Any, path: str) -> dict[str, tuple[float, float]]:
        if not isinstance(found, dict) or not all(isinstance(ends, list) and len(ends) == 2 for ends in found.values()):
            self.wrong(path, "sizes with their [lowest, highest] are wanted, such as {m: [1, 32768]}")
            return {}
        return {str(name): (float(low), float(high)) for name, (low, high) in found.items()}

    def _errors(self, found: Any, path: str) -> Errors | None:
        if found is None:
            return None
        entry = self._map(found, path, ("points", "median", "p95", "mape"))
        return Errors(int(entry["points"]), *(float(entry[key]) for key in ("median", "p95", "mape"))) if entry else None

    def finish(self, known: set[str]) -> None:
        """Raise BadInput if anything was wrong, unknown keys included."""
        for key in self.data:
            if key not in known | {"sources"}:
                self.wrong(str(key), f"unknown key; {did_you_mean(str(key), known)}")
        if self.problems:
            raise BadInput(self.problems)


def _convert(value: Any, kind: str) -> float:
    """The SI value; raises ValueError when it is no number, not finite, or has a sign or size its kind forbids."""
    zero_allowed, kind = kind.endswith("0"), kind.rstrip("0")
    if kind in ("size", "bandwidth", "duration"):
        number = parse(value, kind)
    else:
        # YAML 1.1 reads 989e12 as text, so text that is a number is taken as one.
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError(f"found {value!r}; a number is wanted")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"found '{value}'; a number is wanted") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_allowed):
        raise ValueError(f"found {value!r}; a {'non-negative' if zero_allowed else 'positive'} number is wanted")
    if kind == "utilisation" and number > LIMIT:
        raise ValueError(f"found {value!r}; no kernel reaches more than {LIMIT:g} of a peak")
    if kind == "count" and number != int(number):
        raise ValueError(f"found {value!r}; a whole number is wanted")
    return number
