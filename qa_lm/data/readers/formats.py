"""The formats of files of pairs: each reader yields (line, record) and raises or yields `BadLine`.

A record maps column names to values. Readers stream: memory does not grow with the file, except for JSON files, whose
text is read whole. Lines are counted from 1; a record over several lines has the line of its start. JSON on one line
and SQuAD's nested format have the number of the record instead. Only "\\n" ends a line of JSONL: U+2028, U+0085
and the like inside a string are text.

`register_format` adds a custom reader.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qa_lm.data.readers.excel import read_excel
from qa_lm.data.readers.files import COMPRESSED, SAME_FORMAT, data_suffix, text_encoding, undecodable
from qa_lm.data.readers.json_files import read_json, read_jsonl
from qa_lm.data.readers.problems import BadLine, Found, Remarks
from qa_lm.data.readers.separated import read_separated
from qa_lm.errors import UserError, first_line


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read; a reader may ignore options that do not apply to its format."""

    encoding: str = "utf-8"
    """The setting `data.encoding`, for text files."""
    header: Sequence[str] | None = None
    """The setting `data.columns`: the columns of a table without a row of names; None if the table names them."""
    remarks: Remarks = field(default_factory=Remarks)
    """Receives notes on how the file was read, and suspicious places."""


Reader = Callable[[Path, ReadOptions], Iterator[Found]]
"""Yields the records of a file, each with its line, counted from 1."""
READERS: dict[str, Reader] = {}
"""Readers by suffix, in lower case."""


def register_format(suffix: str) -> Callable[[Reader], Reader]:
    """Decorate a function to register it as the reader of files with this suffix; it replaces an earlier one.

    `qa_lm.data.readers.files.opened` opens a file, and unpacks .gz, .bz2 and .xz.

    Raises:
        UserError: this is not a suffix, or qa_lm reads files with this suffix itself.
    """
    if not re.fullmatch(r"\.[a-z0-9_-]+", suffix):
        raise UserError(f"register_format({suffix!r}): must be a dot and lower-case letters or digits, such as '.faq'")
    if suffix in BUILT_IN or suffix in COMPRESSED or suffix in SAME_FORMAT:
        raise UserError(f"register_format({suffix!r}): is a format of qa_lm; choose another suffix")

    def register(reader: Reader) -> Reader:
        READERS[suffix] = reader
        return reader

    return register


def read_records(path: Path, options: ReadOptions) -> Iterator[Found]:
    """Iterate over the records of a file and its bad lines, in order.

    Raises:
        UserError: the file cannot be opened, or a registered reader fails.
    """
    suffix = data_suffix(path)
    try:
        yield from READERS[suffix](path, options) if suffix in BUILT_IN else _checked(READERS[suffix], path, options)
    except BadLine as bad:
        yield bad


def _checked(read: Reader, path: Path, options: ReadOptions) -> Iterator[Found]:
    """Check the records of a registered reader, and report its errors in one line."""
    name = getattr(read, "__name__", type(read).__name__)
    line = 0
    try:
        for found in read(path, options):
            match found:
                case BadLine():
                    yield found
                case (int(line), Mapping() as record):
                    yield line, record
                case _:
                    raise UserError(f"{path}: {name} must yield (line, record), an int and a dict, not {found!r:.80}")
    except (BadLine, UserError):
        raise
    except UnicodeError:
        raise undecodable(path, options.encoding) from None
    except Exception as error:  # the user's own code can raise anything
        after = f" after line {line}" if line else ""
        raise UserError(f"{path}: {name} failed{after} with {type(error).__name__}: {first_line(error)}") from error


def _read_text(path: Path, options: ReadOptions) -> Iterator[Found]:
    encoding, marked = text_encoding(path, options.encoding)
    if encoding != options.encoding and codecs.lookup(encoding).name != "utf-8":
        options.remarks.how.append(f"the encoding {codecs.lookup(encoding).name.upper()}")
    try:
        match data_suffix(path):
            case ".jsonl":
                yield from read_jsonl(path, encoding)
            case ".json":
                yield from read_json(path, encoding)
            case suffix:
                usual = "\t" if suffix == ".tsv" else ","
                yield from read_separated(path, usual, encoding, options.header, marked, options.remarks)
    except UnicodeError:
        raise undecodable(path, encoding) from None


def _read_parquet(path: Path, options: ReadOptions) -> Iterator[Found]:
    from qa_lm.data.readers.arrow import read_parquet  # pyarrow takes a quarter of a second

    return read_parquet(path)


def _read_excel(path: Path, options: ReadOptions) -> Iterator[Found]:
    return read_excel(path, options.header, options.remarks)


READERS |= {
    **dict.fromkeys((".jsonl", ".json", ".csv", ".tsv"), _read_text),
    ".xlsx": _read_excel,
    ".parquet": _read_parquet,
}
BUILT_IN = frozenset(READERS)
