"""Similarity of texts: the nearest trained question, and whether similar questions have similar answers.

Texts are compared by the cosine of TF-IDF vectors of character 4-grams (Salton and Buckley 1988), and near-duplicates
are found by Jaccard similarity as in `qa_lm.data.quality.near`.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from scipy.sparse import csr_array

from qa_lm.data.quality.near import NEAR, pieces
from qa_lm.data.quality.tfidf import TermCounts, TfIdf, unit
from qa_lm.data.table import PairTable

QUESTIONS = 256
"""Number of questions processed at once; 256 times a million trained questions are at most 256 million numbers."""
BLOCK = 8192
"""Maximum number of pairs compared with one another: neighbours in the file, so that time is linear in their number."""
ROWS = 512
"""Pairs whose similarities are in memory at once."""


class TrainedQuestions:
    """An index of trained questions. A million questions take about a minute and 2 GB.

    Args:
        questions: trained questions, at least one.
    """

    def __init__(self, questions: Sequence[str]) -> None:
        self._counter = TermCounts(questions, pieces)
        counts = self._counter.of_texts  # (trained, pieces)
        self._weigher = TfIdf(counts)
        self._weights = self._weigher(counts).T.tocsr()
        self._sizes = np.diff(counts.indptr)
        self._counts = counts.T.tocsr()

    def nearest(self, questions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest trained question of each question.

        Returns:
            places: index of the trained question with the largest cosine, (questions,), int64; the first one if there
                are several.
            near: whether any trained question is a near-duplicate, (questions,), bool.
        """
        places, near = [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for begin in range(0, len(questions), QUESTIONS):
            block = questions[begin : begin + QUESTIONS]
            places.append(self._cosines(block).argmax(axis=1))
            shared = (self._counter(block) @ self._counts).toarray()
            # Count 4-grams that occur in no trained question too.
            sizes = np.array([len(pieces(question)) for question in block])
            near.append((shared >= NEAR * (sizes[:, None] + self._sizes - shared)).any(axis=1))
        return np.concatenate(places), np.concatenate(near)

    def _cosines(self, questions: Sequence[str]) -> np.ndarray:
        return (self._weigher(self._counter(questions)) @ self._weights).toarray()


def answer_consistency(table: PairTable, indices: np.ndarray) -> np.ndarray:
    """Answer consistency of these pairs, each within its block, from -1 to 1, (pairs,), float32.

    It is the correlation between the similarities of a pair's question to all other questions and those of its answer
    to all other answers. An answer that belongs to another question has a low consistency. If answers share no words
    with their questions' topic, nearly all pairs have a low one.

    Args:
        table: all pairs.
        indices: indices of the pairs, ascending.
    """
    texts = (pair[:2] for pair in table.texts(indices))
    blocks = np.array_split(indices, max(1, -(-len(indices) // BLOCK)))  # blocks of nearly equal size
    return np.concatenate([_consistency(list(islice(texts, len(block)))) for block in blocks])


def _consistency(texts: Sequence[tuple[str, str]]) -> np.ndarray:
    if not texts:
        return np.zeros(0, np.float32)
    sides = [_vectors(side) for side in zip(*texts, strict=True)]
    correlations = []
    for start in range(0, len(texts), ROWS):
        rows = np.arange(start, min(start + ROWS, len(texts)))
        questions, answers = (_standardised_similarities(side, rows) for side in sides)
        correlations.append(np.einsum("ij,ij->i", questions, answers))
    return np.concatenate(correlations)


def _vectors(texts: Sequence[str]) -> csr_array:
    """Unit TF-IDF vectors, (texts, 4-grams); a 4-gram of all texts has the weight 0."""
    counts = TermCounts(texts, pieces).of_texts
    weights = np.log(len(texts) / counts.sum(axis=0)).astype(np.float32)
    return unit(csr_array(counts * weights))


def _standardised_similarities(vectors: csr_array, rows: np.ndarray) -> np.ndarray:
    """Similarities of these texts to all others; each row has mean 0 and norm 1, or is 0 if all are equal."""
    similarities = (vectors[rows] @ vectors.T).toarray()
    similarities[np.arange(len(rows)), rows] = 0
    similarities -= similarities.mean(axis=1, keepdims=True)
    return similarities / np.maximum(np.linalg.norm(similarities, axis=1, keepdims=True), 1e-6)
