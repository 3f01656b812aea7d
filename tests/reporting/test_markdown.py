"""Foreign text, tables and numbers in Markdown."""

import re

import pytest

from qa_lm.reporting.markdown import escape, fenced
from qa_lm.reporting.run.report import write_report
from qa_lm.reporting.tables import Table, plain_rows
from qa_lm.reporting.wording import duration, list_names, percent, pluralize, printable
from tests.reporting.report_example import (
    hostile_folder,
)
from tests.reporting.report_pages import dashed


def test_foreign_text_stays_text_in_markdown(tmp_path):
    folder = hostile_folder(tmp_path)
    write_report(folder)
    written = (folder / "report.md").read_text(encoding="utf-8")
    prose = re.sub(r"^(`{3,})text\n.*?\n\1$", "", written, flags=re.MULTILINE | re.DOTALL)
    assert prose != written
    assert set(re.findall(r"<[^>]*>", prose)) == {"<br>"}
    assert "`" not in prose
    for block in re.findall(r"(?:^\|.*\n)+", prose, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block
    titles = re.findall(r"^#+ .*", prose, flags=re.MULTILINE)
    assert len(titles) == 10
    assert "# y" not in titles


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b\\|c", "a&#124;b&#92;&#124;c"),
        ("`code` <b>&amp;", "&#96;code&#96; &#60;b&#62;&#38;amp;"),
        ("*_[x](y)~$", "\\*\\_\\[x\\](y)\\~\\$"),
        ("# a\r\n- b\n1. c\n---", "\\# a<br>\\- b<br>1\\. c<br>\\---"),
        ("  -0.3% 3.5", "-0.3% 3.5"),
        ("서울 🙂", "서울 🙂"),
    ],
)
def test_markdown_escapes(text, expected):
    assert str(escape(text)) == expected


def test_markdown_tables_and_blocks():
    table = Table("rows", ["a|", "b"], "lr", plain_rows([["1\n2", "<x>"]]))
    assert str(table.markdown()) == "| a&#124; | b |\n| --- | ---: |\n| 1<br>2 | &#60;x&#62; |"
    assert str(fenced("a ```` b")) == "`````text\na ```` b\n`````"
    assert escape(escape("<")) == "&#60;"


def test_numbers_in_words():
    assert [dashed(percent(share)) for share in (1, 0.9999, 0.98, 0.0001, 0, None, float("nan"))] == [
        *("100.0%", ">99.9%", "98.0%", "<0.1%", "0.0%", "-", "-")
    ]
    assert [dashed(duration(seconds)) for seconds in (4.23, 74, 725, 7800, None)] == [
        *("4.2 s", "74 s", "12 min 5 s", "2 h 10 min", "-")
    ]
    assert (pluralize(1, "pair"), pluralize(3610, "pair")) == ("1 pair", "3,610 pairs")
    assert (list_names(["a", "b", "c"]), list_names(list("abcdef"))) == ("a, b and c", "a, b, c and 3 more")
    assert printable("a\r\nb\x00\ud800c\tд") == "a\nb\N{REPLACEMENT CHARACTER}?c\tд"
