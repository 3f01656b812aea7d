"""Seconds of what follows training: the best weights, model/, answers and their evaluation, the report."""

import torch

from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.training.build import Task
from qa_lm.training.estimate import SAVED_BYTES_PER_SECOND, first_batches, validation_seconds

REPORT_SECONDS = 3.0
"""Seconds of the report, its charts and the end of the process."""
PASSES = 4.0
"""Forward passes in float32 over all evaluated pairs that take as long as answering their questions."""
PAIR_SECONDS = 0.001
"""Seconds of an evaluated pair, apart from the model: nearest questions, baselines, records."""
MODEL_BYTES = 8
"""Bytes per parameter that are written or read after training: the best weights and model/."""


def seconds_after(config: TrainConfig, prepared: PreparedData, task: Task, device: torch.device) -> float:
    """Estimate the seconds from the last epoch to the end of the process. Constants: docs/log.md, "a budget of time".

    Args:
        config: settings without open (null) values.
        prepared: the pairs.
        task: module and data.
        device: the device of training.
    """
    most = config.evaluation.max_pairs
    sides = [side[:most] for side in prepared.split[:3]]
    pairs = sum(map(len, sides))
    positions = sum(int(prepared.examples.lengths(side).sum()) for side in sides if len(side))
    batch = first_batches(task.data, device, 1)[0]
    forward = validation_seconds(task.module.to(device), batch, "32-true") / batch.inputs.numel()
    size = MODEL_BYTES * parameter_count(task.module.model)
    answers = PASSES * positions * forward + PAIR_SECONDS * pairs
    return REPORT_SECONDS + answers + size / SAVED_BYTES_PER_SECOND
