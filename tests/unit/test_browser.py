"""Every kind of page as a browser shows it: nothing on the console, every figure drawn, as wide as its window; and tables that sort."""
from __future__ import annotations

import json
import re
from importlib.resources import files

import pandas as pd
import pytest
from browser import chromium, shown
from every_page import KINDS

from sim.report.svg import light
from sim.report.template import fill

PHONE, DESK = 360, 1440


@pytest.fixture(scope="module")
def pages(studies):
    return {name: studies.page(name) for name in KINDS}


@pytest.fixture(scope="module")
def seen(request, tmp_path_factory):
    chromium()
    return shown(request.getfixturevalue("pages"), tmp_path_factory.mktemp("seen"), (PHONE, DESK))


# -- pages ---------------------------------------------------------------
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", KINDS)
def test_a_page_shows_all_it_has(seen, name, width):
    one = seen[name, width]
    assert one.faults == []
    assert one.figures > 0
    assert one.buttons > 0


@pytest.mark.parametrize("name", KINDS)
def test_no_formula_is_left_in_a_drawing(pages, name):
    """Drawings are written without a typesetter, so a scale must be written in plain numbers."""
    assert not re.search(r"\\math|\\times|\$\\", pages[name])


def test_what_is_broken_is_found(tmp_path):
    head = "<!DOCTYPE html><html><head><title>x</title></head><body>"
    fine = "<figure><svg viewBox='0 0 9 9'><path d='M0 0H9'/></svg></figure>"
    pages = {
        "fine": fine, "wide": "<div style='width: 400px'>wide</div>", "throws": "<script>nothing.at.all</script>",
        "says": "<script>console.error('a', 'b')</script>", "lacks": "<script src='nowhere.js'></script>",
        "empty": "<figure>first</figure>", "blank": "<figure>second<svg viewBox='0 0 9 9'></svg></figure>",
        "flat": "<figure>third<svg style='height: 0' viewBox='0 0 9 9'><path d='M0 0H9'/></svg></figure>",
    }  # fmt: skip
    found = {name: one.faults for (name, _), one in shown({k: f"{head}{v}</body>" for k, v in pages.items()}, tmp_path, (PHONE,)).items()}
    assert set(found) == set(pages)
    assert found["fine"] == []
    assert found["wide"] == ["408 px wide in a window of 360 px"]
    assert "nothing is not defined" in found["throws"][0]
    assert found["says"] == ["a b"]
    assert found["lacks"][0].startswith("not loaded: file:")
    assert [found[name] for name in ("empty", "blank", "flat")] == [[f"nothing is drawn in: {n}"] for n in ("first", "second", "third")]


@pytest.mark.parametrize("name", KINDS)
def test_a_page_names_the_files_of_its_folder(pages, studies, name):
    """And their rows."""
    named = re.findall(r'<th scope="row">([\w.]+\.\w+)</th><td class="n" data-name="Rows">([\d,]*)</td>', pages[name])
    assert named or name == "load"
    for file, rows in named:
        path = studies.folder(name) / file
        assert path.is_file(), file
        if rows:
            read = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda path: path.read_text().splitlines()}[path.suffix]
            assert len(read(path)) == int(rows.replace(",", "")), file


# -- tables that sort ----------------------------------------------------
# Each is in ascending order; what is none comes last, also in descending order.
ORDERS = {
    "times": ["0 s", "250 ns", "3.1 µs", "12.3 ms", "1.2 s", "180 s", "10 min", "2 h", "3 d", "–"],
    "bytes": ["12 B", "1.2 kB", "16.1 GB", "1 TB"],
    "rates": ["900 MB/s", "3.35 TB/s", "1 PB/s"],
    "dollars": ["$0.0000123", "$2.50", "$1,234", "–"],
    "shares": ["-5%", "0%", "4.1 % median error", "45%", "99.96%", "100%", ""],
    "signs": ["−1.22 ms", "−0.879 ms", "0 s", "+1.48 ms", "+1 s"],
    "losses": ["-$3.00", "−$2.00", "$0.50", "+$1.00"],
    "limits": ["≤ 5 ms", "≤ 500 ms", "≥ 1 s"],
    "factors": ["× 0.50", "× 2.35", "× 12.3"],
    "spreads": ["40 ± 3.1 ms", "210 ± 12.3 ms", "1 ± 0.2 s"],
    "pairs": ["12.3% / 40%", "40% / –", "– / 4%"],
    "small": ["2.1e-05", "0.00123", "1.5e+03", "1,501"],
    "steps": ["1. naive", "2. paged", "10. last"],
    "counts": ["1 of 5", "2 constructor", "up to 8", "12 for $3.00"],
    "energy": ["0.5 Wh", "2 kWh", "1 MWh"],
    "some none": ["1", "2", "cannot", "nothing holds", "–"],
    "words": ["b200", "h20, tp 1", "h100, tp 1", "h100, tp 2", "H200"],
    "versions": ["0.9.2", "0.15.1", "0.15.3"],
    "dates": ["2025-01-31", "2025-02-01", "2026-01-01"],
    "marks": ["fails", "holds", "not checked"],
}  # fmt: skip
CLICKS = """<script>
const found = {};
for (const table of document.querySelectorAll("table")) {
  const head = table.querySelector("thead tr:last-child th:last-child"), rows = () => [...table.tBodies[0].rows];
  const look = () => [head.getAttribute("aria-sort"), ...rows().map((row) => row.cells[1].textContent + "|" + row.cells[0].textContent)];
  const states = [look()];
  for (let click = 0; click < 3; click++) { head.querySelector("button")?.click(); states.push(look()); }
  found[table.id] = states;
}
document.title = JSON.stringify(found);
</script>"""


