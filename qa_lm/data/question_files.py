"""Read the questions of a file: a text file with one question per line, or a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.questions import check_names, question_of
from qa_lm.data.readers.files import check_encoding, data_suffix, opened
from qa_lm.data.readers.formats import READERS
from qa_lm.data.readers.problems import BadLine, Problems, Remarks
from qa_lm.data.readers.reading import Reading, Source
from qa_lm.data.readers.written_lists import with_lists
from qa_lm.data.records.columns import ColumnNames, Columns, question_from
from qa_lm.errors import UserError
from qa_lm.templates import placeholders


def questions_in(
    path: Path, template: PromptTemplate, texts: Mapping[str, str], column: str | None, encoding: str
) -> list[str]:
    """Read the questions of a file.

    Args:
        path: a table if its suffix is that of a file of pairs; otherwise text with one question per line.
        template: the prompt template; its columns are read from a table.
        texts: text of columns that are the same for all questions; replaces those of the file.
        column: name of the question column in a table; None to recognise it.
        encoding: encoding of the file.

    Raises:
        UserError: the file cannot be read, lacks a column, or contains no question.
    """
    try:
        check_encoding(encoding)
        is_table = data_suffix(path) in READERS
        found = _in_table(path, template, texts, column, encoding) if is_table else _in_lines(path, encoding)
        questions = list(found) if is_table else [question_of(template, {**texts, "question": each}) for each in found]
    except BadLine as bad:
        raise UserError(f"{path}: {bad}") from None
    if not questions:
        raise UserError(f"{path}: contains no question")
    return questions


def _in_lines(path: Path, encoding: str) -> Iterator[str]:
    with opened(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeError:
        raise UserError(f"{path}: cannot be read: not {encoding.upper()}; give data.encoding=...") from None
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.strip():
            yield line.removesuffix("\r")


def _in_table(
    path: Path, template: PromptTemplate, texts: Mapping[str, str], column: str | None, encoding: str
) -> Iterator[str]:
    check_names(texts, placeholders(template.question_parts))
    source = Source(str(path), path)
    reading = Reading(
        ColumnNames(question=column),
        prompt=template.question_parts,
        answers=False,
        chat=template.chat is not None,
        system=template.chat.system if template.chat else None,
        encoding=encoding,
    )
    columns: Columns | None = None
    problems = Problems()
    for found in with_lists(lambda remarks: source.records(reading, remarks), reading, Remarks()):
        if isinstance(found, BadLine):
            problems.add(source.name, found)
            continue
        line, record = found
        try:
            record = {**record, **texts}
            columns = columns or reading.columns_of(record)
            yield question_from(record, columns)
        except ValueError as error:
            fixed = columns is None and source.has_fixed_columns
            problems.add(source.name, BadLine(1 if fixed else line, str(error)))
            if fixed:
                break
    if problems.count:
        raise problems.error()
