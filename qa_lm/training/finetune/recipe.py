"""The recipe for a pretrained model: rules for open (null) settings. Each rule has its table in docs/log.md."""

from dataclasses import replace

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import Sizes

LEARNING_RATES = {FinetuneMethod.full: 5e-5, FinetuneMethod.lora: 5e-4}
"""Maximum learning rate of AdamW."""
POSITIONS_PER_STEP = 160
"""Positions of an optimizer step: few pairs, since a small file has few steps in the few epochs that it is trained.
With four times as many, an epoch at either rate learns less, and less of what the model knew survives."""


def completed_finetuning(config: TrainConfig, sizes: Sizes) -> TrainConfig:
    """Return the settings with a value for the open ones that a pretrained model has rules of its own for.

    Args:
        config: settings, with the method of finetuning.
        sizes: sizes of the pairs.
    """
    assert config.finetune.method
    data, optimizer = config.data, config.optimizer
    per_row = sizes.row or max(1, round(float(sizes.lengths.mean())))
    batch_size = data.batch_size or max(1, POSITIONS_PER_STEP // per_row)
    return replace(
        config,
        data=replace(data, batch_size=batch_size),
        optimizer=replace(optimizer, lr=optimizer.lr or LEARNING_RATES[config.finetune.method]),
    )
