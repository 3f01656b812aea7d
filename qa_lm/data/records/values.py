"""Convert the values of a record to text."""

import datetime
import decimal
import itertools
import json
import math
from collections.abc import Iterable, Mapping


def text_of(value: object, name: str) -> str:
    """Convert a value to the text of a question or an answer.

    Numbers and booleans are written as in JSON (3, 3.0, true), dates in ISO 8601; bytes are decoded as UTF-8.

    Raises:
        ValueError: the value is missing, empty, or not a text; the message is written for the user.
    """
    text = value if isinstance(value, str) else _as_text(value, name)
    if not text or text.isspace():
        raise ValueError(f"the {name} is empty")
    return text if text.isascii() else _whole(text, name)


def further_text(value: object, name: str) -> str:
    """Convert a value to the text of another column, which may be empty; each item of a list becomes a line.

    Raises:
        ValueError: the value is missing or not a text; the message is written for the user.
    """
    if isinstance(value, str):
        return value if value.isascii() else _whole(value, name)
    if isinstance(value, Mapping) and isinstance(value.get("text"), list | tuple):
        texts, labels = value["text"], value.get("label")
        if isinstance(labels, list | tuple) and len(labels) == len(texts):  # choices, as in ARC
            return "\n".join(
                f"{further_text(a, name)}: {further_text(b, name)}" for a, b in zip(labels, texts, strict=True)
            )
        value = texts
    if isinstance(value, list | tuple):
        return "\n".join(further_text(each, name) for each in value)
    return _as_text(value, name)


def is_missing(value: object) -> bool:
    """Whether a value is null, or nan, which pandas writes for null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_blank(value: object) -> bool:
    """Whether a value is empty: missing, white space, an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    return is_missing(value) or (isinstance(value, list | tuple | Mapping) and not value)


def answers_in(value: object) -> list[object]:
    """The answers that a value lists, the one to train on first; empty for an empty list."""
    if isinstance(value, Mapping):
        if "text" in value:  # SQuAD's {"text": [...], "answer_start": [...]}
            return answers_in(value["text"])
        if "value" in value:  # TriviaQA's {"value": ..., "aliases": [...]}
            aliases = value.get("aliases")
            return [value["value"], *(aliases if isinstance(aliases, list | tuple) else ())]
    if isinstance(value, list | tuple):
        return [each["text"] if isinstance(each, Mapping) and "text" in each else each for each in value]
    return [value]


def listed(names: Iterable[str]) -> str:
    """Format names for a message: the first dozen, each truncated."""
    some = [name if len(name) <= 40 else f"{name[:37]}..." for name in map(str, itertools.islice(names, 13))]
    return ", ".join([*some[:12], "..."] if len(some) > 12 else some) or "nothing"


def shown(value: object) -> str:
    """Format a value for a message, truncated."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def _as_text(value: object, name: str) -> str:
    if is_missing(value):
        raise ValueError(f"the {name} is missing")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | decimal.Decimal) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"the {name} holds bytes that are not UTF-8 text") from None
    raise ValueError(f"the {name} must be text, found {shown(value)}")


def _whole(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {name} contains half of a surrogate pair, which is not a character") from None
    return text
