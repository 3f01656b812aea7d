"""Calibration: maps the mean log-probability of an answer's tokens to the probability that the answer is right.

`qa_lm.evaluation.calibrate` fits it, and `confidence.json` next to the model stores it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qa_lm.errors import UserError, reading
from qa_lm.names import pairs_by_split

FILE = "confidence.json"
MIN_ANSWERS = 20
"""Minimum number of right held-out answers, and of answers above a threshold, to choose a threshold by precision."""


@dataclass(frozen=True)
class Calibration:
    """A piecewise linear map from mean log-probability to probability, constant outside its knots."""

    method: str
    """`isotonic` or `platt`."""
    log_probabilities: list[float]
    """Knots, ascending, in nats."""
    probabilities: list[float]
    """Value of the map at each knot."""
    fitted_on: dict[str, int]
    """Number of pairs per split that the map was fitted on."""
    brier: float
    """Brier score (mean squared error of the probabilities), cross-validated."""
    curve: list[dict[str, float]]
    """Effect of abstaining below each `threshold` on the held-out pairs: `coverage` (share of the questions that are
    answered) and `precision` (share of the answers that are right). The highest threshold comes first."""
    held_out: dict[str, int] | None = None
    """Counts behind `curve`: held-out `pairs`, `right` answers, and right answers `needed` to choose a threshold. None
    in files of older versions, whose curve includes trained pairs."""

    def probability(self, log_probability: float) -> float:
        """Probability that an answer with this mean log-probability is right."""
        return float(np.interp(log_probability, self.log_probabilities, self.probabilities))

    def threshold_for(self, precision: float) -> float:
        """The lowest threshold above which this share of the answers to held-out questions is right.

        Raises:
            UserError: no threshold reaches it, or too few held-out answers are right.
        """
        if self.held_out is None:
            raise UserError(
                f"--precision: {FILE} was written by an older version, which included trained pairs; train again, "
                "or use --abstain-below"
            )
        pairs, right = self.held_out["pairs"], self.held_out["right"]
        if right < MIN_ANSWERS:
            raise UserError(
                f"--precision: only {right:,} of {pairs:,} answers to held-out questions are right, and at least "
                f"{MIN_ANSWERS} are needed to choose a threshold; hold out more pairs, or use --abstain-below"
            )
        points = [point for point in self.curve if round(point["coverage"] * pairs) >= MIN_ANSWERS]
        reached = [point["threshold"] for point in points if point["precision"] >= precision]
        if not reached:
            best = max(points, key=lambda point: point["precision"])
            raise UserError(
                f"--precision: {precision:.1%} is not reached: at best {best['precision']:.1%} of the answers to "
                f"held-out questions are right, when {best['coverage']:.1%} of the questions are answered"
            )
        return min(reached)

    def expected(self, threshold: float) -> str:
        """Describe the coverage and precision on the held-out pairs of a threshold from `threshold_for`."""
        point = next(point for point in self.curve if point["threshold"] == threshold)
        pairs = (self.held_out or {"pairs": 0})["pairs"]
        return (
            f"answers with a probability below {threshold:.3f} are withheld; on {pairs:,} held-out questions "
            f"{point['coverage']:.1%} were answered, and {point['precision']:.1%} of these answers were right"
        )

    @property
    def source(self) -> str:
        """The pairs that the map was fitted on: "24 held-out and 96 trained pairs"."""
        return pairs_by_split(self.fitted_on)

    def save(self, folder: Path) -> None:
        """Write the calibration into a model's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Calibration | None":
        """Read what `save` wrote; None if the file does not exist.

        Raises:
            UserError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        with reading(path, "is not a valid calibration"):
            return cls.parsed(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def parsed(cls, content: dict[str, Any]) -> "Calibration":
        """Build a calibration from the content of its file.

        Raises:
            ValueError: a value is invalid; depending on the value, TypeError, KeyError or OverflowError instead.
        """
        calibration = cls(**content)
        calibration._check()
        return calibration

    def _check(self) -> None:
        """Check the values, because the file may come from an untrusted source.

        Raises:
            ValueError: a value is invalid; depending on the value, TypeError, KeyError or OverflowError instead.
        """
        knots, probabilities = (np.asarray(each, np.float64) for each in (self.log_probabilities, self.probabilities))
        shares = [point[name] for point in self.curve for name in ("threshold", "coverage", "precision")]
        held_out = {"pairs": 0, "right": 0} if self.held_out is None else self.held_out
        if not (
            isinstance(self.fitted_on, dict) and isinstance(held_out, dict) and {"pairs", "right"} <= held_out.keys()
        ):
            raise ValueError("fitted_on and held_out must be counts by name")
        if not all(type(count) is int and count >= 0 for count in (*self.fitted_on.values(), *held_out.values())):
            raise ValueError("fitted_on and held_out must be counts")
        if not (knots.ndim == 1 and len(knots) and knots.shape == probabilities.shape and self.curve):
            raise ValueError("the knots must be two lists of equal length, and the curve must have points")
        if not (np.diff(knots) >= 0).all():
            raise ValueError("log_probabilities must ascend")
        if not all(0 <= share <= 1 for share in (*probabilities.tolist(), *shares, self.brier)):
            raise ValueError("probabilities must be from 0 to 1")
