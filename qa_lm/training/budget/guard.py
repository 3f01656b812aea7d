"""The clock of a run, and the callback that ends training while there is time left for what follows it."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from qa_lm.config.budget.settings import duration, seconds_of
from qa_lm.config.schema import TrainConfig
from qa_lm.training.distributed.collectives import print_once

SLACK, SLACK_SECONDS = 0.05, 2.0
"""Share of the budget, and seconds, by which a run may end late: the seconds of an epoch vary, and a last epoch that is
left out leaves the schedule unfinished."""
RECENT = 3
"""Epochs whose median is the expected time of the next one. A single slow epoch does not end training."""


class BudgetGuard(Callback):
    """Stops training after the last epoch that fits a time. The schedule of the learning rate is not changed.

    The time of earlier parts of a resumed run counts. The first of several processes decides for all.

    Args:
        seconds: the time of the whole run.
        clock: returns the seconds since the run began in this process.
    """

    STATE = ("after_seconds", "planned_seconds", "epoch_seconds", "stopped")

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds, self.clock = seconds, clock
        self.earlier_seconds = 0.0
        """Seconds of earlier parts of a resumed run."""
        self.after_seconds = 0.0
        """Seconds of what follows training: evaluation, model/, report."""
        self.planned_seconds: float | None = None
        """Seconds that the whole run was expected to take before training; None if nothing was measured."""
        self.epoch_seconds: list[float] = []
        """Seconds of the last epochs that this process trained from their beginning."""
        self.stopped = False
        self._epoch_began: float | None = None

    @property
    def used_seconds(self) -> float:
        """Seconds of the run so far, those of its earlier parts included."""
        return self.earlier_seconds + self.clock()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print how much a resumed run has used."""
        if self.earlier_seconds:
            print_once(trainer, f"budget: {duration(self.used_seconds)} of {duration(self.seconds)} are used")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_began = self.clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if another epoch would take too long."""
        if self._epoch_began is not None:
            self.epoch_seconds = [*self.epoch_seconds, self.clock() - self._epoch_began][-RECENT:]
        end = self.used_seconds + statistics.median(self.epoch_seconds or [0.0]) + self.after_seconds
        too_late = end > (1 + SLACK) * self.seconds + SLACK_SECONDS
        if trainer.world_size > 1:
            too_late = trainer.strategy.broadcast(too_late)
        last = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
        if too_late and not last and not trainer.should_stop:
            self.stopped = trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print why training stopped."""
        if self.stopped:
            took = statistics.median(self.epoch_seconds or [0.0])
            print_once(
                trainer,
                f"Stopped: another epoch of {duration(took)} does not fit budget.time={duration(self.seconds)}, "
                f"{duration(self.used_seconds)} of which are used.",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {name: getattr(self, name) for name in self.STATE} | {"used_seconds": self.used_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name in self.STATE:
            setattr(self, name, state_dict[name])
        self.earlier_seconds = state_dict["used_seconds"]

    def metrics(self) -> dict[str, float | None]:
        """Return the entries of metrics.json."""
        return {
            "budget_seconds": self.seconds,
            "planned_seconds": self.planned_seconds,
            "planned_after_seconds": self.after_seconds,
        }


def budget_guard(config: TrainConfig, started: float) -> list[Callback]:
    """Return the guard of `budget.time` in a list, which is empty without one.

    Args:
        config: settings.
        started: when the run began in this process, from `time.perf_counter`.
    """
    time_limit = config.budget.time
    return [] if time_limit is None else [BudgetGuard(seconds_of(time_limit), lambda: time.perf_counter() - started)]


def guard_of(trainer: pl.Trainer) -> BudgetGuard | None:
    """Return the guard among the callbacks of a Trainer; None without one."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each for each in callbacks if isinstance(each, BudgetGuard)), None)


def seconds_left(trainer: pl.Trainer) -> float:
    """Return the seconds that are left of `budget.time`; infinite without one."""
    guard = guard_of(trainer)
    return math.inf if guard is None else max(0.0, guard.seconds - guard.used_seconds)
