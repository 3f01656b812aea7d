"""Rows of CSV files and spreadsheets: find the row of column names, and classify the rows below it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from qa_lm.data.readers.problems import BadLine, Remarks
from qa_lm.data.records.columns import Wanted, choose_columns

MARK = "\ufeff"
HEADER_WITHIN = 10
"""Number of rows searched for the row of column names; titles and dates may precede it."""


class Header(NamedTuple):
    """The row of names."""

    place: int
    """Index of the row, from 0."""
    names: list[str]
    """Names, without empty ones at the end."""
    is_recognised: bool
    """Whether the names include usual names of a question and an answer."""


def find_header(rows: Sequence[Sequence[str]]) -> Header | None:
    """Find the row of names: the first with usual names, otherwise the first with two texts; None without one.

    A row with one text is a title: it cannot name both a question and an answer.

    Args:
        rows: the first rows of a table.
    """
    wide = [
        Header(index, names, _is_recognised(names))
        for index, row in enumerate(rows[:HEADER_WITHIN])
        if sum(map(bool, names := cleaned(row))) > 1
    ]
    return next((header for header in wide if header.is_recognised), wide[0] if wide else None)


def _is_recognised(names: Sequence[str]) -> bool:
    try:
        choose_columns(names, Wanted())
    except ValueError:
        return False
    return True


def cleaned(row: Iterable[str]) -> list[str]:
    """Strip the cells, and remove a byte order mark and empty cells at the end."""
    cells = [cell.strip().removeprefix(MARK).strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


class OddRows:
    """Classifies rows that are not plain records: other widths, empty rows, repeated names.

    Args:
        names: column names.
        are_given: whether the user gave the names, so that the file should not contain them.
        hint: advice for a row that is too wide.
        remarks: counts rows that are left out.
    """

    def __init__(self, names: list[str], are_given: bool, hint: str, remarks: Remarks) -> None:
        self.names, self._are_given, self._hint, self._remarks = names, are_given, hint, remarks
        self._header = [name.casefold() for name in names]

    def sort(self, line: int, row: list[str]) -> tuple[int, dict[str, str]] | BadLine | None:
        """Convert a row to a record or a bad line; None for a row that is left out.

        Raises:
            BadLine: the file contains column names although the user gave them.
        """
        cells = cleaned(row)
        if not cells:
            if row:  # ignore empty lines, but count rows of separators
                self._remarks.leave_out("empty row", line)
            return None
        if [cell.casefold() for cell in cells] == self._header:
            if self._are_given:
                raise BadLine(line, "these are the names of data.columns: leave data.columns out", fatal=True)
            self._remarks.leave_out("repeated header line", line)
            return None
        width = len(self.names)
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            return BadLine(line, f"{len(row)} fields where there are {width} columns; {self._hint}")
        return line, dict(zip(self.names, row[:width], strict=True))


def check_names(names: Sequence[str], line: int) -> None:
    """Check that column names are unique.

    Raises:
        BadLine: a name occurs twice.
    """
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise BadLine(line, f"a column is named twice: {', '.join(named)}", fatal=True)