def _shuffled(values):
    """The same values in another order, the same each time."""
    return [*values[1::2], *reversed(values[::2])]


@pytest.fixture(scope="module")
def clicked(tmp_path_factory):
    """Of each table the second column and its head's state: at first, and after each of three clicks."""
    columns = {name: _shuffled(values) for name, values in ORDERS.items()}
    columns |= {"ties": ["2", "1", "2", "1", "–", "2"], "two": ["2", "1"], "still": ["3", "2", "1"], "goes on": ["3", "2", "1"]}
    numeric = {"some none"}
    tables = []
    for name, values in columns.items():
        heads = ["" if name == "goes on" and place == 1 else str(place) for place in range(len(values))]
        rows = "".join(f"<tr><th>{head}</th><td>{value}</td></tr>" for head, value in zip(heads, values, strict=True))
        kind = ' class="n"' if name in numeric else ""
        look = ' class="still"' if name == "still" else ""
        group = "<tr><th colspan='2'>group</th></tr>" if name == "ties" else ""
        tables.append(f"<table id='{name}'{look}><thead>{group}<tr><th>row</th><th{kind}>it</th></tr></thead><tbody>{rows}</tbody></table>")
    script = files("sim.report").joinpath("sort.js").read_text("utf-8")
    page = f"<!DOCTYPE html><html><head><meta charset='utf-8'></head><body>{''.join(tables)}<script>{script}</script>{CLICKS}</body></html>"
    (one,) = shown({"clicked": page}, tmp_path_factory.mktemp("clicked")).values()
    assert one.errors == []
    return json.loads(one.told)


def _values(state):
    return [line.rpartition("|")[0] for line in state[1:]]


@pytest.mark.parametrize("name", ORDERS)
def test_figures_sort_by_their_worth(clicked, name):
    order, (before, up, down, after) = ORDERS[name], clicked[name]
    last = [value for value in order if value in ("", "–", "– / 4%")]
    rest = order[: len(order) - len(last)]
    words = [value for value in rest if name == "some none" and not value.isdigit()]
    assert _values(before) == _values(after) == _shuffled(order)
    assert [state[0] for state in (before, up, down, after)] == [None, "ascending", "descending", None]
    assert _values(up) == order
    assert _values(down) == [*reversed(rest[: len(rest) - len(words)]), *reversed(words), *last]


def test_equal_rows_stay_in_their_order(clicked):
    _, up, down, _ = clicked["ties"]
    assert up[1:] == ["1|1", "1|3", "2|0", "2|2", "2|5", "–|4"]
    assert down[1:] == ["2|0", "2|2", "2|5", "1|1", "1|3", "–|4"]


@pytest.mark.parametrize("name", ["two", "still", "goes on"])
def test_some_tables_stay_as_they_are(clicked, name):
    assert len({tuple(state) for state in clicked[name]}) == 1


# -- colours -------------------------------------------------------------
def _dark():
    """The colours of the dark page by variable: those it changes, and the others."""
    css = files("sim.report").joinpath("page.css").read_text("utf-8")
    part = css[css.index("prefers-color-scheme: dark") :]
    return light() | dict(re.findall(r"(--[\w-]+): (#\w+);", part[: part.index("\n}")]))


def _luminance(colour):
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one, other):
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


TEXT = [("--ink", "--paper"), ("--ink", "--card"), ("--ink-soft", "--paper"), ("--ink-soft", "--card"), ("--link", "--card"),
        *((f"--{name}", f"--{name}-back") for name in ("good", "warn", "bad")),
        *(("--ink", f"--{name}-back") for name in ("good", "warn", "bad"))]  # fmt: skip
LINES = [(f"--s{number}", "--card") for number in range(1, 6)]


@pytest.mark.parametrize("colours", [light(), _dark()], ids=["light", "dark"])
def test_text_and_lines_stand_out(colours):
    """WCAG 2.2 AA: 4.5 for text, 3 for lines of drawings."""
    assert {pair: found for pair in TEXT if (found := _contrast(*(colours[name] for name in pair))) < 4.5} == {}
    assert {pair: found for pair in LINES if (found := _contrast(*(colours[name] for name in pair))) < 3} == {}


def test_contrast_is_that_of_the_standard():
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_a_cell_is_escaped():
    page = fill("sweep", name="<b>", said="<i>", done=1, wanted=1, heads=["<u>"], rows=[["<s>"]], lost=[], ends=[], plots=[], all=1)
    assert not re.search(r"<(b|i|u|s)>", page)
