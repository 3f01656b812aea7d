"""Metrics of the LightningModule: exact means over an epoch, and scores per pair.

The sums of an epoch are kept in one tensor and logged at its end, because a `self.log` per step would cost as much as a
small step.
"""

from dataclasses import dataclass
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from qa_lm.batch import Batch
from qa_lm.modeling.loss import LossSums


@dataclass(frozen=True)
class Sums:
    """Five named sums in one tensor, so that a step adds all of them with one operation.

    Args:
        values: loss, weight, answer_loss, exact and pairs, (5,).
    """

    values: Tensor

    @classmethod
    def zeros(cls, device: torch.device) -> "Sums":
        """The sums before the first batch."""
        # float64 keeps a sum over millions of steps exact to the last printed digit; Apple's GPU has none.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return cls(torch.zeros(5, device=device, dtype=dtype))

    @classmethod
    def of_batch(cls, sums: LossSums, pairs: int) -> "Sums":
        """The sums of one batch, without gradient."""
        numbers = [sums.loss.detach(), sums.weight, sums.answer_loss, sums.exact, sums.weight.new_tensor(pairs)]
        return cls(torch.stack(numbers))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.values + other.values)

    def zero_unless_finite(self) -> "Sums":
        """Return these sums, or zeros if the loss is not finite."""
        return Sums(torch.where(torch.isfinite(self.loss), self.values, 0))

    @property
    def loss(self) -> Tensor:
        """Weighted sum of the token losses, in nats."""
        return self.values[0]

    @property
    def weight(self) -> Tensor:
        """Sum of the weights of the tokens."""
        return self.values[1]

    @property
    def answer_loss(self) -> Tensor:
        """Unweighted sum of the losses of the answer tokens (EOS included), in nats."""
        return self.values[2]

    @property
    def exact(self) -> Tensor:
        """Number of pairs whose answer is exact."""
        return self.values[3]

    @property
    def pairs(self) -> Tensor:
        """Number of pairs."""
        return self.values[4]

    @property
    def mean_loss(self) -> Tensor:
        """Weighted mean of the token losses, in nats; nan before the first batch."""
        return self.loss / self.weight

    @property
    def exact_match(self) -> Tensor:
        """Share of the pairs whose answer is exact."""
        return self.exact / self.pairs


class PairScores(NamedTuple):
    """Scores of the pairs of a batch, each (pairs,)."""

    indices: Tensor
    """Index of the pair in the table, int64."""
    losses: Tensor
    """Mean loss of the answer tokens (EOS included), in nats, float32."""
    exact: Tensor
    """Whether greedy decoding generates exactly this answer, bool."""
    log_probabilities: Tensor
    """Log-probability of the answer (EOS included), in nats, float32."""


def pair_scores(batch: Batch, sums: LossSums) -> PairScores:
    """Compute the scores of the pairs of a batch from its losses."""
    tokens = torch.bincount(batch.pair[batch.in_answer], minlength=batch.pairs)
    return PairScores(batch.indices, sums.pair_losses, sums.pair_exact, -sums.pair_losses * tokens)


VALIDATION, RECALL = 0, 1
"""Indices of the two validation data loaders: held-out pairs, and a sample of trained pairs."""

RECALL_THEN_LOSS = "train/recall_then_loss"
"""Name of a score that ranks by the recall of the trained sample first, and by its loss if the recall is equal."""
EXACT_THEN_LOSS = "val/exact_match_then_loss"
"""The same of the held-out pairs."""


def _exact_then_loss(sums: Sums) -> Tensor:
    """Share of exact pairs, less a part of one pair that grows with the mean loss."""
    mean = sums.mean_loss
    return (sums.exact - mean / (1 + mean)) / sums.pairs


class EpochMetrics(pl.LightningModule):
    """Validation, test and prediction steps for a module whose `forward` returns the `LossSums` of a batch.

    Logged at the end of each epoch: `train/loss` (nats). At each validation: `val/loss`, `val/exact_match` (share of
    the pairs), `val/exact_match_then_loss`, `val/bits_per_answer_byte` (comparable across tokenizers) and, of the
    sample of trained pairs, `train/recall` and `train/recall_then_loss`. At each test: `test/loss` and
    `test/exact_match`.

    Args:
        answer_bytes: UTF-8 bytes of all answers of the validation pairs; 0 without held-out pairs, None if unknown.
    """

    def __init__(self, answer_bytes: int | None) -> None:
        super().__init__()
        self.answer_bytes = answer_bytes
        self.log_to_loggers = True
        """Whether to log to the Trainer's loggers; False if a callback does."""
        self.train_sums = self.test_sums = Sums.zeros(self.device)
        self.validation_sums = [self.train_sums, self.train_sums]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the batch's losses and exact matches to the sums."""
        side = RECALL if self.answer_bytes == 0 else dataloader_idx
        self.validation_sums[side] += Sums.of_batch(self(batch), batch.pairs)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch's losses and exact matches to the sums."""
        self.test_sums += Sums.of_batch(self(batch), batch.pairs)

    def predict_step(self, batch: Batch, batch_idx: int) -> PairScores:
        """Loss, exactness and log-probability of each pair's answer."""
        return pair_scores(batch, self(batch))

    def on_train_epoch_start(self) -> None:
        """Reset the epoch's sums."""
        self.train_sums = Sums.zeros(self.device)

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch's steps."""
        self._log({"train/loss": self._total(self.train_sums).mean_loss})

    def on_validation_epoch_start(self) -> None:
        """Reset the validation's sums."""
        self.validation_sums = [Sums.zeros(self.device), Sums.zeros(self.device)]

    def on_validation_epoch_end(self) -> None:
        """Log the means over all pairs of all processes."""
        validation, recall = (self._total(sums) for sums in self.validation_sums)
        metrics = {}
        if validation.pairs:
            metrics = {"val/loss": validation.mean_loss, "val/exact_match": validation.exact_match}
            metrics[EXACT_THEN_LOSS] = _exact_then_loss(validation)
            if self.answer_bytes:
                bits = validation.answer_loss / torch.log(torch.tensor(2.0)) / self.answer_bytes
                metrics["val/bits_per_answer_byte"] = bits
        if recall.pairs:
            metrics |= {"train/recall": recall.exact_match, RECALL_THEN_LOSS: _exact_then_loss(recall)}
        self._log(metrics)

    def on_test_epoch_start(self) -> None:
        """Reset the test's sums."""
        self.test_sums = Sums.zeros(self.device)

    def on_test_epoch_end(self) -> None:
        """Log the means over all pairs of all processes."""
        total = self._total(self.test_sums)
        self._log({"test/loss": total.mean_loss, "test/exact_match": total.exact_match})

    def epoch_train_loss(self) -> float:
        """Mean train loss of this epoch so far, over all processes, in nats; nan before the first step.

        Call it on every process.
        """
        return float(self._total(self.train_sums).mean_loss)

    def running_train_loss(self) -> float:
        """Mean train loss of this epoch so far, on this process, in nats."""
        return float(self.train_sums.mean_loss)

    def _log(self, metrics: dict[str, Tensor]) -> None:
        self.log_dict(metrics, logger=self.log_to_loggers and bool(self.trainer.loggers))

    def _total(self, sums: Sums) -> Sums:
        return Sums(self._over_processes(sums.values))

    def _over_processes(self, sums: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return sums
        return self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
