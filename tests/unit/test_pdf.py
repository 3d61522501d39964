"""A page as PDF: pages, title, text and links to nowhere; and what is said where the library, or one that it needs, is missing."""
from __future__ import annotations

import builtins
import doctest
import re
import shutil
import socket
import subprocess
import zlib
from types import SimpleNamespace

import pytest

from sim.core.errors import BadInput
from sim.report import pdf as module
from sim.report.pdf import PRINT, pdf

try:
    module.library()
except BadInput as error:
    pytestmark = pytest.mark.skip(reason=str(error))

HEADS = "".join(f'<th scope="col" class="n"><button>throughput.tokens_per_s_{number}</button></th>' for number in range(12))
CELLS = "".join(f'<td class="n">{number}</td>' for number in range(12))
PAGE = f"""\
<!DOCTYPE html><html lang="en"><head><title>chat: stable</title>
<style>:root {{ --s1: #0868ac; --ink: #000 }} body {{ color: var(--ink) }}</style></head><body>
<header class="top"><h1>chat</h1></header><main>
<div class="plots"><figure><h3>Time</h3>
<svg viewBox="0 0 300 200" role="img"><path d="M 0 0 L 300 200" style="stroke: var(--s1)"/></svg></figure></div>
<table class="tall"><thead><tr>{HEADS}</tr></thead><tbody><tr>{CELLS}</tr></tbody></table>
<img src="https://example.com/x.png" alt="Far"><a href="01/report.html">near</a>
<details><summary>Folded</summary><pre>{"".join(f"line {number}" + chr(10) for number in range(150))}</pre></details>
</main><script>document.title = "changed";</script></body></html>
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("pdf") / "report.pdf"
    path.write_bytes(pdf(PAGE))
    return path


def test_pages_and_title(made):
    data = made.read_bytes()
    assert data.startswith(b"%PDF-")
    parts = re.findall(rb"stream\r?\n(.*?)endstream", data, flags=re.DOTALL)
    objects = b"".join(zlib.decompressobj().decompress(part) for part in parts)
    assert int(re.search(rb"/Type ?/Pages.*?/Count (\d+)|/Count (\d+)", objects, flags=re.DOTALL)[0].split()[-1]) == 3
    assert b"chat: stable" in objects


def test_the_same_page_gives_the_same_bytes(made):
    assert pdf(PAGE) == made.read_bytes()


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed")
def test_its_text_is_text(made):
    text = subprocess.run(["pdftotext", "-layout", made, "-"], capture_output=True, text=True, check=True).stdout
    assert "Folded" in text
    assert "line 149" in text
    assert re.search(r"chat +2 ?/ ?3", text)
    # The last of many columns is not cut off.
    assert re.search(r"\b10 +11\b", text)
    assert "changed" not in text


def test_nothing_is_fetched_and_nothing_said(monkeypatch, capfd, recwarn):
    def refuse(*args, **options):
        raise AssertionError("the network is touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert pdf(PAGE.replace("example.com", "203.0.113.1")).startswith(b"%PDF-")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_drawings_have_colours(monkeypatch):
    """Variables of CSS mean nothing to WeasyPrint within SVG."""
    seen = []

    real = module.library()

    def html(string, url_fetcher):
        seen.append(string)
        return SimpleNamespace(write_pdf=lambda **options: b"%PDF-")

    monkeypatch.setattr(module, "library", lambda: SimpleNamespace(HTML=html, urls=real.urls))
    pdf(PAGE)
    drawing = re.search("<svg.*?</svg>", seen[0], flags=re.DOTALL)[0]
    assert "stroke: #0868ac" in drawing
    assert "var(" not in drawing
    assert '<table class="tall most">' in seen[0]
    assert "<script" not in seen[0]
    assert "throughput.<wbr>tokens_<wbr>per_<wbr>s_<wbr>0</th>" in seen[0]
    assert PRINT in seen[0]


@pytest.mark.parametrize(("error", "said"), [
    (ModuleNotFoundError("No module named 'weasyprint'"), r"pip install 'burstsim\[pdf\]'"),
    (OSError("cannot load library 'libpango-1.0-0': no such file\nmore"), "apt install libpango-1.0-0 libpangoft2-1.0-0"),
])  # fmt: skip
def test_what_is_missing(monkeypatch, capsys, error, said):
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "weasyprint":
            print("WeasyPrint could not import some external libraries.")
            raise error
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=said):
        pdf(PAGE)
    assert capsys.readouterr() == ("", "")


def test_doctest():
    assert doctest.testmod(module).failed == 0
