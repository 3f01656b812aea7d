"""How right an answer is: SQuAD's exact match and F1, and the interval of a share.

The rules are those of SQuAD's published evaluation script (Rajpurkar et al., 2016, arXiv:1606.05250; version 2.0's for
empty answers): lower case, no ASCII punctuation, no English articles, single spaces; words are what spaces part.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised_answer(text: str) -> str:
    """The answer without what SQuAD's rules ignore."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalised_exact_match(answer: str, accepted: Iterable[str]) -> bool:
    """Whether the normalised answer is one of the accepted ones."""
    found = normalised_answer(answer)
    return any(found == normalised_answer(each) for each in accepted)


def f1(answer: str, accepted: Iterable[str]) -> float:
    """Harmonic mean of the precision and recall of the answer's words, against the accepted answer it suits best.

    If either has no words, 1 when both have none and else 0.
    """
    return max(_f1(normalised_answer(answer).split(), normalised_answer(each).split()) for each in accepted)


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    shared = (Counter(found) & Counter(wanted)).total()
    return 2 * shared / (len(found) + len(wanted))


class Share(NamedTuple):
    """A mean of values from 0 to 1, with its 95% interval."""

    value: float
    low: float
    high: float


def share(values: Iterable[float]) -> Share | None:
    """Mean of the values and Wilson's interval; None if there are none.

    The interval (Wilson 1927) is that of a share. For F1, whose values may lie between 0 and 1, it is on the safe side:
    no values from 0 to 1 vary more than those that are 0 or 1, at one mean.
    """
    numbers = list(values)
    if not numbers:
        return None
    mean, n, z = sum(numbers) / len(numbers), len(numbers), 1.959964
    middle = mean + z * z / (2 * n)
    half = z * ((mean * (1 - mean) + z * z / (4 * n)) / n) ** 0.5
    divisor = 1 + z * z / n
    # At 0 and 1 one end is the mean itself, up to rounding.
    return Share(mean, min(mean, max(0.0, (middle - half) / divisor)), max(mean, min(1.0, (middle + half) / divisor)))
