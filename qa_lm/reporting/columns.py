"""Text in straight columns on a terminal, whatever its script."""

import unicodedata
from collections.abc import Sequence

from qa_lm.errors import harmless


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
    line = harmless(" ".join(text.split()))
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
