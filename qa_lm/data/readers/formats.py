"""The formats of files of pairs: each reader yields (line, record) and raises or yields `BadLine`.

A record maps column names to values. Readers stream: memory does not grow with the file, except for JSON files, whose
text is read whole. Lines are counted from 1; of a record over several lines it is the
first. Where a line says nothing, in JSON on one line and in SQuAD's nesting, it is the record's number. Only "\\n" ends
a line of JSONL: U+2028, U+0085 and the like inside a string are text.
"""

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from qa_lm.data.readers.excel import read_excel
from qa_lm.data.readers.files import (
    as_text,
    encoding_hint,
    not_in_encoding,
    opened,
    seekable,
    text_encoding,
    undecodable,
)
from qa_lm.data.readers.problems import BadLine, Remarks
from qa_lm.data.readers.separated import read_separated

Record = Mapping[str, object]
Found = tuple[int, Record] | BadLine

LONGEST_BYTES = 4096
"""Mean size of a value up to which a Parquet column of bytes may be text."""
NO_TEXT = b"\xff"
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
# What json.loads raises: ValueError for bad JSON and for numbers of thousands of digits.
JSON_ERRORS = (ValueError, RecursionError)
JSON_SPACE = " \t\r\n"


def read_records(
    path: Path, suffix: str, encoding: str, header: Sequence[str] | None, remarks: Remarks | None = None
) -> Iterator[Found]:
    """The records of a file and its bad lines, in order.

    Args:
        path: the file.
        suffix: its format, one of `SUFFIXES`.
        encoding: of its text; a byte order mark of UTF-16 or UTF-32 counts more than UTF-8.
        header: the columns of a table without a row of names; None if the table names them.
        remarks: filled with how the file was read, and what in it looks wrong.

    Raises:
        UserError: the file cannot be opened.
    """
    remarks = remarks or Remarks()
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix == ".xlsx":
            yield from read_excel(path, header, remarks)
        else:
            yield from _text(path, suffix, encoding, header, remarks)
    except BadLine as bad:
        yield bad


def _text(path: Path, suffix: str, encoding: str, header: Sequence[str] | None, remarks: Remarks) -> Iterator[Found]:
    asked, (encoding, marked) = encoding, text_encoding(path, encoding)
    if encoding != asked and codecs.lookup(encoding).name != "utf-8":
        remarks.how.append(f"the encoding {codecs.lookup(encoding).name.upper()}")
    try:
        if suffix == ".jsonl":
            yield from _jsonl(path, encoding)
        elif suffix == ".json":
            yield from _json(path, encoding)
        else:
            yield from read_separated(path, "," if suffix == ".csv" else "\t", encoding, header, marked, remarks)
    except UnicodeError:
        raise undecodable(path, encoding) from None


def _jsonl(path: Path, encoding: str) -> Iterator[Found]:
    if codecs.lookup(encoding).name != "utf-8":
        with opened(path) as file:
            for line, text in _filled(as_text(file, encoding, "\n")):
                yield _json_line(line, text.removeprefix("\ufeff"))
        return
    with opened(path) as file:
        offset, hint = 0, None
        for line, content in enumerate(file, start=1):
            try:
                text = content.decode()
            except UnicodeDecodeError as error:
                reason = not_in_encoding(encoding, offset + error.start, content[error.start])
                if hint is None:  # it is the same in all lines
                    hint = encoding_hint(path)
                    reason = f"{reason}; {hint}"
                yield BadLine(line, reason)
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
        if text.startswith("\ufeff"):  # a byte order mark where files were joined
            return _json_line(line, text.lstrip("\ufeff"))
        return BadLine(line, f"not JSON: {error.msg} at column {error.colno}")
    except JSON_ERRORS as error:
        return BadLine(line, f"not JSON: {error}")


def _record(line: int, value: object) -> Found:
    if isinstance(value, dict):
        return line, value
    return BadLine(line, f'no object: expected {{"question": ..., "answer": ...}}, found {type(value).__name__}')


def _json(path: Path, encoding: str) -> Iterator[Found]:
    with opened(path) as file:
        lines = _filled(as_text(file, encoding, "\n"))
        first, has_more = next(lines, (1, ""))[1], next(lines, None) is not None
    if has_more and _is_object(first):  # a file of JSON lines under another name
        yield from _jsonl(path, encoding)
        return
    with opened(path) as file:
        text = as_text(file, encoding, "").read()
    if first.lstrip(JSON_SPACE).startswith("["):
        for place, value in _placed(_elements(text)):
            yield _record(place, value)
        return
    try:
        whole = json.loads(text)
    except JSON_ERRORS as error:
        raise _not_json(error, 1) from None
    yield from _nested(whole)


