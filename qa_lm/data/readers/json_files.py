"""JSON and JSON Lines."""

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qa_lm.data.readers.files import as_text, encoding_hint, not_in_encoding, opened
from qa_lm.data.readers.problems import BadLine, Found

# What json.loads raises: ValueError for bad JSON and for numbers of thousands of digits.
JSON_ERRORS = (ValueError, RecursionError)
JSON_SPACE = " \t\r\n"


def read_jsonl(path: Path, encoding: str) -> Iterator[Found]:
    """The objects of a file with one on each line."""
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


def read_json(path: Path, encoding: str) -> Iterator[Found]:
    """The objects of a list, of SQuAD's nesting, or of JSON Lines under another name."""
    with opened(path) as file:
        lines = _filled(as_text(file, encoding, "\n"))
        first, has_more = next(lines, (1, ""))[1], next(lines, None) is not None
    if has_more and _is_object(first):  # a file of JSON lines under another name
        yield from read_jsonl(path, encoding)
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
