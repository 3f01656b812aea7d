"""Enumerations: the values of settings with a fixed set of choices."""

from enum import Enum


class TrainOn(Enum):
    """Targets that contribute to the loss."""

    all = "all"
    answer = "answer"


class PromptKind(Enum):
    """What is written around a question and its answer."""

    plain = "plain"
    chat = "chat"


class LossWeighting(Enum):
    """How the token losses are averaged."""

    token = "token"
    pair = "pair"


class OptimizerKind(Enum):
    """The optimizer; see `qa_lm.modeling.optimizers`."""

    adamw = "adamw"
    muon = "muon"


class ScheduleKind(Enum):
    """The learning rate schedule after the warm-up; see `qa_lm.modeling.schedules`."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    wsd = "wsd"


class FinetuneMethod(Enum):
    """Which parameters of a pretrained model are trained."""

    full = "full"
    lora = "lora"


class Weights(Enum):
    """The weights of a run that are exported."""

    best = "best"
    last = "last"


class Mode(Enum):
    """Whether a smaller or a larger value of the monitored metric is better."""

    min = "min"
    max = "max"


class AnswerMode(Enum):
    """How a question is answered."""

    free = "free"
    known = "known"
    nearest = "nearest"
    best = "best"


class BadLines(Enum):
    """What to do with lines that cannot be read as a pair."""

    error = "error"
    skip = "skip"


class FailedWriteChoice(Enum):
    """What to do if a checkpoint cannot be written."""

    stop = "stop"
    go_on = "go_on"


class TooLong(Enum):
    """What to do with pairs that have more tokens than a row or the model's context."""

    error = "error"
    drop = "drop"
    truncate_question = "truncate_question"


FSDP2 = "fsdp2"
"""The value of `trainer.strategy` that shards the model between the processes."""
MODEL_AS_ENCODER = "model"
"""Value of `evaluation.encoder`: the pretrained model compares questions itself."""
