"""The LightningModule: model, loss, optimizer and schedule; its metrics are in `qa_lm.modeling.epoch_metrics`.

- The gradient of an optimizer step is that of the weighted mean over all its tokens, however many micro-batches and
  processes they come in (`qa_lm.modeling.accumulation`).
- Everything that builds the module again is in its hyperparameters, as plain values
  (`qa_lm.modeling.hyperparameters`): `CausalLMModule.load_from_checkpoint("best.ckpt")` needs no other file.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from qa_lm.batch import Batch
from qa_lm.modeling.accumulation import AccumulationWindow
from qa_lm.modeling.causal_lm import head, hidden_states
from qa_lm.modeling.clipping import clip
from qa_lm.modeling.epoch_metrics import EpochMetrics
from qa_lm.modeling.hyperparameters import (
    MakeOptimizer,
    Plain,
    built_model,
    built_optimizer,
    built_schedule,
    checked_optimizer,
    plain_hyperparameters,
)
from qa_lm.modeling.loss import LossSums, batch_loss, checked_sums
from qa_lm.modeling.sums import Sums

Loss = Callable[[Tensor, nn.Linear, Batch], LossSums]


class CausalLMModule(EpochMetrics):
    """A causal language model with its loss, optimizer and schedule.

    What it logs, and when: see `EpochMetrics`.

    Args:
        model: what is trained, or its configuration (see `from_config`).
        optimizer: from the model to its optimizer, or the fields of `OptimizerSettings`; None cannot be trained.
        schedule: factor of the learning rate by optimizer step, or the fields of `Schedule`; None for 1.
        mean_per_pair: how the loss weighs tokens, see `batch_loss`.
        loss: what training minimises, in place of `batch_loss`: from hidden states (rows, time, hidden_size), the
            head and the batch to `LossSums`. Validation always measures `batch_loss`.
        answer_bytes: UTF-8 bytes of all answers of the validation pairs; 0 if none is held out, None if unknown.
    """

    def __init__(
        self,
        model: PreTrainedModel | Plain,
        optimizer: MakeOptimizer | Plain | None = None,
        schedule: Callable[[int], float] | Plain | None = None,
        mean_per_pair: bool = True,
        answer_bytes: int | None = None,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(answer_bytes)
        self.model = built_model(model)
        self.make_optimizer, self.schedule = built_optimizer(optimizer), built_schedule(schedule)
        self.mean_per_pair, self.loss = mean_per_pair, loss
        self.save_hyperparameters(
            plain_hyperparameters(self.model, self.make_optimizer, self.schedule, mean_per_pair, answer_bytes)
        )
        self.hidden_states: Callable[[PreTrainedModel, Tensor, Tensor], Tensor] = hidden_states
        self.step_loss = self.gradient_norm = torch.zeros(())
        self.step_pairs: tuple[Tensor, Tensor, Tensor] | None = None  # of the last batch: indices, losses, exactness
        self.window = AccumulationWindow()

    @classmethod
    def from_config(
        cls, model: Plain, optimizer: Plain | None = None, schedule: Plain | None = None, **options: Any
    ) -> "CausalLMModule":
        """A module with fresh weights, from plain values alone.

        Args:
            model: entries of a transformers config: `{"model_type": "gpt2", "vocab_size": 300, "hidden_size": 64}`.
            optimizer: fields of `OptimizerSettings`: `{"lr": 1e-3}`.
            schedule: fields of `Schedule`: `{"kind": "cosine", "steps": 500}`.
            options: `mean_per_pair` and `answer_bytes`.

        Raises:
            UserError: one of them names something unknown, or code of others.
        """
        return cls(model, optimizer, schedule, **options)

    def compile_network(self) -> None:
        """Compile the network's body for training; batches must then all have one shape."""
        self.hidden_states = torch.compile(hidden_states, dynamic=False)

    def forward(self, batch: Batch) -> LossSums:
        """The loss of a batch."""
        # Validation has a shape and a graph of its own, which would have to be compiled apart.
        body = self.hidden_states if torch.is_grad_enabled() else hidden_states
        states = body(self.model, batch.inputs, batch.positions)
        if self.loss is not None and self.training:
            sums = checked_sums(self.loss(states, head(self.model), batch), batch)
        else:
            sums = batch_loss(states, head(self.model), batch, self.mean_per_pair)
        self.step_pairs = batch.indices, sums.pair_losses, sums.pair_exact
        return sums

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's part in the loss of its optimizer step."""
        sums = self(batch)
        # A batch whose update is skipped is not part of the epoch's loss.
        self.train_sums += Sums.of_batch(sums, batch.pairs).zero_unless_finite()
        self.step_loss = sums.loss.detach() / sums.weight
        micro_batches = self.trainer.accumulate_grad_batches
        self.window.add(self._over_processes(sums.weight), begins=batch_idx % micro_batches == 0)
        return self.window.loss(sums.loss, micro_batches, self.trainer.world_size)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """From the first micro-batch's weight to the window's."""
        if self.trainer.accumulate_grad_batches > 1:
            self.window.scale(self.parameters())

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip; Lightning itself refuses to with a fused optimizer under mixed precision, for float16's sake alone."""
        self.gradient_norm = clip(self.parameters(), gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """The optimizer that `make_optimizer` builds, with the schedule of its learning rate."""
        optimizer = checked_optimizer(self.make_optimizer(self.model))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
