"""How sure a ranking is of its first answer: a logistic regression on signs that an answer fits.

It is fitted on trained questions that were left out of the known pairs: alone, so that another question with the same
answer should find it, and together with all questions with their answer, so that no known answer is right.
"""

from dataclasses import dataclass

import numpy as np

from qa_lm.retrieval.ranking import Candidates, Ranking
from qa_lm.retrieval.similarity import MEASURES


@dataclass(frozen=True)
class Confidence:
    """Coefficients of the logistic regression, for signs that are not standardised."""

    coefficients: tuple[float, ...]
    intercept: float

    def log_odds(self, signs: np.ndarray) -> np.ndarray:
        """Uncalibrated log-odds that the first answer is right, (questions,).

        Args:
            signs: result of `signs_of`.
        """
        odds: np.ndarray = signs @ np.array(self.coefficients) + self.intercept
        return odds


def signs_of(candidates: Candidates, ranking: Ranking) -> np.ndarray:
    """Signs that the first answer of each question is right, (questions, signs).

    They are its score, its lead over the second answer, the log-odds of its softmax probability; and for each index its
    three similarities and whether it has the largest similarity of a question.
    """
    scores = ranking.scores(candidates)
    rows, first = np.arange(len(scores)), scores.argmax(axis=1)
    ordered = np.sort(scores, axis=1)[:, ::-1]
    lead = ordered[:, 0] - ordered[:, 1] if scores.shape[1] > 1 else np.zeros(len(scores))
    others = np.logaddexp.reduce(np.where(np.eye(scores.shape[1], dtype=bool)[first], -np.inf, scores), axis=1)
    odds = np.clip(ordered[:, 0] - others, -MAX_LOG_ODDS, MAX_LOG_ODDS)
    similarities = candidates.similarities
    questions = similarities[:, :, len(MEASURES) - 1 :: len(MEASURES)]  # of each index
    agrees = questions.argmax(axis=1) == first[:, None]
    return np.column_stack([ordered[:, 0], lead, odds, similarities[rows, first], agrees]).astype(np.float64)


def sign_count(indexes: int) -> int:
    """Number of signs, by the number of indexes."""
    return 3 + (len(MEASURES) + 1) * indexes


MAX_LOG_ODDS = 10.0
"""Largest log-odds that count; a file with one answer has no other."""


def fit_confidence(signs: np.ndarray, right: np.ndarray) -> Confidence:
    """Fit the logistic regression.

    Args:
        signs: result of `signs_of`.
        right: whether the first answer of each question is right, (questions,), bool; both values must occur.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    mean, scale = signs.mean(axis=0), signs.std(axis=0) + 1e-6
    model = LogisticRegression(C=1.0, max_iter=1000).fit((signs - mean) / scale, right)
    coefficients = model.coef_[0] / scale
    return Confidence(tuple(map(float, coefficients)), float(model.intercept_[0] - coefficients @ mean))
