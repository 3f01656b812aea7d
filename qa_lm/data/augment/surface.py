"""Case, final marks and spaces."""

# ruff: noqa: RUF001 (letters and marks of other scripts)

import re

from qa_lm.data.augment.languages import language
from qa_lm.data.augment.protected import is_kept, is_technical
from qa_lm.data.augment.rules import Generator, Rule, apply_one

MARKS = ".?!…。？！｡؟"
"""Marks that end a sentence."""
_OPENING = {"?": "¿", "!": "¡"}
_WORD_OR_SPACE = re.compile(r"\s+|\S+")
_FIRST_WORD = re.compile(r"[\"'“‘«(¿¡]*([^\W\d_]{2,})(?=[\s,?!.]|$)")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_HAN_OR_KANA = re.compile("[ぁ-ヿ一-鿿]$")
_ASKS = {
    "latin": re.compile(
        r"[\"'“‘«(¿]*(?:who|whom|whose|what|when|where|why|which|how|is|are|was|were|does|did|can|could|would|should"
        r"|wer|wann|wo|warum|wie|welche[rs]?|wieso|qui|quand|où|pourquoi|comment|combien|quel(?:le)?s?|est-ce"
        r"|quién|qué|cuándo|dónde|cómo|cuál(?:es)?|cuánt[oa]s?|chi|quando|dove|perché|quale|quant[oiae]"
        r"|quem|qual|quais|onde|wat|wanneer|waar|waarom|hoe|welke?|кто|что|где|когда|почему|сколько|как(?:ой|ая|ие|ое)?"
        r"|ما|من|كيف|أين|متى|هل|لماذا|كم|أي)\b",
        re.IGNORECASE,
    ),
    "korean": re.compile("(?:까|까요|니|나요|가요|은가요|냐|어디|누구|언제|뭐야|뭐지|얼마)$"),
    "han": re.compile("[吗嗎呢谁誰哪几幾何]|什么|什麼|怎么|怎麼|多少|为什么|どこ|いつ|なぜ|だれ|どう|か$"),
}


def lower_case(question: str, generator: Generator) -> str | None:
    """Write all in lower case, except URLs, e-mail addresses and paths."""
    if not is_technical(question):
        return question.lower()
    return "".join(part if is_technical(part) else part.lower() for part in _WORD_OR_SPACE.findall(question))


def _upper_case(question: str, generator: Generator) -> str | None:
    return None if is_technical(question) else question.upper()


def first_letter(question: str, generator: Generator) -> str | None:
    """Change the case of the first letter of an ordinary word."""
    match = _FIRST_WORD.match(question)
    if not match or not match[1][1:].islower():
        return None
    start = match.start(1)
    letter = question[start].swapcase()
    return question[:start] + letter + question[start + 1 :] if len(letter) == 1 else None


_CASE: dict[Rule, int] = {lower_case: 6, first_letter: 3, _upper_case: 1}


def case(question: str, generator: Generator) -> str | None:
    """Change the case of all letters, or of the first."""
    return second(apply_one(_CASE, question, generator))


def second(applied: tuple[Rule, str] | None) -> str | None:
    """Return the question that `apply_one` changed."""
    return applied[1] if applied else None


def _marked(question: str) -> tuple[str, str, str]:
    """Split a question into its text, its final marks, and spaces; no marks where they may be more than that."""
    text = question.rstrip()
    bare = text.rstrip(MARKS)
    marks, text = text[len(bare) :], bare.rstrip()
    factorial = marks[:1] == "!" and text[-1:].isdigit()
    path = "." in marks and bare != text
    if not marks or factorial or path or not _LETTER_OR_DIGIT.search(text):
        return question, "", ""
    return text, marks, bare[len(text) :]


def without_final_mark(question: str, generator: Generator) -> str | None:
    """Drop the final mark, and the opening one of Spanish."""
    text, marks, _ = _marked(question)
    return _without_opening(text, marks) if marks else None


