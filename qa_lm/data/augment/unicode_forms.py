"""Other characters for the same text: quotes, dashes, the ellipsis, full-width marks, decomposed letters."""

# ruff: noqa: RUF001 (letters and marks of other scripts)

import re
import unicodedata

from qa_lm.data.augment.rules import Generator, Rule, apply_one
from qa_lm.data.augment.surface import second

_HAS_FORMS = re.compile(r"[^\x00-\x7f\uac00-\ud7a3]|['\"]|\.\.\.| - ")
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")
_STRAIGHT = str.maketrans("‘’“”", "''\"\"")
_QUOTED = re.compile(r'(?<![\w"])"([^"]+)"(?![\w"])')
_DASH = re.compile(r"(?<=\S) - (?=\S)")
_LATIN_COMPOSED = re.compile("[À-ÖØ-öø-ɏḀ-ỿ]")
_HAN_OR_KANA = re.compile("[ぁ-ヿ一-鿿]")
_FULL_MARK = re.compile(r"(?<=[ぁ-ヿ一-鿿])[?!,]|[?!]$")
_FULL = {"?": "？", "!": "！"}
_HALF = str.maketrans("？！，（）", "?!,()")


def _quotes(question: str, generator: Generator) -> str | None:
    """Swap typographic and straight apostrophes and quotes."""
    straight = question.translate(_STRAIGHT)
    if straight != question:
        return straight
    if "'" not in question and '"' not in question:
        return None
    return _QUOTED.sub(r"“\1”", _APOSTROPHE.sub("’", question))


def _composition(question: str, generator: Generator) -> str | None:
    """Swap composed and decomposed letters (NFC and NFD), which some systems do to names of files and copied text."""
    if question.isascii():
        return None
    composed = unicodedata.normalize("NFC", question)
    if composed != question:
        return composed
    decomposes = _LATIN_COMPOSED.search(question) and not re.search("[가-힣]", question)
    return unicodedata.normalize("NFD", question) if decomposes else None


def _width(question: str, generator: Generator) -> str | None:
    """Swap full-width and half-width marks of Chinese and Japanese."""
    if question.isascii() or not _HAN_OR_KANA.search(question):
        return None
    half = question.translate(_HALF)
    if half != question:
        return half
    comma = "、" if re.search("[ぁ-ヿ]", question) else "，"
    return _FULL_MARK.sub(lambda match: _FULL.get(match[0], comma), question)


def _ellipsis(question: str, generator: Generator) -> str | None:
    return question.replace("…", "...") if "…" in question else question.replace("...", "…")


def _dashes(question: str, generator: Generator) -> str | None:
    typed = question.replace("–", "-").replace("—", "-")
    return typed if typed != question else _DASH.sub(" – ", question)


_FORMS: dict[Rule, int] = {_quotes: 3, _width: 3, _ellipsis: 2, _dashes: 2, _composition: 1}


def unicode_form(question: str, generator: Generator) -> str | None:
    """Write some characters in another of their forms."""
    if not _HAS_FORMS.search(question):
        return None
    return second(apply_one(_FORMS, question, generator))
