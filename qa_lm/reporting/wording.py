"""Numbers and foreign text as a reader sees them.

What is missing, or no number, is a dash. Text from data and models keeps its letters and loses what could disturb the
page around it: control characters, halves of surrogate pairs, marks that turn the writing direction.
"""

from qa_lm.errors import sanitize
from qa_lm.run.reader import finite

ABSENT = "\N{EN DASH}"


def percent(share: object) -> str:
    """A share as "98.4%"; only a whole is "100.0%", only nothing is "0.0%"."""
    value = finite(share)
    if value is None:
        return ABSENT
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"


def decimal(value: object, places: int = 4) -> str:
    """A number with this many places."""
    number = finite(value)
    return ABSENT if number is None else f"{number:,.{places}f}"


def whole(value: object) -> str:
    """A count as "3,610"."""
    return decimal(value, 0)


def counted(value: object, noun: str) -> str:
    """A count with its noun: "1 pair", "3,610 pairs"."""
    return f"{whole(value)} {noun}" + ("" if finite(value) == 1 else "s")


def duration(seconds: object) -> str:
    """A time as "4.2 s", "74 s", "12 min 5 s" or "2 h 10 min"."""
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
    """A number of parameters: "123.8 million"."""
    value = finite(count)
    if value is None:
        return ABSENT
    for unit, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if value >= unit:
            return f"{value / unit:.1f}{word}"
    return whole(value)


def listed(names: list[str]) -> str:
    """Names in a sentence: "a, b and c"; of many, the first three and how many more."""
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def printable(text: str) -> str:
    """The text without what could disturb the page, with line ends of one kind; see `qa_lm.errors.sanitize`."""
    whole_characters = text.encode("utf-8", "replace").decode("utf-8")
    return sanitize(whole_characters.replace("\r\n", "\n").replace("\r", "\n"))


def clipped(text: str, limit: int = 600) -> str:
    """The beginning of a long text, with its full length."""
    return text if len(text) <= limit else f"{text[:limit]}… (cut; {whole(len(text))} characters)"


def cut(text: str, letters: int) -> str:
    """At most so many letters; of a path its end, which tells it from others."""
    if len(text) <= letters:
        return text
    return "…" + text[1 - letters :] if "/" in text else text[: letters - 1] + "…"
