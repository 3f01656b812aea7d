"""Cross-entropy at the trained positions, and exact match from the same forward pass.

- The head runs only where a target is trained, in chunks: logits that carry no loss are never made, and no more than
  `CHUNK_LOGITS` of them exist at once, however large the batch and the vocabulary.
- With gradients wanted, a chunk's gradients are made together with its losses, while its logits are at hand: nothing
  is kept for the backward pass but the sum of the gradients, and nothing is computed twice. (The same idea: Liger
  Kernel's fused linear cross-entropy, arXiv:2410.10989.)
- Greedy decoding gives an answer exactly if and only if, under teacher forcing, every answer token and the EOS is the
  argmax: as long as all tokens so far are right, the two see the same prefix. So exact match costs no generation.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qa_lm.batch import UNTRAINED, Batch

CHUNK_LOGITS = 1 << 24
"""Most logits at once, 64 MB of float32; measured: LOG.md, "The head and its loss"."""


class LossSums(NamedTuple):
    """Sums over a batch, so that means over several batches are exact; and what each of its pairs came to."""

    loss: Tensor
    """Weighted sum of the token losses, in nats; has the gradient."""
    weight: Tensor
    """Sum of the weights: the mean is loss / weight."""
    answer_loss: Tensor
    """Sum of the losses of the answers' tokens and EOS, each weighing 1, in nats; has no gradient."""
    exact: Tensor
    """Number of pairs whose answer and EOS are all argmax, int64."""
    pair_losses: Tensor
    """Mean loss of each pair's answer tokens and EOS, in nats, (pairs,); has no gradient."""
    pair_exact: Tensor
    """Whether each pair's answer and EOS are all argmax, (pairs,), bool."""


def batch_loss(hidden: Tensor, head: nn.Linear, batch: Batch, mean_per_pair: bool) -> LossSums:
    """The loss of a batch; a batch without pairs gives zeros, and gradients of zero.

    Args:
        hidden: the body's output (rows, time, hidden_size).
        head: hidden state to logits.
        batch: inputs and targets.
        mean_per_pair: True weighs each token by 1 / (trained tokens of its pair), which makes the mean a mean of the
            pairs' means; False weighs each token 1.
    """
    trained = batch.targets != UNTRAINED  # (rows, time)
    targets, pair, in_answer = batch.targets[trained], batch.pair[trained], batch.in_answer[trained]  # (positions,)
    if mean_per_pair:
        weights = 1 / torch.bincount(pair, minlength=batch.pairs)[pair]
    else:
        weights = torch.ones(len(targets), device=targets.device)
    loss, token_losses, right = _head_loss(hidden[trained], head, targets, weights)

    def by_pair(values: Tensor) -> Tensor:
        return values.new_zeros(batch.pairs).index_add_(0, pair, values)

    answer_losses = torch.where(in_answer, token_losses, 0)
    pair_losses = by_pair(answer_losses) / by_pair(in_answer.to(answer_losses.dtype))
    pair_exact = by_pair((in_answer & ~right).to(torch.int64)) == 0
    return LossSums(loss, weights.sum(), token_losses[in_answer].sum(), pair_exact.sum(), pair_losses, pair_exact)


def _head_loss(hidden: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sum of the losses, each loss, and whether the argmax is right, at each of (positions,)."""
    dtype = _multiplication_dtype(hidden)
    weight, bias = head.weight, head.bias
    if torch.is_grad_enabled():
        total, losses, right = _HeadLoss.apply(hidden, weight, bias, targets, weights, dtype)
        return total, losses, right
    chunks = _Chunks(hidden, weight, bias, targets, dtype)
    pieces = [chunks.losses(chunk)[:2] for chunk in chunks.slices]
    losses, right = (torch.cat(each) for each in zip(*pieces, strict=True))
    return (losses * weights).sum(), losses, right


def _multiplication_dtype(hidden: Tensor) -> torch.dtype:
    """What autocast would multiply in: inside a custom function it no longer casts by itself."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _Chunks:
    """The head's operands in the dtype of multiplication, cut along the positions.

    Every chunk is worked on in the same few blocks of memory: fresh ones cost a page fault for every 4 KiB, which for a
    large vocabulary takes as long as the products.
    """

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
    ) -> None:
        self.hidden, self.weight, self.targets = hidden.to(dtype), weight.to(dtype), targets
        self.bias = None if bias is None else bias.to(dtype)
        step = max(1, min(len(targets), CHUNK_LOGITS // len(weight)))
        self.slices = [slice(start, start + step) for start in range(0, max(1, len(targets)), step)]
        # At least float32, whatever is multiplied: bfloat16 has 3 digits.
        wide = torch.promote_types(dtype, torch.float32)
        self.narrow, self.logs = (
            torch.empty(step, len(weight), dtype=kind, device=hidden.device) for kind in (dtype, wide)
        )
        self.wide = self.narrow if dtype == wide else torch.empty_like(self.logs)

    def losses(self, chunk: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, right or not, and log-probabilities (positions, vocabulary) of a chunk.

        The log-probabilities hold until the next call.
        """
        targets = self.targets[chunk]
        count = len(targets)
        with torch.autocast(self.hidden.device.type, enabled=False):
            logits = torch.mm(self.hidden[chunk], self.weight.mT, out=self.narrow[:count])
        if self.bias is not None:
            logits += self.bias
        if self.wide is not self.narrow:
            # Converted apart: argmax and softmax of bfloat16 are four to six times as slow on a CPU as of float32.
            logits = self.wide[:count].copy_(logits)
        log_probabilities = torch.log_softmax(logits, -1, out=self.logs[:count])
        right = logits.argmax(-1) == targets
        return -log_probabilities.gather(1, targets[:, None])[:, 0], right, log_probabilities

    def slope(self, chunk: slice, log_probabilities: Tensor, weights: Tensor) -> Tensor:
        """Derivative of the weighted losses by the logits: softmax minus one-hot, times the position's weight."""
        slope = log_probabilities.exp_()
        slope.scatter_add_(1, self.targets[chunk, None], slope.new_full((len(slope), 1), -1))
        slope.mul_(weights[chunk, None])
        return slope if slope.dtype == self.narrow.dtype else self.narrow[: len(slope)].copy_(slope)


class _HeadLoss(torch.autograd.Function):
    """Weighted sum of cross-entropies of a linear head, with its gradients made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        chunks = _Chunks(hidden, weight, bias, targets, dtype)
        losses, right, hidden_gradients = [], [], []
        weight_gradient = torch.zeros_like(weight)
        bias_gradient = None if bias is None else torch.zeros_like(bias)
        for chunk in chunks.slices:
            chunk_losses, chunk_right, log_probabilities = chunks.losses(chunk)
            losses.append(chunk_losses)
            right.append(chunk_right)
            slope = chunks.slope(chunk, log_probabilities, weights)  # (positions, vocabulary)
            with torch.autocast(hidden.device.type, enabled=False):
                hidden_gradients.append(slope @ chunks.weight)
                weight_gradient += slope.mT @ chunks.hidden[chunk]
            if bias_gradient is not None:
                bias_gradient += slope.sum(0)
        all_losses, all_right = torch.cat(losses), torch.cat(right)
        ctx.save_for_backward(torch.cat(hidden_gradients).to(hidden.dtype), weight_gradient, bias_gradient)
        ctx.mark_non_differentiable(all_losses, all_right)
        return (all_losses * weights).sum(), all_losses, all_right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        return hidden * slope, weight * slope, None if bias is None else bias * slope, None, None, None
