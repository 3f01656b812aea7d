"""Messages that say why training ended before its last epoch."""

from collections.abc import Iterator

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, Timer


def why_stopped(trainer: pl.Trainer, early_stopping: EarlyStopping | None) -> Iterator[str]:
    """Return a message for each limit that was reached, and for an early stop."""
    timer = next((timer for timer in trainer.callbacks if isinstance(timer, Timer)), None)  # type: ignore[attr-defined]
    if timer is not None and (timer.time_remaining() or 0) <= 0:
        yield f"Stopped: reached trainer.max_time after {trainer.global_step:,} steps."
    elif 0 <= trainer.max_steps <= trainer.global_step and trainer.current_epoch < (trainer.max_epochs or 0):
        yield f"Stopped: reached trainer.max_steps={trainer.max_steps}."
    if early_stopping is None or early_stopping.stopped_epoch == 0:
        return
    monitor = early_stopping.monitor
    if early_stopping.wait_count < early_stopping.patience:  # a resumed run has no metric
        yield f"Stopped early: {monitor} is not finite."
        return
    once_an_epoch = trainer.check_val_every_n_epoch == 1 and trainer.val_check_interval == 1.0
    yield (
        f"Stopped early: {monitor} has not improved for {early_stopping.patience} "
        f"{'epochs' if once_an_epoch else 'validations'} in a row (best: {float(early_stopping.best_score):.4f})."
    )
