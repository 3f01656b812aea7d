"""Pruning of a trial of an Optuna study: each epoch is reported to the study, which can end the run early.

`hydra/sweeper=optuna` sets the environment variables named here for each job. Without them nothing is pruned.
"""

import os
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from qa_lm.training.distributed.collectives import print_once

STORAGE, STUDY, TRIAL = "QA_LM_OPTUNA_STORAGE", "QA_LM_OPTUNA_STUDY", "QA_LM_OPTUNA_TRIAL"
"""Environment variables: the study's journal file, its name, and the number of the trial."""
PRUNED_AT = "pruned_at_epoch"
"""User attribute of the trial: the epoch after which it was pruned. The sweeper reads it."""


class TrialPruning(Callback):
    """Reports the monitored metric after each validation, and stops training if the study prunes the trial.

    It must come after the callbacks that stop training for other reasons: a run that ends anyway is complete, not
    pruned.

    Args:
        monitor: name of the metric.
        environment: the environment variables.
    """

    def __init__(self, monitor: str, environment: Mapping[str, str]) -> None:
        self.monitor = monitor
        self._place = environment[STORAGE], environment[STUDY], int(environment[TRIAL])
        self._trial: Any = None
        self.pruned_at: int | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the trial. Only the first process communicates with the study."""
        if trainer.is_global_zero:
            self._trial = _trial(*self._place)
            self.pruned_at = self._trial.user_attrs.get(PRUNED_AT)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the metric, and stop if the trial is pruned."""
        if trainer.sanity_checking:
            return
        if self._trial is not None:
            epoch = trainer.current_epoch + 1
            ends = trainer.should_stop or (trainer.max_epochs is not None and 0 < trainer.max_epochs <= epoch)
            self._report(epoch, float(trainer.callback_metrics[self.monitor]), ends)
        if trainer.strategy.broadcast(self.pruned_at is not None):
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print that the trial was pruned."""
        if self.pruned_at is not None:
            print_once(trainer, f"Pruned after epoch {self.pruned_at}: other trials were better after as many epochs.")

    def _report(self, epoch: int, value: float, ends: bool) -> None:
        # A resumed run can validate an epoch again. The first report stays.
        known = self._trial.storage.get_trial(self._trial._trial_id).intermediate_values
        if epoch not in known:
            self._trial.report(value, epoch)
        if self.pruned_at is None and not ends and self._trial.should_prune():
            self.pruned_at = epoch
            self._trial.set_user_attr(PRUNED_AT, epoch)


def trial_pruning(monitor: str) -> list[Callback]:
    """Return a list with the callback; an empty list for a run that is not a trial."""
    return [TrialPruning(monitor, os.environ)] if STORAGE in os.environ else []


def _trial(journal: str, name: str, number: int) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(storage=JournalStorage(JournalFileBackend(journal)), study_name=name)
    pruning = study.user_attrs["pruning"]
    study.pruner = optuna.pruners.NopPruner() if pruning is None else optuna.pruners.HyperbandPruner(**pruning)
    return optuna.trial.Trial(study, next(each._trial_id for each in study.trials if each.number == number))
