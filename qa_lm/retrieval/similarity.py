"""Similarity of a question to the known answers, from vectors of texts.

Two kinds of vectors are offered: TF-IDF of character n-grams within words (Salton and Buckley 1988), which needs
nothing but the pairs, and a sentence encoder (`qa_lm.retrieval.encoder`). Of eight variants of TF-IDF, this one finds
the most answers of left-out questions: docs/log.md, "similarity of questions".
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from qa_lm.retrieval.known_pairs import KnownPairs

MEASURES = ("mean", "largest", "question")
"""Similarities of a question to an answer, see `SimilarityIndex`."""
SIZES = (2, 4)
"""Least and most characters of the n-grams of TF-IDF."""
_PUNCTUATION = re.compile(r"[^\w\s]")
Vectorizer = Callable[[Sequence[str]], Any]
"""Returns unit vectors of texts, dense or sparse, (texts, features)."""


class LeftOut(NamedTuple):
    """Known pairs that are asked as if they were not known."""

    pairs: np.ndarray
    """Index of the known pair that each question is, (questions,), int64."""
    with_answer: bool
    """Whether all pairs with the same answer are left out too, so that no known answer is right."""


class SimilarityIndex:
    """Vectors of known pairs, which give three similarities of a question to each distinct answer.

    - the mean similarity to the pairs with this answer, question and answer together;
    - the largest of them;
    - the largest similarity to a question with this answer, to the power of 4: large only for a trained question.

    Args:
        pairs: known pairs.
        of_pairs: returns the vectors of texts to compare with question and answer together.
        of_questions: returns the vectors of texts to compare with questions.
    """

    def __init__(self, pairs: KnownPairs, of_pairs: Vectorizer, of_questions: Vectorizer) -> None:
        self.pairs, self._of_pairs, self._of_questions = pairs, of_pairs, of_questions
        self._pairs = of_pairs(pairs.texts)
        self._questions = of_questions(pairs.questions)
        self._order = np.argsort(pairs.answer_of, kind="stable")
        self._begins = np.flatnonzero(np.diff(pairs.answer_of[self._order], prepend=-1))

    def similarities(self, questions: Sequence[str], left_out: LeftOut | None = None) -> np.ndarray:
        """Return the similarities, (questions, answers, measures), float32.

        Args:
            questions: some questions; memory is this number times that of the known pairs.
            left_out: known pairs that the questions are; an answer of which all pairs are left out has similarity 0.
        """
        whole = _products(self._of_pairs(questions), self._pairs)
        asked = _products(self._of_questions(questions), self._questions)
        kept = np.ones(whole.shape, np.float32)
        if left_out is not None:
            kept[np.arange(len(questions)), left_out.pairs] = 0
            if left_out.with_answer:
                answer_of = self.pairs.answer_of
                kept[answer_of[left_out.pairs][:, None] == answer_of] = 0
        whole, asked = whole * kept, asked * kept
        mean = self._reduced(np.add, whole) / np.maximum(self._reduced(np.add, kept), 1)
        # At least 0, so that a pair that is left out does not outrank a negative similarity.
        largest, question = (np.maximum(self._reduced(np.maximum, each), 0) for each in (whole, asked))
        return np.stack([mean, largest, question**4], axis=2)

    def to_pairs(self, questions: Sequence[str]) -> np.ndarray:
        """Similarities to each pair, question and answer together, (questions, pairs), float32."""
        return _products(self._of_pairs(questions), self._pairs)

    def _reduced(self, function: np.ufunc, values: np.ndarray) -> np.ndarray:
        """Reduce the values of the pairs of each answer, (questions, pairs) to (questions, answers)."""
        reduced: np.ndarray = function.reduceat(values[:, self._order], self._begins, axis=1)
        return reduced


def tfidf_index(pairs: KnownPairs) -> SimilarityIndex:
    """Index known pairs by TF-IDF."""
    return SimilarityIndex(pairs, _tfidf(pairs.texts), _tfidf(pairs.questions))


def _plain(text: str) -> str:
    """Unicode NFKC, `str.casefold`, spaces instead of punctuation."""
    return _PUNCTUATION.sub(" ", unicodedata.normalize("NFKC", text).casefold())


def _tfidf(texts: Sequence[str]) -> Vectorizer:
    from qa_lm.data.quality.tfidf import TermCounts, TfIdf  # imports scipy, which writing freely does not need

    counter = TermCounts(texts, _terms)
    vectors = TfIdf(counter.of_texts, sublinear=True)
    return lambda texts: vectors(counter(texts))


def _terms(text: str) -> list[str]:
    """The n-grams of the words of a text, with a space at both ends of each word."""
    words = [f" {word} " for word in _plain(text).split()]
    sizes = range(SIZES[0], SIZES[1] + 1)
    return [word[i : i + size] for word in words for size in sizes for i in range(len(word) - size + 1)]


def _products(one: Any, other: Any) -> np.ndarray:
    products = one @ other.T
    dense: np.ndarray = products if isinstance(products, np.ndarray) else products.toarray()
    return dense
