"""Read questions for a model: from the command line, a text file with one question per line, or a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from qa_lm.data.encoding import TEMPLATE_FILE, PromptTemplate
from qa_lm.data.readers.files import check_encoding, data_suffix, opened
from qa_lm.data.readers.formats import READERS
from qa_lm.data.readers.problems import BadLine, Problems, Remarks
from qa_lm.data.readers.reading import Reading, Source
from qa_lm.data.readers.written_lists import with_lists
from qa_lm.data.records.columns import ColumnNames, Columns, question_from
from qa_lm.errors import UserError
from qa_lm.run.run_folder import CHECKPOINTS, MODEL
from qa_lm.templates import fill_template, placeholders


def template_of(run: Path) -> PromptTemplate:
    """Load the template of a run folder or a model folder; the default template if it has none.

    Raises:
        UserError: the file is damaged.
    """
    folders = (run / MODEL, run / CHECKPOINTS / MODEL, run)
    folder = next((folder for folder in folders if (folder / TEMPLATE_FILE).is_file()), None)
    return PromptTemplate.load(folder) if folder else PromptTemplate()


def question_of(template: PromptTemplate, texts: Mapping[str, str]) -> str:
    """Build a question from the columns of the template.

    Args:
        template: the prompt template.
        texts: text of each column: the question, and the values of `--set`.

    Raises:
        UserError: a column is missing, or is not in the template.
    """
    needed = placeholders(template.question_parts)
    _check_names(texts, needed)
    if missing := [name for name in needed if name not in texts]:
        given = " ".join(f"--set {name}=TEXT" for name in missing)
        raise UserError(
            f"this model is asked with {', '.join(needed)}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; give {given}, or --file with a column of that name"
        )
    return fill_template(template.question_parts, texts)


def _check_names(texts: Mapping[str, str], needed: list[str]) -> None:
    if unknown := [name for name in texts if name not in (*needed, "question")]:
        raise UserError(f"--set {unknown[0]}=...: this model is asked with {', '.join(needed)}")


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
    _check_names(texts, placeholders(template.question_parts))
    source = Source(str(path), path)
    reading = Reading(ColumnNames(question=column), prompt=template.question_parts, answers=False, encoding=encoding)
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
