"""Cross-entropy at the trained positions, and exact match from the same forward pass.

- The head runs only at trained positions, padded to a few different counts to limit the number of shapes. It runs in
  chunks: at most `CHUNK_BYTES` of logits exist at once for any batch and vocabulary; float32 logits only in blocks.
- During training, the gradients of a chunk are computed together with its losses, while its logits are in memory. Only
  the summed gradients are kept for the backward pass, and nothing is computed twice. Liger Kernel's fused linear
  cross-entropy (arXiv:2410.10989) uses the same idea.
- A soft cap of the logits and its gradient are computed in the float32 blocks of the softmax.
- Greedy decoding generates an answer exactly if and only if, under teacher forcing, every answer token and EOS is the
  argmax: as long as all previous tokens are right, both see the same prefix. So exact match needs no generation.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.errors import UserError

CHUNK_BYTES = 1 << 26
"""Maximum memory for logits at once, in the dtype of the matrix products."""
BLOCK_LOGITS = 1 << 20
"""Number of logits that a CPU processes in float32 at once, so that they stay in its cache."""
GRADIENT_ROWS = 4096
"""Rows of the weight gradient that a CPU computes at once. Measurements of all three: docs/log.md, "the head and its
loss"."""

LOST = 1e-30
"""Probabilities below this have lost digits of float32, or all of them."""


class LossSums(NamedTuple):
    """Sums over a batch, so that means over several batches are exact, and results per pair."""

    loss: Tensor
    """Weighted sum of the token losses, in nats, with gradient."""
    weight: Tensor
    """Sum of the token weights; the mean loss is loss / weight."""
    answer_loss: Tensor
    """Unweighted sum of the losses of the answer tokens (EOS included), in nats, without gradient."""
    exact: Tensor
    """Number of pairs whose answer tokens and EOS are all argmax, int64."""
    pair_losses: Tensor
    """Mean loss of each pair's answer tokens (EOS included), in nats, (pairs,), without gradient."""
    pair_exact: Tensor
    """Whether each pair's answer tokens and EOS are all argmax, (pairs,), bool."""


def batch_loss(
    hidden: Tensor, head: nn.Linear, batch: Batch, mean_per_pair: bool, soft_cap: float | None = None
) -> LossSums:
    """Compute the loss of a batch; a batch without pairs has losses and gradients of zero.

    Args:
        hidden: the body's output (rows, time, hidden_size).
        head: maps hidden states to logits, before the soft cap.
        batch: inputs and targets.
        mean_per_pair: if True, a token has weight 1 / (trained tokens of its pair), so the mean loss is the mean over
            pairs of their mean losses; if False, every token has weight 1.
        soft_cap: bound of soft-capped logits, see `qa_lm.modeling.causal_lm.soft_cap`.
    """
    targets = batch.targets.flatten()
    trained = (targets != UNTRAINED).nonzero()[:, 0]  # (positions,)
    pair, in_answer = batch.pair.flatten()[trained], batch.in_answer.flatten()[trained]
    if mean_per_pair:
        weights = 1 / torch.bincount(pair, minlength=batch.pairs)[pair]
    else:
        weights = torch.ones(len(pair), device=pair.device)
    used, index = _head_positions(trained, len(targets))
    states = hidden.flatten(0, 1)
    if len(used) < len(states):
        states = states[used]
    used_weights = weights.new_zeros(len(used)).index_copy(0, index, weights)
    used_targets = targets[used].clamp(min=0)
    loss, used_losses, used_correct = _head_loss(states, head, used_targets, used_weights, soft_cap)
    token_losses, correct = used_losses[index], used_correct[index]

    def by_pair(values: Tensor) -> Tensor:
        return values.new_zeros(batch.pairs).index_add_(0, pair, values)

    answer_losses = torch.where(in_answer, token_losses, 0)
    pair_losses = by_pair(answer_losses) / by_pair(in_answer.to(answer_losses.dtype))
    pair_exact = by_pair((in_answer & ~correct).to(torch.int64)) == 0
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
    """The positions that the head runs on, and the indices of the trained positions among them.

    Their number is rounded up by at most 1/16 with positions of weight 0: for each new number of rows a CPU prepares a
    bfloat16 product, which takes longer than the product, and caches the result (docs/log.md, "few shapes").
    """
    count = len(trained)
    step = 1 << max(0, count.bit_length() - 5)
    rounded = math.ceil(count / step) * step
    if rounded >= total:
        return torch.arange(total, device=trained.device), trained
    others = trained.new_zeros(rounded - count)
    return torch.cat([trained, others]), torch.arange(count, device=trained.device)


