"""Parse lists and dictionaries that were written as text, as pandas does in CSV: `['red', 'Red']`.

A column is parsed only if all its texts are lists, because a single text in brackets may be a true answer of a data set
about code. Lists of numbers stay text for the same reason.
"""

import ast
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qa_lm.data.readers.problems import BadLine, Found, Remarks
from qa_lm.data.records.columns import Wanted, choose_columns

PEEK = 20
"""Number of records in which columns of lists are detected; the whole file is then checked before it is read."""
TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+]?\d[\d.]*(?:e[-+]?\d+)?|(?:None|True|False|nan)\b)
    |(?P<array>(?:numpy\.|np\.)?(?:array|str_|int\d*|float\d*|bool_?)\()
    |(?P<dtype>,\s*dtype=[\w.<>'"]+)
    |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def with_lists(records: Callable[[Remarks], Iterator[Found]], wanted: Wanted, remarks: Remarks) -> Iterator[Found]:
    """Iterate over the records with columns of written lists parsed.

    Args:
        records: starts reading the file, and adds to the remarks that it is given.
        wanted: the wanted columns.
        remarks: receives the remarks.
    """
    coming = records(remarks)
    head = list(itertools.islice(coming, PEEK))
    columns = _columns_of_lists(iter(head), wanted)
    if columns:  # once more, over all records
        columns &= _columns_of_lists(records(Remarks()), wanted)
    everything = itertools.chain(head, coming)
    if not columns:
        return everything
    remarks.how.append(f"lists written as text in {', '.join(sorted(columns))}")
    return (each if isinstance(each, BadLine) else (each[0], _restored(each[1], columns)) for each in everything)


def _restored(record: Mapping[str, Any], columns: set[str]) -> dict[str, Any]:
    return dict(record) | {
        name: found
        for name in columns
        if isinstance(text := record.get(name), str) and (found := written_list(text)) is not None
    }


def _columns_of_lists(records: Iterator[Found], wanted: Wanted) -> set[str]:
    columns: set[str] = set()
    others: set[str] = set()
    for each in records:
        if isinstance(each, BadLine):
            continue
        for name, value in each[1].items():
            if name in others or not isinstance(value, str) or not value.strip():
                continue
            found = written_list(value)
            if found is None or (_is_texts(found) and name == _question(each[1], wanted)):
                others.add(name)
            elif found:
                columns.add(name)
        if len(others) == len(each[1]):
            break
    return columns - others


def _question(record: Mapping[str, Any], wanted: Wanted) -> str | None:
    try:
        return choose_columns(record, wanted).question
    except ValueError:
        return None


def _is_texts(value: list[Any] | dict[str, Any]) -> bool:
    return isinstance(value, dict) or all(isinstance(each, str) for each in value)


def written_list(text: str) -> list[Any] | dict[str, Any] | None:
    """Parse a list of texts, a list of dictionaries (a dialogue) or a dictionary of answers; None for other texts.

    Accepts the syntax of JSON, Python, and numpy (`['red' 'Red']`, `array([...], dtype=object)`).
    """
    text = text.strip()
    if not (text.startswith(("[", "{", "array(")) and text.endswith(("]", "}", ")"))):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(_as_python(text))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    if isinstance(value, dict):
        return value if "text" in value else None
    if not isinstance(value, list):
        return None
    same = all(isinstance(each, str) for each in value) or all(isinstance(each, dict) for each in value)
    return value if same else None


def _as_python(text: str) -> str:
    """Remove numpy's calls and dtypes, and add the commas that it omits."""
    parts: list[str] = []
    for token in TOKEN.finditer(text):
        kind, part = token.lastgroup, token[0]
        if kind in ("space", "array", "dtype") or part == ")":
            continue
        if (
            (kind == "value" or part in "[{")
            and parts
            and (parts[-1] in ("]", "}") or parts[-1][-1] in "'\"0123456789")
        ):
            parts.append(",")
        parts.append("None" if part == "nan" else part)
    return "".join(parts)
