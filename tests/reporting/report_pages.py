"""Pages as a reader and a browser see them."""

import html
import re
import shutil
import subprocess
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qa_lm.reporting.run.report import write_report


def dashed(text: str) -> str:
    """With the dash of the keyboard for the one of the page."""
    return text.replace("\N{EN DASH}", "-")


class Page(HTMLParser):
    """The tags of a page and its visible text."""

    VOID = ("meta", "br")

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        self.text = dashed(" ".join(" ".join(self.words).split()))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


MEASURE = """<script>
addEventListener('load', () => {
  const root = document.documentElement;
  parent.postMessage([document.title === 'ran', root.scrollWidth, root.clientWidth].join(' '), '*');
});
</script>"""


FRAME = """<!doctype html><p id="measured"></p>
<script>addEventListener('message', (event) => document.getElementById('measured').textContent = event.data);</script>
<iframe src="NAME" width="360" height="800" style="border: 0"></iframe>"""


def in_browser(page: Path) -> tuple[bool, int, int]:
    """Whether the planted script ran, the width of the page's content, and that of its frame.

    A frame of 360 pixels, because windows of a browser cannot be this narrow.
    """
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on PATH: the page was not opened in a browser")
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.replace("NAME", page.name))
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --virtual-time-budget=3000 --window-size=900,900 --dump-dom"
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [browser, *quiet.split(), *more.split(), profile, frame.as_uri()]
    dump = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<p id="measured">(true|false) (\d+) (\d+)</p>', dump)
    assert found, dump[-2000:]
    return found[1] == "true", int(found[2]), int(found[3])


def assert_both_say(texts: Iterable[str], page: Page, plain: str) -> None:
    """Check that the page and the Markdown contain each text."""
    for said in texts:
        assert said in page.text, said
        assert said in " ".join(plain.split()), said


def both(folder: Path) -> tuple[Page, str]:
    """The page read back, and the Markdown without its escapes."""
    page = write_report(folder)
    assert page == folder / "report.html"
    parsed = Page(page)
    assert parsed.open == []
    plain = html.unescape((folder / "report.md").read_text(encoding="utf-8"))
    return parsed, dashed(re.sub(r"\\([*_\[\]~$#+=-])", r"\1", plain))
