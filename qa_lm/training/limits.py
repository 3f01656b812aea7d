"""What the Trainer's limits leave of a run: how many batches are trained and validated, and if any validation runs."""

import lightning.pytorch as pl

from qa_lm.errors import UserError

Limit = int | float


def limited(limit: Limit, batches: int) -> int:
    """Batches under a limit such as `trainer.limit_train_batches`: a whole number, or a share of them."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def check_limits(trainer: pl.Trainer, train_batches: int, validation_batches: int) -> None:
    """Refuse limits that leave nothing though they are above 0, and validations that would never come.

    Args:
        trainer: of the run.
        train_batches: batches of an epoch without a limit.
        validation_batches: batches of a validation without a limit.

    Raises:
        UserError: Lightning itself would refuse it only when the run has begun.
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
    """The setting under which no validation will run; None if one will, as far as it can be told.

    Args:
        trainer: of the run.
        train_batches: batches of an epoch, under its limit.
        epochs: the most epochs.
    """
    if trainer.limit_val_batches == 0:
        return "trainer.limit_val_batches=0"
    total, every, interval = train_batches * epochs, trainer.check_val_every_n_epoch, trainer.val_check_interval
    if not isinstance(interval, int | float):  # a time
        return None
    batches = interval if isinstance(interval, int) else int(train_batches * interval)
    first = batches if every is None else (every - 1) * train_batches + max(batches, 1)
    if total >= first or total == 0:  # a run that trains nothing says so at its end
        return None
    if 0 <= trainer.max_steps < train_batches:
        return f"trainer.max_steps={trainer.max_steps}"
    if every is not None and every > epochs:
        return f"trainer.check_val_every_n_epoch={every}"
    return f"trainer.val_check_interval={interval}"
