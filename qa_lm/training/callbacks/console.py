"""What a run prints while it trains: a line for each epoch, a progress bar, and why training stopped."""

import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer, TQDMProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from qa_lm.modeling.epoch_metrics import EXACT_THEN_LOSS, RECALL_THEN_LOSS
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.callbacks.epochs import EpochRecord
from qa_lm.training.distributed.collectives import print_once


class ConsoleReport(Callback):
    """Prints a line for each epoch, and why training stopped.

    It must come after `EpochRecord` and `EarlyStopping`.
    """

    def __init__(self, record: EpochRecord, early_stopping: EarlyStopping | None, best: ModelCheckpoint) -> None:
        self.record, self.early_stopping, self.best = record, early_stopping, best
        self._best_score: float | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line of the epoch."""
        row = self.record.rows[-1]
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        parts = [
            f"epoch {row['epoch']:>{len(epochs) - 1 if epochs else 1}}{epochs}",
            f"train loss {row['train_loss']:.4f}",
        ]
        if row["val_loss"] is not None:
            parts.append(f"val loss {row['val_loss']:.4f}")
        if self.record.had_validation:
            if self.best.monitor in ("val/exact_match", EXACT_THEN_LOSS):
                parts.append(f"exact match {row['val_exact_match']:.1%}")
            if self.best.monitor == RECALL_THEN_LOSS:
                parts.append(f"recall {row['train_recall']:.1%}")
            parts += self._improvement()
        print_once(trainer, "   ".join(parts))

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"best_score": self._best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._best_score = state_dict["best_score"]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print why training ended before its last epoch."""
        for line in why_stopped(trainer, self.early_stopping):
            print_once(trainer, line)

    def _improvement(self) -> list[str]:
        # `ModelCheckpoint` updated the best score at the end of the validation.
        score = None if self.best.best_model_score is None else float(self.best.best_model_score)
        if score is None:  # `fast_dev_run` keeps no checkpoints
            return []
        if not math.isfinite(score):
            return [f"{self.best.monitor} is not finite"]
        if score != self._best_score:
            self._best_score = score
            best = self.record.best_validation(score)
            return [f"improved at step {best[1]:,}" if best and best != self.record.validations[-1] else "improved"]
        if self.early_stopping is None:
            return ["no improvement"]
        return [f"no improvement ({self.early_stopping.wait_count}/{self.early_stopping.patience})"]


class RunningLossBar(TQDMProgressBar):
    """Lightning's progress bar, with the mean train loss of the epoch so far and epochs counted from 1."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Number the epoch as in the printed lines."""
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the mean train loss of the epoch so far."""
        assert isinstance(pl_module, CausalLMModule)
        return {"train loss": f"{pl_module.running_train_loss():.4f}"}


def has_stopped(early_stopping: EarlyStopping) -> bool:
    """Whether early stopping has ended training, in any process. In the first epoch, `stopped_epoch` stays 0."""
    return early_stopping.stopping_reason is not EarlyStoppingReason.NOT_STOPPED or early_stopping.stopped_epoch > 0


def why_stopped(trainer: pl.Trainer, early_stopping: EarlyStopping | None) -> Iterator[str]:
    """Return a message for each limit that was reached, and for an early stop."""
    timer = next((timer for timer in trainer.callbacks if isinstance(timer, Timer)), None)  # type: ignore[attr-defined]
    if timer is not None and (timer.time_remaining() or 0) <= 0:
        yield f"Stopped: reached trainer.max_time after {trainer.global_step:,} steps."
    elif 0 <= trainer.max_steps <= trainer.global_step and trainer.current_epoch < (trainer.max_epochs or 0):
        yield f"Stopped: reached trainer.max_steps={trainer.max_steps}."
    if early_stopping is None or not has_stopped(early_stopping):
        return
    monitor = early_stopping.monitor.removesuffix("_then_loss")
    if early_stopping.wait_count < early_stopping.patience:
        yield f"Stopped early: {monitor} is not finite."
        return
    once_an_epoch = trainer.check_val_every_n_epoch == 1 and trainer.val_check_interval == 1.0
    yield (
        f"Stopped early: {monitor} has not improved for {early_stopping.patience} "
        f"{'epochs' if once_an_epoch else 'validations'} in a row (best: {float(early_stopping.best_score):.4f})."
    )
