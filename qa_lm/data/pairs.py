"""Pairs of a question and its answer: read from a file, checked line by line."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from qa_lm.errors import UserError, located

BUILTIN_FOLDER = Path(__file__).parent / "builtin"
COLUMNS = ("question", "answer")


class Pair(NamedTuple):
    """A question and its answer, as text."""

    question: str
    answer: str


def builtin_pairs(name: str) -> list[Pair]:
    """The pairs shipped with qa_lm under this name.

    Raises:
        UserError: there is none of that name.
    """
    path = BUILTIN_FOLDER / f"{name}.jsonl"
    names = sorted(file.stem for file in BUILTIN_FOLDER.glob("*.jsonl"))
    if name not in names:
        raise UserError(f"data.builtin={name}: no such pairs; there is {', '.join(names)}")
    return read_pairs(path)


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a file, in its order.

    The suffix tells the format: `.jsonl`, one {"question", "answer"} object per line (other keys are ignored, blank
    lines too), or `.csv` with a header that names the two columns. UTF-8, with or without a byte order mark.

    Raises:
        UserError: the file is missing, of another kind, not UTF-8, has a bad line (named as file:line) or fewer than
            two pairs.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: the name must end in {' or '.join(readers)}")
    try:
        # newline="" leaves line ends inside quoted CSV fields as they are.
        with path.open(encoding="utf-8-sig", newline="") as file:
            pairs = [_checked(path, line, question, answer) for line, question, answer in reader(path, file)]
    except UnicodeDecodeError as error:
        raise located(
            path, _line_of_bad_byte(path), f"not UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if len(pairs) < 2:
        raise UserError(
            f"{path}: {'1 pair' if pairs else 'no pairs'}; at least two are needed, one to train and one to validate"
        )
    return pairs


def fingerprint(pairs: list[Pair]) -> str:
    """sha256 of the pairs in their order, in hexadecimal: equal if and only if the texts are."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(pair, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def _read_jsonl(path: Path, file: TextIO) -> Iterator[tuple[int, object, object]]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise located(path, line, f"not JSON: {error}") from None
        if not isinstance(record, dict):
            raise located(path, line, f'expected {{"question": ..., "answer": ...}}, found {type(record).__name__}')
        if missing := [column for column in COLUMNS if column not in record]:
            raise located(
                path, line, f"no {' and no '.join(missing)}; found the keys {', '.join(map(str, record)) or '(none)'}"
            )
        yield line, record["question"], record["answer"]


def _read_csv(path: Path, file: TextIO) -> Iterator[tuple[int, object, object]]:
    rows = csv.reader(file, strict=True)
    header: list[str] = []
    line = 1
    try:
        header = next(rows, [])
        if missing := [column for column in COLUMNS if column not in header]:
            raise located(
                path, 1, f"no column {' and no column '.join(missing)}; the header has {', '.join(header) or 'nothing'}"
            )
        line = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise located(
                    path, line, f"{len(row)} fields where the header has {len(header)}; quote a text that holds a comma"
                )
            if row:
                yield line, row[header.index("question")], row[header.index("answer")]
            line = rows.line_num + 1  # a quoted field may hold line ends: a record starts after the last one's end
    except csv.Error as error:
        raise located(path, line, f"not CSV: {error}") from None


def _checked(path: Path, line: int, question: object, answer: object) -> Pair:
    for name, text in zip(COLUMNS, (question, answer), strict=True):
        if not isinstance(text, str):
            raise located(path, line, f"the {name} must be text, found {json.dumps(text)}")
        if not text.strip():
            raise located(path, line, f"the {name} is empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise located(path, line, f"the {name} holds half of a surrogate pair, which is no character") from None
    assert isinstance(question, str)
    assert isinstance(answer, str)
    return Pair(question, answer)


def _line_of_bad_byte(path: Path) -> int:
    with path.open("rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError:
                return line
    return line
