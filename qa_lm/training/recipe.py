"""The recipe: what settings are when they are left open (null), by the pairs. Each rule has its table in docs/log.md.

A setting that has a value keeps it; the rules fill the rest, each from the data and from settings, never from one
another's guesses.
"""

import math
from dataclasses import fields, replace
from typing import Any

from qa_lm.config.schema import ModelConfig, OptimizerConfig, TrainConfig
from qa_lm.data.sizes import Sizes
from qa_lm.modeling.optimizers import OptimizerSettings

HEAD_WIDTH = 64
"""Width of an attention head."""
FEED_FORWARD = 8 / 3
"""Width of the feed-forward layer, as a multiple of the model's: wider learns in fewer epochs, but not in less time."""
LEARNING_RATE = 4.5e-3
"""Of Muon, in steps of one to four thousand tokens: 3e-3 learns less in as many epochs, 6e-3 no more."""
EPOCHS = 10
"""Epochs of the schedule where answers are short. With 8, files of 1,000 pairs need more in all than with 9 or 10."""
SHORT_ANSWER = 7
"""Tokens of an answer up to which it is short."""
EPOCHS_OF_DOUBLED = 2.5
"""Epochs more for each doubling of the answers' length: an answer is exact only if each of its tokens is right."""
ON_TIME = 25_000
"""Tokens of an epoch of a file that is known at the end of its schedule; one of half as many is an epoch sooner, one of
twice as many an epoch later."""
FEWEST_STEPS = 150
"""Optimizer steps of the schedule at least. In a small file an epoch is a few steps: 10 epochs would be over before the
warm-up is. A longer schedule costs nothing, because training stops at recall; measured: docs/log.md, "small files"."""
STEPS_OF_DOUBLED = 40
"""Steps more for each doubling of the answers' length."""
SMALL_FILE_STEPS = 20
"""Steps of an epoch below which a file counts as small."""
EPOCHS_IF_SMALL, EPOCHS_OF_LONG_IF_SMALL = 4.0, 5.0
"""Epochs more until recall in a small file, where all pairs must be known; and, for long answers, times the square
root of the doublings of their length."""
MOST_EPOCHS = 60
"""Epochs after which training ends at the latest, or twice the schedule if that is more."""
WORDINGS = 0.25
"""A fact that is trained in several wordings is learnt in fewer epochs: divided by their number to this power. Measured
on one file, six wordings of each fact: 6 epochs."""
STEPS = 5
"""Steps of an epoch that a small file has at least, if its rows are as many."""
STEPS_OF_MANY = 50
"""Steps of an epoch that a file has at least before they grow."""
NARROWEST = 192
"""Width of the smallest model. Narrower ones have cheaper steps, but learn a small file in more of them."""
PARAMETERS = 16
"""Parameters that a model has for each token of an epoch, at least. One file is not learnt by heart with 12 and is with
19, another is with 13. Measured up to 840,000 tokens."""
WIDEST = 1024
"""Width above which blocks are added instead."""


