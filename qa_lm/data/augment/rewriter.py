"""Rewrite a share of the questions, by one or two rules."""

import re

from qa_lm.data.augment.greetings import greeting
from qa_lm.data.augment.protected import is_limited
from qa_lm.data.augment.rules import Generator, Rule, apply_one
from qa_lm.data.augment.surface import case, final_mark, first_letter, spacing, without_mark_of_a_word
from qa_lm.data.augment.typos import typo
from qa_lm.data.augment.unicode_forms import unicode_form
from qa_lm.data.augment.words import dropped_word, swapped_words

WEIGHTS: dict[Rule, int] = {
    typo: 24,
    final_mark: 20,
    case: 16,
    dropped_word: 12,
    greeting: 12,
    spacing: 8,
    unicode_form: 5,
    swapped_words: 3,
}
"""How often each rule is drawn, in percent."""
LIMITED_WEIGHTS: dict[Rule, int] = {without_mark_of_a_word: 1, first_letter: 1}
"""The rules for long texts and texts with line breaks or code."""
TWO_RULES = 0.3
"""Share of the rewritten questions that a second rule changes."""
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


class Rewriter:
    """Rewrite questions at random, without changing what they ask.

    The result is a function of seed, share, epoch and question alone: it is the same in every process, and does not
    depend on the questions before it.

    Args:
        seed: another seed rewrites other questions in other ways.
        share: probability that a question is rewritten in an epoch, from 0 to 1.
    """

    def __init__(self, seed: int, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must be between 0 and 1, is {share}")
        self.seed = seed
        self.share = float(share)

    def rewrite(self, question: str, epoch: int) -> str:
        """Return the question, or with probability `share` a rewritten one."""
        generator = Generator.of(self.seed, self.share, epoch, question)
        if not generator.chance(self.share) or not _LETTER_OR_DIGIT.search(question):
            return question
        weights = LIMITED_WEIGHTS if is_limited(question) else WEIGHTS
        applied = apply_one(weights, question, generator)
        if applied is None:
            return question
        rule, rewritten = applied
        if not generator.chance(TWO_RULES):
            return rewritten
        others = {other: weight for other, weight in weights.items() if other is not rule}
        if rule is not greeting:
            _, rewritten = apply_one(others, rewritten, generator) or (rule, rewritten)
            return rewritten
        # The greeting comes last, so that the other rule changes the question and not the greeting.
        _, changed = apply_one(others, question, generator) or (rule, question)
        return greeting(changed, generator) or rewritten
