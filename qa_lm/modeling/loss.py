"""Cross-entropy at the trained positions, and exact match from the same forward pass.

- The head runs only where a target is trained, in chunks: logits that carry no loss are never made, and the largest
  block of logits is `CHUNK` x vocabulary, however large the batch.
- Greedy decoding gives an answer exactly if and only if, under teacher forcing, every answer token and the EOS is the
  argmax: as long as all tokens so far are right, the two see the same prefix. So exact match costs no generation.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qa_lm.batch import UNTRAINED, Batch

CHUNK = 2048
"""Positions per call of the head: 0.4 GB of float32 logits with GPT-2's vocabulary."""


class LossSums(NamedTuple):
    """Sums over a batch, so that means over several batches are exact."""

    loss: Tensor
    """Weighted sum of the token losses, in nats; has the gradient."""
    weight: Tensor
    """Sum of the weights: the mean is loss / weight."""
    exact: Tensor
    """Number of pairs whose answer and EOS are all argmax, int64."""


def batch_loss(hidden: Tensor, head: nn.Module, batch: Batch, mean_per_pair: bool) -> LossSums:
    """The loss of a batch.

    Args:
        hidden: the body's output (rows, time, hidden_size).
        head: hidden state to logits.
        batch: inputs and targets.
        mean_per_pair: True weighs each token by 1 / (trained tokens of its pair), which makes the mean a mean of the
            pairs' means; False weighs each token 1.
    """
    trained = batch.targets != UNTRAINED  # (rows, time)
    targets, pair = batch.targets[trained], batch.pair[trained]  # (positions,)
    losses, right = _token_losses(hidden[trained], head, targets)
    if mean_per_pair:
        weights = 1 / torch.bincount(pair, minlength=batch.pairs)[pair]
    else:
        weights = torch.ones_like(losses)
    wrong = (batch.in_answer[trained] & ~right).to(torch.int64)
    mistakes = torch.zeros(batch.pairs, dtype=torch.int64, device=wrong.device).index_add_(0, pair, wrong)
    return LossSums((losses * weights).sum(), weights.sum(), (mistakes == 0).sum())


def _token_losses(hidden: Tensor, head: nn.Module, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and whether the argmax is right, at each of (positions,)."""
    pieces = []
    for states, ids in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        # With several chunks the backward pass makes each chunk's logits again instead of keeping all of them.
        again = len(hidden) > CHUNK and torch.is_grad_enabled()
        pieces.append(
            checkpoint(_chunk, states, head, ids, use_reentrant=False) if again else _chunk(states, head, ids)
        )
    return torch.cat([losses for losses, _ in pieces]), torch.cat([right for _, right in pieces])


def _chunk(hidden: Tensor, head: nn.Module, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float()  # (positions, vocabulary)
    return F.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets
