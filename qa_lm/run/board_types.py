"""Types of the content of board.json, which `qa_lm.evaluation.board` makes."""

from typing import NotRequired, TypedDict


class Proportion(TypedDict):
    """A fraction with its 95% confidence interval."""

    value: float
    low: float
    high: float


class Baselines(TypedDict):
    """Exact match of the copying baselines."""

    nearest_question: Proportion
    most_common_answer: Proportion


class BeforeTraining(TypedDict):
    """What the pretrained model knew of a group of pairs, and what has become of it."""

    untrained_model: Proportion
    known_and_kept: int
    known_and_lost: int
    taught: int
    not_learnt: int


class Row(TypedDict):
    """A row of board.json: a group of pairs, and how well they are answered."""

    split: str
    name: str
    n: int
    exact_match: Proportion
    normalised_exact_match: Proportion
    f1: Proportion
    baselines: Baselines | None
    before: NotRequired[BeforeTraining]


class Stopping(TypedDict):
    """How the answers of a split end."""

    split: str
    n: int
    stop_rate: float
    cut_early: int
    run_on: int
    eos_probability: float | None


class Threshold(TypedDict):
    """A point of the precision-coverage curve."""

    threshold: float
    coverage: float
    precision: float


class HeldOut(TypedDict):
    """Number of held-out pairs behind the precision-coverage curve, right ones, and right ones needed."""

    pairs: int
    right: int
    needed: int


class Confidence(TypedDict):
    """How probabilities are calibrated, and how well."""

    method: str
    fitted_on: dict[str, int]
    brier: float
    curve: list[Threshold]
    held_out: HeldOut


class ModeRow(TypedDict):
    """How one mode answers the pairs of a split."""

    split: str
    mode: str
    n: int
    exact_match: Proportion


class Variant(TypedDict):
    """How trained questions are answered that are written in another way."""

    variant: str
    n: int
    exact_match: Proportion


class NotInFile(TypedDict):
    """How many of the model's own answers are not known answers."""

    split: str
    n: int
    count: int


class Unrelated(TypedDict):
    """How many unrelated questions are refused."""

    n: int
    refused: int
    threshold: float


class KnownBoard(TypedDict):
    """How a run answers with known answers."""

    default_mode: str
    rows: list[ModeRow]
    not_in_file: list[NotInFile]
    robustness: list[Variant]
    unrelated: Unrelated | None


class LostAnswer(TypedDict):
    """A general question whose answer has changed."""

    question: str
    answer: str
    before: str
    right_before: bool
    after: str
    right_after: bool
    fall: float


class General(TypedDict):
    """Answers to general questions before and after training."""

    n: int
    same: Proportion
    right_before: int
    right_after: int
    lost: int
    worst: list[LostAnswer]


class Board(TypedDict):
    """Content of board.json."""

    rows: list[Row]
    stopping: list[Stopping]
    confidence: Confidence | None
    warnings: list[str]
    known_answers: NotRequired[KnownBoard]
    general: NotRequired[General]
