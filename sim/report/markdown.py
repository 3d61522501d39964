"""A page of the report as Markdown of GitHub's kind, with its drawings as SVG files. It is made of the finished page, whatever study that
is of, so that both say the same: cards and lists of figures become tables, marks words, what is folded a section of its own.

What markdownify is asked for is the plain part of it, text, lists and links; tables, headings and what to escape follow GitHub's rules:
https://github.github.com/gfm. The same page gives the same bytes.
"""
from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any, NamedTuple

from bs4 import BeautifulSoup, Tag
from markdownify import ATX, MarkdownConverter

from sim.report.svg import DRAWING, alone

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
UNSEEN = ("script", "style", "nav", "template", "noscript", "title")
FENCE = "```"
# What begins a heading, a quotation, a list or a rule where a line begins with it.
BEGINS = re.compile(r"^(?=#{1,6}(\s|$)|>|[-+](\s|$)|={3,}\s*$|-{3,}\s*$|~{3,})|^(\d{1,9})(?=[.)](\s|$))")
# Characters that mean something anywhere; an underscore within a word does not, nor a dollar sign before which there is a space.
MEANS = re.compile(r"[\\`*\[\]|~]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|(?<=\S)\$")


class Markdown(NamedTuple):
    """The text, and the drawings it refers to: SVG by the path of their files, relative to its own."""

    text: str
    figures: dict[str, str]


def markdown(page: str, folder: str = "figures") -> Markdown:
    """A finished HTML page as Markdown, with its drawings in a folder beside it."""
    # A parser of HTML would write the names of SVG in small letters, so drawings are set aside.
    drawings: list[str] = []

    def aside(match: re.Match[str]) -> str:
        drawings.append(match[0])
        return f'<img data-drawing="{len(drawings) - 1}">'

    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    soup = BeautifulSoup(DRAWING.sub(aside, page), "html.parser")
    body = soup.body or soup
    _cleared(body)
    figures = _figures(soup, drawings, folder)
    _sections(soup, body)
    _ordered(body)
    _lists(soup, body)
    text = _Writer(heading_style=ATX, bullets="-", code_language="yaml").convert_soup(body)
    return Markdown(_tidy(text), figures)


def _cleared(body: Tag) -> None:
    """Leave out what is no text of the page, and put its kind below its name."""
    for one in body.find_all(UNSEEN) + body.select("[hidden], [aria-hidden=true]"):
        one.decompose()
    for button in body.find_all("button"):
        if button.find_parent("th"):
            button.unwrap()
        else:
            button.decompose()
    for link in body.select('a[href^="#"], a:not([href])'):
        link.unwrap()
    for link in body.select('a[href$="report.html"]'):
        link["href"] = f"{str(link['href']).removesuffix('html')}md"
    kind, name = body.select_one("header .kind"), body.find("h1")
    if kind is not None and name is not None:
        name.insert_after(kind.extract())


def _figures(soup: BeautifulSoup, drawings: list[str], folder: str) -> dict[str, str]:
    """Name the drawings after what is said above them; their files."""
    found: dict[str, str] = {}
    for place in soup.select("img[data-drawing]"):
        heading = place.find_previous(HEADINGS)
        title = heading.get_text(" ", strip=True) if heading else "Figure"
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "figure"
        names = [slug, *(f"{slug}-{count}" for count in range(2, len(drawings) + 1))]
        path = next(path for path in (f"{folder}/{name}.svg" for name in names) if path not in found)
        found[path] = alone(drawings[int(str(place["data-drawing"]))])
        place.replace_with(shown := soup.new_tag("p"))
        shown.append(soup.new_tag("img", attrs={"src": path, "alt": title}))
    return found


def _sections(soup: BeautifulSoup, body: Tag) -> None:
    """What is folded away as a section with a heading, below that of the place where it stands."""
    folded = body.find_all("details")
    levels = [int(above.name[1]) + 1 if (above := one.find_previous(HEADINGS)) else 2 for one in folded]
    for one, level in zip(folded, levels, strict=True):
        if one.summary is not None:
            one.summary.name = f"h{min(level, 6)}"
        one.name = "div"
    for verdict in body.select("div.verdict"):
        verdict.name = "blockquote"
        for word in verdict.find_all("strong", recursive=False):
            word.append(":")
            word.insert_after(" ")
    for mark in body.select(".mark"):
        about = mark.find_next_sibling()
        if mark.find_parent(HEADINGS):
            mark.replace_with(f"({mark.get_text(strip=True)})")
        elif about is not None and about.name == "p" and mark.find_parent("table") is None:
            mark.name = "strong"
            mark.string = f"{mark.get_text(strip=True).capitalize()}:"
            about.insert(0, mark.extract(), " ")


