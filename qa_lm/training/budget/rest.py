"""Seconds of what follows training: the best weights, model/, answers and their evaluation, the report."""

import torch

from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.training.build import Task
from qa_lm.training.estimate import SAVED_BYTES_PER_SECOND, first_batches, validation_seconds

REPORT_SECONDS = 2.5
"""Seconds of the ledger, the report, its charts and the end of the process."""
TRAINED_PASSES, HELD_OUT_PASSES = 1.5, 4.0
"""Forward passes in float32 over trained and held-out pairs that take as long as answering their questions: a right
answer is checked in one pass, a wrong one is written token by token."""
PAIR_SECONDS = 0.001
"""Seconds of an evaluated pair, apart from the model: nearest questions, baselines, records."""
SHARES = 4
"""Shares of the average with the pretrained weights that are compared on held-out pairs."""
MODEL_BYTES = 8
"""Bytes per parameter that are written or read after training: the best weights and model/."""


def seconds_after(
    config: TrainConfig, prepared: PreparedData, task: Task, device: torch.device, asked_seconds: float
) -> float:
    """Estimate the seconds from the last epoch to the end of the process. Constants: docs/log.md, "a budget of time".

    Args:
        config: settings without open (null) values.
        prepared: the pairs.
        task: module and data.
        device: the device of training.
        asked_seconds: seconds of the questions to a pretrained model before training, which are asked again.
    """
    most = config.evaluation.max_pairs
    trained, *held_out = (side[:most] for side in prepared.split[:3])
    lengths = prepared.examples.lengths
    passes = HELD_OUT_PASSES + (SHARES if config.finetune.average is None else 0)
    positions = TRAINED_PASSES * int(lengths(trained).sum()) if len(trained) else 0.0
    positions += passes * sum(int(lengths(side).sum()) for side in held_out if len(side))
    batch = first_batches(task.data, device, 1)[0]
    forward = validation_seconds(task.module.to(device), batch, "32-true") / batch.inputs.numel()
    pairs = len(trained) + sum(map(len, held_out))
    saving = MODEL_BYTES * parameter_count(task.module.model) / SAVED_BYTES_PER_SECOND
    return REPORT_SECONDS + positions * forward + PAIR_SECONDS * pairs + saving + asked_seconds
