"""Seconds of what follows training: the best weights, model/, answers and their evaluation, the report."""

import time
from typing import NamedTuple

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
MOST_SLOWNESS = 3.0
"""Limit of the next function: a process that waited for a download is not slow."""
MODEL_BYTES = 8
"""Bytes per parameter that are written or read after training: the best weights and model/."""


class After(NamedTuple):
    """Seconds of what follows training."""

    learnt: float
    """If most trained pairs are answered right."""
    not_learnt: float
    """If most answers are wrong."""


def seconds_after(
    config: TrainConfig, prepared: PreparedData, task: Task, device: torch.device, asked_seconds: float, elapsed: float
) -> After:
    """Estimate the seconds from the last epoch to the end of the process. Constants: docs/log.md, "a budget of time".

    Args:
        config: settings without open (null) values.
        prepared: the pairs.
        task: module and data.
        device: the device of training.
        asked_seconds: seconds of the questions to a pretrained model before training, which are asked again.
        elapsed: seconds of the run in this process.
    """
    most = config.evaluation.max_pairs
    trained, *held_out = (side[:most] for side in prepared.split[:3])
    lengths = prepared.examples.lengths
    batch = first_batches(task.data, device, 1)[0]
    forward = validation_seconds(task.module.to(device), batch, "32-true") / batch.inputs.numel()
    passes = HELD_OUT_PASSES + (SHARES if config.finetune.average is None else 0)
    of_trained = forward * int(lengths(trained).sum()) if len(trained) else 0.0
    of_held_out = forward * passes * sum(int(lengths(side).sum()) for side in held_out if len(side))
    pairs = len(trained) + sum(map(len, held_out))
    saving = MODEL_BYTES * parameter_count(task.module.model) / SAVED_BYTES_PER_SECOND
    fixed = REPORT_SECONDS * slowness(elapsed) + PAIR_SECONDS * pairs + saving + asked_seconds + of_held_out
    return After(fixed + TRAINED_PASSES * of_trained, fixed + HELD_OUT_PASSES * of_trained)


def slowness(elapsed: float) -> float:
    """Return how many times as long as its computations this process has taken, because other programs ran.

    Args:
        elapsed: seconds of the run in this process.
    """
    return min(MOST_SLOWNESS, max(1.0, elapsed / max(1e-3, time.process_time())))
