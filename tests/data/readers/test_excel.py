"""Excel workbooks: the first sheet as it is shown, or what to do."""

import datetime
import sys

import pytest

from qa_lm.data.pairs import Pair
from qa_lm.errors import UserError
from tests.conftest import read
from tests.data.readers.test_reading import GOOD, write
from tests.data.readers.test_tables import reader_of


def test_without_the_package_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    path = write(tmp_path, GOOD, "a.xlsx")
    with pytest.raises(
        UserError, match="a.xlsx: reading .xlsx needs the package openpyxl: .*pip install.* as CSV UTF-8"
    ):
        read(path)


@pytest.fixture
def workbook():
    return pytest.importorskip("openpyxl", reason="openpyxl is not installed (the extra `excel`)").Workbook()


def test_cells_are_read_as_they_are_shown(workbook, tmp_path):
    sheet = workbook.active
    values = [
        *(("text", 'two\nlines, "x"', "General", 'two\nlines, "x"'), ("whole", 3.0, "General", "3")),
        *(
            ("long", 1234567, "General", "1234567"),
            ("third", 0.1 + 0.2, "General", "0.3"),
            ("fixed", 2.5, "0.00", "2.50"),
        ),
        *(
            ("percent", 0.25, "0%", "25%"),
            ("grouped", 1234567, "#,##0", "1,234,567"),
            ("true", True, "General", "TRUE"),
        ),
        ("day", datetime.date(2024, 1, 5), "yyyy-mm-dd", "2024-01-05"),
        ("time", datetime.datetime(2024, 1, 5, 9, 30), "yyyy-mm-dd hh:mm", "2024-01-05 09:30:00"),
        ("error", "#N/A", "General", "#N/A"),
    ]
    sheet.append(["question", "answer"])
    for row, (question, value, number_format, _) in enumerate(values, start=2):
        sheet.cell(row, 1, question)
        sheet.cell(row, 2, value).number_format = number_format
    workbook.save(tmp_path / "a.xlsx")
    pairs, said, _ = reader_of(tmp_path / "a.xlsx")
    assert pairs == [Pair(question, shown) for question, _, _, shown in values]
    assert said == ""


def test_titles_empty_rows_repeated_names_and_sheets(workbook, tmp_path):
    sheet = workbook.active
    sheet.title = "Lamps"
    for row in [["Our FAQ"], [], [None, "question", "answer", None], [1, "a?", "b"], [], [None, "question", "answer"]]:
        sheet.append(row)
    sheet.append([2, "c?", "d", None, None])
    workbook.create_sheet("Notes").append(["not", "read"])
    workbook.create_sheet("Hidden", 0).sheet_state = "hidden"
    workbook.save(tmp_path / "a.xlsx")
    pairs, said, _ = reader_of(tmp_path / "a.xlsx")
    assert pairs == [Pair("a?", "b"), Pair("c?", "d")]
    assert said == (
        "read with the sheet 'Lamps', not 'Hidden', 'Notes', the column names in row 3; "
        "left out: 1 empty row (line 5), 1 repeated header line (line 6)"
    )


def test_bad_rows_are_named_and_columns_can_be_given(workbook, tmp_path):
    for row in [["a?", "b"], ["c?", None], ["e?", "f", "g"]]:
        workbook.active.append(row)
    workbook.save(tmp_path / "a.xlsx")
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.xlsx", header=("question", "answer"))
    assert [line.rpartition("a.xlsx:")[2] for line in str(error.value).splitlines()[1:]] == [
        "2: the answer is empty",
        "3: 3 fields where there are 2 columns; name the columns in their first row",
    ]
    with pytest.raises(UserError, match="a.xlsx:1: no column for the question and answer; found a"):
        read(tmp_path / "a.xlsx")


def test_what_is_no_workbook(workbook, tmp_path):
    workbook.active.append(["question", "answer"])
    workbook.active.append(["a?", "b"])
    workbook.save(tmp_path / "a.xlsx")
    content = (tmp_path / "a.xlsx").read_bytes()
    for damaged in (GOOD.encode(), b"", content[:-40], content[:300] + content[320:]):
        with pytest.raises(
            UserError, match=r"a.xlsx:1: not an Excel workbook: .*; save it again as .xlsx without a pass"
        ):
            read(write(tmp_path, damaged, "a.xlsx"))
