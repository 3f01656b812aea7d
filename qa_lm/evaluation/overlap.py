"""How a pair stands to those that were trained; and what copying from them would answer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qa_lm.data.pairs import Pair, normalised_question
from qa_lm.data.quality.nearest import TrainedQuestions
from qa_lm.evaluation.metrics import normalised_answer
from qa_lm.names import KNOWN_ANSWER, NEAR, NEW, TRAINED

MOST = 200_000
"""Most trained pairs that others are compared with: finding the nearest takes memory and time."""


@dataclass(frozen=True)
class Relation:
    """How a pair stands to the trained ones."""

    name: str
    """One of `qa_lm.names.RELATIONS`."""
    nearest_question: str
    """The trained question that is most like its own."""
    nearest_answer: str
    """That question's answer."""
    most_common_answer: str
    """The answer that most trained pairs have."""


def looked_through(count: int) -> np.ndarray:
    """Places of the trained pairs, of so many, that others are compared with: all, or `MOST` evenly drawn ones."""
    return np.unique(np.linspace(0, count - 1, min(MOST, count)).astype(np.int64))


class TrainedPairs:
    """The trained pairs, to compare others with.

    Args:
        questions: of the trained pairs, or of those of them that are looked through.
        answers: theirs.
    """

    def __init__(self, questions: Sequence[str], answers: Sequence[str]) -> None:
        self.questions, self.answers = questions, answers
        self._known = {normalised_answer(answer) for answer in answers}
        # Of several the first in order, so that the order of the file decides nothing.
        self.most_common = min(Counter(answers).items(), key=lambda item: (-item[1], item[0]))[0]
        self._asked = set(map(normalised_question, questions))
        self.index = TrainedQuestions(self.questions)

    def relations(self, pairs: Sequence[Pair]) -> list[Relation]:
        """How each pair stands to them."""
        found = self.index.nearest([pair.question for pair in pairs])
        return [
            Relation(self._name(pair, bool(near)), self.questions[place], self.answers[place], self.most_common)
            for pair, place, near in zip(pairs, found.places, found.near, strict=True)
        ]

    def _name(self, pair: Pair, near: bool) -> str:
        if normalised_question(pair.question) in self._asked:
            return TRAINED
        if near:
            return NEAR
        accepted = (pair.answer, *pair.other_answers)
        return KNOWN_ANSWER if any(normalised_answer(each) in self._known for each in accepted) else NEW
