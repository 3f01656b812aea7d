"""Effect of the Trainer's limits: how many batches are trained and validated, and whether a validation runs."""

import lightning.pytorch as pl

from qa_lm.errors import UserError

Limit = int | float


def limited(limit: Limit, batches: int) -> int:
    """Return the number of batches under a limit such as `trainer.limit_train_batches`: an integer, or a share."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def check_limits(trainer: pl.Trainer, train_batches: int, validation_batches: int) -> None:
    """Refuse limits above 0 that leave no batch, and validations that would never run.

    Args:
        trainer: the Trainer of the run.
        train_batches: batches of an epoch without a limit.
        validation_batches: batches of a validation without a limit.

    Raises:
        UserError: Lightning would refuse the limit, but only after the start of the run.
    """
    for name, batches in (("limit_train_batches", train_batches), ("limit_val_batches", validation_batches)):
        limit = getattr(trainer, name)
        if limit > 0 and batches and limited(limit, batches) == 0:
            raise UserError(
                f"trainer.{name}={limit}: less than 1 of {batches:,} batches; give a whole number, such as 1"
            )
    interval, batches = trainer.val_check_interval, limited(trainer.limit_train_batches, train_batches)
    if trainer.check_val_every_n_epoch is not None and isinstance(interval, int) and interval > batches > 0:
        raise UserError(
            f"trainer.val_check_interval={interval}: an epoch has only {batches:,} batches; to count batches over "
            "epochs add trainer.check_val_every_n_epoch=null",
            "trainer.val_check_interval",
        )


def why_no_validation(trainer: pl.Trainer, train_batches: int, epochs: float) -> str | None:
    """Return the setting because of which no validation will run; None if one will run, as far as is known.

    Args:
        trainer: the Trainer of the run.
        train_batches: batches of an epoch, under its limit.
        epochs: maximum number of epochs.
    """
    if trainer.limit_val_batches == 0:
        return "trainer.limit_val_batches=0"
    total, every, interval = train_batches * epochs, trainer.check_val_every_n_epoch, trainer.val_check_interval
    if not isinstance(interval, int | float):  # a duration
        return None
    batches = interval if isinstance(interval, int) else int(train_batches * interval)
    first = batches if every is None else (every - 1) * train_batches + max(batches, 1)
    if total >= first or total == 0:  # a run without training steps prints a warning at its end
        return None
    if 0 <= trainer.max_steps < train_batches:
        return f"trainer.max_steps={trainer.max_steps}"
    if every is not None and every > epochs:
        return f"trainer.check_val_every_n_epoch={every}"
    return f"trainer.val_check_interval={interval}"
