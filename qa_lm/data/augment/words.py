"""A word dropped, two neighbouring words swapped: only words without which the question asks the same."""

import re

from qa_lm.data.augment.languages import language
from qa_lm.data.augment.protected import NEGATIONS
from qa_lm.data.augment.rules import Generator

_FUNCTION_WORDS = {
    # No past forms (they carry the tense), and no "in", "to" or "off", which carry the sense of many verbs.
    "en": "a an the is are do does of please just that",
    "de": "der die das ein eine einen ist sind bitte denn eigentlich",
    "fr": "le la les un une des est svp",
    "es": "el la los las un una es son",
    "it": "il lo la gli un una è sono",
    "pt": "o os as um uma é são",
    "nl": "de het een is",
    "ru": "же бы это",
    "ko": "좀 그냥 진짜 정말 혹시 막 근데",
}
FUNCTION_WORDS = {name: frozenset(words.split()) for name, words in _FUNCTION_WORDS.items()}
"""Words of each language that carry little of the question's sense."""
_QUANTITIES = frozenset(
    ["few", "little", "lot", "couple", "bit", "dozen", "half", "quarter", "peu", "bisschen", "paar", "poco"]
)
"""After an article they mean something else than without it."""
_LETTERS = re.compile(r"[^\W\d_]+")
_DIGIT = re.compile(r"\d")
# Not after the stems of verbs such as 서두르다, whose forms look the same.
_OBJECT_PARTICLE = re.compile("(?<=[가-힣][가-힣])(?<![두무다오부따고이누흐모가치])를(?= [가-힣])")
_PRONOUN_AND_OBJECT = re.compile(r"(내가|제가|네가|니가|누가|우리가|나는|저는|너는|우리는) ([가-힣]+를)(?= [가-힣])")
_FEWEST = 4
"""Words of a question from which one may be dropped."""


def dropped_word(question: str, generator: Generator) -> str | None:
    """Drop one function word; in Korean also the particle of the object.

    Content words stay: without one of them a question asks something else.
    """
    words, places = _function_words(question)
    particles = list(_OBJECT_PARTICLE.finditer(question))
    if not places and not particles:
        return None
    drawn = generator.below(len(places) + len(particles))
    if drawn < len(places):
        del words[places[drawn]]
        return " ".join(words)
    match = particles[drawn - len(places)]
    return question[: match.start()] + question[match.end() :]


def _function_words(question: str) -> tuple[list[str], list[int]]:
    """Return the words, and the places of those that may be dropped."""
    words = question.split(" ")
    if len(words) < _FEWEST:
        return words, []
    known = FUNCTION_WORDS.get(language(question) or "", frozenset())
    return words, [
        place for place in range(len(words) - 1) if words[place].lower() in known and _may_drop(words, place)
    ]


def _may_drop(words: list[str], place: int) -> bool:
    before, after = words[place - 1] if place else "", words[place + 1].lower()
    capital = words[place][0].isupper() and place > 0
    return not (capital or after in NEGATIONS or after in _QUANTITIES or _DIGIT.search(before + after))


def swapped_words(question: str, generator: Generator) -> str | None:
    """Swap a function word and the word after it; in Korean, a pronoun at the start and the object after it."""
    swapped = _PRONOUN_AND_OBJECT.match(question)
    if swapped:
        return f"{swapped[2]} {swapped[1]}{question[swapped.end() :]}"
    words, places = _function_words(question)
    places = [place for place in places if place > 0 and _may_swap(words[place + 1])]
    if not places:
        return None
    place = generator.choice(places)
    words[place : place + 2] = words[place + 1], words[place]
    return " ".join(words)


def _may_swap(word: str) -> bool:
    return word.islower() and _LETTERS.fullmatch(word) is not None and word not in NEGATIONS
