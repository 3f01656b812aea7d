"""Tables for both pages and for the terminal."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from qa_lm.errors import sanitize
from qa_lm.reporting.markdown import escape

LETTERS = 44
"""Maximum width of a cell, in terminal columns."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    small: str = ""
    """Additional text: below `text` on the page, in brackets elsewhere."""
    mark: str = ""
    """right, nearly or wrong: sets the colour. Empty for none."""
    indent: int = 0
    """Spaces before the text, in the terminal."""

    @property
    def both(self) -> str:
        """Text and additional text, on one line."""
        return f"{self.text} ({self.small})" if self.small else self.text


@dataclass(frozen=True)
class Table:
    """A table: column titles and rows of cells."""

    name: str
    """What the rows are, in the plural, such as "epochs"."""
    header: list[str]
    """A title per column. It may have several lines."""
    align: str
    """A letter per column: l (left) or r (right)."""
    rows: list[list[Cell]]

    def markdown(self) -> Markup:
        """Format the table as Markdown."""
        titles = [" ".join(title.split()) for title in self.header]
        rules = ["---" if side == "l" else "---:" for side in self.align]
        lines = [titles, *([cell.both for cell in row] for row in self.rows)]
        escaped: list[list[str]] = [[escape(text) for text in line] for line in lines]
        return Markup("\n".join(f"| {' | '.join(line)} |" for line in (escaped[0], rules, *escaped[1:])))

    def lines(self, rows: int | None = None, columns: int | None = None, letters: int = LETTERS) -> list[str]:
        """Format the first rows and columns for the terminal; None for all of them."""
        titles = [title.split("\n") for title in self.header[:columns]]
        height = max(map(len, titles))
        titles = [[""] * (height - len(title)) + title for title in titles]
        shown = [
            [" " * cell.indent + truncate(cell.text, letters) for cell in row[:columns]] for row in self.rows[:rows]
        ]
        return align_rows([*map(list, zip(*titles, strict=True)), *shown], height)


def plain_rows(rows: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Cells that have only a text."""
    return [[Cell(text) for text in row] for row in rows]


def align_rows(rows: Sequence[Sequence[str]], headings: int = 1) -> list[str]:
    """Align the columns of the rows, each as wide as its widest cell. The first `headings` rows are underlined."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell + " " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(headings, "  ".join("-" * width for width in widths))
    return lines


def truncate(text: str, width: int) -> str:
    """Shorten a text to one line of at most `width` terminal columns; three dots replace what is cut off."""
    line = sanitize(" ".join(text.split()))
    if display_width(line) <= width:
        return line
    line = line[: 2 * width]
    while display_width(line) > width - 3:
        line = line[:-1]
    return line + "..."


def display_width(text: str) -> int:
    """Width in terminal columns: 2 for Chinese, Japanese, Korean and emoji, 0 for combining marks, else 1."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
