"""`burstsim report`: the page of a folder made anew of what is saved there, as HTML, as Markdown with its drawings, or as PDF."""
from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import click

from sim.cli import timeline
from sim.cli.compare import page as comparison
from sim.core.errors import BadInput, Problem
from sim.study.timeline.sizes import Sizes

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
    for form in forms:
        click.echo(f"written to {folder / f'{NAME}.{form}'}", err=True)
    if as_json:
        written = ([] if trace is None else [folder / timeline.FILE]) + list(texts)
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
    if saved is None:
        return _run(folder)
    try:
        return SAVED[saved](folder)
    except (LookupError, TypeError, AttributeError) as error:
        what = f"cannot be shown ({type(error).__name__}: {error}): it is damaged, or of another version; run its scenario again"
        raise BadInput([Problem(what, file=str(folder / saved))]) from error


def _holds(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror or error}") from error


def _run(folder: Path) -> str:
    from sim.report.page import render
    from sim.study.result import Result

    return render(Result.open(folder))


def _replications(folder: Path) -> str:
    from sim.cli.replicate import page
    from sim.study.replications import Replications
    from sim.study.result import Result

    return page(Result.open(folder), Replications.open(folder))


def _ladder(folder: Path) -> str:
    from sim.report.ladder import render
    from sim.study.ladder import read

    return render(read(folder))


def _curve(folder: Path) -> str:
    from sim.report.curve import render
    from sim.study.speed_cost import read

    return render(read(folder))


def _sweep(folder: Path) -> str:
    from sim.report.sweep import render
    from sim.study.sweep_result import read

    return render(read(folder))


def _plan(folder: Path) -> str:
    from sim.report.plan import render
    from sim.study.plan import read

    return render(read(folder))


def _capacity(folder: Path) -> str:
    from sim.report.capacity import render
    from sim.study.capacity import read

    return render(read(folder))


def _pareto(folder: Path) -> str:
    from sim.report.pareto import render
    from sim.study.pareto import read

    return render(read(folder))


def _validation(name: str) -> Callable[[Path], str]:
    """The page that `burstsim validate` wrote, which needs the table of measured runs to be made anew."""
    def page(folder: Path) -> str:
        try:
            text = (folder / name).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise BadInput([Problem(f"cannot be read: {error}; validate again", file=str(folder / name))]) from error
        if not text.rstrip().endswith("</html>"):
            raise BadInput([Problem("is cut off; validate again", file=str(folder / name))])
        return text

    return page


# What makes the page, by the file that tells what a folder holds; where there is none of them it is one run.
SAVED: Mapping[str, Callable[[Path], str]] = MappingProxyType({
    "ladder.json": _ladder, "curve.json": _curve, "journal.jsonl": _sweep, "comparison.json": comparison,
    "replications.json": _replications, "plan.json": _plan, "capacity.json": _capacity, "pareto.json": _pareto,
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
