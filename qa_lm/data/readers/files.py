"""Open files as streams of bytes or text: globs, compression, encodings, and the exact place of decoding errors."""

import bz2
import codecs
import glob
import gzip
import io
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from qa_lm.data.pairs import BUILTIN
from qa_lm.data.readers.encodings import guessed_encoding, marked_encoding, other_file, unmarked_utf16
from qa_lm.data.readers.problems import BadLine
from qa_lm.errors import UserError

BLOCK = 1 << 16
HEAD = 1 << 12
"""Number of bytes examined to detect UTF-16 without a byte order mark."""
SAMPLE = 1 << 15
"""Maximum bytes of non-ASCII lines from which an encoding is guessed."""
DECOMPRESSION_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
DECOMPRESS: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSED = tuple(DECOMPRESS)
SAME_FORMAT = {".ndjson": ".jsonl", ".jsonlines": ".jsonl", ".tab": ".tsv", ".xlsm": ".xlsx"}
"""Alternative suffixes of a format."""
_SAVE = "save the sheet as CSV UTF-8 or .xlsx"
ADVICE = {
    **dict.fromkeys((".xls", ".xlsb", ".ods", ".numbers"), _SAVE),
    **dict.fromkeys(
        (".doc", ".docx", ".odt", ".rtf", ".pdf", ".html", ".htm", ".md"),
        "copy its pairs into a table with the columns question and answer, and save it as CSV UTF-8 or .xlsx",
    ),
    ".txt": "name it .tsv if a tab separates question and answer, .csv if a comma or semicolon does, "
    ".jsonl if each line is a JSON object",
    **dict.fromkeys(
        (".xml", ".yaml", ".yml", ".toml"), 'convert it to JSON Lines: {"question": ..., "answer": ...} on each line'
    ),
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".tgz", ".zst", ".lz4"), "unpack it and name the file inside"),
    **dict.fromkeys(
        (".arrow", ".feather", ".pkl", ".pickle", ".db", ".sqlite", ".sqlite3"),
        "export it as Parquet, JSON Lines or CSV",
    ),
}
"""Advice for files in unsupported formats, by suffix."""


def find_files(patterns: str | Sequence[str], suffixes: Sequence[str], setting: str) -> list[Path]:
    """Find the files of names and globs; those of a glob are in alphabetical order.

    Args:
        patterns: a file name or glob (`*`, `?`, `[...]`, `**`), a name in `BUILTIN`, or several of these.
        suffixes: allowed suffixes; `.gz`, `.bz2` or `.xz` may follow.
        setting: the setting to name in error messages.

    Raises:
        UserError: a file does not exist, a folder is named, a suffix is not allowed, or a file is named twice.
    """
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            files += _found(pattern, setting)
        except OSError as error:  # a name that is too long
            raise UserError(f"{setting}={pattern[:60]}...: cannot be read: {error.strerror}") from None
    for path in files:
        if (suffix := data_suffix(path)) not in suffixes:
            if advice := ADVICE.get(suffix):
                raise UserError(f"{path}: {suffix} files cannot be read: {advice}")
            raise UserError(
                f"{path}: the name must end in {', '.join(suffixes)}, each also with .gz, .bz2 or .xz; for a format of "
                "your own, trust the module that registers it"
            )
    if doubled := sorted({str(path) for path in files if files.count(path) > 1}):
        raise UserError(f"{doubled[0]}: named twice in {setting}")
    return files


def _found(pattern: str, setting: str) -> list[Path]:
    if pattern in BUILTIN:
        return [BUILTIN[pattern]]
    path = Path(pattern)
    if path.is_dir():
        raise UserError(f"{pattern}: is a folder; name its files, as in {setting}='{pattern}/*.jsonl'")
    if path.exists():
        return [path]
    if not glob.has_magic(pattern):
        raise UserError(f"{path}: cannot be read: No such file or directory")
    found = sorted(match for name in glob.glob(pattern, recursive=True) if (match := Path(name)).is_file())
    if not found:
        raise UserError(f"{setting}={pattern}: no file matches")
    return found


