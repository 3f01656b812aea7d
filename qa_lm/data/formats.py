"""The formats of files of pairs: each reader yields (line, record) and raises or yields `BadLine`.

A record maps column names to values. Readers stream: memory does not grow with the file, but for a JSON file that is
one object (SQuAD's nesting), which is read whole. Lines are counted from 1; of a record over several lines it is the
first. Only "\\n" ends a line of JSONL: U+2028, U+0085 and the like inside a string are text.
"""

import codecs
import csv
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from qa_lm.data.files import BLOCK, as_text, not_in_encoding, opened, undecodable
from qa_lm.data.json_stream import JsonStream
from qa_lm.data.problems import BadLine

Record = Mapping[str, object]
Found = tuple[int, Record] | BadLine

TAB = "\t"
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# What json.loads raises: ValueError for bad JSON and for numbers of thousands of digits.
JSON_ERRORS = (ValueError, RecursionError)


def read_records(path: Path, suffix: str, encoding: str, header: Sequence[str] | None) -> Iterator[Found]:
    """The records of a file and its bad lines, in order.

    Args:
        path: the file.
        suffix: its format, one of `SUFFIXES`.
        encoding: of its text.
        header: the columns of a CSV or TSV file without a header line; None if the first line names them.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        try:
            if suffix == ".parquet":
                yield from _parquet(path)
            elif suffix == ".jsonl":
                yield from _jsonl(path, encoding)
            elif suffix == ".json":
                yield from _json(path, encoding)
            else:
                yield from _separated(path, "," if suffix == ".csv" else TAB, encoding, header)
        except UnicodeError:
            raise undecodable(path, encoding) from None
    except BadLine as bad:
        yield bad


def _jsonl(path: Path, encoding: str) -> Iterator[Found]:
    if codecs.lookup(encoding).name != "utf-8":
        with opened(path) as file:
            yield from (_json_line(line, text) for line, text in _filled(as_text(file, encoding, "\n")))
        return
    with opened(path) as file:
        offset = 0
        for line, content in enumerate(file, start=1):
            try:
                text = content.decode()
            except UnicodeDecodeError as error:
                place = offset + error.start
                yield BadLine(line, not_in_encoding(encoding, place, content[error.start]))
            else:
                text = text.removeprefix("\ufeff") if line == 1 else text
                if not text.isspace() and text:
                    yield _json_line(line, text)
            offset += len(content)


def _filled(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((line, text) for line, text in enumerate(lines, start=1) if text and not text.isspace())


def _json_line(line: int, text: str) -> Found:
    try:
        return _record(line, json.loads(text))
    except json.JSONDecodeError as error:
        return BadLine(line, f"not JSON: {error.msg} at column {error.colno}")
    except JSON_ERRORS as error:
        return BadLine(line, f"not JSON: {error}")


def _record(line: int, value: object) -> Found:
    if isinstance(value, dict):
        return line, value
    return BadLine(line, f'no object: expected {{"question": ..., "answer": ...}}, found {type(value).__name__}')


def _json(path: Path, encoding: str) -> Iterator[Found]:
    with opened(path) as file:
        stream = JsonStream(as_text(file, encoding, ""))
        if stream.is_list():
            for line, value in stream.elements():
                yield _record(line, value)
            return
        first = stream.first_line()
    try:
        is_lines = isinstance(json.loads(first), dict)
    except JSON_ERRORS:
        is_lines = False
    if is_lines:  # a file of JSON lines under another name, or one short object
        yield from _jsonl_or_object(path, encoding)
    else:
        yield from _object(path, encoding)


def _jsonl_or_object(path: Path, encoding: str) -> Iterator[Found]:
    with opened(path) as file:
        lines = _filled(as_text(file, encoding, "\n"))
        _, first = next(lines)
        only_one = next(lines, None) is None
    yield from _nested(1, json.loads(first.removeprefix("\ufeff"))) if only_one else _jsonl(path, encoding)


def _object(path: Path, encoding: str) -> Iterator[Found]:
    with opened(path) as file:
        text = as_text(file, encoding, "").read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadLine(error.lineno, f"not JSON: {error.msg} at column {error.colno}", fatal=True) from None
    except JSON_ERRORS as error:
        raise BadLine(1, f"not JSON: {error}", fatal=True) from None
    yield from _nested(1, value)


def _nested(line: int, value: Any) -> Iterator[Found]:
    """SQuAD's data > paragraphs > qas, or a list of records under `data`; anything else is one record."""
    articles = value.get("data") if isinstance(value, dict) else None
    if not isinstance(articles, list):
        yield _record(line, value)
        return
    for article in articles:
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            yield _record(line, article)
            continue
        for paragraph in paragraphs:
            questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
            if not isinstance(questions, list):
                yield BadLine(line, "a paragraph of SQuAD's nesting has no list `qas`")
                continue
            for question in questions:
                yield _squad_question(line, question)


def _squad_question(line: int, value: object) -> Found:
    if not isinstance(value, dict):
        return _record(line, value)
    answers = value.get("answers")
    if not isinstance(answers, list):
        return line, value
    texts = [answer.get("text") if isinstance(answer, dict) else answer for answer in answers]
    if not texts:
        return BadLine(line, f"no answer: the question is {str(value.get('question'))[:60]!r}")
    return line, {"question": value.get("question"), "answer": texts}


def _separated(path: Path, delimiter: str, encoding: str, header: Sequence[str] | None) -> Iterator[Found]:
    csv.field_size_limit(2**31 - 1)
    with opened(path) as file:
        # newline="" leaves line ends inside quoted fields as they are.
        text = as_text(file, encoding, "")
        first = text.readline()
        if delimiter == "," not in first and ";" in first:
            delimiter = ";"  # as spreadsheets write CSV where the comma is the decimal point
        rows = csv.reader(itertools.chain([first], text), strict=True, delimiter=delimiter)
        line = 1
        try:
            names = list(header) if header else next(rows, [])
            if len(set(names)) < len(names):
                raise BadLine(1, f"a column is named twice: {', '.join(names)}", fatal=True)
            line = rows.line_num + 1
            for row in rows:
                if len(row) == len(names):
                    yield line, dict(zip(names, row, strict=True))
                elif row:
                    yield BadLine(
                        line,
                        f"{len(row)} fields where there are {len(names)} columns; "
                        f"quote a text that holds {'a tab' if delimiter == TAB else repr(delimiter)}",
                    )
                line = rows.line_num + 1  # a record starts after the end of the last one
        except csv.Error as error:
            raise BadLine(line, f"not {'TSV' if delimiter == TAB else 'CSV'}: {error}", fatal=True) from None


def _parquet(path: Path) -> Iterator[Found]:
    row = 1
    with opened(path) as file, tempfile.TemporaryFile() as unzipped:
        source: IO[bytes] = file
        if path.suffix.lower() == ".gz":  # Parquet is read from its end, so it must be a real file
            while block := file.read(BLOCK):
                unzipped.write(block)
            source = unzipped
        try:
            for batch in pa.parquet.ParquetFile(source).iter_batches(batch_size=4096):
                for record in batch.to_pylist():
                    yield row, record
                    row += 1
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise BadLine(row, f"not Parquet: {reason[0][:200]}", fatal=True) from None
