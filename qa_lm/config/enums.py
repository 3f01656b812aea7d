"""The values that a setting with a fixed set of choices can have."""

from enum import Enum


class TrainOn(Enum):
    """Which targets carry loss."""

    all = "all"
    answer = "answer"


class LossWeighting(Enum):
    """How the losses of single tokens are averaged."""

    token = "token"
    pair = "pair"


class OptimizerKind(Enum):
    """Which optimizer; see `qa_lm.modeling.optimizers`."""

    adamw = "adamw"
    muon = "muon"


class ScheduleKind(Enum):
    """How the learning rate goes after the warm-up; see `qa_lm.modeling.schedules`."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    wsd = "wsd"


class Weights(Enum):
    """Which state of a run."""

    best = "best"
    last = "last"


class Mode(Enum):
    """Whether a smaller or a larger value of the monitored metric is better."""

    min = "min"
    max = "max"


class BadLines(Enum):
    """What becomes of lines that cannot be read as a pair."""

    error = "error"
    skip = "skip"


class FailedWriteChoice(Enum):
    """What becomes of a run whose checkpoint cannot be written."""

    stop = "stop"
    go_on = "go_on"


class TooLong(Enum):
    """What becomes of pairs with more tokens than a row or the model takes."""

    error = "error"
    drop = "drop"
    truncate_question = "truncate_question"
