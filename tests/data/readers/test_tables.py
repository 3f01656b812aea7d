"""CSV and TSV files as people have them: read as they are meant, and said how."""

import csv
import io

import pytest

from qa_lm.data.pairs import Pair
from qa_lm.data.readers.reading import PairReader, Reading, file_sources
from qa_lm.errors import UserError
from tests.conftest import SHARED_DATA, read
from tests.data.readers.test_reading import write

ROWS = [[f"Question {number}?", f"Answer {number}."] for number in range(12)]
PAIRS = [Pair(question, answer) for question, answer in ROWS]


def reader_of(path, **how):
    """The pairs, how the file was read, and what the reader warns of (the folder is left out of both)."""
    reader = PairReader(file_sources(str(path), "data.path"), Reading(**how))
    pairs = [pair for _, _, pair in reader.pairs()]
    columns = reader.columns[str(path)].removeprefix("question = question, answer = answer").removeprefix("; ")
    return pairs, columns, [warning.replace(f"{path.parent}/", "") for warning in reader.warnings]


def table(separator=",", end="\r\n", rows=ROWS):
    return end.join(separator.join(row) for row in [["question", "answer"], *rows]) + end


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("a.csv", "sep=;\r\n" + table(";"), "read with ';' as separator"),
        ("a.csv", '\ufeff"sep=|"\n' + table("|"), "read with '|' as separator"),
        ("a.csv", "sep=,\n" + table(), "read with ',' as separator"),
        ("a.csv", "SEP=\t\n" + table("\t"), "read with tabs as separators"),
        ("a.csv", table("\t"), "read with tabs as separators"),
        ("a.csv", table("|", "\n"), "read with '|' as separator"),
        ("a.tsv", table(";"), "read with ';' as separator"),
        ("a.tab", table("\t"), ""),
        ("a.csv", table(end="\r"), ""),
        ("a.csv", "\ufeff" + table(), ""),
        ("a.csv", "Our FAQ,\r\n,\r\n" + table(), "read with the column names in line 3"),
        ("a.csv", "Our FAQ\n\n" + table(";"), "read with ';' as separator, the column names in line 3"),
        ("a.csv", "Exported on,2024-01-05\n\n" + table(), "read with the column names in line 3"),
        ("a.csv", table() + ",\r\n" * 4, "left out: 4 empty rows (lines 14, 15, 16, ...)"),
        ("a.csv", table(rows=[*ROWS[:6], [" ", ""], *ROWS[6:]]), "left out: 1 empty row (line 8)"),
        (
            "a.csv",
            table(rows=[*ROWS[:5], ["Question", "Answer"], *ROWS[5:]]),
            "left out: 1 repeated header line (line 7)",
        ),
        (
            "a.csv",
            table(rows=[*ROWS[:5], ["question", "answer"], *ROWS[5:]]),
            "left out: 1 repeated header line (line 7)",
        ),
        (
            "a.csv",
            "\ufeff" + table(rows=ROWS[:3]) + "\ufeff" + table(rows=ROWS[3:]),
            "left out: 1 repeated header line (line 5)",
        ),
        ("a.csv", table(rows=ROWS[:3]) + "\ufeff" + table(rows=ROWS[3:]), "left out: 1 repeated header line (line 5)"),
        ("a.csv", table(rows=[[*row, "", ""] for row in ROWS]), ""),
        ("a.csv", table(rows=ROWS).replace("answer", "answer,,", 1), ""),
        ("a.csv", table(", "), ""),
        ("a.csv", table(rows=[[f'"{cell}"' for cell in row] for row in ROWS]).replace(",", ", "), ""),
    ],
)
def test_habits_of_spreadsheets(tmp_path, name, content, how):
    pairs, said, warnings = reader_of(write(tmp_path, content, name))
    assert (pairs, said, warnings) == (PAIRS, how, [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be", "utf-8"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.csv.gz", "a.jsonl.bz2", "a.tsv.xz"])
