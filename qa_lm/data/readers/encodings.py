"""Which encoding a file is in: by its byte order mark, or as a guess for an error message."""

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
"""First bytes of files that are not text, and what they are."""
SHOWN = {"shift_jis_2004": "cp932", "shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949"}
"""The encodings that hold all that these do, and more."""

PUNCTUATION = {0x80, 0x85, *range(0x91, 0x98), 0x99}
"""The euro sign, the ellipsis, curly quotes, dashes and the trademark sign in cp1252."""


def marked_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark at the start of a file tells; None without one."""
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)


def other_file(head: bytes) -> str | None:
    """What a file is whose first bytes show that it is not text; None if they do not."""
    return next((what for start, what in OTHER_FILES if head.startswith(start)), None)


def unmarked_utf16(head: bytes) -> str | None:
    """utf-16-le or utf-16-be for ASCII characters in two bytes each, which UTF-8 reads as NULs; else None."""
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
    """The encoding that a text is probably in, by Python's name; None without an idea.

    Args:
        sample: lines of the text, those with bytes above 127 among them.
    """
    if not sample:
        return None
    if _decoded(sample, "utf-8") is not None:
        return "utf-8"
    import chardet  # imported late: only an error needs it

    found = chardet.detect(sample)["encoding"]
    text = _decoded(sample, found)
    # Curly quotes and dashes alone are no evidence for a rare encoding, and no text has C1 controls.
    if text is None or {byte for byte in sample if byte > 127} <= PUNCTUATION or _has_controls(text):
        modern = chardet.detect(sample, encoding_era=chardet.EncodingEra.MODERN_WEB)["encoding"]
        found, text = modern, _decoded(sample, modern)
    if found is None or text is None or _has_controls(text):
        return None
    name = codecs.lookup(found).name.replace("-", "_") if found.lower().startswith("shift") else found
    name = SHOWN.get(name.lower().replace("-", "_"), name)
    return codecs.lookup(name).name


def _decoded(sample: bytes, encoding: str | None) -> str | None:
    """The text, but for a character that the end of the sample may have cut; None if it is not in the encoding."""
    if encoding is None:
        return None
    try:
        return codecs.getincrementaldecoder(encoding)().decode(sample)
    except (UnicodeError, LookupError):
        return None


def _has_controls(text: str) -> bool:
    return any("\x7f" <= character < "\xa0" or character == "\0" for character in text)
