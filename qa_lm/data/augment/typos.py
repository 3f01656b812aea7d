"""One typo in one word, as a keyboard makes it: Latin, Cyrillic and Hangul."""

# ruff: noqa: RUF001 (letters and marks of other scripts)

import re
from collections.abc import Callable

from qa_lm.data.augment.hangul import hangul_typo
from qa_lm.data.augment.keyboards import NEIGHBOURS
from qa_lm.data.augment.languages import language
from qa_lm.data.augment.protected import is_kept, is_other_word
from qa_lm.data.augment.rules import Generator

_WORD = re.compile(
    r"(?<!\S)[\"'“‘«(¿¡]*"
    r"(?:([A-Za-zÀ-ÖØ-öø-ɏ]{4,})|([А-яЁё]{4,})|([가-힣]{2,}))"
    r"(?=[\"'”’»)?!.,;…؟。？！，、]*(?!\S))"
)
"""Whole words of more than three letters (a syllable of Hangul has at least two): no digits, addresses, flags."""
_LONG = (5, 5, 3)
"""A typo in a shorter word often makes another word."""
_LAYOUTS = {"de": "qwertz", "fr": "azerty"}
_TRIES = 4
_Word = tuple[int, int, str]
"""Start, script (1 Latin, 2 Cyrillic, 3 Hangul) and text of a word."""


def typo(question: str, generator: Generator) -> str | None:
    """Make one typo."""
    words = _candidates(question)
    for _ in range(_TRIES if words else 0):
        start, script, word = generator.choice(words)
        if is_kept(word):
            continue
        typed = hangul_typo(word, generator) if script == 3 else _slip(word, question, generator)
        if typed and typed != word and not is_kept(typed) and not is_other_word(typed):
            return f"{question[:start]}{typed}{question[start + len(word) :]}"
    return None


def _candidates(question: str) -> list[_Word]:
    """Return the words that may get a typo: long words first, and names only if there is nothing else."""
    long: list[_Word] = []
    short: list[_Word] = []
    names: list[_Word] = []
    for match in _WORD.finditer(question):
        script = match.lastindex or 0
        word = match[script]
        if script != 3 and not word[1:].islower():
            continue
        name = match.start() > 0 and word[0].isupper()
        chosen = names if name else long if len(word) >= _LONG[script - 1] else short
        chosen.append((match.start(script), script, word))
    return long or short or names


def _layout(question: str, letter: str) -> str:
    if letter >= "Ѐ":
        return "jcuken"
    name = language(question)
    if name is None and not question.isascii():
        text = question.lower()
        name = "de" if re.search("[ßäöü]", text) else "fr" if re.search("[œèêëîùû]", text) else None
    return _LAYOUTS.get(name or "", "qwerty")


def _neighbouring(word: str, place: int, question: str, generator: Generator) -> str | None:
    keys = NEIGHBOURS[_layout(question, word[place])].get(word[place])
    return f"{word[:place]}{generator.choice(keys)}{word[place + 1 :]}" if keys else None


def _doubled(word: str, place: int, question: str, generator: Generator) -> str | None:
    return f"{word[:place]}{word[place]}{word[place:]}" if word[place] not in word[place - 1 : place + 2 : 2] else None


def _missing(word: str, place: int, question: str, generator: Generator) -> str | None:
    """Miss a letter within the word; the last one often carries the plural or the tense."""
    return word[:place] + word[place + 1 :] if place + 1 < len(word) else None


def _transposed(word: str, place: int, question: str, generator: Generator) -> str | None:
    return word[:place] + word[place : place + 2][::-1] + word[place + 2 :] if place + 1 < len(word) else None


_Slip = Callable[[str, int, str, Generator], str | None]
_SLIPS: dict[_Slip, int] = {_neighbouring: 3, _doubled: 1, _missing: 3, _transposed: 3}


def _slip(word: str, question: str, generator: Generator) -> str | None:
    """Make one typo, never in the first letter, which people rarely get wrong."""
    return generator.weighted(_SLIPS)(word, 1 + generator.below(len(word) - 1), question, generator)
