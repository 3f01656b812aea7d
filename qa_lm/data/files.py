"""Files as streams of bytes or text: globs, gzip, encodings, and the exact place of what cannot be decoded."""

import codecs
import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from qa_lm.data.problems import BadLine
from qa_lm.errors import UserError

BLOCK = 1 << 16
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


def find_files(patterns: str | Sequence[str], suffixes: Sequence[str], setting: str) -> list[Path]:
    """The files that names and globs stand for, globs in alphabetical order.

    Args:
        patterns: a file name or glob (`*`, `?`, `[...]`, `**`), or several.
        suffixes: what a name may end in, a further `.gz` aside.
        setting: the key to name in an error.

    Raises:
        UserError: nothing is there, a folder is named, a suffix is another, or a file is named twice.
    """
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            files += _found(pattern, setting)
        except OSError as error:  # a name that is too long
            raise UserError(f"{setting}={pattern[:60]}...: cannot be read: {error.strerror}") from None
    for path in files:
        if data_suffix(path) not in suffixes:
            raise UserError(f"{path}: the name must end in {', '.join(suffixes)}, each also with .gz")
    if doubled := sorted({str(path) for path in files if files.count(path) > 1}):
        raise UserError(f"{doubled[0]}: named twice in {setting}")
    return files


def _found(pattern: str, setting: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        raise UserError(f"{pattern}: is a folder; name its files, as in {setting}='{pattern}/*.jsonl'")
    if path.exists() or not glob.has_magic(pattern):
        return [path]
    found = sorted(match for name in glob.glob(pattern, recursive=True) if (match := Path(name)).is_file())
    if not found:
        raise UserError(f"{setting}={pattern}: no file matches")
    return found


def check_files_exist(patterns: str | Sequence[str], setting: str) -> None:
    """Refuse names and globs that stand for no file; `find_files` looks at the rest.

    Raises:
        UserError: nothing is there, or a folder is named.
    """
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            missing = [path for path in _found(pattern, setting) if not path.exists()]
        except OSError:  # a name that is too long
            continue
        if missing:
            raise UserError(f"{missing[0]}: cannot be read: No such file or directory")


def data_suffix(path: Path) -> str:
    """The suffix that tells the format: of `pairs.jsonl.gz` it is `.jsonl`."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unzipped if its name ends in .gz.

    Raises:
        UserError: it cannot be opened or read.
        BadLine: it is not gzip, or ends before its end.
    """
    try:
        with path.open("rb") as file:
            yield gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file  # type: ignore[misc]
    except GZIP_ERRORS as error:
        raise BadLine(1, f"not a whole gzip file: {str(error) or type(error).__name__}", fatal=True) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def check_encoding(encoding: str) -> None:
    """Refuse a name that Python has no text codec for.

    Raises:
        UserError: so it is.
    """
    try:
        known = codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        known = False
    if not known:
        raise UserError(f"data.encoding={encoding}: no such encoding; try utf-8, utf-16, cp1252, cp949, ...")


def as_text(file: IO[bytes], encoding: str, newline: str) -> io.TextIOWrapper:
    """The stream decoded, strictly; a byte order mark of UTF-8 is passed over."""
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    return io.TextIOWrapper(file, encoding="utf-8-sig" if is_utf8 else encoding, newline=newline)


def undecodable(path: Path, encoding: str) -> BadLine:
    """The first place that is not in the encoding, found by reading again from the start."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, offset = 1, 0
    with opened(path) as file:
        while True:
            block = file.read(BLOCK)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(encoding, "replace").count("\n")
                byte = offset - pending + error.start
                return BadLine(line, not_in_encoding(encoding, byte, error.object[error.start]), fatal=True)
            except UnicodeError as error:  # UTF-16 without a byte order mark
                return BadLine(line, f"not {encoding}: {error}", fatal=True)
            line += text.count("\n")
            offset += len(block)
            if not block:
                raise AssertionError(f"{path} is {encoding} after all")


def not_in_encoding(encoding: str, offset: int, byte: int) -> str:
    """What to say of a byte.

    Args:
        encoding: what the text should be.
        offset: the byte's place in the file, from 0.
        byte: its value.
    """
    name = codecs.lookup(encoding).name.upper()
    return f"not {name}: byte {offset:,} of the file is {byte:#04x}; save it as UTF-8 or give data.encoding=..."
