"""`burstsim report` of every kind of folder, whole and damaged: what is written, what is said, and that nothing is done by halves."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from every_page import CHAT, CURVE, REPORTED, SPACE, STEPS

import sim
from sim.cli import main

KINDS = {kind: saved for kind, saved in REPORTED.items() if kind not in ("measured", "published")}  # one of each command


def burstsim(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def folder(studies, tmp_path, request):
    """A copy of a folder, to be spoilt."""
    return shutil.copytree(studies.folder(request.param), tmp_path / request.param)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# -- forms ---------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", REPORTED)
def test_every_kind_has_a_page_in_html_and_markdown(studies, kind):
    folder, written = studies.reported(kind)
    assert sorted([*names(studies.folder(kind)), *(str(path.relative_to(folder)) for path in written)]) == names(folder)
    pages = {path.name: path.read_text() for path in written if path.parent == folder}
    assert pages["report.html"].startswith("<!DOCTYPE html>")
    assert pages["report.md"].startswith("# ")
    drawn = [path for path in written if path.parent == folder / "figures"]
    assert len(drawn) == pages["report.html"].count("<svg") == pages["report.md"].count("](figures/")
    assert all(path.read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"') for path in drawn)
    if kind == "climbed":
        assert {path.parent.name for path in written if path.name == "report.md"} == {"climbed", "01-one", "02-two-more"}
        assert "](01-one/report.md)" in pages["report.md"]


@pytest.mark.parametrize("folder", ["curve"], indirect=True)
def test_html_is_what_is_written_without_a_form(folder, studies):
    done = burstsim("report", folder, "--json")
    assert json.loads(done.stdout) == {"written": [str(folder / "report.html")]}
    assert (folder / "report.html").read_text() == studies.page("curve")
    assert done.stderr == f"written to {folder / 'report.html'}\n"
    assert burstsim("report", folder, "--format", "docx").exit_code == 2


@pytest.mark.parametrize("folder", ["measured", "published"], indirect=True)
def test_a_page_of_a_validation_is_taken_as_it_is(folder, studies):
    page = folder / REPORTED[folder.name]
    assert studies.page(folder.name) == page.read_text()
    half(page)
    assert f"{page.name}: is cut off" in refused("report", folder, "--format", "md")


def test_a_fault_in_making_a_page_is_not_called_damage(studies, monkeypatch):
    def faulty(found):
        raise TypeError("a fault")

    monkeypatch.setattr("sim.report.capacity.render", faulty)
    done = burstsim("report", studies.folder("capacity"))
    assert (type(done.exception), done.stderr) == (TypeError, "")


@pytest.mark.parametrize("folder", ["capacity"], indirect=True)
def test_a_form_that_cannot_be_made_leaves_the_others_alone(folder, monkeypatch):
    """A library that is missing is told before anything is written."""
    before = names(folder)

    def missing(page):
        raise sim.BadInput("PDF needs WeasyPrint")

    monkeypatch.setattr("sim.report.pdf.pdf", missing)
    done = burstsim("report", folder, "--format", "html", "--format", "md", "--format", "pdf")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "PDF needs WeasyPrint" in done.stderr
    assert names(folder) == before


@pytest.mark.parametrize("folder", ["capacity"], indirect=True)
def test_a_full_disk_leaves_nothing(folder, monkeypatch):
    before = names(folder)
    real = Path.write_bytes

    def full(path, data):
        if path.name.startswith(".report.md"):
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = burstsim("report", folder, "--format", "md")
    assert (done.exit_code, "report.md: No space left on device" in done.stderr) == (2, True)
    assert names(folder) == before
    assert not (folder / "figures").exists()


# -- damage --------------------------------------------------------------------------------------------------------------------------------
def half(path):
    """Of a journal, half of its first line: it is whole, and shorter, without the last ones."""
    data = path.read_bytes()
    path.write_bytes(data[: (data.index(b"\n") if path.suffix == ".jsonl" else len(data)) // 2])


def whole(text):
    return lambda path: path.write_text(text)


def newer(path):
    """A file of a version that is not there yet."""
    lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    said = json.loads(lines[0])
    lines[0] = json.dumps(said | {"version": "99.1.0"} | ({"format": 99} if "format" in said else {}))
    path.write_text("\n".join(lines))


def rows_gone(path):
    """Rows that are there, and are nothing."""
    if path.suffix == ".jsonl":
        path.write_text(path.read_text().split("\n")[0] + '\n{"point": 0, "replication": 0}\n')
        return
    said = json.loads(path.read_text())
    for name in ("rows", "layouts", "differences", "pools", "remarks"):
        if name in said:
            said[name] = [{}]
    path.write_text(json.dumps(said | ({"pools": [3]} if "pools" in said else {})))


# What can become of the file that a page is made of.
DAMAGE = {
    "cut off": half, "empty": whole(""), "no JSON": whole("<html>"), "a list": whole("[1, 2]"), "of nothing": whole("{}"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"), "newer": newer, "rows gone": rows_gone,
}  # fmt: skip


def refused(*words):
    """What a command says that cannot be done."""
    done = burstsim(*words)
    assert (done.exit_code, done.stdout) == (2, ""), (done.output, done.exception)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(("folder", "damage"), [
    (kind, damage) for kind in KINDS for damage in DAMAGE if (kind, damage) != ("replications", "rows gone")  # whose rows are a table
], indirect=["folder"])  # fmt: skip
def test_a_damaged_study(folder, damage):
    saved = KINDS[folder.name]
    before = names(folder)
    DAMAGE[damage](folder / saved)
    said = refused("report", folder)
    assert saved in said
    assert any(word in said for word in ("again", "anew", "use the version", "goes on", "wanted")), said
    if damage == "newer":
        assert "99" in said
    assert names(folder) == before


PARTS = {
    "plan": ("answers", "best", "layouts", "tornado", "assumed"), "comparison": ("scenarios", "changes", "differences", "waterfalls"),
    "climbed": ("rows",), "curve": ("rows",), "capacity": ("rows", "knee"), "frontier": ("rows", "refused"),
}  # fmt: skip


@pytest.mark.parametrize(("folder", "part"), [(kind, part) for kind, parts in PARTS.items() for part in parts], indirect=["folder"])
def test_a_part_of_another_version(folder, part):
    """A part that lacks what its page shows is refused with its name, whichever it is."""
    saved = folder / KINDS[folder.name]
    said = json.loads(saved.read_text())
    said[part] = {} if isinstance(said[part], dict) else [{}, *said[part][1:]]
    saved.write_text(json.dumps(said))
    told = refused("report", folder)
    assert part in told.removeprefix(f"error: {saved}")
    assert "it is damaged, or of another version" in told


@pytest.mark.parametrize("folder", [kind for kind in KINDS if kind not in ("sweep", "comparison")], indirect=True)
def test_a_scenario_that_is_missing_or_broken(folder):
    """Sweeps and comparisons have theirs in the file that their page is made of."""
    before = names(folder)
    for text in ("name: [", "name: x\nmodel: nothing\n"):
        (folder / "scenario.yaml").write_text(text)
        assert "scenario.yaml" in refused("report", folder)
    (folder / "scenario.yaml").unlink()
    assert "scenario.yaml" in refused("report", folder)
    assert names(folder) == [name for name in before if name != "scenario.yaml"]


TABLES = {"run": "requests.parquet", "replications": "replications.parquet", "plan": "runs.csv", "climbed": "01-one/stretches.parquet"}


@pytest.mark.parametrize("folder", TABLES, indirect=True)
def test_a_damaged_table(folder):
    table = folder / TABLES[folder.name]
    good = table.read_bytes()
    for spoil in (half, Path.unlink, whole("")):
        spoil(table)
        assert table.name in refused("report", folder)
        table.write_bytes(good)
    assert not list(folder.rglob("report.html"))


@pytest.mark.parametrize("folder", ["run"], indirect=True)
def test_a_table_that_is_damaged_within(folder):
    """Its end is whole, so that it opens; what is in it cannot be read."""
    table = folder / "requests.parquet"
    data = bytearray(table.read_bytes())
    data[4:2000] = bytes(1996)
    table.write_bytes(bytes(data))
    assert "requests.parquet: is damaged" in refused("report", folder)
    with pytest.raises(sim.BadInput, match=r"requests\.parquet: is damaged"):
        sim.Result.open(folder).summary  # noqa: B018
    assert "requests.parquet: is damaged" in refused("compare", folder, folder)


@pytest.mark.parametrize("folder", ["sweep", "climbed"], indirect=True)
def test_nothing_is_finished_yet(folder):
    saved = folder / KINDS[folder.name]
    if saved.suffix == ".jsonl":
        saved.write_text(saved.read_text().partition("\n")[0] + "\n")
    else:
        saved.write_text(json.dumps(json.loads(saved.read_text()) | {"rows": []}))
    assert "is finished yet" in refused("report", folder)


def test_no_folder_of_a_study(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "trials.jsonl").write_text("{}\n")
    for name in ("empty", "file", "nowhere"):
        assert f"{name} holds no result" in refused("report", tmp_path / name)
    assert "not finished" in refused("report", tmp_path / "begun")
    with pytest.raises(sim.BadInput, match="it is a file"):
        sim.Result.open(tmp_path / "file")


@pytest.mark.parametrize("folder", ["run", "plan", "capacity", "curve"], indirect=True)
def test_no_permission(folder, monkeypatch):
    """As a user may meet it; who runs the tests may be allowed everything."""
    real, saved = Path.read_text, KINDS[folder.name]

    def locked(path, *args, **options):
        if path.name == saved:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", locked)
    said = refused("report", folder)
    assert f"{saved}: " in said
    assert "Permission denied" in said


@pytest.mark.parametrize("folder", ["run", "replications"], indirect=True)
def test_what_is_compared_is_whole(folder, studies):
    half(folder / KINDS[folder.name])
    assert KINDS[folder.name] in refused("compare", studies.folder(folder.name), folder)


@pytest.mark.parametrize(("folder", "scenario", "again"), [
    ("sweep", CHAT | {"sweep": {"space": SPACE}}, "sweep --jobs 1"), ("climbed", CHAT | {"ladder": STEPS}, "run"), ("curve", CURVE, "run"),
    ("replications", CHAT, "run --replications 3"),
], indirect=["folder"])  # fmt: skip
@pytest.mark.parametrize("damage", ["no JSON", "of nothing", "newer"])
def test_what_is_gone_on_with_is_whole(folder, scenario, again, damage, tmp_path):
    """The command that would go on refuses to, says so with the file, and changes nothing."""
    DAMAGE[damage](folder / KINDS[folder.name])
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(scenario))
    said = refused(*again.split(), tmp_path / "again.yaml", "-o", folder, "-q")
    assert KINDS[folder.name] in said or damage == "newer"
    assert {path: path.read_bytes() for path in folder.rglob("*.json*")} == before
