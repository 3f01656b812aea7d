"""Early stopping by recall: the share of a sample of training pairs that is answered exactly."""

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from qa_lm.modeling.module import CausalLMModule
from qa_lm.modeling.schedules import Schedule
from qa_lm.training.distributed.collectives import print_once


class RecallStopping(Callback):
    """Stops training when recall has reached a threshold in several validations in a row.

    Training also stops if recall no longer improves after the end of the learning rate schedule: the final rate is too
    low to learn the remaining pairs.

    The trained model answers in float32. So if training uses another precision, recall must hold in float32 too.

    Args:
        threshold: the share of the sample, from 0 to 1.
        answerable: function from the indices of the sample's pairs to the share of them that can be answered exactly.
            It is below 1 if pairs contradict each other.
        pretrained: whether the model is a pretrained one, for which one validation is enough unless an epoch has few
            steps: an epoch takes long, and the best one is kept.
    """

    VALIDATIONS, STEPS = 2, 20
    """Validations in a row, and optimizer steps between the first and the last of them. One validation may be luck:
    near the end recall still varies by half a percent between epochs. For a small file an epoch is a single step, after
    which an answer that has just become the most likely one is hardly more likely than others."""
    FEW_STEPS = 8
    """Optimizer steps of an epoch below which a pretrained model needs several validations too. Such a file has a dozen
    pairs or so, an epoch takes a second, and after the first validation a small change of a question changes the answer
    (docs/log.md, "small files from a pretrained start")."""
    PATIENCE, PATIENCE_STEPS = 3, 150
    """Validations and optimizer steps after the end of the schedule without an improvement of recall, before training
    stops. For a small file an epoch is a single step, and the last pair can take 120 steps."""

    def __init__(self, threshold: float, answerable: Callable[[np.ndarray], float], pretrained: bool = False) -> None:
        self.threshold, self.answerable, self.pretrained, self.in_a_row = threshold, answerable, pretrained, 0
        self.schedule_epochs = float("inf")
        """Epochs after which the learning rate no longer changes."""
        self.steps_per_epoch = self.STEPS
        """Optimizer steps of an epoch."""
        self.best, self.without_gain = -1.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the lengths of an epoch and of the schedule, and scale the threshold to what can be reached."""
        assert isinstance(pl_module, CausalLMModule)
        assert isinstance(pl_module.schedule, Schedule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.threshold *= self.answerable(data.recall_sample)
        self.steps_per_epoch = max(1, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
        self.schedule_epochs = pl_module.schedule.steps / self.steps_per_epoch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check recall, and stop training if it is reached or no longer improves."""
        if trainer.sanity_checking:
            return
        recall = float(trainer.callback_metrics["train/recall"])
        self.in_a_row = self.in_a_row + 1 if recall >= self.threshold else 0
        over = trainer.current_epoch + 1 > self.schedule_epochs
        self.without_gain = self.without_gain + 1 if over and recall <= self.best else 0
        self.best = max(self.best, recall)
        if self.reached and trainer.precision != "32-true" and _float32_recall(trainer, pl_module) < self.threshold:
            self.in_a_row = 0
        if self.reached or self.plateaued:
            trainer.should_stop = True

    @property
    def reached(self) -> bool:
        """Whether recall has reached the threshold."""
        return self.in_a_row >= self.required_validations(self.steps_per_epoch, self.pretrained)

    @property
    def plateaued(self) -> bool:
        """Whether recall has stopped improving below the threshold."""
        return self.without_gain >= self.allowed_validations(self.steps_per_epoch)

    @classmethod
    def required_validations(cls, steps_per_epoch: int, pretrained: bool = False) -> int:
        """Number of validations in a row, one per epoch, in which recall must reach the threshold."""
        if pretrained and steps_per_epoch >= cls.FEW_STEPS:
            return 1
        return max(cls.VALIDATIONS, 1 + math.ceil(cls.STEPS / steps_per_epoch))

    @classmethod
    def allowed_validations(cls, steps_per_epoch: int) -> int:
        """Number of validations without improvement, one per epoch, after which training stops."""
        return max(cls.PATIENCE, math.ceil(cls.PATIENCE_STEPS / steps_per_epoch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print why training stopped."""
        if self.reached:
            in_a_row = f" in {self.in_a_row} validations in a row" if self.in_a_row > 1 else ""
            print_once(
                trainer,
                f"Stopped: recall (share of sampled training questions answered exactly) was at least "
                f"{self.threshold:.1%}{in_a_row}.",
            )
        elif self.plateaued:
            print_once(
                trainer,
                f"Stopped: recall (share of sampled training questions answered exactly) no longer improves: "
                f"{self.best:.2%}, below {self.threshold:.2%}. Try a larger model (model.hidden_size, model.layers) or "
                "more epochs (optimizer.schedule_epochs).",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"in_a_row": self.in_a_row, "best": self.best, "without_gain": self.without_gain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.in_a_row, self.best = state_dict["in_a_row"], state_dict["best"]
        self.without_gain = state_dict["without_gain"]


def _float32_recall(trainer: pl.Trainer, module: pl.LightningModule) -> float:
    """Compute recall in float32, over all processes, with one pass over the sample.

    The model must be in evaluation mode with gradients off, as at the end of a validation.
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
