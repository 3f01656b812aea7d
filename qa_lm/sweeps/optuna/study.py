"""The Optuna study in the sweep folder: it chooses the next trial from the results of earlier ones.

- `optuna.journal` stores the study. The sweep and its jobs (qa_lm/training/callbacks/pruning.py) write it, and a
  resumed sweep reads it.
- The sample of trial n depends on the seed, on n and on earlier trials, so an interrupted study continues as if it had
  not been interrupted.
- A trial that was running when the sweep ended is run again before any new one. When the sweep is started again, each
  failed job is retried as a new trial with the same values.
"""

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import optuna
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

Direction = Literal["minimize", "maximize"]
JOURNAL, NAME = "optuna.journal", "sweep"
JOB_FAILED, PRUNED_AT, RETRY_OF = "job_failed", "pruned_at_epoch", "retry_of"
"""User attributes of trials."""


@dataclass(frozen=True)
class Pruning:
    """Arguments of `optuna.pruners.HyperbandPruner`; the resource is an epoch."""

    min_resource: int
    max_resource: int | str
    reduction_factor: int


class SweepStudy:
    """The study of a sweep, created if the folder has none.

    Args:
        sweep: the sweep folder.
        space: the search space.
        trials: number of trials, including failed ones.
        direction: `minimize` or `maximize`.
        seed: seed of the sampler.
        startup_trials: number of random trials before the sampler uses results.
        pruning: when jobs are stopped early; None for never.

    Raises:
        HydraException: the study in the folder has another search space or direction.
    """

    def __init__(
        self,
        sweep: Path,
        space: dict[str, BaseDistribution],
        trials: int,
        direction: Direction,
        seed: int,
        startup_trials: int,
        pruning: Pruning | None,
    ) -> None:
        optuna.logging.set_verbosity(logging.WARNING)
        self.space, self.trials, self.seed, self.startup_trials = space, trials, seed, startup_trials
        self.journal = sweep / JOURNAL
        pruner = optuna.pruners.NopPruner() if pruning is None else optuna.pruners.HyperbandPruner(**asdict(pruning))
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self.journal))),
            study_name=NAME,
            direction=direction,
            pruner=pruner,
            load_if_exists=True,
        )
        self._check_same(sweep, direction)
        self.study.set_user_attr("pruning", None if pruning is None else asdict(pruning))
        self.interrupted = [each for each in self._all() if each.state is TrialState.RUNNING]
        self._retry_failed()
        finished = sum(each.state.is_finished() for each in self._all())
        self.total = self._remaining() + len(self.interrupted)
        if finished or self.interrupted:
            print(
                f"study: {finished} finished trials, {len(self.interrupted)} interrupted, {self.total} remaining",
                flush=True,
            )

    def ask(self) -> FrozenTrial | None:
        """Return the next trial; None if there are enough."""
        while self.interrupted:
            trial = self.interrupted.pop(0)
            if trial.params.keys() == self.space.keys():
                return trial
            self.record(trial.number, None)  # the sweep was killed while it was sampled
        while self._remaining() > 0:
            sampled = sum(each.state is not TrialState.WAITING for each in self._all())
            self.study.sampler = optuna.samplers.TPESampler(
                seed=(self.seed * 1_000_003 + sampled) % 2**32, n_startup_trials=self.startup_trials
            )
            trial = self._trial(self.study.ask(self.space).number)
            same = self._earlier_result(trial)
            if same is None:
                return trial
            self.study.tell(trial.number, same.value if same.state is TrialState.COMPLETE else None, same.state)
        return None

    def record(self, number: int, objective: float | None) -> None:
        """Record the result of a trial.

        Args:
            number: number of the trial.
            objective: the objective of its job; None if the job failed.
        """
        trial = self._trial(number)
        if objective is None or not math.isfinite(objective):
            if objective is None:
                self.study._storage.set_trial_user_attr(trial._trial_id, JOB_FAILED, True)
            state, value = TrialState.FAIL, None
        elif PRUNED_AT in trial.user_attrs:
            state, value = TrialState.PRUNED, None
        else:
            state, value = TrialState.COMPLETE, objective
        self.study.tell(number, value, state)

    def best(self) -> FrozenTrial | None:
        """Return the best trial that was neither pruned nor failed; None if there is none."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return self.study.best_trial if complete else None

    def summary(self) -> str:
        """Format the number of complete, pruned and failed trials."""
        states = [each.state for each in self._all()]
        names = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return ", ".join(f"{states.count(state)} {name}" for name, state in names.items())

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> FrozenTrial:
        return next(each for each in self._all() if each.number == number)

    def _remaining(self) -> int:
        waiting = sum(each.state is TrialState.WAITING for each in self._all())
        asked = sum(each.state is not TrialState.WAITING and RETRY_OF not in each.user_attrs for each in self._all())
        return max(0, self.trials - asked) + waiting

    def _earlier_result(self, trial: FrozenTrial) -> FrozenTrial | None:
        """Return an earlier trial with the same values and a result, which spares a job; None if there is none."""
        with_result = (TrialState.COMPLETE, TrialState.PRUNED)
        return next((each for each in self._all() if each.params == trial.params and each.state in with_result), None)

    def _retry_failed(self) -> None:
        retried = {each.user_attrs.get(RETRY_OF) for each in self._all()}
        for each in self._all():
            if each.state is TrialState.FAIL and each.user_attrs.get(JOB_FAILED) and each.number not in retried:
                self.study.enqueue_trial(each.params, user_attrs={RETRY_OF: each.number})

    def _check_same(self, sweep: Path, direction: Direction) -> None:
        space = {key: distribution_to_json(each) for key, each in self.space.items()}
        before = self.study.user_attrs.setdefault("space", space)
        for key in sorted(before.keys() | space.keys()):
            if before.get(key) != space.get(key):
                raise HydraException(
                    f"{key}: the study in {sweep} has other values for it; choose another hydra.sweep.dir"
                )
        if self.study.direction is not StudyDirection[direction.upper()]:
            raise HydraException(f"hydra.sweeper.direction={direction}: the study in {sweep} has the opposite one")
        if "space" not in self.study.user_attrs:
            self.study.set_user_attr("space", space)
