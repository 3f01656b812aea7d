"""Overlap of a pair with the trained pairs, and the answers of two baselines that copy from them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qa_lm.data.pairs import Pair, normalise_question
from qa_lm.data.quality.similarity import TrainedQuestions
from qa_lm.evaluation.metrics import normalise_answer
from qa_lm.names import KNOWN_ANSWER, NEAR, NEW, TRAINED


@dataclass(frozen=True)
class Overlap:
    """Overlap of a pair with the trained pairs."""

    name: str
    """One of `qa_lm.names.OVERLAPS`."""
    nearest_question: str
    """The nearest trained question."""
    nearest_answer: str
    """The answer of the nearest trained question."""
    most_common_answer: str
    """The most common trained answer."""


class TrainedPairs:
    """The trained pairs, or a sample of them, to compare other pairs with.

    Args:
        questions: trained questions.
        answers: the answer of each question.
    """

    def __init__(self, questions: Sequence[str], answers: Sequence[str]) -> None:
        self.questions, self.answers = questions, answers
        self._known_answers = {normalise_answer(answer) for answer in answers}
        # Ties are broken by text, so that the order of the file has no influence.
        self.most_common = min(Counter(answers).items(), key=lambda item: (-item[1], item[0]))[0]
        self._known_questions = set(map(normalise_question, questions))
        self.index = TrainedQuestions(self.questions)

    def overlaps(self, pairs: Sequence[Pair]) -> list[Overlap]:
        """Overlap of each pair with the trained pairs, in order."""
        places, near = self.index.nearest([pair.question for pair in pairs])
        return [
            Overlap(self._name(pair, bool(is_near)), self.questions[place], self.answers[place], self.most_common)
            for pair, place, is_near in zip(pairs, places, near, strict=True)
        ]

    def _name(self, pair: Pair, near: bool) -> str:
        if normalise_question(pair.question) in self._known_questions:
            return TRAINED
        if near:
            return NEAR
        accepted = (pair.answer, *pair.other_answers)
        return KNOWN_ANSWER if any(normalise_answer(each) in self._known_answers for each in accepted) else NEW
