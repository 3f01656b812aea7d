"""Training dynamics: statistics of each trained pair's loss and exactness over the epochs, and a label error score."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HIGH_QUANTILE = 0.95
"""A value is high if it is not below this quantile."""
LOSS_WEIGHT = 0.1
"""Weight of the loss relative to the answer consistency, so that it only breaks ties. A model that memorises learns a
wrong answer nearly as early as a right one. Measured with 3% wrong answers: the loss alone ranks 9% to 22% of them
among the worst 5%, the consistency alone 30% to 95%; a larger weight finds fewer."""
MINORITY_WEIGHT = 3.0
"""Score that a minority answer adds, in nats: as much as a value that one pair in twenty has."""


class TrainingDynamics(NamedTuple):
    """Statistics per trained pair, each (pairs,). Epochs count from 1; 0 means never."""

    learnt_at: np.ndarray
    """First epoch from which the pair stays exact until the end, int32."""
    first_exact: np.ndarray
    """First epoch in which the pair is exact, int32."""
    forgotten: np.ndarray
    """Number of forgetting events: exact in one epoch and not in the next, int32 (arXiv:1812.05159)."""
    last_loss: np.ndarray
    """Loss in the last epoch that trained the pair, in nats, float32; nan if it was never trained."""
    mean_loss: np.ndarray
    """Mean loss over the epochs that trained the pair, in nats, float32; nan if it was never trained."""


def training_dynamics(losses: Sequence[np.ndarray], exact: Sequence[np.ndarray], pairs: int) -> TrainingDynamics:
    """Compute the training dynamics; epochs in which a pair was not trained do not count for it.

    Args:
        losses: for each epoch the loss of each pair, in nats.
        exact: for each epoch 1, 0, or -1 for a pair that was not trained in it.
        pairs: number of pairs.
    """
    first, forgotten, learnt = (np.zeros(pairs, np.int32) for _ in range(3))
    last, total, epochs = np.full(pairs, np.nan, np.float32), np.zeros(pairs), np.zeros(pairs, np.int32)
    was_exact = np.zeros(pairs, bool)
    for epoch, (loss, right) in enumerate(zip(losses, exact, strict=True), start=1):
        trained, now = right >= 0, right == 1
        first[now & (first == 0)] = epoch
        forgotten[was_exact & trained & ~now] += 1
        learnt[now & ~was_exact] = epoch
        was_exact = np.where(trained, now, was_exact)
        last[trained] = loss[trained]
        total[trained] += loss[trained]
        epochs += trained
    learnt[~was_exact] = 0
    mean = np.divide(total, epochs, out=np.full(pairs, np.nan), where=epochs > 0)
    return TrainingDynamics(learnt, first, forgotten, last, mean.astype(np.float32))


def label_error_score(mean_loss: np.ndarray, consistency: np.ndarray, minority: np.ndarray) -> np.ndarray:
    """Score of each pair for a wrong answer, higher means more likely, in nats, (pairs,), float32.

    The score is a sum over three signals, as Fisher (1925) combines independent tests. Each term is -ln of the share of
    pairs whose value is at least as bad.

    Args:
        mean_loss: mean loss over the epochs, in nats; nan for a pair that was never trained.
        consistency: answer consistency, see `qa_lm.data.quality.consistency`.
        minority: whether the pair has a minority answer, see `qa_lm.data.quality.minority`.
    """
    known = np.where(np.isnan(mean_loss), 0, mean_loss)
    score = _negative_log_rank(-consistency) + LOSS_WEIGHT * _negative_log_rank(known) + MINORITY_WEIGHT * minority
    return score.astype(np.float32)


def _negative_log_rank(values: np.ndarray) -> np.ndarray:
    at_least = len(values) - np.searchsorted(np.sort(values), values)
    return np.log(len(values) / at_least)


def is_high(values: np.ndarray) -> np.ndarray:
    """Whether each value is above the median and not below the `HIGH_QUANTILE`."""
    if not len(values):
        return np.zeros(0, bool)
    return (values > np.nanmedian(values)) & (values >= np.nanquantile(values, HIGH_QUANTILE))
