"""The page in a real browser: Chromium, driven by playwright."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.served import Served, served

WIDE, NARROW = {"width": 1100, "height": 800}, {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on PATH: the page was not opened in a browser")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page that is open, with the errors that the browser reported."""

    def __init__(self, browser: Any, url: str, **how: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**how)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def ask(self, question: str) -> Any:
        """Ask by the keyboard; returns the new item of the log once it has an answer."""
        count = self.page.locator("#log > li").count()
        self.page.keyboard.type(question)
        self.page.keyboard.press("Enter")
        item = self.page.locator("#log > li").nth(count)
        item.locator(".answer:not(.waiting)").wait_for(timeout=20_000)
        return item


@pytest.fixture
def opened(browser: Any, server: Served) -> Iterator[Opened]:
    """The page, in a narrow window; what was not there before is an error."""
    found = Opened(browser, server.url, viewport=NARROW)
    yield found
    assert found.errors == []
    assert all(url.startswith((server.url, "data:")) for url in found.requests)
    found.page.close()


def test_a_question_is_answered_by_the_keyboard_alone(opened, server):
    question = "What is 2 + 2?"
    found = server.ask(question)
    item = opened.ask(question)
    assert item.locator(".asked").inner_text() == question
    assert item.locator(".answer").inner_text() == found["choices"][0]["message"]["content"]
    facts = item.locator(".facts").inner_text()
    assert found["qa_lm"]["confidence"] in facts
    assert "trained question" in facts
    nearest = item.locator(".nearest li")
    assert item.locator("details").get_attribute("open") is None
    item.locator("summary").press("Enter")
    assert nearest.first.inner_text().split("\n")[1:] == [
        found["qa_lm"]["nearest"][0][name] for name in ("question", "answer")
    ]
    opened.page.locator("#question").focus()
    again = opened.ask("Is this new?")
    assert "new question" in again.locator(".facts").inner_text()
    assert again.locator("details").get_attribute("open") is not None
    assert opened.page.evaluate("document.activeElement.id") == "question"
    width, room = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= room == 320


def test_text_stays_text(opened):
    question = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>"
    item = opened.ask(question)
    assert item.locator(".asked").inner_text() == question
    assert opened.page.locator("img").count() == 0
    assert opened.page.title() != "ran"


def test_an_error_is_shown_and_the_question_kept(browser, server):
    found = Opened(browser, server.url)
    question = "word " * 300
    found.page.locator("#question").fill(question)
    item = found.page.locator("#log > li").first
    found.page.keyboard.press("Enter")
    item.locator(".answer.wrong").wait_for()
    assert "this model's context is 256" in item.locator(".answer").inner_text()
    assert found.page.locator("#question").input_value() == question
    assert [error for error in found.errors if "400" not in error] == []  # the browser reports each status of 400
    found.page.close()


def test_what_a_screen_reader_needs(opened):
    page = opened.page
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_label("Your question").get_attribute("id") == "question"
    assert page.get_by_role("button", name="Ask").count() == 1
    assert page.locator("#log").get_attribute("aria-live") == "polite"
    assert page.get_by_role("heading", level=1).count() == 1


def test_a_new_line_does_not_ask(opened):
    opened.page.keyboard.type("one")
    opened.page.keyboard.press("Shift+Enter")
    opened.page.keyboard.type("two")
    assert opened.page.locator("#question").input_value() == "one\ntwo"
    assert opened.page.locator("#log > li").count() == 0


def contrast(page: Any, selector: str) -> float:
    """Ratio of the luminance of a text to that of the page, as WCAG defines it."""
    colours = page.evaluate(
        "s => [getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    light, dark = sorted((_luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_night(browser, server, scheme):
    found = Opened(browser, server.url, viewport=WIDE, color_scheme=scheme)
    found.ask("What is 2 + 2?")
    paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (_luminance(paper) < 0.1) is (scheme == "dark")
    for selector in ("h1", ".subtitle", ".asked", ".answer", ".facts", ".facts b", "summary", "label", "#hint"):
        assert contrast(found.page, selector) >= 4.5, selector
    assert found.errors == []
    found.page.close()


def test_i_do_not_know_and_the_key(browser, scripts, served_run):
    options = ("--abstain-below", "1", "--no-explain")
    with served(scripts, str(served_run), *options, QA_LM_API_KEY="k") as server:
        found = Opened(browser, server.url)
        found.page.get_by_label("Key").fill("wrong")
        found.page.locator("#question").focus()
        assert "a key is needed" in found.ask("What is 2 + 2?").locator(".answer").inner_text()
        found.page.get_by_label("Key").fill("k")
        found.page.locator("#question").fill("")
        found.page.locator("#question").focus()
        item = found.ask("What is 2 + 2?")
        assert item.locator(".answer").inner_text() == "I don't know"
        assert item.locator(".nearest").is_hidden()
        found.page.close()
