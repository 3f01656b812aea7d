"""How sure an answer is: from the mean log-probability of its tokens to the probability that it is right.

A language model's own probabilities say how usual a text is, not how often such answers are right; so a map from one to
the other is fitted on pairs whose true answers are known: on the validation pairs, and where these are nearly all right
or nearly all wrong, so that nothing can be fitted, on them and the trained pairs together, which holds for questions of
which some were trained. The map is isotonic regression (Zadrozny and Elkan 2002) where there are enough
pairs, else Platt's logistic curve (Platt 1999), both by scikit-learn.

How many answers are right above a threshold is counted on held-out pairs alone, whatever the map was fitted on: trained
answers are nearly all right, and would hide that new ones are not.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qa_lm.answering.evaluate import EvaluatedPair
from qa_lm.errors import UserError, first_line
from qa_lm.names import SPLIT_WORDS, pairs_by_split

FILE = "confidence.json"
EACH, SHARE = 20, 0.1
"""Right and wrong answers that are needed of each: so many, and such a share of all. A precision needs as many right
held-out answers, and as many that are not withheld."""
ISOTONIC = 1000
"""Pairs from which on isotonic regression is used; below, its steps follow chance."""
FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """A map from mean log-probabilities to probabilities: straight lines between knots, level outside."""

    method: str
    """`isotonic` or `platt`."""
    log_probabilities: list[float]
    """Knots, ascending."""
    probabilities: list[float]
    """The map at the knots."""
    fitted_on: dict[str, int]
    """How many pairs of which split."""
    brier: float
    """Mean squared error of the probabilities, cross-validated."""
    curve: list[dict[str, float]]
    """What abstaining below a threshold gives on the held-out pairs: threshold, coverage (share of the questions that
    are answered), precision (share of the answers that are right); the highest threshold first."""
    held_out: dict[str, int] | None = None
    """The held-out pairs behind `curve`: `pairs`, how many are answered `right`, and how many right ones are `needed`
    to choose a threshold. None in files of older versions, whose curve counts trained pairs too."""

    def probability(self, log_probability: float) -> float:
        """That an answer with this mean log-probability is right."""
        return float(np.interp(log_probability, self.log_probabilities, self.probabilities))

    def threshold_for(self, precision: float) -> float:
        """The lowest threshold above which this share of the answers to held-out questions is right.

        Raises:
            UserError: there is none, or too few held-out answers are right to tell.
        """
        if self.held_out is None:
            raise UserError(
                f"--precision: {FILE} was written by an older version, which counted trained pairs too; train again, "
                "or use --abstain-below"
            )
        pairs, right = self.held_out["pairs"], self.held_out["right"]
        if right < EACH:
            raise UserError(
                f"--precision: only {right:,} of {pairs:,} answers to held-out questions are right, and at least "
                f"{EACH} are needed to choose a threshold; hold out more pairs, or use --abstain-below"
            )
        points = [point for point in self.curve if round(point["coverage"] * pairs) >= EACH]
        reached = [point["threshold"] for point in points if point["precision"] >= precision]
        if not reached:
            best = max(points, key=lambda point: point["precision"])
            raise UserError(
                f"--precision: {precision:.1%} is not reached: at best {best['precision']:.1%} of the answers to "
                f"held-out questions are right, when {best['coverage']:.1%} of the questions are answered"
            )
        return min(reached)

    def expected(self, threshold: float) -> str:
        """What a threshold of `threshold_for` gives on the held-out pairs, in words."""
        point = next(point for point in self.curve if point["threshold"] == threshold)
        pairs = (self.held_out or {"pairs": 0})["pairs"]
        return (
            f"below a probability of {threshold:.3f} the answer is withheld; of {pairs:,} held-out questions this "
            f"answers {point['coverage']:.1%}, and {point['precision']:.1%} of these answers are right"
        )

    @property
    def source(self) -> str:
        """What it was fitted on, in words: "24 held-out and 96 trained pairs"."""
        return pairs_by_split(self.fitted_on)

    def save(self, folder: Path) -> None:
        """Write it beside a model."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Calibration | None":
        """Read what `save` wrote; None if nothing was.

        Raises:
            UserError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
            found._check()
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise UserError(f"{path}: is no calibration: {first_line(error)}") from None
        return found

    def _check(self) -> None:
        """Refuse what `save` does not write: the file may come from elsewhere.

        Raises:
            ValueError: so it is, or TypeError, KeyError or OverflowError.
        """
        places, probabilities = (np.asarray(each, np.float64) for each in (self.log_probabilities, self.probabilities))
        shares = [point[name] for point in self.curve for name in ("threshold", "coverage", "precision")]
        held_out = {"pairs": 0, "right": 0} if self.held_out is None else self.held_out
        if not (
            isinstance(self.fitted_on, dict) and isinstance(held_out, dict) and {"pairs", "right"} <= held_out.keys()
        ):
            raise ValueError("fitted_on and held_out must be counts by name")
        if not all(type(count) is int and count >= 0 for count in (*self.fitted_on.values(), *held_out.values())):
            raise ValueError("fitted_on and held_out must be counts")
        if not (places.ndim == 1 and len(places) and places.shape == probabilities.shape and self.curve):
            raise ValueError("its knots must be two lists of as many numbers, and its curve must have points")
        if not (np.diff(places) >= 0).all():
            raise ValueError("log_probabilities must ascend")
        if not all(0 <= share <= 1 for share in (*probabilities.tolist(), *shares, self.brier)):
            raise ValueError("probabilities must be from 0 to 1")


def calibrate(evaluated: Sequence[EvaluatedPair]) -> Calibration | None:
    """The map for a model, from the pairs it was asked; None if no pair was held out, if they are too few, or all right
    or all wrong."""
    held_out = [pair for pair in evaluated if pair.split == "validation"]
    if not held_out:
        return None
    for splits in (("validation",), ("validation", "train")):
        pairs = [pair for pair in evaluated if pair.split in splits]
        right = sum(pair.exact_match for pair in pairs)
        if min(right, len(pairs) - right) >= max(EACH, (SHARE * len(pairs)) if len(splits) == 1 else 0):
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
        held_out={"pairs": len(right), "right": int(right.sum()), "needed": EACH},
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
        "held_out": {"pairs": len(right), "right": int(right.sum()), "needed": EACH},
    }
    if threshold is not None:
        answered = probabilities >= threshold
        precision = float(right[answered].mean()) if answered.any() else None
        shares = {"threshold": threshold, "coverage": float(answered.mean()), "precision": precision}
        counts = {split: sum(each.split == split for each in asked) for split in SPLIT_WORDS}
        found["abstaining"] = shares | {"asked": {split: count for split, count in counts.items() if count}}
    return found
