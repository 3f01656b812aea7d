"""The LightningModule: model, loss, optimizer and schedule; its metrics are in `qa_lm.modeling.epoch_metrics`.

A step follows the gradient of the weighted mean loss over all its tokens, whatever the number of micro-batches and
processes. The hyperparameters rebuild the module, so `load_from_checkpoint("best.ckpt")` needs no other file.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from qa_lm.batch import Batch
from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import head, hidden_states, soft_cap
from qa_lm.modeling.distributed.sharding import is_sharded, shard
from qa_lm.modeling.epoch_metrics import EpochMetrics, Sums
from qa_lm.modeling.gradients import AccumulationWindow, clip
from qa_lm.modeling.hyperparameters import (
    OptimizerFactory,
    PlainValues,
    check_optimizer,
    plain_hyperparameters,
    resolve_model,
    resolve_optimizer,
    resolve_schedule,
)
from qa_lm.modeling.lora import refuse_adapter, without_frozen
from qa_lm.modeling.loss import LossSums, batch_loss, checked_sums

Loss = Callable[[Tensor, nn.Linear, Batch], LossSums]


class CausalLMModule(EpochMetrics):
    """A causal language model with its loss, optimizer and schedule; see `EpochMetrics` for what it logs.

    Args:
        model: the model, or its configuration (see `from_config`).
        optimizer: a function from the model to its optimizer, or the fields of `OptimizerSettings`; with None the
            module cannot be trained.
        schedule: a function from the optimizer step to the learning rate factor, or the fields of `Schedule`; None for
            a constant factor of 1.
        mean_per_pair: how the loss weights tokens, see `batch_loss`.
        loss: training loss that replaces `batch_loss`: a function from hidden states (rows, time, hidden_size), the
            head and the batch to `LossSums`. Validation always uses `batch_loss`.
        answer_bytes: UTF-8 bytes of all answers of the validation pairs; 0 without held-out pairs, None if unknown.
    """

    def __init__(
        self,
        model: PreTrainedModel | PlainValues,
        optimizer: OptimizerFactory | PlainValues | None = None,
        schedule: Callable[[int], float] | PlainValues | None = None,
        mean_per_pair: bool = True,
        answer_bytes: int | None = None,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(answer_bytes)
        self.model = resolve_model(model)
        self.make_optimizer, self.schedule = resolve_optimizer(optimizer), resolve_schedule(schedule)
        self.mean_per_pair, self.loss, self.window = mean_per_pair, loss, AccumulationWindow()
        if loss is not None and soft_cap(self.model):
            raise UserError("loss: cannot be replaced for a model that caps its logits; choose another model")
        self.save_hyperparameters(
            plain_hyperparameters(self.model, self.make_optimizer, self.schedule, mean_per_pair, answer_bytes)
        )
        # Checkpoints hold what is trained, without the frozen parameters of a pretrained model.
        self.strict_loading = all(parameter.requires_grad for parameter in self.parameters())
        self.hidden_states: Callable[..., Tensor] = hidden_states
        self.compute: Callable[[Batch], LossSums] = self._loss_sums
        self.step_loss = self.gradient_norm = torch.zeros(())
        self.step_pairs: tuple[Tensor, Tensor, Tensor] | None = None  # of the last batch: indices, losses, exactness

    @classmethod
    def from_config(
        cls,
        model: PlainValues,
        optimizer: PlainValues | None = None,
        schedule: PlainValues | None = None,
        **options: Any,
    ) -> "CausalLMModule":
        """Build a module with new weights from plain values.

        Args:
            model: values of a transformers config: `{"model_type": "gpt2", "vocab_size": 300, "hidden_size": 64}`.
            optimizer: fields of `OptimizerSettings`: `{"lr": 1e-3}`.
            schedule: fields of `Schedule`: `{"kind": "cosine", "steps": 500}`.
            options: `mean_per_pair` and `answer_bytes`.

        Raises:
            UserError: a value is unknown, or names third-party code.
        """
        return cls(model, optimizer, schedule, **options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what is trained."""
        if not self.strict_loading:
            checkpoint["state_dict"] = without_frozen(self, checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that holds only a LoRA adapter where the model has none."""
        if self.strict_loading:
            refuse_adapter(checkpoint["state_dict"])

    def configure_model(self) -> None:
        """Shard the parameters, if the strategy says between which processes."""
        if self.device_mesh is not None and not is_sharded(self.model):
            self.compute = shard(self.model, self.device_mesh["data_parallel"], self._loss_sums)

    def forward(self, batch: Batch) -> LossSums:
        """Compute the loss of a batch."""
        sums = self.compute(batch)
        self.step_pairs = batch.indices, sums.pair_losses, sums.pair_exact
        return sums

    def _loss_sums(self, batch: Batch) -> LossSums:
        # Validation has a different shape and graph, which would have to be compiled separately.
        body = self.hidden_states if torch.is_grad_enabled() else hidden_states
        states = body(self.model, batch.inputs, batch.positions)
        if self.loss is not None and self.training:
            return checked_sums(self.loss(states, head(self.model), batch), batch)
        return batch_loss(states, head(self.model), batch, self.mean_per_pair, soft_cap(self.model))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The contribution of the batch to the loss of its optimizer step."""
        sums = self(batch)
        # A batch whose update is skipped does not count in the epoch's loss.
        self.train_sums += Sums.of_batch(sums, batch.pairs).zero_unless_finite()
        self.step_loss = sums.loss.detach() / sums.weight
        every = self.trainer.accumulate_grad_batches
        self.window.add(self._over_processes(sums.weight), first=batch_idx % every == 0)
        return self.window.loss(sums.loss, every, self.trainer.world_size)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Scale the gradients to the weight of all micro-batches."""
        self.window.scale(self.parameters())

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the gradients, also for fused optimizers in mixed precision, where Lightning would refuse to."""
        self.gradient_norm = clip(self.parameters(), gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its learning rate schedule."""
        optimizer = check_optimizer(self.make_optimizer(self.model))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