def test_byte_order_marks(tmp_path, encoding, name):
    import bz2
    import gzip
    import json
    import lzma

    rows = [["누구세요?", "é … “ü”"], ["Q?", "ਊ"]]  # U+0A0A holds the byte of a line end twice
    if ".json" in name:
        records = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in rows]
        text = "\n".join(records) if "jsonl" in name else "[" + ",\n".join(records) + "]"
    else:
        text = table("\t" if "tsv" in name else ",", rows=rows)
    content = (text if encoding in ("utf-16", "utf-32") else f"\ufeff{text}").encode(encoding)
    for suffix, module in (("gz", gzip), ("bz2", bz2), ("xz", lzma)):
        content = module.compress(content) if name.endswith(suffix) else content
    pairs, said, _ = reader_of(write(tmp_path, content, name))
    assert [list(pair[:2]) for pair in pairs] == rows
    assert said == ("" if encoding == "utf-8" else f"read with the encoding {encoding[:6].upper()}")


def stray(*lines):
    return "question,answer\n" + "".join(f"{line}\n" for line in lines)


PLAIN = [",".join(row) for row in ROWS]
READ_AS_TEXT = "quotation marks that quote nothing, read as text"
SUSPECT = "quoted texts over several lines that look like records; perhaps a quotation mark was left open"


@pytest.mark.parametrize(
    ("content", "odd", "places"),
    [
        # Opened in one line and closed in another: the lines between are records by themselves.
        (stray('Say,"Red', *PLAIN, 'End,blue"'), [("Say", '"Red'), ("End", 'blue"')], "2"),
        # Never closed.
        (stray('Say,"Red', *PLAIN), [("Say", '"Red')], "2"),
        (stray('"Say,Red', *PLAIN), [('"Say', "Red")], "2"),
        # Closed by the opening mark of a sound field.
        (stray('Say,"Red', *PLAIN, '"a, b",c'), [("Say", '"Red'), ("a, b", "c")], "2"),
        # Marks that open a field and do not close it.
        (stray('"Imagine" by whom?,John', *PLAIN), [('"Imagine" by whom?', "John")], "2"),
        (stray(*PLAIN[:1], 'a,"b" and "c"', *PLAIN[1:], '"x" y,z'), [("a", '"b" and "c"'), ('"x" y', "z")], "3, 15"),
        (stray('a "b" c,d "e"', *PLAIN), [('a "b" c', 'd "e"')], None),  # marks inside a field are text anyway
        (stray('"a ""b""",c', *PLAIN), [('a "b"', "c")], None),
        (stray('a,"two\nlines, of prose\n\nand, so on"', *PLAIN), [("a", "two\nlines, of prose\n\nand, so on")], None),
        (stray('a,"if x:\n    return f(x,y)\n"', *PLAIN), [("a", "if x:\n    return f(x,y)\n")], None),
    ],
)
def test_a_stray_quotation_mark_swallows_no_line(tmp_path, content, odd, places):
    pairs, _, warnings = reader_of(write(tmp_path, content, "a.csv"))
    assert sorted(pairs) == sorted([*PAIRS, *(Pair(*each) for each in odd)])
    lines = places.split(", ") if places else []
    at = ", ".join(f"a.csv:{line}" for line in lines)
    assert warnings == ([f"{READ_AS_TEXT}: {len(lines)}, at {at}"] if places else [])


def test_lines_keep_their_numbers_behind_a_stray_quotation_mark(tmp_path):
    path = write(tmp_path, stray('a,"two\nlines"', 'Say,"Red', *PLAIN, '"x\ny",z', "empty,"), "a.csv")
    with pytest.raises(UserError, match=r"a.csv:19: the answer is empty"):
        read(path)
    assert len(read(path, skip_bad_lines=True)) == 15


