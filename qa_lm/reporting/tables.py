"""Tables for both pages and for the terminal."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from qa_lm.errors import sanitize
from qa_lm.reporting.markdown import table

LETTERS = 44
"""Columns of the terminal that a cell takes at most."""


@dataclass(frozen=True)
class Cell:
    """What a table holds in one place."""

    text: str
    small: str = ""
    """Beneath, or in brackets."""
    mark: str = ""
    """right, nearly or wrong: its colour."""
    indent: int = 0
    """Spaces before it, on the terminal."""

    @property
    def both(self) -> str:
        """All of it in one line."""
        return f"{self.text} ({self.small})" if self.small else self.text


@dataclass(frozen=True)
class Table:
    """Rows beneath their titles."""

    name: str
    """What its rows are, in the plural."""
    header: list[str]
    """A title per column; one may have several lines."""
    align: str
    """A letter per column, l or r."""
    rows: list[list[Cell]]

    def markdown(self) -> Markup:
        """The table for report.md."""
        header = [re.sub(r"\s+", " ", title) for title in self.header]
        return table(header, [[cell.both for cell in row] for row in self.rows], self.align)

    def lines(self, rows: int | None = None, columns: int | None = None, letters: int = LETTERS) -> list[str]:
        """The first rows and columns for the terminal; None for all."""
        titles = [title.split("\n") for title in self.header[:columns]]
        height = max(map(len, titles))
        titles = [[""] * (height - len(title)) + title for title in titles]
        shown = [[" " * cell.indent + short(cell.text, letters) for cell in row[:columns]] for row in self.rows[:rows]]
        return straight([*map(list, zip(*titles, strict=True)), *shown], height)


def plain_rows(rows: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Cells without more than their text."""
    return [[Cell(text) for text in row] for row in rows]


def straight(rows: Sequence[Sequence[str]], headings: int = 1) -> list[str]:
    """The rows as lines, each column as wide as its widest cell; the first `headings` rows are underlined."""
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(headings, "  ".join("-" * width for width in widths))
    return lines


def short(text: str, width: int) -> str:
    """One line of at most so many columns; what is cut off leaves three dots."""
    line = sanitize(" ".join(text.split()))
    if cells(line) <= width:
        return line
    line = line[: 2 * width]
    while cells(line) > width - 3:
        line = line[:-1]
    return line + "..."


def cells(text: str) -> int:
    """Columns that a terminal gives the text: two for Chinese, Japanese, Korean and emoji, none for combining marks."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
