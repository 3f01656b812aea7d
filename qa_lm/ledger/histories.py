"""How each trained pair was learnt: what its losses and exactness, epoch by epoch, come to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HIGH = 0.95
"""Share of the values that lie below a high one."""
LOSS_WEIGHT = 0.1
"""Weight of the loss beside the accord: it decides among equals. A model that learns by heart learns a wrong answer
nearly as soon as a right one; measured: of 3% wrong answers the loss alone puts 9% to 22% among the worst 5%, the
accord alone 30% to 95%, and more weight on the loss finds fewer."""
OUTVOTED = 3.0
"""What being outvoted adds, in nats: as much as a value that one pair in twenty has."""


class Histories(NamedTuple):
    """One value per trained pair; epochs count from 1, and 0 stands for never."""

    learnt_at: np.ndarray
    """First epoch from which the pair is exact and stays so to the end, int32."""
    first_exact: np.ndarray
    """First epoch in which it is exact, int32."""
    forgotten: np.ndarray
    """How often it was exact and in the next epoch no more, int32 (arXiv:1812.05159)."""
    last_loss: np.ndarray
    """Loss in the last epoch that trained it, float32; nan if none did."""
    mean_loss: np.ndarray
    """Mean loss over its epochs, float32."""


def histories(losses: Sequence[np.ndarray], exact: Sequence[np.ndarray], pairs: int) -> Histories:
    """From the arrays of a `Ledger`; an epoch that did not come to a pair says nothing about it.

    Args:
        losses: for each epoch the loss of each pair.
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
    return Histories(learnt, first, forgotten, last, mean.astype(np.float32))


def suspicion(mean_loss: np.ndarray, accord: np.ndarray, outvoted: np.ndarray) -> np.ndarray:
    """How likely each pair's answer is a wrong one, higher for likelier, (pairs,) float32.

    Three witnesses speak, and their surprises are added, as Fisher (1925) adds independent tests: the surprise of a
    value is -ln of the share of the pairs that have one as bad.

    Args:
        mean_loss: mean loss over the epochs; nan for a pair that was never trained.
        accord: how well the answer goes with the question, see `qa_lm.data.quality.accord`.
        outvoted: whether most pairs that ask the same say otherwise.
    """
    known = np.where(np.isnan(mean_loss), 0, mean_loss)
    return (_surprise(-accord) + LOSS_WEIGHT * _surprise(known) + OUTVOTED * outvoted).astype(np.float32)


def _surprise(values: np.ndarray) -> np.ndarray:
    as_bad = len(values) - np.searchsorted(np.sort(values), values)
    return np.log(len(values) / as_bad)


def high(values: np.ndarray) -> np.ndarray:
    """Whether each value is among the highest of all, and above what most have."""
    if not len(values):
        return np.zeros(0, bool)
    return (values > np.nanmedian(values)) & (values >= np.nanquantile(values, HIGH))
