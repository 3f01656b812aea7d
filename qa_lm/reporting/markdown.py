"""Foreign text in Markdown: no character of it can end a cell, begin a list, or be read as HTML."""

import re
from collections.abc import Sequence

from markupsafe import Markup

from qa_lm.reporting.wording import printable

# As entities, because readers of Markdown disagree about a backslash before these within tables.
ENTITIES = {character: f"&#{ord(character)};" for character in "&<>|\\`"}
ESCAPES = str.maketrans(ENTITIES | {character: f"\\{character}" for character in "*_[]~$"})


def escape(text: object) -> Markup:
    """Text as Markdown that shows just this text, on one line; Markup, being Markdown already, stays as it is."""
    if isinstance(text, Markup):
        return text
    lines = [line.strip().translate(ESCAPES) for line in printable(str(text)).strip().split("\n")]
    return Markup("<br>".join(_unlike_a_list(line) for line in lines))


def table(header: Sequence[object], rows: Sequence[Sequence[object]], align: str) -> Markup:
    """A table.

    Args:
        header: a title per column.
        rows: the cells.
        align: a letter per column, l or r.
    """
    rules = ["---" if side == "l" else "---:" for side in align]
    cells: list[list[str]] = [[escape(cell) for cell in row] for row in (header, *rows)]
    lines = [cells[0], rules, *cells[1:]]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


def fenced(text: str) -> Markup:
    """Text as a block of code, between more backticks than it has in a row."""
    clean = printable(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", clean)), default=0))
    return Markup(f"{fence}text\n{clean}\n{fence}")


def _unlike_a_list(line: str) -> str:
    """A line that does not begin as a heading, a list or a rule does."""
    line = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)
    return re.sub(r"^([#+=-]+)(?=\s|$)", r"\\\1", line)
