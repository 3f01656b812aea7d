"""Read CSV and TSV files: detect the separator, titles above the column names, and stray quotation marks.

Fields are quoted as in RFC 4180. In TSV files quotation marks are text, unless a quoted field contains a tab, a line
end or a doubled mark, which shows that the writer quotes, as Excel and pandas do.
"""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from qa_lm.data.readers.files import as_text, opened
from qa_lm.data.readers.problems import BadLine, Found, Remarks
from qa_lm.data.readers.quotes import TAB, Form, QuotedLines, tabs_are_quoted
from qa_lm.data.readers.rows import MARK, OddRows, check_names, find_header

SEPARATORS = (",", ";", TAB, "|")
"""Separators that are recognised."""
SEP_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)
"""The line that declares the separator for Excel."""
HEAD = 50
"""Number of lines from which the separator and the column names are detected."""
LONGEST_FIELD = 1 << 24
"""Maximum characters of a field, so that an unclosed quotation mark does not read the whole file into memory."""


def read_separated(
    path: Path, preferred: str, encoding: str, header: Sequence[str] | None, marked: bool, remarks: Remarks
) -> Iterator[Found]:
    """Iterate over the records of a file, each with its line.

    Args:
        path: the file.
        preferred: separator that the file name suggests.
        encoding: encoding of the text.
        header: column names if the file has no line of names.
        marked: whether the file starts with a byte order mark; concatenated files may then contain more of them.
        remarks: receives notes on the format and suspicious places.

    Raises:
        BadLine: the rest of the file cannot be read.
    """
    csv.field_size_limit(LONGEST_FIELD)
    with opened(path) as file:
        # newline="" leaves line ends inside quoted fields as they are.
        text = as_text(file, encoding, "")
        head = _head(text)
        form = _form(head, preferred, header)
        check_names(form.names, form.first - 1)
        if form.separator == TAB:
            form = _with_tabs(form, path, encoding, remarks)
        if form.separator != preferred or (head and SEP_LINE.fullmatch(head[0])):
            remarks.how.append("tabs as separators" if form.separator == TAB else f"{form.separator!r} as separator")
        above = [line for line in head[: form.first - 2] if line.strip() and not SEP_LINE.fullmatch(line)]
        if above and header is None:
            remarks.how.append(f"the column names in line {form.first - 1}")
        lines: Iterable[str] = itertools.chain(head[form.first - 1 :], text)
        if marked:
            lines = (line.removeprefix(MARK) for line in lines)
        yield from _Records(path, encoding, form, header is not None, remarks).all(lines)


def _head(text: TextIO) -> list[str]:
    head = list(itertools.islice(text, HEAD))
    if head:
        head[0] = head[0].removeprefix(MARK)
    return head


def _form(head: list[str], preferred: str, header: Sequence[str] | None) -> Form:
    """Choose the separator with which most rows have as many fields as there are names; usual names come first."""
    declared = SEP_LINE.fullmatch(head[0]) if head else None
    start = 1 if declared else 0
    candidates = [declared[1]] if declared else sorted(SEPARATORS, key=lambda each: each != preferred)
    forms = [_form_with(separator, head, start, header) for separator in candidates]
    best, form = max(forms, key=lambda each: each[0])
    if best == (False, 0.0):
        form = forms[0][1]  # no separator makes two columns
    return form


def _form_with(
    separator: str, head: list[str], start: int, header: Sequence[str] | None
) -> tuple[tuple[bool, float], Form]:
    reader = csv.reader(head[start:], delimiter=separator)
    rows, ends = [], []
    try:
        for row in reader:
            rows.append(row)
            ends.append(start + reader.line_num)
    except csv.Error:
        pass
    if header is not None:
        return (False, _share(rows, len(header))), Form(separator, list(header), start + 1)
    found = find_header(rows)
    if found is None:
        place = next((number for number, row in enumerate(rows) if any(row)), None)
        names = [] if place is None else [cell.strip() for cell in rows[place]]
        return (False, 0.0), Form(separator, names, 1 if place is None else ends[place] + 1)
    end = ends[found.place]
    line = head[end - 1]
    form = Form(
        separator,
        found.names,
        end + 1,
        quotes_all=line.startswith('"') and f'"{separator}"' in line,
        spaced=f"{separator} " in line,
    )
    return (found.is_recognised, _share(rows[found.place + 1 :], len(found.names))), form


def _share(rows: list[list[str]], width: int) -> float:
    """Share of the rows with this number of fields, ignoring empty fields at the end; positive even without rows."""
    sound = [len(row) >= width > 1 and not any(row[width:]) for row in rows if row]
    return (1 + sum(sound)) / (1 + len(sound))


def _with_tabs(form: Form, path: Path, encoding: str, remarks: Remarks) -> Form:
    """Whether quotation marks are text in a file with tabs."""
    with opened(path) as file:
        below = itertools.islice(as_text(file, encoding, ""), form.first - 1, None)
        has_marks, quoted = tabs_are_quoted(below, form)
    if has_marks and not quoted:
        remarks.how.append("quotation marks as text")
    return replace(form, quoted=quoted)


class _Records:
    """Reads plain rows fast, and reads line by line after the first stray quotation mark."""

    def __init__(self, path: Path, encoding: str, form: Form, are_given: bool, remarks: Remarks) -> None:
        self._path, self._encoding, self._form = path, encoding, form
        self._quotes = QuotedLines(form, remarks)
        shown = "a tab" if form.separator == TAB else repr(form.separator)
        hint = f"quote a text that holds {shown}" if form.quoted else f"a text must not hold {shown}"
        self._odd = OddRows(form.names, are_given, hint, remarks)

    def all(self, lines: Iterable[str]) -> Iterator[Found]:
        """Iterate over the records of `lines`, which follow the column names."""
        form, names = self._form, self._form.names
        width = len(names) or -1  # no row is a record without names
        lasts = {change(name) for name in names[-1:] for change in (str, str.lower, str.upper, str.capitalize)}
        rows = csv.reader(
            lines,
            strict=True,
            delimiter=form.separator,
            quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
            skipinitialspace=form.spaced,
        )
        line, above = form.first, form.first - 1
        try:
            for row in rows:
                end = rows.line_num + above
                if end != line and self._quotes.swallows(line, row):
                    break
                if len(row) == width and row[0] > "!" and row[-1] not in lasts:  # "!": neither empty nor space
                    yield line, dict(zip(names, row))  # noqa: B905 (as many as there are names)
                elif found := self._odd.sort(line, row):
                    yield found
                line = end + 1  # a record starts after the end of the last one
            else:
                return
        except csv.Error:
            pass
        yield from self._with_care(line)

    def _with_care(self, line: int) -> Iterator[Found]:
        """Iterate over the records from a line on."""
        with opened(self._path) as file:
            text = as_text(file, self._encoding, "")
            lines = (each.removeprefix(MARK) for each in itertools.islice(text, line - 1, None))
            for place, row in self._quotes.rows(lines, line):
                if isinstance(row, BadLine):
                    yield row
                elif found := self._odd.sort(place, row):
                    yield found
