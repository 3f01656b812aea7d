"""Cross-entropy at the trained positions, and exact match from the same forward pass.

- The head runs only where a target is trained, and at a few positions more, so that it meets few shapes; in chunks: no
  more than `CHUNK_BYTES` of logits exist at once, however large the batch and the vocabulary; in float32 only blocks.
- With gradients wanted, a chunk's gradients are made together with its losses, while its logits are at hand: nothing
  is kept for the backward pass but the sum of the gradients, and nothing is computed twice. (The same idea: Liger
  Kernel's fused linear cross-entropy, arXiv:2410.10989.)
- Greedy decoding gives an answer exactly if and only if, under teacher forcing, every answer token and the EOS is the
  argmax: as long as all tokens so far are right, the two see the same prefix. So exact match costs no generation.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.errors import UserError

CHUNK_BYTES = 1 << 26
"""Most memory for logits at once, in the dtype of multiplication."""
BLOCK_LOGITS = 1 << 20
"""Logits that a CPU works on in float32 at once: few enough to stay in its cache."""
GRADIENT_ROWS = 4096
"""Rows of the weight's gradient that a CPU makes at once. All three measured: docs/log.md, "the head and its loss"."""


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
    targets = batch.targets.flatten()
    trained = (targets != UNTRAINED).nonzero()[:, 0]  # (positions,)
    pair, in_answer = batch.pair.flatten()[trained], batch.in_answer.flatten()[trained]
    if mean_per_pair:
        weights = 1 / torch.bincount(pair, minlength=batch.pairs)[pair]
    else:
        weights = torch.ones(len(pair), device=pair.device)
    used, places = _head_positions(trained, len(targets))
    states = hidden.flatten(0, 1)
    if len(used) < len(states):
        states = states[used]
    used_weights = weights.new_zeros(len(used)).index_copy(0, places, weights)
    loss, losses, rights = _head_loss(states, head, targets[used].clamp(min=0), used_weights)
    token_losses, right = losses[places], rights[places]

    def by_pair(values: Tensor) -> Tensor:
        return values.new_zeros(batch.pairs).index_add_(0, pair, values)

    answer_losses = torch.where(in_answer, token_losses, 0)
    pair_losses = by_pair(answer_losses) / by_pair(in_answer.to(answer_losses.dtype))
    pair_exact = by_pair((in_answer & ~right).to(torch.int64)) == 0
    return LossSums(loss, weights.sum(), token_losses[in_answer].sum(), pair_exact.sum(), pair_losses, pair_exact)


def checked_sums(sums: object, batch: Batch) -> LossSums:
    """What a loss of the user's returned, if it is as `LossSums` says.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(sums, LossSums):
        hint = "change the result of qa_lm.modeling.loss.batch_loss: sums._replace(loss=...)"
        raise UserError(f"loss: must return LossSums, not {type(sums).__name__}; {hint}")
    if sums.loss.shape or not (sums.loss.requires_grad or not torch.is_grad_enabled()):
        raise UserError("loss: LossSums.loss must be a single number with a gradient: a weighted sum, not a mean")
    if sums.pair_losses.shape != (batch.pairs,):
        found = tuple(sums.pair_losses.shape)
        raise UserError(f"loss: LossSums.pair_losses must have shape ({batch.pairs},), one for each pair, not {found}")
    return sums


def _head_positions(trained: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """The positions that the head works on, and where among them the trained ones are.

    Their number is rounded up by at most 1/16, with others that weigh nothing: a CPU prepares a bfloat16 product anew
    for each number of rows, for longer than it then takes, and keeps what it has prepared (docs/log.md, "few shapes").
    """
    count = len(trained)
    step = 1 << max(0, count.bit_length() - 5)
    rounded = math.ceil(count / step) * step
    if rounded >= total:
        return torch.arange(total, device=trained.device), trained
    others = trained.new_zeros(rounded - count)
    return torch.cat([trained, others]), torch.arange(count, device=trained.device)


def _head_loss(hidden: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sum of the losses, each loss, and whether the argmax is right, at each of (positions,)."""
    dtype = _multiplication_dtype(hidden)
    if torch.is_grad_enabled():
        total, losses, right = _HeadLoss.apply(hidden, head.weight, head.bias, targets, weights, dtype)
        return total, losses, right
    with torch.autocast(hidden.device.type, enabled=False):
        losses, right = _Chunks(hidden, head.weight, head.bias, targets, dtype).losses()
    return (losses * weights).sum(), losses, right