def completed(config: TrainConfig, sizes: Sizes) -> TrainConfig:
    """The settings with nothing left open.

    Args:
        config: settings.
        sizes: of the pairs.
    """
    tokens, entries, row = int(sizes.lengths.sum()), sizes.vocab_size, sizes.row
    model, data, optimizer = config.model, config.data, config.optimizer
    hidden_size = model.hidden_size or width(tokens, entries)
    model = replace(
        model,
        hidden_size=hidden_size,
        layers=model.layers or depth(tokens, entries, hidden_size),
        heads=model.heads or max(1, hidden_size // HEAD_WIDTH),
        context=model.context or context(sizes.longest),
        extra=_with_feed_forward(model, hidden_size),
    )
    per_row = row or max(1, round(float(sizes.lengths.mean())))
    data = replace(data, row_tokens=data.row_tokens or row, batch_size=data.batch_size or batch_size(tokens, per_row))
    assert data.batch_size is not None
    schedule = optimizer.schedule_epochs
    if schedule is None and config.stop_at_recall is not None:
        schedule = schedule_epochs(sizes.answer, sizes.paraphrases, math.ceil(tokens / (per_row * data.batch_size)))
    optimizer = replace(optimizer, lr=optimizer.lr or LEARNING_RATE, schedule_epochs=schedule)
    if optimizer._target_ is None:
        optimizer = _with_defaults(optimizer)
    trainer = _with_most_epochs(config.trainer, schedule)
    return replace(config, model=model, data=data, optimizer=optimizer, trainer=trainer)


def _with_defaults(optimizer: OptimizerConfig) -> OptimizerConfig:
    """An optimizer of ours, with its own defaults where nothing is set."""
    defaults: dict[str, Any] = {each.name: each.default for each in fields(OptimizerSettings)}
    open_settings = [name for name, default in defaults.items() if getattr(optimizer, name, default) is None]
    return replace(optimizer, **{name: defaults[name] for name in open_settings})


def _with_feed_forward(model: ModelConfig, hidden_size: int) -> dict[str, Any]:
    """A chosen width brings its feed-forward width, where the architecture does not derive that itself."""
    if model.hidden_size is not None or model.architecture != "llama":
        return model.extra
    return {"intermediate_size": round(hidden_size * FEED_FORWARD / 16) * 16} | model.extra


def _with_most_epochs(trainer: dict[str, Any], schedule: int | None) -> dict[str, Any]:
    """The Trainer's arguments with a last epoch, where that is left open and nothing else ends training."""
    limited = any(trainer.get(name) is not None for name in ("max_epochs", "max_steps", "max_time"))
    if limited or "max_epochs" not in trainer:
        return trainer
    return trainer | {"max_epochs": max(MOST_EPOCHS, 2 * (schedule or 0))}


def context(longest: int) -> int:
    """Most tokens the model sees at once: room for questions twice as long as any trained pair."""
    return max(256, 1 << (2 * longest - 1).bit_length())


def width(tokens: int, entries: int) -> int:
    """Width of the residual stream: the smallest multiple of a head's whose model can hold so many tokens by heart.

    Args:
        tokens: of an epoch.
        entries: of the vocabulary.
    """
    widths = range(NARROWEST, WIDEST, HEAD_WIDTH)
    return next((width for width in widths if parameters(width, 1, entries) >= PARAMETERS * tokens), WIDEST)


def depth(tokens: int, entries: int, width: int) -> int:
    """Number of blocks: one, which learns in as many epochs as four and answers unseen phrasings as well; more only
    where one of this width cannot hold the tokens."""
    block = parameters(width, 1, entries) - parameters(width, 0, entries)
    return max(1, math.ceil((PARAMETERS * tokens - parameters(width, 0, entries)) / block))


def parameters(width: int, layers: int, entries: int) -> int:
    """About how many a Llama has: tables of embeddings and of the head, and 12 squares of its width for each block."""
    return 2 * entries * width + 12 * width**2 * layers


def batch_size(tokens: int, row: int) -> int:
    """Rows of a step: about 1,024 positions, fewer for less than 5,000 tokens, up to 4,096 where steps are many.

    Smaller steps need fewer epochs and more time, larger ones more epochs than they save, but not where there are many.
    """
    positions = min(tokens // STEPS, max(1024, min(4096, tokens // STEPS_OF_MANY)))
    return max(1, positions // row)


def epochs(answer: float, wordings: float = 1.0) -> int:
    """Epochs in which the pairs are learnt, if an epoch has many steps.

    Args:
        answer: tokens of an answer, on average.
        wordings: trained pairs of each fact, on average.
    """
    return max(3, round((EPOCHS + EPOCHS_OF_DOUBLED * doublings(answer)) / max(1.0, wordings) ** WORDINGS))


def doublings(answer: float) -> float:
    """How often a short answer's length must be doubled to reach this one; 0 for short ones."""
    return max(0.0, math.log2(answer / SHORT_ANSWER))


def schedule_epochs(answer: float, wordings: float, steps: int) -> int:
    """Epochs of the learning rate's schedule.

    Args:
        answer: tokens of an answer, on average.
        wordings: trained pairs of each fact, on average.
        steps: optimizer steps of an epoch.
    """
    fewest = FEWEST_STEPS + STEPS_OF_DOUBLED * doublings(answer)
    return max(epochs(answer, wordings), math.ceil(fewest / steps))


def epochs_to_recall(answer: float, wordings: float, tokens: int, steps: int) -> int:
    """Epochs until recall is reached and has held for two.

    Args:
        answer: tokens of an answer, on average.
        wordings: trained pairs of each fact, on average.
        tokens: of an epoch.
        steps: optimizer steps of an epoch.
    """
    later = max(-1.0, min(1.0, math.log2(tokens / ON_TIME)))
    if steps < SMALL_FILE_STEPS:
        later += EPOCHS_IF_SMALL + EPOCHS_OF_LONG_IF_SMALL * math.sqrt(doublings(answer))
    return max(1, round(epochs(answer, wordings) + later))
