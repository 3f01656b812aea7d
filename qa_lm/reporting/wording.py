"""Format numbers and untrusted text for readers.

A value that is missing or not a number is shown as a dash. Text from data and models keeps its letters and loses what
could corrupt the page around it: control characters, lone surrogates and marks that change the writing direction.
"""

from qa_lm.errors import sanitize
from qa_lm.run.reader import finite

ABSENT = "\N{EN DASH}"


def percent(fraction: object) -> str:
    """Format a fraction as "98.4%". Only exactly 1 gives "100.0%", and only exactly 0 gives "0.0%"."""
    value = finite(fraction)
    if value is None:
        return ABSENT
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"


def decimal(value: object, places: int = 4) -> str:
    """Format a number with this many decimal places."""
    number = finite(value)
    return ABSENT if number is None else f"{number:,.{places}f}"


def format_int(value: object) -> str:
    """Format a count as "3,610"."""
    return decimal(value, 0)


def pluralize(value: object, noun: str) -> str:
    """Format a count with its noun: "1 pair", "3,610 pairs"."""
    return f"{format_int(value)} {noun}" + ("" if finite(value) == 1 else "s")


def duration(seconds: object) -> str:
    """Format seconds as "4.2 s", "74 s", "12 min 5 s" or "2 h 10 min"."""
    value = finite(seconds)
    if value is None:
        return ABSENT
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: object) -> str:
    """Format a large number, such as that of parameters, as "123.8 million"."""
    value = finite(count)
    if value is None:
        return ABSENT
    for unit, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if value >= unit:
            return f"{value / unit:.1f}{word}"
    return format_int(value)


def list_names(names: list[str]) -> str:
    """Join names for a sentence: "a, b and c". With more than four: the first three "and N more"."""
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def printable(text: str) -> str:
    """Remove what could corrupt the page, and unify line endings; see `qa_lm.errors`."""
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return sanitize(valid.replace("\r\n", "\n").replace("\r", "\n"))


def excerpt(text: str, limit: int = 600) -> str:
    """Cut a long text to its first `limit` characters, and add its full length."""
    return text if len(text) <= limit else f"{text[:limit]}… (cut; {format_int(len(text))} characters)"


def shorten(text: str, letters: int) -> str:
    """Shorten a text to `letters` characters. A path keeps its end, which distinguishes it from others."""
    if len(text) <= letters:
        return text
    return "…" + text[1 - letters :] if "/" in text else text[: letters - 1] + "…"