def _multiplication_dtype(hidden: Tensor) -> torch.dtype:
    """What autocast would multiply in: inside a custom function it no longer casts by itself."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _Chunks:
    """The head's operands in the dtype of multiplication, cut along the positions.

    Every chunk and block is worked on in the same memory: fresh memory costs a page fault for every 4 KiB, which for a
    large vocabulary takes as long as the products.
    """

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
    ) -> None:
        self.hidden, self.weight, self.targets = hidden.to(dtype), weight.to(dtype), targets
        self.bias = None if bias is None else bias.to(dtype)
        positions, vocabulary, on_cpu = len(targets), len(weight), hidden.device.type == "cpu"
        most = max(1, CHUNK_BYTES // (vocabulary * dtype.itemsize))
        step = max(1, math.ceil(positions / max(1, math.ceil(positions / most))))  # chunks of like size
        self.slices = [slice(start, start + step) for start in range(0, max(1, positions), step)]
        self.rows = min(step, max(1, BLOCK_LOGITS // vocabulary)) if on_cpu else step
        self.gradient_rows = min(GRADIENT_ROWS, vocabulary) if on_cpu else vocabulary
        # At least float32, whatever is multiplied: bfloat16 has 3 digits.
        wide = torch.promote_types(dtype, torch.float32)
        self.logits = weight.new_empty(step, vocabulary, dtype=dtype)
        self.block, self.probabilities = (weight.new_empty(self.rows, vocabulary, dtype=wide) for _ in range(2))
        self.piece = weight.new_empty(self.gradient_rows, weight.shape[1], dtype=dtype)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Losses, and right or not, of all positions."""
        return _joined([self.chunk_losses(chunk, self.chunk_logits(chunk)) for chunk in self.slices])

    def chunk_logits(self, chunk: slice) -> Tensor:
        """(positions, vocabulary) of a chunk; they hold until the next call."""
        hidden = self.hidden[chunk]
        logits = torch.mm(hidden, self.weight.mT, out=self.logits[: len(hidden)])
        return logits if self.bias is None else logits.add_(self.bias)

    def chunk_losses(self, chunk: slice, logits: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Losses, and right or not, of a chunk.

        With weights, its logits become the derivative of the weighted losses by them: softmax minus one-hot, times the
        position's weight. Without, they are undefined afterwards.
        """
        parts = [each.split(self.rows) for each in (self.targets[chunk], logits)]
        weight_parts = [None] * len(parts[0]) if weights is None else weights[chunk].split(self.rows)
        return _joined([self._block_losses(*each) for each in zip(*parts, weight_parts, strict=True)])

    def _block_losses(self, targets: Tensor, narrow: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        places, count = targets[:, None], len(targets)
        logits = narrow if narrow.dtype == self.block.dtype else self.block[:count].copy_(narrow)
        probabilities = torch.softmax(logits, -1, out=self.probabilities[:count])
        at_target = logits.gather(1, places)[:, 0]
        others = logits.scatter_(1, places, -torch.inf).amax(-1)
        right = at_target > others
        # Of equal logits, as argmax does, the first counts; argmax itself takes as long as the softmax on a CPU.
        tied = at_target == others
        right[tied] = targets[tied] < logits[tied].argmax(-1)
        # The largest probability cannot be rounded to zero, as the target's can.
        log_sum = torch.maximum(at_target, others) - probabilities.amax(-1).log()
        if weights is not None:
            probabilities.scatter_add_(1, places, probabilities.new_full((count, 1), -1))
            narrow.copy_(probabilities.mul_(weights[:, None]))
        return log_sum - at_target, right

    def put_weight_gradient(self, chunk: slice, slope: Tensor, gradient: Tensor) -> None:
        """Write the first chunk's part of the weight's gradient, add that of the others."""
        for part, columns in zip(gradient.split(self.gradient_rows), slope.split(self.gradient_rows, 1), strict=True):
            product = torch.mm(columns.mT, self.hidden[chunk], out=self.piece[: len(part)])
            if chunk.start == 0:
                part.copy_(product)
            else:
                part += product


def _joined(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    losses, right = (torch.cat(each) for each in zip(*pieces, strict=True))
    return losses, right


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
        with torch.autocast(hidden.device.type, enabled=False):
            chunks = _Chunks(hidden, weight, bias, targets, dtype)
            pieces, hidden_gradient = [], torch.empty_like(chunks.hidden)
            weight_gradient = torch.empty_like(weight)
            bias_gradient = None if bias is None else torch.zeros_like(bias)
            for chunk in chunks.slices:
                slope = chunks.chunk_logits(chunk)
                pieces.append(chunks.chunk_losses(chunk, slope, weights))
                torch.mm(slope, chunks.weight, out=hidden_gradient[chunk])
                chunks.put_weight_gradient(chunk, slope, weight_gradient)
                if bias_gradient is not None:
                    bias_gradient += slope.sum(0)
        losses, right = _joined(pieces)
        ctx.save_for_backward(hidden_gradient.to(hidden.dtype), weight_gradient, bias_gradient)
        ctx.mark_non_differentiable(losses, right)
        return (losses * weights).sum(), losses, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        return hidden * slope, weight * slope, None if bias is None else bias * slope, None, None, None
