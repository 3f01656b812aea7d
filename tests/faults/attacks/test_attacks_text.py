"""What models and files say, where people read it: pages, TensorBoard, terminals."""

import html
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import markdown  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from qa_lm.errors import UserError, sanitize
from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.reporting import pages
from qa_lm.reporting.run.report import write_report
from qa_lm.training.logging.loggers import log_end
from qa_lm.training.logging.tensorboard import FINAL, EventsLogger
from tests.faults.attacks.hostile import copied
from tests.reporting.report_example import answer, run_folder
from tests.scripts_as_modules import ask, check_data, ledger

SCRIPT = "<script>document.documentElement.dataset.ran = 'yes'</script>"
IMAGE = "<img src=x onerror=\"document.documentElement.dataset.ran = 'yes'\">"
PICTURE, LINK, RULE = "![p](https://tracker.example/p.png)", "[here](https://evil.example)", "a | b `c` **d** _e_ # f"
HOSTILE = f"{SCRIPT} {IMAGE} {PICTURE} {LINK} {RULE}"
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=3000", "--dump-dom"),
)


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def ran_in_browser(page: Path) -> bool:
    """Whether a script of the page ran."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on PATH: the page was not opened in a browser")
    command = [browser, *QUIET, f"--user-data-dir={page.parent / 'profile'}", page.as_uri()]
    dump = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<html[^>]*>", dump)
    assert found, dump[-2000:]
    return 'data-ran="yes"' in found[0]


def hostile_run(tmp_path):
    pair = {"question": HOSTILE, "answer": HOSTILE, "generated": HOSTILE}
    return run_folder(tmp_path, answers=[answer(1, "validation", right=False, **pair)])


def unescaped(monkeypatch):
    """Without what guards the page: escaping, and the policy that forbids scripts."""

    def bare(**options):
        return jinja2.Environment(**options | {"autoescape": False})

    monkeypatch.setattr(pages, "Environment", bare)
    monkeypatch.setattr(pages, "_environment", pages._environment.__wrapped__)  # not the one that is kept


def without_policy(page):
    """The page without its Content-Security-Policy, so that its escaping alone has to hold."""
    text = page.read_text(encoding="utf-8")
    bare = re.sub(r"<meta http-equiv=\"Content-Security-Policy\".*\n", "", text)
    assert bare != text
    path = page.with_name("bare.html")
    path.write_text(bare, encoding="utf-8")
    return path


def test_a_script_in_an_answer_is_text_in_the_report(tmp_path, monkeypatch):
    run = hostile_run(tmp_path)
    ours = Tags(write_report(run).read_text(encoding="utf-8"))
    assert not ours.tags & {"script", "img", "a", "iframe"}
    assert ours.text.count(HOSTILE) == 3
    unescaped(monkeypatch)
    assert {"script", "img"} <= Tags(write_report(run).read_text(encoding="utf-8")).tags


@pytest.mark.slow
def test_a_script_in_an_answer_in_a_browser(tmp_path, monkeypatch):
    run = hostile_run(tmp_path)
    page = write_report(run)
    assert not ran_in_browser(page)
    assert not ran_in_browser(without_policy(page))
    unescaped(monkeypatch)
    page = write_report(run)
    assert ran_in_browser(without_policy(page))
    assert not ran_in_browser(page)  # the policy holds by itself too


def rendered(text):
    """Markdown as Python's usual library shows it, without taking anything out."""
    return markdown.markdown(text, extensions=["tables", "fenced_code"])


def test_a_script_in_an_answer_is_text_in_the_report_in_markdown(tmp_path):
    run = hostile_run(tmp_path)
    write_report(run)
    assert {"script", "img", "a"} <= Tags(rendered(f"| a |\n|---|\n| {HOSTILE} |")).tags
    ours = Tags(rendered((run / "report.md").read_text(encoding="utf-8")))
    assert not ours.tags & {"script", "img", "a", "iframe"}
    assert ours.text.count(SCRIPT) == 3


def text_of_board(tmp_path):
    """What TensorBoard is given of hostile answers."""
    logger = EventsLogger(tmp_path)
    asked = EvaluatedPair(
        question=HOSTILE,
        answer=HOSTILE,
        generated=HOSTILE + "\x1b[31m\n# x",
        exact_match=False,
        normalised_exact_match=False,
        f1=0.0,
        stopped=True,
        split="train",
        held_out="",
        relation="",
        nearest_question="",
        nearest_is_right=None,
        most_common_is_right=None,
        log_probability=-1.0,
        eos_log_probability=-1.0,
    )
    trainer: Any = SimpleNamespace(logger=logger, loggers=[logger], global_step=1)
    log_end(trainer, dict.fromkeys(FINAL), [asked], {"rows": []})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (tensor,) = [each.tensor_proto.string_val[0].decode() for each in events.Tensors("answers/text_summary")]
    return tensor


