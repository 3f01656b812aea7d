"""Detect the encoding of a file: from its byte order mark, or as a guess for error messages."""

import codecs

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with UTF-16's mark, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
OTHER_FILES = (
    (b"PK\x03\x04", "an Excel workbook or a zip file: name it .xlsx, or save its sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save its sheet as CSV UTF-8"),
    (b"\x1f\x8b", "gzip: its name must end in .gz"),
    (b"PAR1", "Parquet: its name must end in .parquet"),
    (b"%PDF", "a PDF: copy its pairs into a table with the columns question and answer"),
)
"""First bytes of files that are not text, with their format."""
SHOWN = {"shift_jis_2004": "cp932", "shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949"}
"""Supersets to suggest instead of these encodings."""

PUNCTUATION = {0x80, 0x85, *range(0x91, 0x98), 0x99}
"""The euro sign, the ellipsis, curly quotes, dashes and the trademark sign in cp1252."""


def marked_encoding(head: bytes) -> str | None:
    """The encoding named by the byte order mark at the start of a file; None without one."""
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)


def other_file(head: bytes) -> str | None:
    """The format of a binary file, recognised by its first bytes; None if it is not recognised."""
    return next((what for start, what in OTHER_FILES if head.startswith(start)), None)


def unmarked_utf16(head: bytes) -> str | None:
    """utf-16-le or utf-16-be for ASCII characters of two bytes, which UTF-8 would read as NULs; otherwise None."""
    if len(head) < 4 or b"\0" not in head:
        return None
    at_even, at_odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if at_odd > 0.4 * half and at_even < 0.1 * half:
        return "utf-16-le"
    if at_even > 0.4 * half and at_odd < 0.1 * half:
        return "utf-16-be"
    return None


def guessed_encoding(sample: bytes) -> str | None:
    """Guess the encoding of a text, by Python's name; None if unknown.

    Args:
        sample: lines of the text, including those with bytes above 127.
    """
    if not sample:
        return None
    if _decoded(sample, "utf-8") is not None:
        return "utf-8"
    import chardet  # imported late: only an error needs it

    found = chardet.detect(sample)["encoding"]
    text = _decoded(sample, found)
    # Curly quotes and dashes alone do not indicate a rare encoding, and texts contain no C1 controls.
    if text is None or {byte for byte in sample if byte > 127} <= PUNCTUATION or _has_controls(text):
        modern = chardet.detect(sample, encoding_era=chardet.EncodingEra.MODERN_WEB)["encoding"]
        found, text = modern, _decoded(sample, modern)
    if found is None or text is None or _has_controls(text):
        return None
    name = codecs.lookup(found).name.replace("-", "_") if found.lower().startswith("shift") else found
    name = SHOWN.get(name.lower().replace("-", "_"), name)
    return codecs.lookup(name).name


def _decoded(sample: bytes, encoding: str | None) -> str | None:
    """Decode the sample, ignoring a character that its end may have cut; None if it is not in the encoding."""
    if encoding is None:
        return None
    try:
        return codecs.getincrementaldecoder(encoding)().decode(sample)
    except (UnicodeError, LookupError):
        return None


def _has_controls(text: str) -> bool:
    return any("\x7f" <= character < "\xa0" or character == "\0" for character in text)
