"""Typos in Hangul on the dubeolsik layout: a wrong key within a syllable, and the syllable that the keys then form."""

from qa_lm.data.augment.keyboards import NEIGHBOURS
from qa_lm.data.augment.rules import Generator

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
_SHIFTED = dict(zip("ㄲㄸㅃㅆㅉㅒㅖ", "ㄱㄷㅂㅅㅈㅐㅔ", strict=True))
_KEYS = {
    **{"ㅘ": "ㅗㅏ", "ㅙ": "ㅗㅐ", "ㅚ": "ㅗㅣ", "ㅝ": "ㅜㅓ", "ㅞ": "ㅜㅔ", "ㅟ": "ㅜㅣ", "ㅢ": "ㅡㅣ"},
    **{"ㄳ": "ㄱㅅ", "ㄵ": "ㄴㅈ", "ㄶ": "ㄴㅎ", "ㄺ": "ㄹㄱ", "ㄻ": "ㄹㅁ", "ㄼ": "ㄹㅂ", "ㄽ": "ㄹㅅ"},
    **{"ㄾ": "ㄹㅌ", "ㄿ": "ㄹㅍ", "ㅀ": "ㄹㅎ", "ㅄ": "ㅂㅅ"},
}
_LETTERS = {keys: letter for letter, keys in _KEYS.items()}
"""Letters that take two keys."""
_SILENT = _INITIALS.index("ㅇ")


def _slips(alphabet: str) -> list[tuple[int, ...]]:
    """For each letter, the letters that one wrong key, or a missed shift or second key, makes of it."""
    return [tuple(alphabet.index(letter) for letter in _near(each) if letter in alphabet) for each in alphabet]


def _near(letter: str) -> list[str]:
    keys = _KEYS.get(letter, letter)
    typed = [keys[:-1]] if len(keys) > 1 else []
    for place, key in enumerate(keys):
        others = _SHIFTED.get(key) or NEIGHBOURS["dubeolsik"].get(key, "")
        typed += [keys[:place] + other + keys[place + 1 :] for other in others]
    return [_LETTERS.get(each, each) for each in typed]


_NEAR_INITIALS, _NEAR_VOWELS, _NEAR_FINALS = _slips(_INITIALS), _slips(_VOWELS), _slips(_FINALS)


def split_syllable(syllable: str) -> tuple[int, int, int]:
    """Return the numbers of a syllable's initial consonant, vowel and final consonant (0: none)."""
    initial, rest = divmod(ord(syllable) - 0xAC00, 21 * 28)
    return initial, *divmod(rest, 28)


def syllable(initial: int, vowel: int, final: int) -> str:
    """Compose a syllable from the numbers of its letters."""
    return chr(0xAC00 + (initial * 21 + vowel) * 28 + final)


def _replace(word: str, place: int, *syllables: str) -> str:
    return word[:place] + "".join(syllables) + word[place + len(syllables) :]


def _wrong_initial(word: str, place: int, generator: Generator) -> str | None:
    initial, vowel, final = split_syllable(word[place])
    near = _NEAR_INITIALS[initial]
    # As in other scripts, people rarely get the first key of a word wrong.
    return _replace(word, place, syllable(generator.choice(near), vowel, final)) if near and place else None


def _wrong_vowel(word: str, place: int, generator: Generator) -> str | None:
    initial, vowel, final = split_syllable(word[place])
    return _replace(word, place, syllable(initial, generator.choice(_NEAR_VOWELS[vowel]), final))


def _wrong_final(word: str, place: int, generator: Generator) -> str | None:
    initial, vowel, final = split_syllable(word[place])
    near = _NEAR_FINALS[final]
    return _replace(word, place, syllable(initial, vowel, generator.choice(near))) if near else None


def _missing_final(word: str, place: int, generator: Generator) -> str | None:
    initial, vowel, final = split_syllable(word[place])
    return _replace(word, place, syllable(initial, vowel, 0)) if final and _FINALS[final] not in _KEYS else None


def _transposed_final(word: str, place: int, generator: Generator) -> str | None:
    """Type the next syllable's first key before this one's last: 한국 becomes 학눅."""
    if place + 1 == len(word):
        return None
    initial, vowel, final = split_syllable(word[place])
    after, *rest = split_syllable(word[place + 1])
    new_final, new_initial = _FINALS.find(_INITIALS[after]), _INITIALS.find(_FINALS[final])
    if final == 0 or new_final < 0 or new_initial < 0 or _INITIALS[after] == _FINALS[final]:
        return None
    return _replace(word, place, syllable(initial, vowel, new_final), syllable(new_initial, rest[0], rest[1]))


def _missing_silent(word: str, place: int, generator: Generator) -> str | None:
    """Miss the silent consonant after a final consonant, which then starts the next syllable: 먹어 becomes 머거."""
    if place + 1 == len(word):
        return None
    initial, vowel, final = split_syllable(word[place])
    after, *rest = split_syllable(word[place + 1])
    new_initial = _INITIALS.find(_FINALS[final])
    if final == 0 or after != _SILENT or new_initial < 0 or new_initial == _SILENT:
        return None
    return _replace(word, place, syllable(initial, vowel, 0), syllable(new_initial, rest[0], rest[1]))


_KINDS = {
    _wrong_initial: 2,
    _wrong_vowel: 3,
    _wrong_final: 2,
    _missing_final: 1,
    _transposed_final: 1,
    _missing_silent: 2,
}


def hangul_typo(word: str, generator: Generator) -> str | None:
    """Make one typo in a word of Hangul syllables; None where the drawn one does not fit."""
    return generator.weighted(_KINDS)(word, generator.below(len(word)), generator)
