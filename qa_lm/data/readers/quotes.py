"""Detect stray quotation marks in CSV and TSV files before they swallow lines."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qa_lm.data.readers.problems import BadLine, Remarks

QUOTE = '"'
TAB = "\t"
ENOUGH = 8
"""Maximum number of records inside a quoted text; after that the search for the closing mark stops."""
LINE_END = re.compile("\r\n|\r|\n")
STRAY = "quotation marks that quote nothing, read as text"
SUSPECT = "quoted texts over several lines that look like records; perhaps a quotation mark was left open"


@dataclass(frozen=True)
class Form:
    """The format of a file of separated fields."""

    separator: str
    names: list[str]
    first: int
    """Index of the first line after the column names."""
    quoted: bool = True
    """Whether quotation marks quote fields; otherwise they are text."""
    quotes_all: bool = False
    """Whether the column names are quoted, as by writers that quote every field."""
    spaced: bool = False
    """Whether a space follows each separator; it does not belong to the text then."""


@dataclass
class Quoted:
    """The result of reading a line with quotation marks."""

    row: list[str] | None
    """Fields of the row; None if a quotation mark is stray."""
    taken: list[str]
    """The lines that were examined."""
    is_open: bool = False
    """Whether a quotation mark opens a field that is never closed."""


class QuotedLines:
    """Reads lines as rows, and stray quotation marks as text.

    A quotation mark is stray if the text over several lines that it opens consists of records: each line has as many
    fields as there are column names, none is empty or indented, and no space follows a separator, as it does in prose.

    Args:
        form: the format of the file.
        remarks: receives suspicious places.
    """

    def __init__(self, form: Form, remarks: Remarks) -> None:
        self._form, self._remarks = form, remarks
        self._separator, self._width = form.separator, len(form.names)
        self._may_be_spaced = form.spaced or form.separator == TAB

    def swallows(self, line: int, row: Sequence[str]) -> bool:
        """Whether a row over several lines contains records or is invalid; a doubtful case is counted in `remarks`."""
        if len(row) != self._width:
            return True
        texts = [LINE_END.split(field) for field in row]
        # The last line is a complete record only if its text ends the row.
        inside = [part for parts in texts[:-1] for part in parts[1:-1]] + texts[-1][1:]
        if self._hold_records(inside):
            return True
        if self._may_hold_records(inside):
            self._remarks.doubt(SUSPECT, line)
        return False

    def rows(self, lines: Iterable[str], line: int) -> Iterator[tuple[int, list[str] | BadLine]]:
        """Iterate over rows with the lines on which they start, from this line on."""
        waiting: deque[str] = deque()
        coming = iter(lines)
        while (first := waiting.popleft() if waiting else next(coming, None)) is not None:
            if QUOTE not in first or not self._form.quoted:
                yield line, self._fields(first)
                line += 1
                continue
            found = self.quoted(line, first, waiting, coming)
            if found.row is None:
                yield line, self._unquoted(line, first, found)
                line += 1
                continue
            yield line, found.row
            for _ in found.taken[1:]:
                waiting.popleft()
            line += len(found.taken)

    def quoted(self, line: int, first: str, waiting: deque[str], coming: Iterator[str]) -> Quoted:
        """Read the row that starts on a line; the following lines remain in the queue."""
        taken = [first]

        def feed() -> Iterator[str]:
            yield first
            for place in range(1 << 62):
                if place == len(waiting):
                    if (more := next(coming, None)) is None:
                        return
                    waiting.append(more)
                if place >= ENOUGH and self._hold_records(taken[1:]):
                    return
                taken.append(waiting[place])
                yield taken[-1]

        reader = csv.reader(feed(), strict=True, delimiter=self._separator, skipinitialspace=self._form.spaced)
        try:
            row = next(reader)
        except csv.Error as error:
            return Quoted(None, taken, is_open=len(taken) > 1 or "end of data" in str(error))
        if len(taken) > 1 and self.swallows(line, row) and self._is_wide(taken[1]):
            return Quoted(None, taken, is_open=True)
        return Quoted(row, taken)

    def _unquoted(self, line: int, first: str, found: Quoted) -> list[str] | BadLine:
        """Read a line with its quotation marks as text, if this makes it a record."""
        row = self._fields(first)
        # A text cut by the end of the file is not a record, and neither is one that continues as prose.
        is_record = not found.is_open or (len(found.taken) > 1 and self._is_record(found.taken[1]))
        if is_record and len(row) == self._width and all(map(str.strip, row)):
            self._remarks.doubt(STRAY, line)
            return [_bare(field) for field in row] if self._form.quotes_all else row
        what = "a quotation mark is not closed" if found.is_open else "a quotation mark stands where it quotes nothing"
        return BadLine(line, f'{what}; put a text that holds one in quotation marks, and write it twice there: ""')

    def _fields(self, line: str) -> list[str]:
        text = line.rstrip("\r\n")
        fields = text.split(self._separator) if text else []
        return [field.lstrip(" ") for field in fields] if self._form.spaced else fields

    def _hold_records(self, inside: Sequence[str]) -> bool:
        return len(inside) > 1 and not self._form.quotes_all and all(map(self._is_record, inside))

    def _may_hold_records(self, inside: Sequence[str]) -> bool:
        records = sum(map(self._is_record, inside))
        return 2 * records >= len(inside) > 0 and (records > 2 or records == len(inside))

    def _is_wide(self, line: str) -> bool:
        return line.count(self._separator) == self._width - 1 > 0

    def _is_record(self, line: str) -> bool:
        return (
            self._is_wide(line)
            and (self._may_be_spaced or f"{self._separator} " not in line)
            and all(field and not field[0].isspace() for field in self._fields(line))
        )


def _bare(field: str) -> str:
    return field[1:-1].replace('""', QUOTE) if len(field) > 1 and field[0] == field[-1] == QUOTE else field


def tabs_are_quoted(lines: Iterable[str], form: Form) -> tuple[bool, bool]:
    """Whether fields between tabs contain quotation marks, and whether these quote.

    They quote if a field in quotation marks contains a tab, a line end or a doubled mark, or if exactly the fields with
    a comma are in quotation marks, as Excel writes them.

    Args:
        lines: lines below the column names.
        form: the format of the file.
    """
    if form.quotes_all:
        return True, True
    quotes = QuotedLines(form, Remarks())
    has_marks = in_marks = bare = astray = False
    waiting: deque[str] = deque()
    coming = iter(lines)
    while (first := waiting.popleft() if waiting else next(coming, None)) is not None:
        if QUOTE not in first or not (first[0] == QUOTE or TAB + QUOTE in first):
            has_marks |= QUOTE in first
            bare |= "," in first
            continue
        has_marks = True
        found = quotes.quoted(0, first, waiting, coming)
        if found.row is None or len(found.row) != len(form.names):
            astray = True
        elif _needs_marks(found, form):
            return True, True
        else:
            fields = first.split(TAB)
            in_marks |= any("," in field and field[0] == QUOTE for field in fields)
            bare |= any("," in field and field[0] != QUOTE for field in fields)
    return has_marks, in_marks and not bare and not astray


def _needs_marks(found: Quoted, form: Form) -> bool:
    """Whether a row needs its quotation marks."""
    if len(found.taken) > 1:  # of a mark left open on one line and closed on another both lines are rows by themselves
        lines = (line.split(TAB) for line in found.taken)
        return not all(len(fields) == len(form.names) and all(map(str.strip, fields)) for fields in lines)
    fields = found.taken[0].rstrip("\r\n").split(TAB)
    in_marks = (field[1:-1] for field in fields if len(field) > 2 and field[0] == field[-1] == QUOTE)
    return len(fields) > len(form.names) or any('""' in field for field in in_marks)
