"""The LightningModule: three steps, and means that are exact over a whole epoch."""

from collections.abc import Callable

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from qa_lm.batch import Batch
from qa_lm.modeling.causal_lm import head, hidden_states
from qa_lm.modeling.loss import LossSums, batch_loss


class CausalLMModule(pl.LightningModule):
    """A causal language model with its loss and optimizer.

    Logged at each validation: `val/loss` (nats) and `val/exact_match` (share of the pairs).

    Args:
        model: what is trained.
        make_optimizer: from the model to its optimizer.
        mean_per_pair: how the loss weighs tokens, see `batch_loss`.
    """

    def __init__(
        self, model: PreTrainedModel, make_optimizer: Callable[[PreTrainedModel], Optimizer], mean_per_pair: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.make_optimizer = make_optimizer
        self.mean_per_pair = mean_per_pair
        # Sums of the epoch (loss, weight, exact, pairs): a tensor each, because one `self.log` per step costs as much
        # as a small step itself.
        self.train_sums = torch.zeros(4)
        self.validation_sums = torch.zeros(4)

    def forward(self, batch: Batch) -> LossSums:
        """The loss of a batch."""
        hidden = hidden_states(self.model, batch.inputs, batch.positions)
        return batch_loss(hidden, head(self.model), batch, self.mean_per_pair)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of the batch."""
        sums = self(batch)
        self.train_sums += _as_tensor(sums, batch.pairs)
        return sums.loss / sums.weight

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sums of loss and exact matches."""
        self.validation_sums += _as_tensor(self(batch), batch.pairs)

    def configure_optimizers(self) -> Optimizer:
        """The optimizer that `make_optimizer` builds."""
        return self.make_optimizer(self.model)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums."""
        self.train_sums = self._zeros()

    def on_validation_epoch_start(self) -> None:
        """Start the validation's sums."""
        self.validation_sums = self._zeros()

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation pairs, on all ranks."""
        loss, weight, exact, pairs = self._over_ranks(self.validation_sums)
        self.log_dict({"val/loss": loss / weight, "val/exact_match": exact / pairs}, rank_zero_only=True)

    def epoch_train_loss(self) -> float:
        """Mean train loss of the epoch's steps so far, on all ranks; nan before the first. Call it on every rank."""
        loss, weight, _, _ = self._over_ranks(self.train_sums)
        return float(loss / weight)

    def running_train_loss(self) -> float:
        """The same on this rank alone, for a progress bar."""
        return float(self.train_sums[0] / self.train_sums[1])

    def _zeros(self) -> Tensor:
        # float64 keeps a sum over millions of steps exact to the last printed digit; Apple's GPU has none.
        return torch.zeros(4, device=self.device, dtype=torch.float32 if self.device.type == "mps" else torch.float64)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(sums, reduce_op="sum")


def _as_tensor(sums: LossSums, pairs: int) -> Tensor:
    return torch.stack([sums.loss.detach(), sums.weight, sums.exact, sums.weight.new_tensor(pairs)])
