"""Language models by name: an `Llm` read from the catalogue (`hardware_profiles/models/*.yaml`) or from a Hugging Face config.json."""
from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.spec.huggingface import architecture
from sim.spec.transformer import Llm, Matrix

__all__ = ["Llm", "Matrix", "llm", "llm_names"]


def llm(name: str) -> Llm:
    """A model of the catalogue by name or alias, or the one of a config.json (its path, or the folder holding it).

    Case does not matter, and the part after the slash is enough where only one model has it. Raises BadInput.
    """
    path = Path(name).expanduser()
    if path.suffix == ".json" or path.is_dir():
        return _from_config(path / "config.json" if path.is_dir() else path)
    if name.startswith((".", "/", "~")) or path.suffix in (".yaml", ".yml"):
        raise BadInput(f"no such file: {name}; the path of a Hugging Face config.json, or of the folder holding it, is wanted")
    known = _index()
    wanted = name.lower()
    if wanted not in known:
        near = did_you_mean(name, llm_names()) if "/" in name else did_you_mean(wanted, [key for key in known if "/" not in key])
        raise BadInput(f"unknown model '{name}'; {near} (or give the path of a Hugging Face config.json)")
    stems = known[wanted]
    if len(stems) > 1:
        full = [entry for entry in llm_names() if entry.lower().rpartition("/")[2] == wanted]
        raise BadInput(f"'{name}' is more than one model: {', '.join(full)}")
    return _from_catalogue(stems[0])


def llm_names() -> list[str]:
    """Every name and alias of the catalogue, sorted."""
    return sorted(name for stem in _stems() for name in _names(_read(stem)))


def _stems() -> list[str]:
    return sorted(entry.name[:-5] for entry in files("hardware_profiles").joinpath("models").iterdir() if entry.name.endswith(".yaml"))


@cache
def _read(stem: str) -> dict[str, Any]:
    """One file of the catalogue. It ships with the program and cannot change under it, so it is read once."""
    text = files("hardware_profiles").joinpath("models", stem + ".yaml").read_text("utf-8")
    return dict(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _names(entry: dict[str, Any]) -> list[str]:
    return [entry["name"], *entry.get("aliases", [])]


@cache
def _index() -> dict[str, list[str]]:
    """Lower-case names, whole and short, each with the files that carry it."""
    index: dict[str, list[str]] = {}
    for stem in _stems():
        for name in _names(_read(stem)):
            for key in {name.lower(), name.lower().rpartition("/")[2]}:
                if stem not in index.setdefault(key, []):
                    index[key].append(stem)
    return index


def _from_catalogue(stem: str) -> Llm:
    entry, file = _read(stem), f"hardware_profiles/models/{stem}.yaml"
    source = f"{entry['source']['what']} ({entry['source']['date']})"
    return Llm(name=entry["name"], source=source, **architecture(entry["config"], file))


def _from_config(path: Path) -> Llm:
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from None
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
        raise BadInput([Problem(f"not valid JSON: {error}", file=str(path), line=line)]) from None
    if not isinstance(config, dict):
        raise BadInput([Problem("a JSON object is wanted", file=str(path))])
    name = str(config.get("_name_or_path") or path.resolve().parent.name)
    return Llm(name=name, source=f"config.json at {path}", **architecture(config, str(path)))