def test_what_may_be_a_stray_mark_or_a_text_stays_a_text_and_is_warned_of(tmp_path):
    lines = ["one,two", "three,four", "five,six", "seven, eight, nine"]
    pairs, _, warnings = reader_of(write(tmp_path, stray('a,"b', *lines, 'c"', "x,y"), "a.csv"))
    assert pairs == [Pair("a", "\n".join(["b", *lines, "c"])), Pair("x", "y")]
    assert warnings == [f"{SUSPECT}: 1, at a.csv:2"]
    whole = '"question","answer"\n"a","name,age\nBob,3\nEve,4"\n"x","y"\n'  # its writer quotes everything
    pairs, _, warnings = reader_of(write(tmp_path, whole, "b.csv"))
    assert pairs == [Pair("a", "name,age\nBob,3\nEve,4"), Pair("x", "y")]
    assert warnings == [f"{SUSPECT}: 1, at b.csv:2"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['a,"cut off'], ":2: a quotation mark is not closed"),
        (['a,"prose that', "goes on and on"], ":2: a quotation mark is not closed"),
        (['"a, b" c,d'], ":2: a quotation mark stands where it quotes nothing"),
    ],
)
def test_a_quotation_mark_that_leaves_no_record_is_a_bad_line(tmp_path, lines, message):
    path = write(tmp_path, stray(*lines), "a.csv")
    with pytest.raises(UserError, match=message):
        read(path)
    path = write(tmp_path, stray(*PLAIN, *lines), "a.csv")
    assert read(path, skip_bad_lines=True) == PAIRS


def test_a_mark_that_is_never_closed_does_not_take_the_file_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("qa_lm.data.readers.separated.LONGEST_FIELD", 5000)
    content = stray('a,"b', *(f"Question {number}?,Answer {number}." for number in range(3000)))
    pairs, _, warnings = reader_of(write(tmp_path, content, "a.csv"))
    assert (len(pairs), pairs[0]) == (3001, Pair("a", '"b'))
    assert warnings == [f"{READ_AS_TEXT}: 1, at a.csv:2"]
    csv.field_size_limit(2**31 - 1)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ([['"Imagine" by whom?', "John"]], "read with quotation marks as text"),
        ([['"Imagine', "John"], ["Who", 'said "so"']], "read with quotation marks as text"),
        ([['"Blue"', '"Red, too"'], ["a, b", "c"]], "read with quotation marks as text"),
        ([['"Imagine', "John"], ["end", 'so"']], "read with quotation marks as text"),
        ([['a 5" pipe', "b"]], "read with quotation marks as text"),
    ],
)
def test_quotation_marks_between_tabs_are_text(tmp_path, odd, said):
    rows = [*ROWS, *odd, *ROWS]
    pairs, how, warnings = reader_of(write(tmp_path, table("\t", rows=rows), "a.tsv"))
    assert (pairs, how, warnings) == ([Pair(*row) for row in rows], said, [])


@pytest.mark.parametrize(
    "odd",
    [["a\tb", "c"], ["a", "two\nlines"], ["two\n\nlines", "b"], ['say "no"', "b"], ['"', "b"], ["a\r", "b"]],
)
def test_what_a_spreadsheet_quotes_between_tabs_is_quoted(tmp_path, odd):
    rows = [*ROWS, odd, ['"Blue"', "x"]]
    text = io.StringIO()
    csv.writer(text, delimiter="\t").writerows([["question", "answer"], *rows])
    pairs, how, warnings = reader_of(write(tmp_path, text.getvalue(), "a.tsv"))
    assert (pairs, how, warnings) == ([Pair(*row) for row in rows], "", [])
    # Excel quotes what holds a comma, and nothing else.
    rows = [*ROWS, ["Well, well", "b"]]
    content = table("\t", rows=[*ROWS, ['"Well, well"', "b"]])
    assert reader_of(write(tmp_path, content, "b.tsv")) == ([Pair(*row) for row in rows], "", [])


def test_marks_between_tabs_quote_where_their_lines_would_lack_a_field(tmp_path):
    pairs, how, _ = reader_of(write(tmp_path, 'question\tanswer\nx\ty\n"a\t\n"\tb\n', "a.tsv"))
    assert (pairs, how) == ([Pair("x", "y"), Pair("a\t\n", "b")], "")


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the folder of odd files is not beside this clone")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("t_merge5.csv", 22), ("t_quotes.tsv", 10), ("t_cat.csv", 20), ("nq_listtext.csv", 20), ("x_sep.csv", 20)),
        *(("x_tab.csv", 20), ("x_title.csv", 20), ("x_utf16.csv", 20), ("x_blankrows.csv", 20)),
    ],
)
def test_odd_files(name, count):
    pairs, how, warnings = reader_of(SHARED_DATA / "odd" / name)
    assert len(set(pairs)) == count
    assert how or warnings
    assert not any(set("[]\ufeff\0") & set(pair.answer) for pair in pairs)
    assert all(pair.question != "question" for pair in pairs)