def data_suffix(path: Path) -> str:
    """The suffix of the format: `.jsonl` for `pairs.jsonl.gz` and `pairs.ndjson`."""
    suffix = Path(path.stem if path.suffix.lower() in COMPRESSED else path.name).suffix.lower()
    return SAME_FORMAT.get(suffix, suffix)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file as bytes, decompressed if its name ends in .gz, .bz2 or .xz.

    Raises:
        UserError: the file cannot be opened or read.
        BadLine: the compressed data is invalid or incomplete.
    """
    compression = path.suffix.lower()
    try:
        with path.open("rb") as file:
            yield DECOMPRESS[compression](file) if compression in DECOMPRESS else file
    except DECOMPRESSION_ERRORS as error:
        raise _not_whole(compression, error) from None
    except OSError as error:
        if compression == ".bz2" and error.errno is None:  # the bz2 module has no error of its own
            raise _not_whole(compression, error) from None
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _not_whole(compression: str, error: Exception) -> BadLine:
    name = {".gz": "gzip"}.get(compression, compression[1:])
    return BadLine(1, f"not a whole {name} file: {str(error) or type(error).__name__}", fatal=True)


@contextmanager
def seekable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file as bytes for random access; a compressed file is unpacked on disk.

    Raises:
        UserError, BadLine: see `opened`.
    """
    with opened(path) as file, tempfile.TemporaryFile() as unpacked:
        if path.suffix.lower() not in COMPRESSED:
            yield file
            return
        while block := file.read(BLOCK):
            unpacked.write(block)
        unpacked.seek(0)
        yield unpacked


def check_encoding(encoding: str) -> None:
    """Check that Python has a text codec of this name.

    Raises:
        UserError: it has none.
    """
    try:
        known = codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        known = False
    if not known:
        raise UserError(f"data.encoding={encoding}: no such encoding; try utf-8, utf-16, cp1252, cp949, ...")


def as_text(file: IO[bytes], encoding: str, newline: str) -> io.TextIOWrapper:
    """Decode a stream strictly; a byte order mark of UTF-8 is skipped."""
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    return io.TextIOWrapper(file, encoding="utf-8-sig" if is_utf8 else encoding, newline=newline)


def text_encoding(path: Path, encoding: str) -> tuple[str, bool]:
    """The encoding of a file, and whether it starts with a byte order mark.

    A mark of UTF-16 or UTF-32 overrides UTF-8, the default.

    Raises:
        UserError: the file cannot be opened.
        BadLine: the file is UTF-16 without a mark, which is valid UTF-8 with NULs.
    """
    with opened(path) as file:
        head = file.read(HEAD)
    marked = marked_encoding(head)
    if codecs.lookup(encoding).name != "utf-8":
        return encoding, marked is not None
    if marked is None and (found := unmarked_utf16(head)):
        hint = f"it looks like {found}: give data.encoding={found}, or save it as UTF-8"
        raise BadLine(1, f"not UTF-8: byte {head.index(0):,} of the file is 0x00; {hint}", fatal=True)
    return marked or encoding, marked is not None


def undecodable(path: Path, encoding: str) -> BadLine:
    """Find the first decoding error by reading again from the start."""
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
                reason = not_in_encoding(encoding, byte, error.object[error.start])
                return BadLine(line, f"{reason}; {encoding_hint(path)}", fatal=True)
            except UnicodeError as error:  # UTF-16 without a byte order mark
                return BadLine(line, f"not {encoding}: {error}; {encoding_hint(path)}", fatal=True)
            line += text.count("\n")
            offset += len(block)
            if not block:
                raise AssertionError(f"{path} is {encoding} after all")


def not_in_encoding(encoding: str, offset: int, byte: int) -> str:
    """The error message for a byte.

    Args:
        encoding: the expected encoding.
        offset: offset of the byte in the file, from 0.
        byte: value of the byte.
    """
    name = codecs.lookup(encoding).name.upper()
    return f"not {name}: byte {offset:,} of the file is {byte:#04x}"


def encoding_hint(path: Path) -> str:
    """Advice for a file that is not in the expected encoding."""
    with opened(path) as file:
        head = file.read(HEAD)
    if what := other_file(head):
        return f"it looks like {what}"
    if b"\0" in head:  # two bytes a character, so the file cannot be cut into lines before it is decoded
        guess = unmarked_utf16(head) or guessed_encoding(head)
    else:
        sample, is_mostly_utf8 = _sample(path)
        if is_mostly_utf8:
            return "the rest looks like UTF-8, so this place is damaged: type it again"
        guess = guessed_encoding(sample)
    if guess is None:
        return "save it as UTF-8 or give data.encoding=..."
    if guess == "utf-8":
        return "it looks like UTF-8: leave data.encoding out"
    return f"it looks like {guess}: give data.encoding={guess}, or save it as UTF-8"


def _sample(path: Path) -> tuple[bytes, bool]:
    """Non-ASCII lines of a file, and whether nine in ten of them are UTF-8."""
    sample: list[bytes] = []
    size = utf8 = 0
    with opened(path) as file:
        while size < SAMPLE and (line := file.readline(SAMPLE)):
            if not line.isascii():
                sample.append(line)
                size += len(line)
                utf8 += line == line.decode("utf-8", "ignore").encode()
    return b"".join(sample), len(sample) > utf8 >= 0.9 * len(sample)
