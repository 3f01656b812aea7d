"""Templates: text with column names in braces, such as `Context: {context}\\nQ: {question}\\nA:`.

A template has three parts. The middle, from its first to its last column (`{context}\\nQ: {question}`), is filled when
files are read and becomes the question (or the answer) of a pair, so questions that differ in any column are different
questions. The text before and after it is added when the pair is encoded.
"""

import functools
import string
from collections.abc import Mapping
from typing import NamedTuple

from qa_lm.errors import UserError

TemplateParts = tuple[tuple[str, str], ...]
"""Column names, each with the text between it and the next one; the text after the last one is empty."""
QUESTION: TemplateParts = (("question", ""),)
ANSWER: TemplateParts = (("answer", ""),)


class Template(NamedTuple):
    """The three parts of a template."""

    before: str
    parts: TemplateParts
    after: str


@functools.cache
def parse_template(text: str) -> Template:
    """Split a template into its parts; `{{` and `}}` stand for literal braces.

    Raises:
        ValueError: a brace is not closed, a name is empty, or no column is named. The message is written for the user.
    """
    pieces = [""]  # text, column, text, column, ..., text
    for literal, name, spec, conversion in string.Formatter().parse(text):
        pieces[-1] += literal
        if name is not None:  # a column name may contain characters that str.format interprets: `{Price: EUR}`
            column = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            if not column.strip():
                raise ValueError("{} names no column")
            pieces += [column, ""]
    if len(pieces) == 1:
        raise ValueError("it names no column in braces")
    between = [*pieces[2:-1:2], ""]
    return Template(pieces[0], tuple(zip(pieces[1::2], between, strict=True)), pieces[-1])


def fill_template(parts: TemplateParts, values: Mapping[str, str]) -> str:
    """Join the texts of the columns and the text between them."""
    return "".join([values[column] + text for column, text in parts])


def placeholders(parts: TemplateParts) -> list[str]:
    """The names of the columns, without duplicates."""
    return list(dict.fromkeys(column for column, _ in parts))


def check_templates(prompt: str, completion: str) -> None:
    """Check that templates can be filled.

    Raises:
        UserError: a template is invalid; the message names the setting.
    """
    for setting, text, example in (
        ("data.prompt", prompt, "{question}"),
        ("data.completion", completion, " {answer}"),
    ):
        try:
            names = placeholders(parse_template(text).parts)
        except ValueError as error:
            raise UserError(
                f"{setting}={text}: {error}; write columns as in {example!r}, and a literal brace as {{{{ or }}}}",
                setting,
            ) from None
        if setting == "data.prompt" and "answer" in names:
            raise UserError(
                f"{setting}={text}: the prompt cannot contain {{answer}}, which the model has to generate", setting
            )
