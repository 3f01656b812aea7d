"""A pair, and when two questions count as the same."""

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from qa_lm.errors import UserError

BUILTIN_FOLDER = Path(__file__).parent / "builtin"
_SPACE = re.compile(r"\s+")


class Pair(NamedTuple):
    """A question and its answer, as text."""

    question: str
    answer: str
    """The answer that is trained."""
    other_answers: tuple[str, ...] = ()
    """Further answers that count as right when scored."""
    group: str | None = None
    """The fact that this pair states, if pairs with other words state it too."""


def builtin_path(name: str) -> Path:
    """The file of the pairs shipped with qa_lm under this name.

    Raises:
        UserError: there is none of that name.
    """
    names = sorted(file.stem for file in BUILTIN_FOLDER.glob("*.jsonl"))
    if name not in names:
        raise UserError(f"data.builtin={name}: no such pairs; there is {', '.join(names)}", "data.builtin")
    return BUILTIN_FOLDER / f"{name}.jsonl"


def normalise_question(question: str) -> str:
    """The question without what does not change its meaning.

    Unicode NFKC, lower case (`str.casefold`), one space for any white space, no punctuation at the end. A question of
    nothing but punctuation stays as it is.
    """
    text = question if question.isascii() else unicodedata.normalize("NFKC", question)
    text = _SPACE.sub(" ", text.casefold()).strip()
    end = len(text)
    while end and (text[end - 1] == " " or unicodedata.category(text[end - 1]).startswith("P")):
        end -= 1
    return text[:end] or text


def text_key(text: str) -> int:
    """64 bits of the text's BLAKE2b: equal texts have equal keys, and among n texts two different ones share a key
    with probability n^2 / 3.7e19 (one in a million for five million texts)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
