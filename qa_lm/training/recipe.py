"""The recipe: rules that choose open (null) settings from the pairs. Each rule has its table in docs/log.md.

A setting with a value keeps it. Each rule uses the data and given settings, never what another rule has chosen.
"""

import math
from dataclasses import fields, replace
from typing import Any

from qa_lm.config.enums import ScheduleKind
from qa_lm.config.schema import ModelConfig, OptimizerConfig, TrainConfig
from qa_lm.data.batches.rewritten import room_per_pair
from qa_lm.data.prepare import Sizes
from qa_lm.modeling.optimizers import OptimizerSettings
from qa_lm.training.finetune.recipe import HELD_OUT_MAX_EPOCHS, RECALL_MAX_EPOCHS, completed_finetuning

HEAD_WIDTH = 64
"""Width of an attention head."""
FEED_FORWARD = 8 / 3
"""Width of the feed-forward layer, as a multiple of the model's: wider learns in fewer epochs, but not in less time."""
LEARNING_RATE = 4.5e-3
"""Maximum learning rate of Muon, for steps of 1,000 to 4,000 tokens: with 3e-3 the same number of epochs learns less,
with 6e-3 no more."""
EPOCHS = 10
"""Epochs of the schedule for short answers. With 8, files of 1,000 pairs need more in total than with 9 or 10."""
SHORT_ANSWER = 7
"""Maximum number of tokens of a short answer."""
EPOCHS_PER_DOUBLING = 2.5
"""Additional epochs per doubling of the answers' length: an answer is exact only if each of its tokens is right."""
REFERENCE_EPOCH_TOKENS = 25_000
"""With this number of tokens per epoch, recall is reached at the end of the schedule; with half as many tokens one
epoch earlier, with twice as many one epoch later."""
MIN_SCHEDULE_STEPS = 150
"""Minimum optimizer steps of the schedule. For a small file an epoch is a few steps, so 10 epochs would end during the
warm-up. A longer schedule costs nothing, because training stops at recall. Measured: docs/log.md, "small files"."""
STEPS_PER_DOUBLING = 40
"""Additional steps per doubling of the answers' length."""
SMALL_FILE_STEPS = 20
"""A file with fewer optimizer steps per epoch counts as small."""
SMALL_FILE_EPOCHS, SMALL_FILE_LONG_ANSWER_EPOCHS = 4.0, 5.0
"""Additional epochs until recall for a small file, in which all pairs must be known; and, for long answers, additional
epochs per square root of the doublings of their length."""
MIN_MAX_EPOCHS = 60
"""Maximum number of epochs of training, unless twice the schedule is more."""
PARAPHRASE_EXPONENT = 0.25
"""A fact that is trained in n paraphrases needs fewer epochs, by a factor of n to this power. Measured on one file with
six paraphrases per fact: 6 epochs."""
MIN_STEPS = 5
"""Minimum optimizer steps per epoch for a small file, if it has as many rows."""
STEPS_BEFORE_GROWTH = 50
"""Optimizer steps per epoch above which the batch grows."""
MIN_WIDTH = 192
"""Width of the smallest model. Narrower models have cheaper steps, but need more of them to learn a small file."""
PARAMETERS_PER_TOKEN = 16
"""Minimum parameters of a model per token of an epoch. One file is not memorised with 12 but with 19, another one with
13. Measured up to 840,000 tokens."""
MAX_WIDTH = 1024
"""Maximum width; larger models get more blocks instead."""


def completed(config: TrainConfig, sizes: Sizes, processes: int = 1) -> TrainConfig:
    """Return the settings with a value for every open (null) one.

    Args:
        config: settings.
        sizes: sizes of the pairs.
        processes: number of processes, among which the rows of a step are divided, rounded up.
    """
    is_open = config.data.batch_size is None
    config = _completed(config, sizes)
    if is_open and config.data.batch_size is not None:
        config = replace(config, data=replace(config.data, batch_size=math.ceil(config.data.batch_size / processes)))
    return config


