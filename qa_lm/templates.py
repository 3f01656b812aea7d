"""Templates: text with names of columns in braces, such as `Context: {context}\\nQ: {question}\\nA:`.

A template has three parts. What lies between its first and its last column, `{context}\\nQ: {question}`, is filled when
files are read, and is from there on the question (or the answer) of a pair: questions that differ in any column are
different questions. What stands before and after is put around it when the pair is encoded.
"""

import functools
import string
from collections.abc import Mapping
from typing import NamedTuple

from qa_lm.errors import UserError

Parts = tuple[tuple[str, str], ...]
"""Names of columns, each with the text between it and the next one; after the last there is none."""
QUESTION: Parts = (("question", ""),)
ANSWER: Parts = (("answer", ""),)


class Template(NamedTuple):
    """A template taken apart."""

    before: str
    parts: Parts
    after: str


@functools.cache
def parsed(text: str) -> Template:
    """Take a template apart; `{{` and `}}` are braces.

    Raises:
        ValueError: a brace is not closed, a name is empty, or there is no column; the message is for the user.
    """
    pieces = [""]  # text, column, text, column, ..., text
    for literal, name, spec, conversion in string.Formatter().parse(text):
        pieces[-1] += literal
        if name is not None:  # a column's name may hold what str.format gives a meaning: `{Price: EUR}`
            column = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            if not column.strip():
                raise ValueError("{} names no column")
            pieces += [column, ""]
    if len(pieces) == 1:
        raise ValueError("it names no column in braces")
    between = [*pieces[2:-1:2], ""]
    return Template(pieces[0], tuple(zip(pieces[1::2], between, strict=True)), pieces[-1])


def filled(parts: Parts, values: Mapping[str, str]) -> str:
    """The columns' texts and what stands between them."""
    return "".join([values[column] + text for column, text in parts])


def names_in(parts: Parts) -> list[str]:
    """The columns, each once."""
    return list(dict.fromkeys(column for column, _ in parts))


def check_templates(prompt: str, completion: str) -> None:
    """Refuse templates that cannot be filled.

    Raises:
        UserError: so it is; the message names the setting.
    """
    for setting, text, example in (
        ("data.prompt", prompt, "{question}"),
        ("data.completion", completion, " {answer}"),
    ):
        try:
            names = names_in(parsed(text).parts)
        except ValueError as error:
            raise UserError(
                f"{setting}={text}: {error}; write columns as in {example!r}, and a brace itself as {{{{ or }}}}",
                setting,
            ) from None
        if setting == "data.prompt" and "answer" in names:
            raise UserError(
                f"{setting}={text}: {{answer}} is what the model has to give, so it cannot be asked", setting
            )
