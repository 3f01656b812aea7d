"""Escape untrusted text for Markdown: it cannot end a table cell, start a list, or be read as HTML."""

import re

from markupsafe import Markup

from qa_lm.reporting.wording import printable

# Entities, because Markdown renderers disagree about a backslash before these characters within tables.
ENTITIES = {character: f"&#{ord(character)};" for character in "&<>|\\`"}
ESCAPES = str.maketrans(ENTITIES | {character: f"\\{character}" for character in "*_[]~$"})


def escape(text: object) -> Markup:
    """Escape text so that Markdown shows it literally, on one line. Markup is Markdown already and stays as it is."""
    if isinstance(text, Markup):
        return text
    lines = [line.strip().translate(ESCAPES) for line in printable(str(text)).strip().split("\n")]
    return Markup("<br>".join(_escape_line_start(line) for line in lines))


def fenced(text: str, language: str = "text") -> Markup:
    """Format text as a code block, with a fence longer than any run of backticks in it."""
    clean = printable(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", clean)), default=0))
    return Markup(f"{fence}{language}\n{clean}\n{fence}")


def _escape_line_start(line: str) -> str:
    """Escape what would start a heading, a list or a horizontal rule."""
    line = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)
    return re.sub(r"^([#+=-]+)(?=\s|$)", r"\\\1", line)
