"""Read the first sheet of an Excel workbook with the optional package `openpyxl`."""

import datetime
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qa_lm.data.readers.files import seekable
from qa_lm.data.readers.problems import BadLine, Found, Remarks
from qa_lm.data.readers.rows import HEADER_WITHIN, OddRows, check_names, cleaned, find_header
from qa_lm.errors import UserError, first_line

FIXED = re.compile(r"(?:#,##)?0(?:\.(0+))?(%?)")
"""Number formats with a fixed number of digits, such as 0.00, #,##0 and 0%."""


def read_excel(path: Path, header: Sequence[str] | None, remarks: Remarks) -> Iterator[Found]:
    """Iterate over the records of the first visible sheet, each with its row; numbers are the text that Excel shows.

    Args:
        path: the file.
        header: column names if the sheet has no row of names.
        remarks: receives the name of the sheet if there are several, and rows that are left out.

    Raises:
        UserError: `openpyxl` is not installed.
        BadLine: the file is not a workbook.
    """
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{path}: reading .xlsx needs the package openpyxl: .venv/bin/pip install openpyxl; "
            "or save the sheet as CSV UTF-8"
        ) from None
    with seekable(path) as file:
        try:
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=True)
            yield from _records(_sheet(workbook, remarks), header, remarks)
        except (BadLine, UserError):
            raise
        except Exception as error:  # of zip files, of XML, and of openpyxl for what it did not expect
            hint = "save it again as .xlsx without a password, or as CSV UTF-8"
            raise BadLine(1, f"not an Excel workbook: {first_line(error)}; {hint}", fatal=True) from None


def _sheet(workbook: Any, remarks: Remarks) -> Any:
    visible = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"] or workbook.worksheets
    if not visible:
        raise BadLine(1, "a workbook without a sheet", fatal=True)
    if others := [sheet.title for sheet in workbook.worksheets if sheet is not visible[0]]:
        shown = ", ".join(repr(title) for title in others[:3]) + (", ..." if len(others) > 3 else "")
        remarks.how.append(f"the sheet {visible[0].title!r}, not {shown}")
    visible[0].reset_dimensions()  # what the file says of its size may be wrong
    return visible[0]


def _records(sheet: Any, header: Sequence[str] | None, remarks: Remarks) -> Iterator[Found]:
    rows = enumerate(([_shown(cell) for cell in row] for row in sheet.iter_rows()), start=1)
    head = [] if header is not None else list(itertools.islice(rows, HEADER_WITHIN))
    names, below = (list(header), 0) if header is not None else _names(head, remarks)
    odd = OddRows(names, header is not None, "name the columns in their first row", remarks)
    for line, row in itertools.chain(head[below:], rows):
        # A row ends where its last cell is; the columns behind it are empty.
        if found := odd.sort(line, row + [""] * (len(names) - len(row))):
            yield found


def _names(head: list[tuple[int, list[str]]], remarks: Remarks) -> tuple[list[str], int]:
    """The column names, and the index of the row below them."""
    found = find_header([row for _, row in head])
    if found is None:
        place = next((number for number, (_, row) in enumerate(head) if any(row)), 0)
        return cleaned(head[place][1]) if head else [], place + 1
    if any(any(row) for _, row in head[: found.place]):
        remarks.how.append(f"the column names in row {head[found.place][0]}")
    check_names(found.names, head[found.place][0])
    return found.names, found.place + 1


def _shown(cell: Any) -> str:
    """The text that Excel shows for a cell with a text, number, date or boolean."""
    value = cell.value
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, int | float):
        return _number(value, cell.number_format or "")
    return str(value)


def _number(value: float, number_format: str) -> str:
    if fixed := FIXED.fullmatch(number_format):
        digits = len(fixed[1] or "")
        comma = "," if number_format.startswith("#,") else ""
        return f"{value:{comma}.{digits}{'%' if fixed[2] else 'f'}}"
    if isinstance(value, int) or value.is_integer():
        return str(int(value)) if abs(value) < 1e15 else repr(value)
    return f"{value:.10g}"
