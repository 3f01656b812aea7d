"""Fit a calibration from the mean log-probability of an answer's tokens to the probability that the answer is right.

The probabilities of a language model say how likely a text is, not how often such answers are right. So a map from one
to the other is fitted on pairs whose true answers are known: on the validation pairs or, if nearly all of these are
right or nearly all wrong, on validation and trained pairs together; the map then applies to a mix of trained and new
questions. The map is isotonic regression (Zadrozny and Elkan 2002) if there are enough pairs, otherwise Platt scaling
(Platt 1999), both by scikit-learn.

The precision above a threshold is measured on held-out pairs only, whatever the map was fitted on: nearly all trained
answers are right, which would hide errors on new questions.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.inference.calibration import MIN_ANSWERS, Calibration
from qa_lm.names import SPLIT_WORDS

MIN_SHARE = 0.1
"""Minimum share of right answers and of wrong answers; there must be at least `MIN_ANSWERS` of each too."""
ISOTONIC_MIN_PAIRS = 1000
"""Minimum number of pairs for isotonic regression, which overfits on fewer."""
FOLDS = 5


def calibrate(evaluated: Sequence[EvaluatedPair]) -> Calibration | None:
    """Fit a calibration on evaluated pairs; None without held-out pairs, or with too few right or wrong answers."""
    held_out = [pair for pair in evaluated if pair.split == "validation"]
    if not held_out:
        return None
    for splits in (("validation",), ("validation", "train")):
        pairs = [pair for pair in evaluated if pair.split in splits]
        right = sum(pair.exact_match for pair in pairs)
        if min(right, len(pairs) - right) >= max(MIN_ANSWERS, (MIN_SHARE * len(pairs)) if len(splits) == 1 else 0):
            counts = {split: sum(pair.split == split for pair in pairs) for split in splits}
            fitted_on = {split: count for split, count in counts.items() if count}
            return with_curve(fit_calibration(*_scores(pairs), fitted_on), *_scores(held_out))
    return None


def _scores(pairs: Sequence[EvaluatedPair]) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-probabilities of the answers in nats, and whether each is right."""
    return np.array([pair.log_probability for pair in pairs]), np.array([pair.exact_match for pair in pairs])


def with_curve(calibration: Calibration, log_probabilities: np.ndarray, right: np.ndarray) -> Calibration:
    """Replace the curve of a calibration by the curve of these held-out answers.

    Args:
        calibration: maps log-probabilities to probabilities.
        log_probabilities: mean log-probability of each answer's tokens, in nats, (answers,).
        right: whether each answer is right, bool, (answers,).
    """
    probabilities = np.interp(log_probabilities, calibration.log_probabilities, calibration.probabilities)
    return replace(
        calibration,
        curve=coverage_and_precision(probabilities, right),
        held_out={"pairs": len(right), "right": int(right.sum()), "needed": MIN_ANSWERS},
    )


def fit_calibration(log_probabilities: np.ndarray, right: np.ndarray, fitted_on: dict[str, int]) -> Calibration:
    """Fit a calibration to these answers; its curve treats all of them as held out.

    Args:
        log_probabilities: mean log-probability of each answer's tokens, in nats, (answers,).
        right: whether each answer is right, bool, (answers,); both values must occur.
        fitted_on: number of pairs per split, stored in the result.
    """
    from sklearn.model_selection import StratifiedKFold

    method = "isotonic" if len(right) >= ISOTONIC_MIN_PAIRS else "platt"
    unseen = np.zeros(len(right))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for rest, fold in folds.split(log_probabilities, right):
        unseen[fold] = np.interp(log_probabilities[fold], *_knots(log_probabilities[rest], right[rest], method))
    knots, probabilities = _knots(log_probabilities, right, method)
    brier = float(((unseen - right) ** 2).mean())
    calibration = Calibration(method, knots.tolist(), probabilities.tolist(), fitted_on, brier, [])
    return with_curve(calibration, log_probabilities, right)


def _knots(log_probabilities: np.ndarray, right: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if method == "isotonic":
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(log_probabilities, right)
        return model.X_thresholds_, model.y_thresholds_
    count, number = len(right), int(right.sum())
    # Platt's targets: slightly below 1 for a right answer and slightly above 0 for a wrong one (add-one smoothing).
    targets = np.where(right, (number + 1) / (number + 2), 1 / (count - number + 2))
    column = np.concatenate([log_probabilities, log_probabilities])[:, None]
    classes, weights = np.repeat([1, 0], count), np.concatenate([targets, 1 - targets])
    curve = LogisticRegression(C=np.inf).fit(column, classes, weights)
    knots = np.linspace(log_probabilities.min(), log_probabilities.max(), 200)
    return knots, curve.predict_proba(knots[:, None])[:, 1]


def coverage_and_precision(probabilities: np.ndarray, right: np.ndarray, points: int = 100) -> list[dict[str, float]]:
    """Coverage and precision when abstaining below each of at most `points` thresholds, the highest threshold first.

    A threshold lies halfway between two probabilities, because the same question in another batch may get a probability
    that differs by a rounding error.
    """
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.diff(ordered, append=-1.0))  # the last answer at each probability
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, min(points, len(ends))).astype(int))]
    between = (ordered + np.append(ordered[1:], 0.0)) / 2
    between[-1:] = 0.0  # below the least probable answer, all questions are answered
    return [
        {
            "threshold": float(between[end]),
            "coverage": float((end + 1) / len(ordered)),
            "precision": float(hits[end] / (end + 1)),
        }
        for end in ends
    ]


def board_entry(calibration: Calibration | None) -> dict[str, Any] | None:
    """The entry `confidence` of the scoreboard."""
    if calibration is None:
        return None
    kept = ("method", "fitted_on", "brier", "curve", "held_out")
    return {name: value for name, value in asdict(calibration).items() if name in kept}


def evaluated_board_entry(
    calibration: Calibration | None, answers: Sequence[EvaluatedPair], threshold: float | None
) -> dict[str, Any] | None:
    """The entry `confidence` of the scoreboard, evaluated on these answers.

    Only pairs that were not trained count; if all were trained, all count.

    Args:
        calibration: the calibration of the model, if it has one.
        answers: the evaluated pairs.
        threshold: probability below which the model abstains, for the entry `abstaining`; None leaves it out.
    """
    entry = board_entry(calibration)
    if entry is None or not answers:
        return entry
    counted = [each for each in answers if each.split != "train"] or answers
    probabilities = np.array([each.probability for each in counted])
    right = np.array([each.exact_match for each in counted])
    entry |= {
        "brier": float(((probabilities - right) ** 2).mean()),
        "curve": coverage_and_precision(probabilities, right),
        "held_out": {"pairs": len(right), "right": int(right.sum()), "needed": MIN_ANSWERS},
    }
    if threshold is not None:
        answered = probabilities >= threshold
        precision = float(right[answered].mean()) if answered.any() else None
        shares = {"threshold": threshold, "coverage": float(answered.mean()), "precision": precision}
        counts = {split: sum(each.split == split for each in counted) for split in SPLIT_WORDS}
        entry["abstaining"] = shares | {"asked": {split: count for split, count in counts.items() if count}}
    return entry
