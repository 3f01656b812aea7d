"""The calibration of a model: from the mean log-probability of an answer's tokens to the probability that it is right.

It is fitted by `qa_lm.evaluation.calibrate` and read from `confidence.json` beside the model.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qa_lm.errors import UserError, first_line
from qa_lm.names import pairs_by_split

FILE = "confidence.json"
EACH = 20
"""Right held-out answers that a precision needs, and answers that are not withheld."""


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
            raise UserError(f"{path}: is not a valid calibration: {first_line(error)}") from None
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
