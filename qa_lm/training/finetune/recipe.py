"""The recipe for a pretrained model: rules for open (null) settings. Each rule has its table in docs/log.md."""

from dataclasses import replace

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import Sizes

LEARNING_RATES = {FinetuneMethod.full: 1e-4, FinetuneMethod.lora: 5e-4}
"""Maximum learning rate of AdamW."""
POSITIONS_PER_STEP = {FinetuneMethod.full: 512, FinetuneMethod.lora: 160}
"""Maximum positions of an optimizer step. The update of all parameters costs as much as 100 positions, that of an
adapter next to nothing; in the same time smaller steps learn more with LoRA and less in full."""
MIN_STEPS = 8
"""Minimum optimizer steps per epoch, as long as a step has at least one row: a small file has few steps in the few
epochs that it is trained."""
EPOCHS_TO_RECALL = 7
"""Expected epochs until recall is reached: 2 where the model knows half of the facts, 7 where it knows none."""

HELD_OUT_MAX_EPOCHS, RECALL_MAX_EPOCHS = 10, 30
"""Maximum number of epochs for held-out questions and until recall; training usually stops earlier."""


def completed_finetuning(config: TrainConfig, sizes: Sizes) -> TrainConfig:
    """Return the settings with a value for the open ones that a pretrained model has rules of its own for.

    Args:
        config: settings, with the method of finetuning.
        sizes: sizes of the pairs.
    """
    assert config.finetune.method
    data, optimizer = config.data, config.optimizer
    tokens = int(sizes.lengths.sum())
    per_row = sizes.row or max(1, round(tokens / len(sizes.lengths)))
    positions = min(POSITIONS_PER_STEP[config.finetune.method], tokens // MIN_STEPS)
    batch_size = data.batch_size or max(1, positions // per_row)
    return replace(
        config,
        data=replace(data, batch_size=batch_size),
        optimizer=replace(optimizer, lr=optimizer.lr or LEARNING_RATES[config.finetune.method]),
    )
