"""Find the nearest trained question, and whether it is a near-duplicate.

Both use the character 4-grams of `qa_lm.data.quality.near`: nearest by the cosine of TF-IDF vectors (Salton and Buckley
1988, scikit-learn's smoothed form), near-duplicate by Jaccard similarity.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from qa_lm.data.pairs import normalise_question
from qa_lm.data.quality.near import NEAR, pieces

AT_ONCE = 256
"""Number of questions processed at once; 256 times a million trained questions are at most 256 million numbers."""


class Nearest(NamedTuple):
    """The nearest trained question of each question; arrays are (questions,)."""

    places: np.ndarray
    """Index of the trained question with the largest cosine, int64; the first one if there are several."""
    cosines: np.ndarray
    """Cosine of that question, from 0 to 1."""
    near: np.ndarray
    """Whether any trained question is a near-duplicate, bool."""


class TrainedQuestions:
    """An index of trained questions. A million questions take about a minute and 2 GB.

    Args:
        questions: trained questions, at least one.
    """

    def __init__(self, questions: Sequence[str]) -> None:
        self._counter = CountVectorizer(analyzer=_pieces, binary=True, dtype=np.float32)
        self._pieces = csr_array(self._counter.fit_transform(questions))  # (trained, pieces)
        self._weigher = TfidfTransformer().fit(self._pieces)
        self._weights = csr_array(self._weigher.transform(self._pieces)).T.tocsr()
        self._sizes = np.diff(self._pieces.indptr)
        self._columns = self._pieces.T.tocsr()

    def nearest(self, questions: Sequence[str]) -> Nearest:
        """Find the nearest trained question of each question."""
        parts = [self._nearest(questions[begin : begin + AT_ONCE]) for begin in range(0, len(questions), AT_ONCE)]
        empty = Nearest(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))
        return Nearest(*(np.concatenate(each) for each in zip(*(parts or [empty]), strict=True)))

    def most_alike(self, question: str, count: int) -> list[tuple[int, float]]:
        """Indices and cosines of the nearest trained questions, nearest first."""
        cosines = self._cosines([question])[0]
        order = np.argsort(-cosines, kind="stable")[:count]
        return [(int(place), float(cosines[place])) for place in order]

    def _cosines(self, questions: Sequence[str]) -> np.ndarray:
        weights = csr_array(self._weigher.transform(self._counter.transform(questions)))
        return (weights @ self._weights).toarray()

    def _nearest(self, questions: Sequence[str]) -> Nearest:
        cosines = self._cosines(questions)
        places = cosines.argmax(axis=1)
        known = csr_array(self._counter.transform(questions))
        # Count 4-grams that occur in no trained question too.
        sizes = np.array([len(_pieces(question)) for question in questions])
        shared = (known @ self._columns).toarray()
        near = (shared >= NEAR * (sizes[:, None] + self._sizes[None] - shared)).any(axis=1)
        return Nearest(places, cosines[np.arange(len(places)), places], near)


def _pieces(question: str) -> set[str]:
    return pieces(normalise_question(question))
