"""Fit a calibration: from the mean log-probability of its tokens to the probability that it is right.

A language model's own probabilities say how usual a text is, not how often such answers are right; so a map from one to
the other is fitted on pairs whose true answers are known: on the validation pairs, and where these are nearly all right
or nearly all wrong, so that nothing can be fitted, on them and the trained pairs together, which holds for questions of
which some were trained. The map is isotonic regression (Zadrozny and Elkan 2002) where there are enough
pairs, else Platt's logistic curve (Platt 1999), both by scikit-learn.

How many answers are right above a threshold is counted on held-out pairs alone, whatever the map was fitted on: trained
answers are nearly all right, and would hide that new ones are not.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.inference.calibration import MIN_ANSWERS, Calibration
from qa_lm.names import SPLIT_WORDS

SHARE = 0.1
"""Share of all answers that right and wrong ones must each make up, besides being `MIN_ANSWERS`."""
ISOTONIC = 1000
"""Pairs from which on isotonic regression is used; below, its steps follow chance."""
FOLDS = 5


def calibrate(evaluated: Sequence[EvaluatedPair]) -> Calibration | None:
    """The map for a model, from the pairs it was asked; None if no pair was held out, if they are too few, or all right
    or all wrong."""
    held_out = [pair for pair in evaluated if pair.split == "validation"]
    if not held_out:
        return None
    for splits in (("validation",), ("validation", "train")):
        pairs = [pair for pair in evaluated if pair.split in splits]
        right = sum(pair.exact_match for pair in pairs)
        if min(right, len(pairs) - right) >= max(MIN_ANSWERS, (SHARE * len(pairs)) if len(splits) == 1 else 0):
            counts = {split: sum(pair.split == split for pair in pairs) for split in splits}
            calibration = fitted(*_asked(pairs), {split: count for split, count in counts.items() if count})
            return counted_on(calibration, *_asked(held_out))
    return None


def _asked(pairs: Sequence[EvaluatedPair]) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-probabilities of the answers, and whether each is right."""
    return np.array([pair.log_probability for pair in pairs]), np.array([pair.exact_match for pair in pairs])


def counted_on(calibration: Calibration, log_probabilities: np.ndarray, right: np.ndarray) -> Calibration:
    """The calibration with the curve of these held-out answers.

    Args:
        calibration: what gives their probabilities.
        log_probabilities: mean of each answer's tokens, (answers,).
        right: whether it is right, bool, (answers,).
    """
    probabilities = np.interp(log_probabilities, calibration.log_probabilities, calibration.probabilities)
    return replace(
        calibration,
        curve=coverage_and_precision(probabilities, right),
        held_out={"pairs": len(right), "right": int(right.sum()), "needed": MIN_ANSWERS},
    )


def fitted(log_probabilities: np.ndarray, right: np.ndarray, fitted_on: dict[str, int]) -> Calibration:
    """The map for these answers, with their own curve, as if all were held out.

    Args:
        log_probabilities: mean of each answer's tokens, (answers,).
        right: whether it is right, bool, (answers,); some are, some are not.
        fitted_on: for the record.
    """
    from sklearn.model_selection import StratifiedKFold

    method = "isotonic" if len(right) >= ISOTONIC else "platt"
    unseen = np.zeros(len(right))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for rest, fold in folds.split(log_probabilities, right):
        unseen[fold] = np.interp(log_probabilities[fold], *_knots(log_probabilities[rest], right[rest], method))
    places, probabilities = _knots(log_probabilities, right, method)
    brier = float(((unseen - right) ** 2).mean())
    calibration = Calibration(method, places.tolist(), probabilities.tolist(), fitted_on, brier, [])
    return counted_on(calibration, log_probabilities, right)


def _knots(log_probabilities: np.ndarray, right: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if method == "isotonic":
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(log_probabilities, right)
        return model.X_thresholds_, model.y_thresholds_
    count, number = len(right), int(right.sum())
    # Platt's targets: a right answer counts as not quite 1, a wrong one as not quite 0: one more of each was seen.
    targets = np.where(right, (number + 1) / (number + 2), 1 / (count - number + 2))
    column = np.concatenate([log_probabilities, log_probabilities])[:, None]
    classes, weights = np.repeat([1, 0], count), np.concatenate([targets, 1 - targets])
    curve = LogisticRegression(C=np.inf).fit(column, classes, weights)
    places = np.linspace(log_probabilities.min(), log_probabilities.max(), 200)
    return places, curve.predict_proba(places[:, None])[:, 1]


def coverage_and_precision(probabilities: np.ndarray, right: np.ndarray, points: int = 100) -> list[dict[str, float]]:
    """What abstaining below each of some thresholds gives, the highest first.

    A threshold lies halfway between the answers on either side: one that is asked again, in another batch, may come out
    a rounding error lower.
    """
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.diff(ordered, append=-1.0))  # the last answer at each probability
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, min(points, len(ends))).astype(int))]
    between = (ordered + np.append(ordered[1:], 0.0)) / 2
    between[-1:] = 0.0  # below the least probable answer: all are answered
    return [
        {
            "threshold": float(between[end]),
            "coverage": float((end + 1) / len(ordered)),
            "precision": float(hits[end] / (end + 1)),
        }
        for end in ends
    ]


def as_board(calibration: Calibration | None) -> dict[str, Any] | None:
    """What the board says of it."""
    if calibration is None:
        return None
    kept = ("method", "fitted_on", "brier", "curve", "held_out")
    return {name: value for name, value in asdict(calibration).items() if name in kept}


def on_pairs(
    calibration: Calibration | None, answers: Sequence[EvaluatedPair], threshold: float | None
) -> dict[str, Any] | None:
    """What the board says of a calibration on the pairs that were asked, and of abstaining below a point: of those that
    were not trained alone; only if all were trained, of these."""
    found = as_board(calibration)
    if found is None or not answers:
        return found
    asked = [each for each in answers if each.split != "train"] or answers
    probabilities = np.array([each.probability for each in asked])
    right = np.array([each.exact_match for each in asked])
    found |= {
        "brier": float(((probabilities - right) ** 2).mean()),
        "curve": coverage_and_precision(probabilities, right),
        "held_out": {"pairs": len(right), "right": int(right.sum()), "needed": MIN_ANSWERS},
    }
    if threshold is not None:
        answered = probabilities >= threshold
        precision = float(right[answered].mean()) if answered.any() else None
        shares = {"threshold": threshold, "coverage": float(answered.mean()), "precision": precision}
        counts = {split: sum(each.split == split for each in asked) for split in SPLIT_WORDS}
        found["abstaining"] = shares | {"asked": {split: count for split, count in counts.items() if count}}
    return found
