"""Variants of a question by name, to evaluate how robust a model is."""

import re
from collections.abc import Callable

from qa_lm.data.augment.greetings import greeting
from qa_lm.data.augment.protected import is_limited
from qa_lm.data.augment.rules import Generator, Rule
from qa_lm.data.augment.surface import lower_case, without_final_mark, without_mark_of_a_word
from qa_lm.data.augment.typos import typo
from qa_lm.data.augment.words import dropped_word

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def _variant(rule: Rule, limited: Rule | None = None) -> Rule:
    """Apply a rule where it changes the question; `limited` to long texts and texts with line breaks or code."""

    def rewrite(question: str, generator: Generator) -> str | None:
        chosen: Callable[[str, Generator], str | None] | None = limited if is_limited(question) else rule
        if chosen is None or not _LETTER_OR_DIGIT.search(question):
            return None
        result = chosen(question, generator)
        return None if result == question else result

    return rewrite


VARIANTS: dict[str, Rule] = {
    "lower case": _variant(lower_case),
    "no final mark": _variant(without_final_mark, without_mark_of_a_word),
    "one typo": _variant(typo),
    "one word dropped": _variant(dropped_word),
    "with a greeting": _variant(greeting),
}
"""Name to a function that returns the variant of a question, or None where the question has no such variant."""
