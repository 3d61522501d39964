"""A page of the report as PDF, through WeasyPrint (https://weasyprint.org): the finished HTML page, in print, with numbered pages.

WeasyPrint is an extra, `burstsim[pdf]`, and needs Pango of the system, which pip cannot bring. It is no browser: it runs no script, shows
what is folded, and knows no variables of CSS in a drawing and no grid whose columns fill themselves, for which there are colours and rules
here. Nothing is fetched, and the same page with the same fonts gives the same bytes.
"""
from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

from sim.core.errors import BadInput
from sim.report.svg import DRAWING, fixed, light

# It fills no grid by itself, and breaks one across pages only between its rows.
PRINT = """
@page {
  size: A4; margin: 15mm 14mm 17mm;
  @bottom-left { content: string(name); font: 8pt sans-serif; color: #4b5565; }
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; color: #4b5565; }
}
h1 { string-set: name content(); }
h1, h2, h3, summary { break-after: avoid; }
nav, button { display: none; }
main .plots, main .plots.pair, main .panels { grid-template-columns: 1fr 1fr; gap: 8px; }
main .sheets { display: block; }
main .sheets > section.panel { margin: 0 0 8px; }
section.panel { padding: 9px 11px; }
figure { padding: 8px 10px 6px; }
figure h3 { font-size: 10.5pt; }
figcaption { font-size: 8pt; }
.origin dl { grid-template-columns: 1fr 1fr; }
.origin p, p.note { font-size: 8.5pt; }
.mark { font-size: 8pt; }
table { font-size: 8.5pt; }
table.many { font-size: 7pt; }
table.most { font-size: 6pt; }
th, th[scope=row] { font-size: inherit; }
table.many th, table.many td, table.most th, table.most td { padding: 3px 4px 3px 0; }
table.many .n, table.most .n { padding: 3px 0 3px 4px; white-space: normal; }
td.n + td:not(.n), th.n + th:not(.n) { padding-left: 12px; }
th.n { white-space: normal; }
.words th[scope=row] { white-space: normal; min-width: 36mm; }
.words td, .words td[data-name] { overflow-wrap: break-word; white-space: normal; }
pre { font-size: 8pt; line-height: 1.35; }
"""
MANY, MOST = 7, 11  # columns, from which letters are small
LONG = re.compile(r"\S{15,}")  # names that may be broken there
LOUD = ("weasyprint", "fontTools")  # what they say of a page is of no use to who reads it


def pdf(page: str) -> bytes:
    """A finished HTML page as PDF. Raises BadInput where WeasyPrint or a library that it needs is missing, with what to install."""
    colours = light()
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    page = DRAWING.sub(lambda match: fixed(match[0], colours), page)
    page = re.sub(r"<table\b.*?</table>", lambda match: _narrow(match[0]), page, flags=re.DOTALL)
    # A sheet handed to WeasyPrint would be a reader's, which gives way to the page's own.
    page = page.replace("</head>", f"<style>{PRINT}</style></head>", 1)
    with _quiet():
        weasyprint = library()
        nothing = weasyprint.urls.URLFetcher(allowed_protocols=())
        told = weasyprint.HTML(string=page, url_fetcher=nothing)
        made: bytes = told.write_pdf(pdf_identifier=hashlib.sha256(page.encode()).digest()[:16], pdf_tags=True)
    return made


def _narrow(table: str) -> str:
    """A table with small letters where it has many columns, and whose long names may be broken."""
    rows = re.findall(r"<tr\b.*?</tr>", table, flags=re.DOTALL)
    columns = max((len(re.findall(r"<t[hd]\b", row)) for row in rows), default=0)
    if columns < MANY:
        return table
    kind = "most" if columns >= MOST else "many"
    opening = re.sub(r'<table\b(?: class="([^"]*)")?', lambda match: f'<table class="{match[1] or ""} {kind}"', table, count=1)
    parts = re.split(r"(<[^>]*>)", re.sub(r"</?button\b[^>]*>", "", opening))
    return "".join(part if part.startswith("<") else LONG.sub(lambda match: _broken(match[0]), part) for part in parts)


def _broken(name: str) -> str:
    """
    >>> _broken("throughput.output_tokens")
    'throughput.<wbr>output_<wbr>tokens'
    """
    return re.sub(r"([._/:+])(?=\w)", r"\1<wbr>", name)


def library() -> Any:
    """WeasyPrint. Raises BadInput where it cannot be had: to be told before long work, not after it."""
    try:
        # Where it does not find a library it prints where to read about that.
        with contextlib.redirect_stdout(io.StringIO()):
            import weasyprint
    except ImportError as error:
        raise BadInput(f"PDF needs WeasyPrint ({error}): pip install 'burstsim[pdf]'") from None
    except OSError as error:
        packages = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
        said = str(error).splitlines()[0]
        raise BadInput(f"PDF needs Pango, a library of the system ({said}); on Debian and Ubuntu: apt install {packages}") from None
    return weasyprint


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Warnings and logs of the libraries are about the page's CSS and fonts: kept from the terminal while they work."""
    loggers = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
