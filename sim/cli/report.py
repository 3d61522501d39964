"""`burstsim report`: the page of a folder made anew of what is saved there, as HTML, as Markdown with its drawings, or as PDF."""
from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from sim.cli import timeline
from sim.cli.replicate import page as replicated
from sim.core.errors import BadInput, Problem
from sim.study.timeline.sizes import Sizes

if TYPE_CHECKING:
    from sim.study.replicate.replications import Replications
    from sim.study.result import Result

FOLDER = click.Path(path_type=Path)
NAME, FIGURES = "report", "figures"
FORMS = ("html", "md", "pdf")
TRIALS = "trials.jsonl"  # of a study that is not finished
VALIDATIONS = ("accuracy.html", "accuracy_rl.html")


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--format", "forms", multiple=True, type=click.Choice(FORMS), help="What to write; repeatable.  [default: html]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@timeline.options
def report(folder: Path, forms: tuple[str, ...], as_json: bool, trace: Sizes | None) -> None:
    """Write the page of FOLDER anew, where a run or a study was written to with -o; of a ladder, also in the folder of each step.

    HTML is one file, report.html; Markdown is report.md with drawings in the folder figures; PDF is report.pdf and needs WeasyPrint
    (pip install 'burstsim[pdf]'). Leaves with 2 when the folder is damaged, or of a newer version.
    """
    from sim.report.progress import counted

    forms = tuple(form for form in FORMS if form in (forms or FORMS[:1]))
    if trace is not None:
        timeline.check(folder)
    texts: dict[Path, bytes] = {}
    with counted("writing") as progress:
        for number, place in enumerate(places := _places(folder)):
            progress(number, len(places), "pages")
            texts |= files(_page(place), place / NAME, forms)
    if trace is not None:
        timeline.again(folder, trace)
    put(texts)
    timelines = [] if trace is None else [folder / timeline.FILE]
    for path in (*timelines, *(folder / f"{NAME}.{form}" for form in forms)):
        click.echo(f"written to {path}", err=True)
    if as_json:
        written = timelines + list(texts)
        click.echo(json.dumps({"written": [str(path) for path in written]}, indent=2))


def files(page: str, stem: Path, forms: tuple[str, ...]) -> dict[Path, bytes]:
    """A page in some of FORMS: what is to be written, by path. Raises BadInput where a library is missing."""
    found: dict[Path, bytes] = {}
    for form in forms:
        if form == "html":
            found[stem.with_name(f"{stem.name}.html")] = page.encode()
        elif form == "md":
            from sim.report.markdown import markdown

            made = markdown(page, FIGURES if stem.name == NAME else f"{stem.name}-{FIGURES}")
            found |= {stem.parent / name: text.encode() for name, text in made.figures.items()}
            found[stem.with_name(f"{stem.name}.md")] = made.text.encode()
        else:
            from sim.report.pdf import pdf

            found[stem.with_name(f"{stem.name}.pdf")] = pdf(page)
    return found


def _places(folder: Path) -> list[Path]:
    """The folders whose pages are to be written: of a ladder those of its steps too."""
    if not _holds(folder, "ladder.json"):
        return [folder]
    from sim.study import ladder

    return [*(folder / row["folder"] for row in ladder.read(folder).rows), folder]


def _page(folder: Path) -> str:
    """The page of what a folder holds. Raises BadInput where that is nothing, damaged, or of another version."""
    saved = next((name for name in SAVED if _holds(folder, name)), None)
    if saved is None and _holds(folder, TRIALS):
        raise BadInput(f"{folder} holds a study that is not finished; the command that began it goes on from there")
    kind = RUN if saved is None else SAVED[saved]
    try:
        found = kind.read(folder)
    except (LookupError, TypeError, AttributeError) as error:
        what = f"cannot be read ({type(error).__name__}: {error}): it is damaged, or of another version; run its scenario again"
        raise BadInput([Problem(what, file=str(folder / (saved or "meta.json")))]) from error
    return kind.render(found)


def _holds(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror or error}") from error


class Kind(NamedTuple):
    """How what a folder holds is read, and made a page of."""

    read: Callable[[Path], Any]
    render: Callable[[Any], str]


def _late(module: str, name: str) -> Callable[[Any], Any]:
    """A function by the name of its module, which is imported when it is called: a page needs only its own."""
    return lambda given: vars(importlib.import_module(module))[name](given)


def _study(study: str, page: str) -> Kind:
    return Kind(_late(f"sim.study.{study}", "read"), _late(f"sim.report.{page}", "render"))


def _result(folder: Path) -> Result:
    from sim.study.result import Result

    return Result.open(folder)


def _replications(folder: Path) -> tuple[Result, Replications]:
    from sim.study.replicate.replications import Replications

    return _result(folder), Replications.open(folder)


def _validation(name: str) -> Kind:
    """The page that `burstsim validate` wrote, which needs the table of measured runs to be made anew."""

    def read(folder: Path) -> str:
        try:
            text = (folder / name).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise BadInput([Problem(f"cannot be read: {error}; validate again", file=str(folder / name))]) from error
        if not text.rstrip().endswith("</html>"):
            raise BadInput([Problem("is cut off; validate again", file=str(folder / name))])
        return text

    return Kind(read, str)


RUN = Kind(_result, _late("sim.report.page", "render"))
# By the file that tells what a folder holds; where there is none of them it is one run.
SAVED: Mapping[str, Kind] = MappingProxyType({
    "ladder.json": _study("ladder", "ladder"), "curve.json": _study("speed_cost", "curve"),
    "journal.jsonl": _study("sweep.result", "sweep"), "comparison.json": _study("compare.comparison", "compare"),
    "replications.json": Kind(_replications, lambda both: replicated(*both)), "plan.json": _study("plan.plan", "plan"),
    "capacity.json": _study("plan.capacity", "capacity"), "pareto.json": _study("plan.pareto", "pareto"),
    **{name: _validation(name) for name in VALIDATIONS},
})  # fmt: skip


def put(texts: Mapping[Path, bytes]) -> None:
    """Write files: none is in place before all are written, and each is whole or not there. Raises BadInput."""
    asides = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in texts}
    made = [parent for parent in dict.fromkeys(path.parent for path in texts) if not parent.exists()]
    target = None
    try:
        for target, text in texts.items():
            target.parent.mkdir(exist_ok=True)
            asides[target].write_bytes(text)
        for target, aside in asides.items():
            aside.replace(target)
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        for aside in asides.values():
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()  # one that is not empty stays
