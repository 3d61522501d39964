"""A page as Markdown: what GitHub's kind of Markdown makes of it again is the page's text, its tables and its headings."""
from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from html import escape
from itertools import pairwise

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sim.report.markdown import markdown
from sim.report.svg import light

READER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
PAGE = """\
<!DOCTYPE html><html lang="en"><head><title>t</title><style>.a { color: red }</style></head><body>
<header class="top"><p class="kind">Kind</p><h1>Name</h1>
  <div class="verdict stable" role="status"><strong>Stable</strong><span>It kept up.</span></div></header>
<main>
<dl class="cards"><div class="card"><dt>Rate</dt><dd class="value">8.6</dd><dd>more</dd></div>
  <div class="card"><dt>Cost</dt><dd class="value">$3</dd></div></dl>
<h3>Deep</h3>
<section class="panel"><h3>Panel <span class="mark good">met</span></h3>
  <dl class="facts columns"><div><dt>a</dt><dd>1</dd></div></dl></section>
<h2>Levels</h2>
<figure><h3>Time, s</h3><svg viewBox="0 0 30 20" role="img" aria-label="A line."><defs><clipPath id="x"><path d="M 0 0"/></clipPath></defs>
  <path clip-path="url(#x)" style="stroke: var(--s1)"/></svg><figcaption>A note.</figcaption></figure>
<figure><h3>Time, s</h3><svg viewBox="0 0 30 20"><path d="M 0 0"/></svg><figcaption>Another.</figcaption></figure>
<section class="panel"><h3>Detail</h3><div class="wide"><table>
  <thead><tr class="group"><th scope="col"></th><th colspan="2">Both</th></tr>
    <tr><th scope="col">Name</th><th scope="col" class="n"><button type="button">Low</button></th><th class="n">High</th></tr></thead>
  <tbody><tr class="best"><th scope="row">a | b</th><td class="n">1</td><td class="n"><span class="mark bad">no</span></td></tr></tbody>
</table></div>
<details><summary>The scenario</summary><pre>name: x


seed: 1
```</pre></details><details><summary>More</summary><p>Text.</p></details></section>
<div class="origin"><span class="mark warn">judgement</span><p>A source.</p></div>
<p>See <a href="#top">above</a> and <a href="01/report.html">the step</a>.</p>
<button>Sort</button><nav>Menu</nav><p hidden>Hidden.</p>
</main><script>const x = "<svg></svg>";</script></body></html>
"""


def lines(page=PAGE):
    return markdown(page).text.split("\n")


def test_what_becomes_of_each_part():
    text = markdown(PAGE).text
    assert text.startswith("# Name\n\nKind\n\n> **Stable:** It kept up.\n\n| Figure | Value | Note |\n| --- | ---: | --- |\n")
    assert "\n| Rate | 8.6 | more |\n| Cost | $3 |  |\n" in text
    assert "\n| Figure | Value |\n| --- | --- |\n| a | 1 |\n" in text
    assert "\n| Name | Both: Low | Both: High |\n| --- | ---: | ---: |\n| **a \\| b** | **1** | **no** |\n" in text
    assert "\n**Judgement:** A source.\n" in text
    assert "\nSee above and [the step](01/report.md).\n" in text
    assert "\n````yaml\nname: x\n\n\nseed: 1\n```\n````\n" in text
    for gone in ("red", "const", "Sort", "Menu", "Hidden", "<", "svg>"):
        assert gone not in text


def test_headings_follow_each_other():
    heads = [line for line in lines() if line.startswith("#")]
    assert heads == [
        "# Name", "## Deep", "## Panel (met)", "## Levels", "### Time, s", "### Time, s", "### Detail", "#### The scenario", "#### More",
    ]  # fmt: skip


def test_drawings_are_files_of_their_own():
    made = markdown(PAGE)
    assert list(made.figures) == ["figures/time-s.svg", "figures/time-s-2.svg"]
    assert "![Time, s](figures/time-s.svg)\n\nA note.\n" in made.text
    first = made.figures["figures/time-s.svg"]
    root = xml.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("height")) == ("40", "26.7")
    assert "var(" not in first
    assert f"stroke: {light()['--s1']}" in first
    assert "<clipPath" in first


def test_a_page_of_a_run(studies):
    page = studies.page("replications")
    made = markdown(page)
    assert made == markdown(page)
    assert "\n\n\n" not in made.text
    assert not re.search(r"[ \t]$", made.text, flags=re.MULTILINE)
    assert len(made.figures) == page.count("<svg") == made.text.count("](figures/")
    for drawing in made.figures.values():
        xml.fromstring(drawing)
    again = BeautifulSoup(READER.render(made.text), "html.parser")
    levels = [int(heading.name[1]) for heading in again.select("h1, h2, h3, h4, h5, h6")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    asked = BeautifulSoup(page, "html.parser")
    texts = [" ".join(cell.get_text().split()) for cell in asked.select("td, th, dt, dd, li, figcaption")]
    whole = " ".join(again.get_text().split())
    assert [text for text in texts if text not in whole] == []
    assert len(again.select("table")) == len(asked.select("table, dl"))
    assert all(len(row.select("td, th")) == len(table.select("th")) for table in again.select("table") for row in table.select("tr"))


WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]) | st.sampled_from("–≤é×"), min_size=1, max_size=24).map(
    lambda text: " ".join(text.split())
).filter(bool)  # fmt: skip


@given(WORDS, WORDS)
def test_text_says_the_same_when_it_is_read(first, second):
    """Whatever a name or a description holds, it is neither formatting nor HTML, nor a list, nor the end of a cell."""
    one, two = escape(first), escape(second)
    page = (
        f"<body><h1>{one}</h1><p>{two}</p><h2>T</h2><table><thead><tr><th>{one}</th><th>B</th></tr></thead>"
        f"<tbody><tr><td>{two}</td><td>{one}</td></tr></tbody></table><ul><li>{two}</li></ul><dl><dt>{one}</dt><dd>{two}</dd></dl></body>"
    )
    read = BeautifulSoup(READER.render(markdown(page).text), "html.parser")
    texts = [" ".join(part.get_text().split()) for part in read.select("h1, p, td, th, li")]
    assert texts == [first, second, first, "B", second, first, second, "Figure", "Value", first, second]


MARKS = ["# x", "x #", "1. x", "1) x", "- x", "+ x", "> x", "a_b_c", "_a_", "__a__", "--- x", "`x`", "<b>", "&lt;", "a|b", "~~x~~", "$3 $4"]


@pytest.mark.parametrize("text", MARKS)
def test_marks_of_markdown(text):
    test_text_says_the_same_when_it_is_read.hypothesis.inner_test(text, text)