def _head_loss(
    hidden: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor, soft_cap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sum of the losses; and per position, (positions,), the loss and whether the target is the argmax."""
    dtype = _matmul_dtype(hidden)
    if torch.is_grad_enabled():
        total, losses, correct = _HeadLoss.apply(hidden, head.weight, head.bias, targets, weights, dtype, soft_cap)
        return total, losses, correct
    with torch.autocast(hidden.device.type, enabled=False):
        losses, correct = _Chunks(hidden, head.weight, head.bias, targets, dtype, soft_cap).losses()
    return (losses * weights).sum(), losses, correct


def _matmul_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype in which autocast would multiply; it does not cast inside a custom autograd function."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _Chunks:
    """The operands of the head in the dtype of the matrix products, split into chunks of positions.

    All chunks and blocks reuse the same memory: new memory costs a page fault per 4 KiB, which takes as long as the
    products if the vocabulary is large.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        dtype: torch.dtype,
        soft_cap: float | None,
    ) -> None:
        self.soft_cap = soft_cap
        self.hidden, self.weight, self.targets = hidden.to(dtype), weight.to(dtype), targets
        self.bias = None if bias is None else bias.to(dtype)
        positions, vocabulary, on_cpu = len(targets), len(weight), hidden.device.type == "cpu"
        max_step = max(1, CHUNK_BYTES // (vocabulary * dtype.itemsize))
        step = max(1, math.ceil(positions / max(1, math.ceil(positions / max_step))))  # chunks of similar size
        self.slices = [slice(start, start + step) for start in range(0, max(1, positions), step)]
        self.rows = min(step, max(1, BLOCK_LOGITS // vocabulary)) if on_cpu else step
        self.gradient_rows = min(GRADIENT_ROWS, vocabulary) if on_cpu else vocabulary
        # The softmax needs at least float32: bfloat16 has 3 digits.
        softmax_dtype = torch.promote_types(dtype, torch.float32)
        self.logits = weight.new_empty(step, vocabulary, dtype=dtype)
        self.block, self.probabilities = (
            weight.new_empty(self.rows, vocabulary, dtype=softmax_dtype) for _ in range(2)
        )
        self.buffer = weight.new_empty(self.gradient_rows, weight.shape[1], dtype=dtype)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Loss of each position, and whether its target is the argmax."""
        return _concatenate([self.chunk_losses(chunk, self.chunk_logits(chunk)) for chunk in self.slices])

    def chunk_logits(self, chunk: slice) -> Tensor:
        """Logits of a chunk before the soft cap, (positions, vocabulary); the next call overwrites them."""
        hidden = self.hidden[chunk]
        logits = torch.mm(hidden, self.weight.mT, out=self.logits[: len(hidden)])
        return logits if self.bias is None else logits.add_(self.bias)

    def chunk_losses(self, chunk: slice, logits: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Loss of each position of a chunk, and whether its target is the argmax.

        With weights, the logits are overwritten by their gradient: softmax minus one-hot, times the weight of the
        position. Without weights, they are undefined afterwards.
        """
        blocks = [each.split(self.rows) for each in (self.targets[chunk], logits)]
        weight_blocks = [None] * len(blocks[0]) if weights is None else weights[chunk].split(self.rows)
        return _concatenate([self._block_losses(*each) for each in zip(*blocks, weight_blocks, strict=True)])

    def _block_losses(self, targets: Tensor, logits_lowp: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        index, count = targets[:, None], len(targets)
        logits = logits_lowp if logits_lowp.dtype == self.block.dtype else self.block[:count].copy_(logits_lowp)
        if self.soft_cap is not None:
            logits.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        probabilities = torch.softmax(logits, -1, out=self.probabilities[:count])
        at_target, probability = logits.gather(1, index)[:, 0], probabilities.gather(1, index)[:, 0]
        others = logits.scatter_(1, index, -torch.inf).amax(-1)
        correct, tied = at_target > others, at_target == others
        if tied.any():  # the first of equal logits counts, as in argmax, which takes as long as the softmax on a CPU
            correct[tied] = targets[tied] < logits[tied].argmax(-1)
        losses, rounded = probability.log().abs(), probability < LOST  # abs, since -log(1) is -0.0
        if rounded.any():  # unlike the target's probability, the largest one cannot be rounded to zero
            log_sum = torch.maximum(at_target, others) - probabilities.amax(-1).log()
            losses = torch.where(rounded, log_sum - at_target, losses)
        if weights is not None:
            probabilities.scatter_(1, index, (probability - 1)[:, None])
            if not (weights == 1).all():
                probabilities.mul_(weights[:, None])
            if self.soft_cap is not None:  # the derivative of cap * tanh(x / cap) is 1 - tanh(x / cap)**2
                capped = logits.scatter_(1, index, at_target[:, None])
                probabilities.mul_(capped.div_(self.soft_cap).square_().neg_().add_(1))
            logits_lowp.copy_(probabilities)
        return losses, correct

    def add_weight_gradient(self, chunk: slice, grad_logits: Tensor, gradient: Tensor) -> None:
        """Add a chunk's contribution to the weight gradient; the first chunk overwrites it."""
        columns = grad_logits.split(self.gradient_rows, 1)
        for part, column in zip(gradient.split(self.gradient_rows), columns, strict=True):
            product = torch.mm(column.mT, self.hidden[chunk], out=self.buffer[: len(part)])
            if chunk.start == 0:
                part.copy_(product)
            else:
                part += product


def _concatenate(results: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    losses, correct = (torch.cat(each) for each in zip(*results, strict=True))
    return losses, correct


class _HeadLoss(torch.autograd.Function):
    """Weighted sum of the cross-entropies of a linear head; the gradients are computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        dtype: torch.dtype,
        soft_cap: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            chunks = _Chunks(hidden, weight, bias, targets, dtype, soft_cap)
            results, hidden_gradient = [], torch.empty_like(chunks.hidden)
            of_weight, of_bias = ctx.needs_input_grad[1:3]  # not those of a frozen head
            weight_gradient = torch.empty_like(weight) if of_weight else None
            bias_gradient = torch.zeros_like(bias) if of_bias and bias is not None else None
            for chunk in chunks.slices:
                logits = chunks.chunk_logits(chunk)
                results.append(chunks.chunk_losses(chunk, logits, weights))
                grad_logits = logits  # `chunk_losses` overwrites the logits
                torch.mm(grad_logits, chunks.weight, out=hidden_gradient[chunk])
                if weight_gradient is not None:
                    chunks.add_weight_gradient(chunk, grad_logits, weight_gradient)
                if bias_gradient is not None:
                    bias_gradient += grad_logits.sum(0)
        losses, correct = _concatenate(results)
        # Not `save_for_backward`: the backward pass scales them in place, as large as the vocabulary is.
        ctx.gradients = hidden_gradient.to(hidden.dtype), weight_gradient, bias_gradient
        ctx.mark_non_differentiable(losses, correct)
        return (losses * weights).sum(), losses, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the loss was differentiated before; compute it again to differentiate it once more")
        gradients, ctx.gradients = ctx.gradients, None
        hidden, *parameters = (each if each is None else each.mul_(grad_output) for each in gradients)
        return hidden, *parameters, None, None, None, None
