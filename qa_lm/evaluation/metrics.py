"""SQuAD's exact match and F1, and the confidence interval of a share.

The rules are those of SQuAD's published evaluation script (Rajpurkar et al., 2016, arXiv:1606.05250; version 2.0 for
empty answers): lower case, no ASCII punctuation, no English articles, single spaces; words are separated by spaces.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Normalise an answer by SQuAD's rules."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalised_exact_match(answer: str, accepted: Iterable[str]) -> bool:
    """Whether the normalised answer equals one of the normalised accepted answers."""
    normalised = normalise_answer(answer)
    return any(normalised == normalise_answer(each) for each in accepted)


def f1(answer: str, accepted: Iterable[str]) -> float:
    """Harmonic mean of the precision and recall of the answer's words, for the best accepted answer.

    If either has no words, the score is 1 if both have none, otherwise 0.
    """
    return max(_f1(normalise_answer(answer).split(), normalise_answer(each).split()) for each in accepted)


def _f1(words: list[str], reference: list[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    shared = (Counter(words) & Counter(reference)).total()
    return 2 * shared / (len(words) + len(reference))


class Share(NamedTuple):
    """A mean of values from 0 to 1, with its 95% interval."""

    value: float
    low: float
    high: float


def share(values: Iterable[float]) -> Share | None:
    """Mean of the values with its Wilson interval; None without values.

    The interval (Wilson 1927) is exact in form for values 0 and 1. For F1, with values between 0 and 1, it is
    conservative: for a given mean, values of 0 and 1 have the largest variance.
    """
    numbers = list(values)
    if not numbers:
        return None
    mean, n, z = sum(numbers) / len(numbers), len(numbers), 1.959964
    middle = mean + z * z / (2 * n)
    half = z * ((mean * (1 - mean) + z * z / (4 * n)) / n) ** 0.5
    divisor = 1 + z * z / n
    # If the mean is 0 or 1, one end of the interval equals it, up to rounding.
    return Share(mean, min(mean, max(0.0, (middle - half) / divisor)), max(mean, min(1.0, (middle + half) / divisor)))