def _completed(config: TrainConfig, sizes: Sizes) -> TrainConfig:
    if config.model.path is not None:
        config = completed_finetuning(config, sizes)
    tokens, vocab_size, row = int(sizes.lengths.sum()), sizes.vocab_size, sizes.row
    model, data, optimizer = config.model, config.data, config.optimizer
    hidden_size = model.hidden_size or width(tokens, vocab_size)
    model = replace(
        model,
        hidden_size=hidden_size,
        layers=model.layers or depth(tokens, vocab_size, hidden_size),
        heads=model.heads or max(1, hidden_size // HEAD_WIDTH),
        context=model.context or context(sizes.longest),
        extra=with_feed_forward(model, hidden_size),
    )
    per_row = row or max(1, round(float(sizes.lengths.mean())))
    data = replace(data, row_tokens=data.row_tokens or row, batch_size=data.batch_size or batch_size(tokens, per_row))
    assert data.batch_size is not None
    schedule = optimizer.schedule_epochs
    if schedule is None and config.stop_at_recall is not None:
        positions = tokens + room_per_pair(data.augment) * len(sizes.lengths)
        steps = math.ceil(positions / (per_row * data.batch_size))
        schedule = schedule_epochs(sizes.answer, sizes.paraphrases, steps)
    kept = None if optimizer.schedule is ScheduleKind.constant else schedule
    optimizer = replace(optimizer, lr=optimizer.lr or LEARNING_RATE, schedule_epochs=kept)
    if optimizer._target_ is None:
        optimizer = _with_defaults(optimizer)
    trainer = _with_max_epochs(config, schedule)
    return replace(config, model=model, data=data, optimizer=optimizer, trainer=trainer)


def _with_defaults(optimizer: OptimizerConfig) -> OptimizerConfig:
    """Fill the open settings of a built-in optimizer with its defaults."""
    defaults: dict[str, Any] = {each.name: each.default for each in fields(OptimizerSettings)}
    open_settings = [name for name, default in defaults.items() if getattr(optimizer, name, default) is None]
    return replace(optimizer, **{name: defaults[name] for name in open_settings})


def with_feed_forward(model: ModelConfig, hidden_size: int) -> dict[str, Any]:
    """Add the feed-forward width to a chosen width, if the architecture does not derive it."""
    if model.hidden_size is not None or model.architecture != "llama":
        return model.extra
    return {"intermediate_size": round(hidden_size * FEED_FORWARD / 16) * 16} | model.extra


def _with_max_epochs(config: TrainConfig, schedule: int | None) -> dict[str, Any]:
    """Add `max_epochs` to the Trainer's arguments, if it is open and nothing else ends training."""
    trainer, pretrained = config.trainer, config.model.path is not None
    limited = any(trainer.get(name) is not None for name in ("max_epochs", "max_steps", "max_time"))
    if limited or "max_epochs" not in trainer:
        return trainer
    if config.stop_at_recall is None and (pretrained or config.monitor == "val/exact_match"):
        return trainer | {"max_epochs": HELD_OUT_MAX_EPOCHS}
    return trainer | {"max_epochs": RECALL_MAX_EPOCHS if pretrained else max(MIN_MAX_EPOCHS, 2 * (schedule or 0))}


def context(longest: int) -> int:
    """Return the context length in tokens: room for questions twice as long as the longest trained pair."""
    return max(256, 1 << (2 * longest - 1).bit_length())


def width(tokens: int, vocab_size: int) -> int:
    """Return the width of the residual stream: the smallest multiple of a head's width that can memorise the tokens.

    Args:
        tokens: tokens of an epoch.
        vocab_size: tokens of the vocabulary.
    """
    needed = PARAMETERS_PER_TOKEN * tokens
    widths = range(MIN_WIDTH, MAX_WIDTH, HEAD_WIDTH)
    return next((width for width in widths if parameters(width, 1, vocab_size) >= needed), MAX_WIDTH)


def depth(tokens: int, vocab_size: int, width: int, per_token: int = PARAMETERS_PER_TOKEN) -> int:
    """Return the number of blocks: more than one only if one block of this width cannot memorise the tokens.

    One block learns in as many epochs as four, and answers unseen paraphrases as well.
    """
    block = parameters(width, 1, vocab_size) - parameters(width, 0, vocab_size)
    return max(1, math.ceil((per_token * tokens - parameters(width, 0, vocab_size)) / block))


def parameters(width: int, layers: int, vocab_size: int) -> int:
    """Estimate the parameters of a Llama: the embedding, the head, and 12 times the squared width per block."""
    return 2 * vocab_size * width + 12 * width**2 * layers


def batch_size(tokens: int, row: int) -> int:
    """Return the rows of a step: about 1,024 positions, fewer for under 5,000 tokens, up to 4,096 for large files.

    Smaller steps need fewer epochs but more time. Larger ones need more epochs than they save time, except in large
    files.
    """
    positions = min(tokens // MIN_STEPS, max(1024, min(4096, tokens // STEPS_BEFORE_GROWTH)))
    return max(1, positions // row)


def epochs(answer: float, wordings: float = 1.0) -> int:
    """Return the number of epochs to learn the pairs, if an epoch has many steps.

    Args:
        answer: mean tokens of an answer.
        wordings: mean number of trained pairs per fact.
    """
    speedup = max(1.0, wordings) ** PARAPHRASE_EXPONENT
    return max(3, round((EPOCHS + EPOCHS_PER_DOUBLING * doublings(answer)) / speedup))


def doublings(answer: float) -> float:
    """Return how often the length of a short answer must be doubled to reach this length; 0 for short answers."""
    return max(0.0, math.log2(answer / SHORT_ANSWER))


def schedule_epochs(answer: float, wordings: float, steps: int) -> int:
    """Return the number of epochs of the learning rate schedule.

    Args:
        answer: mean tokens of an answer.
        wordings: mean number of trained pairs per fact.
        steps: optimizer steps per epoch.
    """
    min_steps = MIN_SCHEDULE_STEPS + STEPS_PER_DOUBLING * doublings(answer)
    return max(epochs(answer, wordings), math.ceil(min_steps / steps))


def epochs_to_recall(answer: float, wordings: float, tokens: int, steps: int) -> int:
    """Estimate the number of epochs until recall has reached the threshold in two validations.

    Args:
        answer: mean tokens of an answer.
        wordings: mean number of trained pairs per fact.
        tokens: tokens per epoch.
        steps: optimizer steps per epoch.
    """
    additional = max(-1.0, min(1.0, math.log2(tokens / REFERENCE_EPOCH_TOKENS)))
    if steps < SMALL_FILE_STEPS:
        additional += SMALL_FILE_EPOCHS + SMALL_FILE_LONG_ANSWER_EPOCHS * math.sqrt(doublings(answer))
    return max(1, round(epochs(answer, wordings) + additional))