def _is_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except JSON_ERRORS:
        return False


def _not_json(error: Exception, line: int) -> BadLine:
    if isinstance(error, json.JSONDecodeError):
        return BadLine(error.lineno, f"not JSON: {error.msg} at column {error.colno}", fatal=True)
    return BadLine(line, f"not JSON: {error}", fatal=True)


def _placed(elements: Iterator[tuple[int, object]]) -> Iterator[tuple[int, object]]:
    """Elements with their lines; where the second stands on the line of the first, with their numbers from 1."""
    first = list(itertools.islice(elements, 2))
    by_number = len(first) == 2 and first[0][0] == first[1][0]
    for number, (line, value) in enumerate(itertools.chain(first, elements), start=1):
        yield number if by_number else line, value


def _elements(text: str) -> Iterator[tuple[int, object]]:
    """Line and value of each element of a list.

    Raises:
        BadLine: what follows the elements so far is not JSON.
    """

    def next_sign(at: int) -> tuple[int, str]:
        while at < len(text) and text[at] in JSON_SPACE:
            at += 1
        return at, text[at : at + 1]

    line, line_at, (at, sign) = 1, 0, next_sign(0)
    while sign in ("[", ","):
        begin, following = next_sign(at + 1)
        line, line_at = line + text.count("\n", line_at, begin), begin
        if sign == "[" and following == "]":
            at, sign = begin, following
            break
        try:
            value, end = json.JSONDecoder().raw_decode(text, begin)
        except JSON_ERRORS as error:
            raise _not_json(error, line) from None
        yield line, value
        at, sign = next_sign(end)
    end_line = line + text.count("\n", line_at, at)
    if sign != "]":
        raise BadLine(end_line, f"not JSON: expected , and found {sign or 'the end of the file'}", fatal=True)
    if next_sign(at + 1)[1]:
        raise BadLine(end_line, "not JSON: text after the end of the list", fatal=True)


def _nested(value: Any) -> Iterator[Found]:
    """SQuAD's data > paragraphs > qas, or a list of records under `data`; anything else is one record.

    A question of SQuAD's gets the `context` of its paragraph and the `title` of its article as columns. The place of
    each is its number, from 1.
    """
    articles = value.get("data") if isinstance(value, dict) else None
    if not isinstance(articles, list):
        yield _record(1, value)
        return
    number = 0
    for article in articles:
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        for paragraph in paragraphs if isinstance(paragraphs, list) else [{"qas": [article]}]:
            questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
            if not isinstance(questions, list):
                yield BadLine(number + 1, "a paragraph of SQuAD's nesting has no list `qas`")
                continue
            around = {"context": paragraph["context"]} if "context" in paragraph else {}
            around |= {"title": article["title"]} if isinstance(article, dict) and "title" in article else {}
            for question in questions:
                number += 1
                # A question's own columns stand first, and win.
                yield _record(number, question | around | question if isinstance(question, dict) else question)


def _parquet(path: Path) -> Iterator[Found]:
    row = 1
    with seekable(path) as source:
        try:
            parquet = pa.parquet.ParquetFile(source)
            names, pictures = _text_columns(parquet)
            for batch in parquet.iter_batches(batch_size=4096, columns=names):
                for record in _readable(batch).to_pylist():
                    yield row, record | pictures if pictures else record
                    row += 1
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise BadLine(row, f"not Parquet: {reason[0][:200]}", fatal=True) from None


def _text_columns(parquet: pa.parquet.ParquetFile) -> tuple[list[str], dict[str, object]]:
    """The columns to read; and those of pictures and the like, which are left in the file, with bytes that are no
    text in their place."""
    schema = parquet.schema_arrow
    sizes = {each.name: _mean_bytes(parquet, each.name) for each in schema if _is_bytes(each.type)}
    pictures = [name for name, size in sizes.items() if size > LONGEST_BYTES]
    return [name for name in schema.names if name not in pictures], dict.fromkeys(pictures, NO_TEXT)


def _mean_bytes(parquet: pa.parquet.ParquetFile, column: str) -> float:
    """Mean size of a column's first values. Its metadata has the sizes of all, but looking there ends the process where
    a damaged file has a size that cannot be: pyarrow does not catch that exception of its C++ library."""
    batch = next(parquet.iter_batches(batch_size=64, columns=[column]), None)
    return batch.nbytes / len(batch) if batch else 0.0


def _readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns whose values Python has: not of all times."""
    for name in [field.name for field in batch.schema if pa.types.is_temporal(field.type)]:
        try:
            batch[name].to_pylist()
        except (ValueError, OverflowError, pa.ArrowException):
            batch = batch.drop_columns([name])
    return batch


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
