"""The end of a run that learns its pairs: once they are answered, or once they no longer will be."""

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from qa_lm.modeling.module import CausalLMModule
from qa_lm.modeling.schedules import Schedule
from qa_lm.training.callbacks.epochs import say


class RecallStopping(Callback):
    """Ends training when the recall of the trained sample has reached a share and held it for some validations.

    It also ends once the schedule of the learning rate is over and recall no longer grows: what is not known then is
    not learnt at so low a rate.

    Answers are given in float32 later. So where training uses another precision, recall must hold in float32, too.

    Args:
        threshold: the share.
        answerable: from the places of the sample's pairs to the share of them that can be answered: contradictions
            cannot all be.
    """

    VALIDATIONS, STEPS = 2, 20
    """Validations in a row, and optimizer steps between the first and the last of them. One alone may be luck: near the
    end recall still moves by half a percent from epoch to epoch. In a small file an epoch is a single step, after which
    an answer that has just become the likeliest one is hardly likelier than others."""
    PATIENCE, PATIENCE_STEPS = 3, 150
    """Validations, and optimizer steps, after the schedule's end in which recall may stay below its best before
    training ends: in a small file an epoch is a single step, and one last pair can take 120 of them."""

    def __init__(self, threshold: float, answerable: Callable[[np.ndarray], float]) -> None:
        self.threshold, self.answerable, self.in_a_row = threshold, answerable, 0
        self.schedule_epochs = float("inf")
        """Epochs after which the learning rate no longer changes."""
        self.steps_per_epoch = self.STEPS
        """Optimizer steps of an epoch."""
        self.best, self.without_gain = -1.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Learn how long an epoch and the schedule are, and what share can be reached."""
        assert isinstance(pl_module, CausalLMModule)
        assert isinstance(pl_module.schedule, Schedule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.threshold *= self.answerable(data.recall_sample)
        self.steps_per_epoch = max(1, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
        self.schedule_epochs = pl_module.schedule.steps / self.steps_per_epoch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count, and stop."""
        if trainer.sanity_checking:
            return
        recall = float(trainer.callback_metrics["train/recall"])
        self.in_a_row = self.in_a_row + 1 if recall >= self.threshold else 0
        over = trainer.current_epoch + 1 > self.schedule_epochs
        self.without_gain = self.without_gain + 1 if over and recall <= self.best else 0
        self.best = max(self.best, recall)
        if self.reached and trainer.precision != "32-true" and _float32_recall(trainer, pl_module) < self.threshold:
            self.in_a_row = 0
        if self.reached or self.given_up:
            trainer.should_stop = True

    @property
    def reached(self) -> bool:
        """Whether recall is there."""
        return self.in_a_row >= self.needed(self.steps_per_epoch)

    @property
    def given_up(self) -> bool:
        """Whether recall will not come there."""
        return self.without_gain >= self.patience(self.steps_per_epoch)

    @classmethod
    def needed(cls, steps_per_epoch: int) -> int:
        """Validations in a row, one an epoch, in which recall must hold."""
        return max(cls.VALIDATIONS, 1 + math.ceil(cls.STEPS / steps_per_epoch))

    @classmethod
    def patience(cls, steps_per_epoch: int) -> int:
        """Validations without gain, one an epoch, after which training ends."""
        return max(cls.PATIENCE, math.ceil(cls.PATIENCE_STEPS / steps_per_epoch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so."""
        if self.reached:
            say(
                trainer,
                f"Stopped: recall of the trained sample was at least {self.threshold:.1%} in "
                f"{self.needed(self.steps_per_epoch)} validations in a row.",
            )
        elif self.given_up:
            say(
                trainer,
                f"Stopped: recall of the trained sample stays at {self.best:.2%}, below {self.threshold:.2%}. A "
                "larger model (model.hidden_size, model.layers) or more epochs (optimizer.schedule_epochs) may help.",
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"in_a_row": self.in_a_row, "best": self.best, "without_gain": self.without_gain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.in_a_row, self.best = state_dict["in_a_row"], state_dict["best"]
        self.without_gain = state_dict["without_gain"]


def _float32_recall(trainer: pl.Trainer, module: pl.LightningModule) -> float:
    """Recall of the trained sample without mixed precision, over all processes; a pass over the sample.

    Callable where the model is in evaluation mode and gradients are off, such as at the end of a validation.
    """
    assert isinstance(module, CausalLMModule)
    sums = torch.zeros(2, device=module.device)
    loaders = trainer.val_dataloaders
    assert isinstance(loaders, list)
    for batch in loaders[-1]:
        batch = trainer.strategy.batch_to_device(batch)
        sums += torch.stack([module(batch).exact, sums.new_tensor(batch.pairs)])
    if trainer.world_size > 1:
        total = trainer.strategy.reduce(sums, reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        sums = total
    return float(sums[0] / sums[1])
