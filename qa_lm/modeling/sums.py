"""Sums over the batches of an epoch, for exact means, and scores per pair of a batch."""

from dataclasses import dataclass
from typing import NamedTuple

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