def test_answers_are_text_in_tensorboard(tmp_path):
    naive = f"| question | generated |\n|---|---|\n| {HOSTILE.replace('|', '')} | x |"
    assert {"script", "img", "a", "strong"} <= Tags(rendered(naive)).tags
    assert {"img", "a"} <= Tags(markdown_to_safe_html(naive)).tags  # TensorBoard takes out scripts, and no pictures
    text = text_of_board(tmp_path)
    for page in (rendered(text), markdown_to_safe_html(text)):
        shown = Tags(page)
        assert shown.tags == {"table", "thead", "tbody", "tr", "th", "td"}
        assert shown.text.count(HOSTILE) == 3
        assert "\x1b" not in page
        assert len(re.findall("<td", page)) == 4


@pytest.mark.slow
def test_answers_in_tensorboards_markdown_in_a_browser(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><html><body>{rendered(HOSTILE)}</body></html>")
    assert ran_in_browser(page)
    page.write_text(f"<!doctype html><html><body>{rendered(text_of_board(tmp_path / 'run'))}</body></html>")
    assert not ran_in_browser(page)


STEERING = "\x1b]0;title\x07\x1b[2J\x9b31m\u202etxt.exe"


def test_steering_characters():
    assert sanitize("a\tb\n서울 🙂") == "a\tb\n서울 🙂"
    assert sanitize(STEERING) == "\ufffd]0;title\ufffd\ufffd[2J\ufffd31m\ufffdtxt.exe"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steered(text):
    return any(character in text for character in "\x1b\x07\x9b\u202e")


def test_an_answer_does_not_steer_the_terminal(tmp_path, small_run, monkeypatch):
    run = copied(small_run.folder, tmp_path / "run")
    (run / "model" / "golden.json").unlink()
    template = json.loads((run / "model" / "prompt_template.json").read_text())
    decode = "qa_lm.data.tokenizer.TextTokenizer.decode"
    monkeypatch.setattr(decode, lambda self, ids: template["answer"].replace("{answer}", f"What is 2 + 2?{STEERING}"))
    monkeypatch.setattr("qa_lm.inference.answerer.load_tokenizer", unchecked(monkeypatch))
    for out, as_it_is in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr(sys, "stdout", out)
        assert ask.main([str(run), "What is 2 + 2?"]) == 0
        assert "What is 2 + 2?" in out.getvalue()
        assert steered(out.getvalue()) == as_it_is  # a file gets the answer letter for letter


def unchecked(monkeypatch):
    """Loading without the round trip, whose text the test has replaced."""
    from qa_lm.data import tokenizer

    monkeypatch.setattr(tokenizer, "_check_round_trip", lambda *_: None)
    return tokenizer.load_tokenizer


def test_trained_pairs_do_not_steer_the_terminal(tmp_path, small_run, capsys):
    run = copied(small_run.folder, tmp_path / "run")
    table = pq.read_table(run / "ledger.parquet")
    for name in ("place", "question", "answer", "why"):
        column = pa.array([STEERING] * len(table))
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, run / "ledger.parquet")
    assert ledger.main([str(run)]) == 0
    assert not steered(capsys.readouterr().out)
    known = run / "model" / "known_pairs.jsonl"
    known.write_text(json.dumps({"question": STEERING, "answer": STEERING}) + "\n")
    for _ in ("known pairs", "ledger"):
        assert ask.main([str(run), "How are you?", "--explain"]) == 0
        printed = capsys.readouterr().out
        assert "txt.exe" in printed
        assert not steered(printed)
        known.unlink(missing_ok=True)  # an older version had only the ledger


def test_a_file_of_pairs_does_not_steer_the_terminal(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    name = f"question {STEERING}"
    path.write_text("".join(json.dumps({name: f"q{n}{STEERING}", "answer": "a"}) + "\n" for n in (1, 2, 1)))
    more = ["--cache", "off", "--question", name, "--max-tokens", "200"]
    assert check_data.main([str(path), *more]) == 0
    printed = capsys.readouterr()
    assert "txt.exe" in printed.out
    assert not steered(printed.out + printed.err)
    assert check_data.main([str(path), "--cache", "off"]) == 2  # names the columns that were found
    said = capsys.readouterr().err
    assert "txt.exe" in said
    assert not steered(said)
    assert str(UserError(STEERING)) == sanitize(STEERING)


def test_html_that_is_escaped_says_the_same(tmp_path):
    """The escapes are shown as the characters they stand for."""
    text = text_of_board(tmp_path)
    assert html.unescape(text).count(HOSTILE) == 3
