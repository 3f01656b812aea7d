"""What is said for an answer: the answer or "I don't know", how likely it is right, and the nearest trained questions.

`ask.py` and `serve.py` both reply by this module.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_lm.config.enums import AnswerMode
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answer, Answerer

if TYPE_CHECKING:
    from qa_lm.evaluation.explanation import Explainer, Explanation

UNKNOWN = "I don't know"


@dataclass(frozen=True)
class Abstention:
    """When "I don't know" is said instead of an answer."""

    threshold: float
    """Lowest probability of being right with which an answer is given."""
    note: str
    """Where the threshold comes from, in a sentence."""

    @classmethod
    def of(
        cls, run: Path, answerer: Answerer, mode: AnswerMode, abstain_below: float | None, precision: float | None
    ) -> "Abstention | None":
        """Choose the threshold of a mode by the options `--abstain-below` and `--precision`; None without them.

        Raises:
            UserError: the mode has no calibration, or no threshold reaches the precision.
        """
        if abstain_below is None and precision is None:
            return None
        calibration = answerer.calibration_of(mode)
        if calibration is None:
            raise UserError(
                f"{run}: has no calibration for mode {mode.value}, so probabilities are unknown; it needs held-out "
                "pairs, or in mode best questions that share answers, and at least 20 right and 20 wrong answers"
            )
        if precision is None:
            assert abstain_below is not None
            return cls(abstain_below, f"probabilities are calibrated on {calibration.source}")
        threshold = calibration.threshold_for(precision)
        return cls(threshold, calibration.expected(threshold))


@dataclass(frozen=True)
class Reply:
    """What is said for an answer, and what is known about it."""

    answer: Answer
    abstained: bool | None
    """Whether "I don't know" is said instead; None if every answer is given."""
    explanation: "Explanation | None"
    """None if no trained pairs are compared."""

    @property
    def said(self) -> str:
        """The text of the reply."""
        return UNKNOWN if self.abstained else self.answer.answer

    @property
    def record(self) -> dict[str, Any]:
        """The reply as JSON holds it."""
        abstained = {} if self.abstained is None else {"abstained": self.abstained}
        return asdict(self.answer) | abstained | (asdict(self.explanation) if self.explanation else {})


@dataclass(frozen=True)
class Replies:
    """Turns answers into replies."""

    abstention: Abstention | None = None
    explainer: "Explainer | None" = None

    def of(self, answers: Sequence[Answer], mode: AnswerMode) -> list[Reply]:
        """The replies for answers in this mode."""
        explanations: Sequence[Explanation | None] = [None] * len(answers)
        if self.explainer and answers:
            explanations = self.explainer.explain([answer.question for answer in answers], mode)
        return [
            Reply(answer, self._abstains(answer), explanation)
            for answer, explanation in zip(answers, explanations, strict=True)
        ]

    def _abstains(self, answer: Answer) -> bool | None:
        if self.abstention is None:
            return None
        return answer.probability is not None and answer.probability < self.abstention.threshold
