"""Choose the number of epochs that fit a time, from what was measured before training. No clock is read here."""

import math
from dataclasses import dataclass, replace

import lightning.pytorch as pl

from qa_lm.config.budget.settings import duration
from qa_lm.config.schema import TrainConfig
from qa_lm.errors import UserError
from qa_lm.modeling.hyperparameters import plain_settings
from qa_lm.training.budget.ways_out import Sizes, ways_out
from qa_lm.training.build import Task, epochs_at_most, schedule_of


@dataclass(frozen=True)
class Times:
    """Seconds of a run, before it trains."""

    budget: float
    before: float
    """What has passed when training starts."""
    epoch: float
    """An epoch, with its validation and its share of checkpoints."""
    after: float
    """What follows training: evaluation, model/, report."""

    @property
    def epochs(self) -> int:
        """Whole epochs that fit."""
        return max(0, math.floor((self.budget - self.before - self.after) / self.epoch + 1e-9))

    def total(self, epochs: float) -> float:
        """Seconds of the run with this number of epochs."""
        return self.before + epochs * self.epoch + self.after


@dataclass(frozen=True)
class Wanted:
    """Epochs without a budget, and which of them were given by the user."""

    needed: float
    """Expected number: until recall is reached, or the maximum."""
    schedule: float
    """Epochs of the learning rate schedule."""
    most: float
    """Maximum number."""
    until_recall: bool
    """Whether training ends when recall is reached."""
    most_given: bool
    schedule_given: bool
    """Whether the schedule was given, or lasts as long as training anyway."""


@dataclass(frozen=True)
class Choice:
    """What a budget changes, and what to print."""

    most: int | None
    """The new maximum number of epochs; None keeps what was given."""
    schedule: int | None
    """The new epochs of the schedule; None keeps them."""
    lines: list[str]


def wanted_epochs(config: TrainConfig, given: TrainConfig, task: Task, trainer: pl.Trainer) -> Wanted:
    """Return what training needs without a budget.

    Args:
        config: settings without open (null) values.
        given: the settings as they were given.
        task: module and data.
        trainer: the Trainer.
    """
    limits = [given.trainer.get(name) for name in ("max_epochs", "max_steps", "max_time")]
    return Wanted(
        needed=task.estimated_epochs,
        schedule=task.schedule_epochs,
        most=epochs_at_most(trainer, task.steps_per_epoch),
        until_recall=config.stop_at_recall is not None,
        most_given=any(limit is not None for limit in limits),
        schedule_given=given.optimizer.schedule_epochs is not None or config.optimizer.schedule_epochs is None,
    )


def choose_epochs(times: Times, wanted: Wanted, sizes: Sizes) -> Choice:
    """Choose the epochs of a run.

    Args:
        times: measured and estimated seconds.
        wanted: the epochs without a budget.
        sizes: sizes of model and data, for what to change if the budget is too small.

    Raises:
        UserError: not even one epoch fits, and the number was left open.
    """
    fit, needed = times.epochs, math.ceil(wanted.needed)
    if fit < 1 and not wanted.most_given:
        least = duration(math.ceil(times.total(1)))
        raise UserError(
            f"budget.time={duration(times.budget)}: too short for one epoch, with which the run takes {least}: "
            f"{duration(times.before)} before training, {duration(times.epoch)} for the epoch, {duration(times.after)} "
            f"for the evaluation and the report\nUse budget={least}; or: {'; '.join(ways_out(sizes, None))}",
            "budget.time",
        )
    lines = [
        f"budget: {duration(times.budget)}, of which {duration(times.before)} have passed and {duration(times.after)} "
        f"are kept for the evaluation and the report: {_epochs(fit)} of {duration(times.epoch)} fit"
    ]
    most = None if wanted.most_given else int(min(fit, wanted.most))
    shorter = most is not None and most < wanted.schedule and not wanted.schedule_given
    if fit >= needed:
        goal = "recall is expected after" if wanted.until_recall else "training takes at most"
        lines.append(f"budget: {goal} {_epochs(needed)}; {duration(times.budget - times.total(needed))} are left over")
    else:
        goal = "recall is expected after" if wanted.until_recall else "training would take"
        lines.append(f"note: {goal} {_epochs(needed)}, for which {duration(times.total(needed))} are needed")
        lines += [f"  to need less: {way}" for way in ways_out(sizes, fit / needed)]
    if wanted.most_given and fit < wanted.most:
        lines.append(f"budget: the maximum of {_epochs(wanted.most)} was given; training stops when the time is used")
    if most is not None and most < wanted.most:
        also = f", optimizer.schedule_epochs={most}" if shorter else ""
        lines.append(f"budget: chosen trainer.max_epochs={most}{also}")
    return Choice(most, most if shorter else None, lines)


def _epochs(count: float) -> str:
    return f"{count:,.0f} {'epoch' if count == 1 else 'epochs'}"


def with_epochs(config: TrainConfig, task: Task, trainer: pl.Trainer, choice: Choice) -> tuple[TrainConfig, Task]:
    """Apply a choice to the settings, the task and the Trainer. The schedule ends where training ends."""
    if choice.most is None:
        return config, task
    config = replace(config, trainer={**config.trainer, "max_epochs": choice.most})
    if choice.schedule is not None:
        config = replace(config, optimizer=replace(config.optimizer, schedule_epochs=choice.schedule))
    trainer.fit_loop.max_epochs = choice.most
    epochs = min(choice.most, config.optimizer.schedule_epochs or choice.most)
    schedule = schedule_of(config.optimizer, round(epochs * task.steps_per_epoch))
    task.module.schedule = schedule
    task.module.hparams["schedule"] = plain_settings(schedule)
    return config, replace(task, schedule_epochs=epochs, estimated_epochs=min(task.estimated_epochs, choice.most))
