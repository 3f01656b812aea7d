"""Rank the known answers to a question by weighted similarities.

The weights are fitted by a conditional logit model (McFadden 1974): the probability of an answer is the softmax of the
weighted similarities over the candidates. A prior keeps the weights near `DEFAULT_WEIGHT` where few pairs say
otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qa_lm.retrieval.similarity import MEASURES, LeftOut, SimilarityIndex

CANDIDATES = 32
"""Maximum number of answers that are ranked, those with the largest sum of similarities."""
COMPARISONS = 1 << 23
"""Number of questions times known pairs that are compared at once: 32 MB of each similarity."""
DEFAULT_WEIGHT = 8.0
PRIOR = 0.1
"""Precision of the normal prior of a weight: the inverse of its variance."""


@dataclass(frozen=True)
class Candidates:
    """The most similar known answers of each question, most similar first."""

    answers: np.ndarray
    """Index of each distinct answer, (questions, candidates), int64."""
    similarities: np.ndarray
    """(questions, candidates, measures), float32; three measures per index."""


def find_candidates(
    indexes: Sequence[SimilarityIndex], questions: Sequence[str], left_out: LeftOut | None = None
) -> Candidates:
    """Find the candidates of each question.

    Args:
        indexes: indexes of the same known pairs, at least one.
        questions: at least one.
        left_out: known pairs that the questions are and that are not to be found.
    """
    answers, similarities = [], []
    rows = max(1, COMPARISONS // len(indexes[0].pairs.questions))
    for begin in range(0, len(questions), rows):
        end = begin + rows
        out = left_out and LeftOut(left_out.pairs[begin:end], left_out.with_answer)
        found = np.concatenate([index.similarities(questions[begin:end], out) for index in indexes], axis=2)
        order = np.argsort(-found.sum(2), axis=1, kind="stable")[:, :CANDIDATES]
        answers.append(order)
        similarities.append(np.take_along_axis(found, order[:, :, None], axis=1))
    return Candidates(np.concatenate(answers), np.concatenate(similarities))


@dataclass(frozen=True)
class Ranking:
    """Weights of the similarities."""

    weights: tuple[float, ...]

    @classmethod
    def default(cls, indexes: int) -> "Ranking":
        """The weights where nothing was fitted."""
        return cls((DEFAULT_WEIGHT,) * (indexes * len(MEASURES)))

    def scores(self, candidates: Candidates) -> np.ndarray:
        """Score of each candidate, (questions, candidates): differences are log-odds."""
        scores: np.ndarray = candidates.similarities @ np.array(self.weights, np.float64)
        return scores


def fit_ranking(candidates: Candidates, right: np.ndarray) -> Ranking:
    """Fit the weights to questions whose right answer is known.

    Args:
        candidates: candidates of the questions.
        right: index of the right answer of each question, (questions,); a question without it among the candidates
            is ignored.
    """
    from scipy.optimize import minimize  # takes a second to import

    hits = candidates.answers == right[:, None]
    known = hits.any(axis=1)
    features, place = candidates.similarities[known].astype(np.float64), hits[known].argmax(axis=1)
    rows = np.arange(len(place))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = features @ weights
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        from_prior = weights - DEFAULT_WEIGHT
        value = -np.log(probabilities[rows, place]).sum() + PRIOR / 2 * (from_prior**2).sum()
        expected = np.einsum("qc,qcm->m", probabilities, features)
        return float(value), expected - features[rows, place].sum(axis=0) + PRIOR * from_prior

    start = np.full(features.shape[2], DEFAULT_WEIGHT)
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return Ranking(tuple(map(float, fitted.x)))