def _without_opening(text: str, marks: str) -> str:
    for mark, opening in _OPENING.items():
        if mark in marks:
            before, _, after = text.rpartition(opening)
            text = before + after
    return text


def without_mark_of_a_word(question: str, generator: Generator) -> str | None:
    """Drop the final mark if it directly follows a letter; in code it may be more than a mark."""
    text, marks, space = _marked(question)
    return text if marks and not space and text[-1].isalpha() and not is_technical(text.split()[-1]) else None


def _doubled_mark(question: str, generator: Generator) -> str | None:
    text, marks, space = _marked(question)
    if len(marks) != 1 or marks == "…":
        return None
    return text + space + marks * (2 if generator.chance(0.7) else 3)


def _without_opening_mark(question: str, generator: Generator) -> str | None:
    text, marks, space = _marked(question)
    return _without_opening(text, marks) + space + marks


def _with_final_mark(question: str, generator: Generator) -> str | None:
    last = question[-1]
    if not (last.isalnum() or last in ")”»") or is_technical(question[-12:]):
        return None
    return question + _mark_of(question)


def _mark_of(question: str) -> str:
    """A question mark only where the words ask: on other texts it could make a question of a statement."""
    last = question[-1]
    if "가" <= last <= "힣":
        return "?" if _ASKS["korean"].search(question) else ".."
    if _HAN_OR_KANA.search(question):
        return "？" if _ASKS["han"].search(question) else "。"
    if not _ASKS["latin"].match(question):
        return "."
    return "؟" if "\u0600" <= last <= "\u06ff" else "?"


_FINAL_MARKS: dict[Rule, int] = {
    without_final_mark: 6,
    _with_final_mark: 3,
    _doubled_mark: 2,
    _without_opening_mark: 6,
}


def final_mark(question: str, generator: Generator) -> str | None:
    """Drop, add or double the final mark."""
    return second(apply_one(_FINAL_MARKS, question, generator))


_SPACE = re.compile(r"(?<=\S) (?=\S)")
_AFTER_COMMA = re.compile(r"(?<=[^\W\d_],) (?=[^\W\d_])")
_HANGUL_SPACE = re.compile("(?<=[가-힣]) (?=[가-힣])")


def _doubled_space(question: str, generator: Generator) -> str | None:
    places = [match.start() for match in _SPACE.finditer(question)]
    place = generator.choice(places) if places else 0
    return f"{question[:place]} {question[place:]}" if places else None


def _space_before_mark(question: str, generator: Generator) -> str | None:
    """Add a space before the final mark, or drop the one that French has there."""
    text, marks, space = _marked(question)
    if not marks or (not space and (not set(marks) <= {"?", "!"})):
        return None
    return text + marks if space else f"{text} {marks}"


def _trimmed(question: str, generator: Generator) -> str | None:
    return re.sub("  +", " ", question.strip())


def _no_space_after_comma(question: str, generator: Generator) -> str | None:
    return _AFTER_COMMA.sub("", question, count=1)


def _joined_words(question: str, generator: Generator) -> str | None:
    """Leave out a space of a Korean text, except at a negation, where it can decide what is said."""
    places = [match.start() for match in _HANGUL_SPACE.finditer(question)]
    if not places or language(question) != "ko":
        return None
    place = generator.choice(places)
    around = question[:place].rpartition(" ")[2] + " " + question[place + 1 :].partition(" ")[0]
    return None if is_kept(around) else question[:place] + question[place + 1 :]


_SPACING: dict[Rule, int] = {
    _joined_words: 4,
    _no_space_after_comma: 2,
    _trimmed: 2,
    _space_before_mark: 1,
    _doubled_space: 1,
}


def spacing(question: str, generator: Generator) -> str | None:
    """Add a space or leave one out."""
    return second(apply_one(_SPACING, question, generator))
