"""Pages as headless Chromium shows them: one process for all, each page in a frame of an exact width, which reports on itself."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LIMIT = 120
# Runs in each page before anything else of it, and says at the end what it saw.
PROBE = """<script>(() => {
  const errors = [];
  addEventListener("error", (event) => errors.push(event.message || "not loaded: " + (event.target.src || event.target.href)), true);
  addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
  for (const name of ["error", "warn"]) console[name] = (...said) => errors.push(said.join(" "));
  const drawn = (figure) => [...figure.querySelectorAll("svg")].some((svg) => {
    const whole = svg.getBoundingClientRect();
    const seen = [...svg.querySelectorAll("path, use, rect, text")].map((part) => part.getBoundingClientRect());
    return whole.width * whole.height > 0 && seen.some((part) => part.width + part.height > 0);
  });
  addEventListener("load", () => setTimeout(() => {
    const page = document.scrollingElement, figures = [...document.querySelectorAll("figure")];
    parent.postMessage({
      name: NAME, width: innerWidth, errors, scroll: page.scrollWidth, figures: figures.length,
      empty: figures.filter((figure) => !drawn(figure)).map((figure) => figure.textContent.trim().slice(0, 60)),
      buttons: document.querySelectorAll("th button").length, told: document.title,
    }, "*");
  }));
})();</script>"""
# It listens before the first page can speak.
HARNESS = """<!DOCTYPE html><html><head><meta charset="utf-8"></head><body><pre></pre><script>
const said = [];
addEventListener("message", (event) => {
  said.push(event.data);
  document.querySelector("pre").textContent = JSON.stringify(said);
});
</script>FRAMES</body></html>"""


class Seen(NamedTuple):
    """What a page says of itself in a window `width` wide: messages of the console, how wide it would have to be, figures and those of
    them with nothing drawn, heads that can be clicked, and its title once its scripts have run.
    """

    name: str
    width: int
    errors: list[str]
    scroll: int
    figures: int
    empty: list[str]
    buttons: int
    told: str

    @property
    def faults(self):
        """What is wrong with it, in words."""
        wide = [f"{self.scroll} px wide in a window of {self.width} px"] if self.scroll > self.width else []
        return [*self.errors, *wide, *(f"nothing is drawn in: {text}" for text in self.empty)]


def chromium():
    """The browser; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)}")
    return found


def shown(pages, folder, widths=(1440,)):
    """Every page, HTML by name, at every width: what each says, by (name, width)."""
    frames = []
    for number, (name, text) in enumerate(pages.items()):
        path = folder / f"{number}.html"
        path.write_text(text.replace("<head>", f"<head>{PROBE.replace('NAME', json.dumps(name))}", 1), encoding="utf-8")
        frames += [f'<iframe src="{path.as_uri()}" style="width: {width}px; height: 800px; border: 0"></iframe>' for width in widths]
    harness = folder / "all.html"
    harness.write_text(HARNESS.replace("FRAMES", "".join(frames)), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage",
             f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]  # fmt: skip
    done = subprocess.run([chromium(), *flags, harness.as_uri()], capture_output=True, text=True, timeout=LIMIT, check=True)
    said = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert said, done.stderr[-2000:]
    found = [Seen(**one) for one in json.loads(unescape(said[1]) or "[]")]
    return {(one.name, one.width): one for one in found}