def _ordered(body: Tag) -> None:
    """No level of headings is left out: each is one below that of its section."""
    open_: list[int] = []
    for heading in body.find_all(HEADINGS):
        level = int(heading.name[1])
        while open_ and open_[-1] >= level:
            open_.pop()
        open_.append(level)
        heading.name = f"h{len(open_)}"


def _lists(soup: BeautifulSoup, body: Tag) -> None:
    """Lists of figures as tables: names, values and, where there are any, notes."""
    for given in body.find_all("dl"):
        rows: list[list[Tag]] = []
        for part in given.find_all(("dt", "dd")):
            if part.name == "dt":
                rows.append([])
            rows[-1].append(part)
        width = max(map(len, rows), default=0)
        heads = ("Figure", "Value", "Note", *[""] * width)[:width]
        table, head = soup.new_tag("table"), soup.new_tag("thead")
        head.append(_row(soup, [_cell(soup, "th", text) for text in heads], width))
        if width > 1 and "columns" not in (given.get("class") or ()):
            head.find_all("th")[1]["class"] = ["n"]
        table.append(head)
        for row in rows:
            table.append(_row(soup, [_moved(part) for part in row], width))
        given.replace_with(table)


def _row(soup: BeautifulSoup, cells: list[Tag], width: int) -> Tag:
    row = soup.new_tag("tr")
    row.extend([*cells, *(_cell(soup, "td", "") for _ in range(width - len(cells)))])
    return row


def _cell(soup: BeautifulSoup, name: str, text: str) -> Tag:
    cell = soup.new_tag(name)
    cell.string = text
    return cell


def _moved(part: Tag) -> Tag:
    part.name = "td"
    part.attrs = {}
    return part.extract()


def _tidy(text: str) -> str:
    """One empty line at most between what is not a listing, and no spaces at ends of lines."""
    lines: list[str] = []
    listing = False
    for line in text.strip().split("\n"):
        fence = line.startswith(FENCE)
        if not listing:
            line = line.rstrip()
        if listing or line or (lines and lines[-1]):
            lines.append(line)
        listing ^= fence
    return "\n".join(lines) + "\n"


class _Writer(MarkdownConverter):
    """Tables whose figures are to the right, and text that means no more than it says."""

    def escape(self, text: str, parent_tags: Any) -> str:
        return MEANS.sub(lambda match: f"\\{match[0]}", text)

    def convert_p(self, el: Tag, text: str, parent_tags: Any) -> str:
        told: str = super().convert_p(el, _plain(text), parent_tags)
        return told

    def convert_li(self, el: Tag, text: str, parent_tags: Any) -> str:
        told: str = super().convert_li(el, _plain(text), parent_tags)
        return told

    def convert_hN(self, n: int, el: Tag, text: str, parent_tags: Any) -> str:
        # Number signs at the end of a heading would be taken for its end.
        told: str = super().convert_hN(n, el, re.sub(r"(?<!\S)(?=#+$)", r"\\", text.strip()), parent_tags)
        return told

    def convert_pre(self, el: Tag, text: str, parent_tags: Any) -> str:
        longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"\n\n{fence}yaml\n{text.strip(chr(10))}\n{fence}\n\n"

    def convert_table(self, el: Tag, text: str, parent_tags: Any) -> str:
        rows = el.find_all("tr")
        if not rows:
            return ""
        heads = [row for row in rows if row.parent is not None and row.parent.name == "thead"] or rows[:1]
        ends = ["---:" if "n" in (cell.get("class") or ()) else "---" for cell in heads[-1].find_all(("th", "td"))]
        # A head over several columns is said with each of them, as a table has one row of heads here.
        columns = zip_longest(*(self._cells(row) for row in heads), fillvalue="")
        named = [": ".join(word for word in dict.fromkeys(words) if word) for words in columns]
        lines = [named, ends, *(self._cells(row) for row in rows[len(heads) :])]
        return "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"

    def _cells(self, row: Tag) -> list[str]:
        """The texts of a row, of a cell as often as it has columns."""
        found = []
        for cell in row.find_all(("th", "td")):
            found += [self.process_tag(cell, parent_tags={"table", "tr"})] * int(str(cell.get("colspan") or 1))
        return found

    def convert_td(self, el: Tag, text: str, parent_tags: Any) -> str:
        told = " ".join(text.split())
        best = el.parent is not None and "best" in (el.parent.get("class") or ())
        return f"**{told}**" if best and told else told

    convert_th = convert_td


def _plain(text: str) -> str:
    """A paragraph that begins as a heading or a list would, said to be none."""
    told = text.lstrip()
    return BEGINS.sub(lambda match: f"{match[3]}\\" if match[3] else "\\", told, count=1)
