"""Question-answer pairs, and normalisation of questions."""

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from qa_lm.names import BUILTIN_PAIRS

BUILTIN = {name: Path(__file__).parent / "builtin" / f"{name}.jsonl" for name in BUILTIN_PAIRS}
"""Name to file of the pairs that come with qa_lm."""
_SPACE = re.compile(r"\s+")


class Pair(NamedTuple):
    """A question and its answer, as text."""

    question: str
    answer: str
    """The answer to train on."""
    other_answers: tuple[str, ...] = ()
    """Other answers that are accepted as right in evaluation."""
    group: str | None = None
    """Id of the fact that the pair states, shared by its paraphrases."""


def normalise_question(question: str) -> str:
    """Normalise a question: Unicode NFKC, `str.casefold`, single spaces, no punctuation at the end.

    A question that consists of punctuation keeps it.
    """
    text = question if question.isascii() else unicodedata.normalize("NFKC", question)
    text = _SPACE.sub(" ", text.casefold()).strip()
    end = len(text)
    while end and (text[end - 1] == " " or unicodedata.category(text[end - 1]).startswith("P")):
        end -= 1
    return text[:end] or text


def text_key(text: str) -> int:
    """64-bit BLAKE2b hash of a text. The probability of a collision among n texts is n^2 / 3.7e19 (one in a million for
    five million texts)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
