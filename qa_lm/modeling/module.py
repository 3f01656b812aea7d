"""The LightningModule: three steps, and means that are exact over a whole optimizer step and a whole epoch.

- The gradient of an optimizer step is that of the weighted mean over all its tokens, however many micro-batches and
  processes they come in: Lightning averages micro-batches and processes as if all weighed the same, so each loss is
  divided by the weight of the window's first micro-batch, and the gradients are put right by the whole window's.
- Sums of an epoch are kept in one tensor: a `self.log` per step costs as much as a small step itself.
"""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from qa_lm.batch import Batch
from qa_lm.modeling.causal_lm import head, hidden_states
from qa_lm.modeling.clipping import clip
from qa_lm.modeling.loss import LossSums, batch_loss

VALIDATION, RECALL = 0, 1
"""The sides of a validation: held-out pairs, and the sample of trained ones."""

RECALL_THEN_LOSS = "train/recall_then_loss"
"""A score that orders first by the recall of the trained sample, which moves in steps of one pair, then by its loss."""


class CausalLMModule(pl.LightningModule):
    """A causal language model with its loss, optimizer and schedule.

    Logged at each validation: `val/loss` (nats), `val/exact_match` (share of the pairs), `val/bits_per_answer_byte`
    (comparable across tokenizers) and, of the sample of trained pairs, `train/recall` and `train/recall_then_loss`.

    Args:
        model: what is trained.
        make_optimizer: from the model to its optimizer.
        schedule: factor of the learning rate for each optimizer step.
        mean_per_pair: how the loss weighs tokens, see `batch_loss`.
        answer_bytes: UTF-8 bytes of all answers of the validation pairs; 0 if none is held out.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        make_optimizer: Callable[[PreTrainedModel], Optimizer],
        schedule: Callable[[int], float],
        mean_per_pair: bool,
        answer_bytes: int,
    ) -> None:
        super().__init__()
        self.model, self.make_optimizer, self.schedule = model, make_optimizer, schedule
        self.mean_per_pair, self.answer_bytes = mean_per_pair, answer_bytes
        self.hidden_states: Callable[[PreTrainedModel, Tensor, Tensor], Tensor] = hidden_states
        self.train_sums, self.validation_sums = torch.zeros(5), [torch.zeros(5), torch.zeros(5)]
        self.step_loss = self.gradient_norm = torch.zeros(())
        self.step_pairs: tuple[Tensor, Tensor, Tensor] | None = None  # of the last batch: indices, losses, exactness
        # Weights of the current window of micro-batches, over all processes: of its first one, and of all so far.
        self.first_weight = self.window_weight = torch.zeros(())

    def compile_network(self) -> None:
        """Compile the network's body for training; batches must then all have one shape."""
        self.hidden_states = torch.compile(hidden_states, dynamic=False)

    def forward(self, batch: Batch) -> LossSums:
        """The loss of a batch."""
        # Validation has a shape and a graph of its own, which would have to be compiled apart.
        body = self.hidden_states if torch.is_grad_enabled() else hidden_states
        states = body(self.model, batch.inputs, batch.positions)
        sums = batch_loss(states, head(self.model), batch, self.mean_per_pair)
        self.step_pairs = batch.indices, sums.pair_losses, sums.pair_exact
        return sums

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's part in the loss of its optimizer step."""
        sums = self(batch)
        # A batch whose update is skipped is not part of the epoch's loss.
        self.train_sums += torch.where(torch.isfinite(sums.loss.detach()), _as_tensor(sums, batch.pairs), 0)
        self.step_loss = sums.loss.detach() / sums.weight
        weight = self._over_processes(sums.weight)
        micro_batches = self.trainer.accumulate_grad_batches
        if batch_idx % micro_batches == 0:
            self.first_weight, self.window_weight = weight, torch.zeros_like(weight)
        self.window_weight = self.window_weight + weight
        return sums.loss * (micro_batches * self.trainer.world_size / self.first_weight)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """From the first micro-batch's weight to the window's."""
        if self.trainer.accumulate_grad_batches > 1:
            gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
            torch._foreach_mul_(gradients, self.first_weight / self.window_weight)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip; Lightning itself refuses to with a fused optimizer under mixed precision, for float16's sake alone."""
        self.gradient_norm = clip(self.parameters(), gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Sums of loss and exact matches."""
        self.validation_sums[dataloader_idx if self.answer_bytes else RECALL] += _as_tensor(self(batch), batch.pairs)

    def configure_optimizers(self) -> Any:
        """The optimizer that `make_optimizer` builds, with the schedule of its learning rate."""
        optimizer = self.make_optimizer(self.model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums."""
        self.train_sums = self._zeros()

    def on_validation_epoch_start(self) -> None:
        """Start the validation's sums."""
        self.validation_sums = [self._zeros(), self._zeros()]

    def on_validation_epoch_end(self) -> None:
        """Log the means over all pairs, of all processes."""
        loss, weight, answer_loss, exact, pairs = self._over_processes(self.validation_sums[VALIDATION])
        metrics = {}
        if pairs:
            bits = answer_loss / torch.log(torch.tensor(2.0)) / self.answer_bytes
            metrics = {"val/loss": loss / weight, "val/exact_match": exact / pairs, "val/bits_per_answer_byte": bits}
        loss, weight, _, exact, pairs = self._over_processes(self.validation_sums[RECALL])
        if pairs:
            mean = loss / weight
            metrics |= {"train/recall": exact / pairs, RECALL_THEN_LOSS: (exact - mean / (1 + mean)) / pairs}
        self.log_dict(metrics, logger=False)

    def epoch_train_loss(self) -> float:
        """Mean train loss of the epoch's steps so far, of all processes; nan before the first. Call it on each."""
        return float(torch.divide(*self._over_processes(self.train_sums)[:2]))

    def running_train_loss(self) -> float:
        """The same of this process alone."""
        return float(self.train_sums[0] / self.train_sums[1])

    def _zeros(self) -> Tensor:
        # float64 keeps a sum over millions of steps exact to the last printed digit; Apple's GPU has none.
        return torch.zeros(5, device=self.device, dtype=torch.float32 if self.device.type == "mps" else torch.float64)

    def _over_processes(self, sums: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return sums
        return self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")


def _as_tensor(sums: LossSums, pairs: int) -> Tensor:
    return torch.stack([sums.loss.detach(), sums.weight, sums.answer_loss, sums.exact, sums.weight.new_tensor(pairs)])
