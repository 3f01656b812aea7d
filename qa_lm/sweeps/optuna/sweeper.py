"""The sweeper that Hydra calls.

python scripts/train.py -m hydra/sweeper=optuna 'optimizer.lr=tag(log, interval(1e-5, 1e-2))'
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from qa_lm.config.hydra_settings import OptunaSweeperConf
from qa_lm.sweeps.lock import lock_sweep
from qa_lm.sweeps.processes.factory import quoted

if TYPE_CHECKING:
    from qa_lm.sweeps.optuna.study import Direction, Pruning, SweepStudy


class OptunaSweeper(Sweeper):
    """A sweeper that lets Optuna choose the settings of each job, and reports the results to Optuna.

    Optuna, an optional dependency, is imported only when a sweep starts.

    Args:
        settings: see `OptunaSweeperConf`.
    """

    def __init__(self, **settings: object) -> None:
        self.settings = OptunaSweeperConf(**settings)  # type: ignore[arg-type]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what a sweep needs; Hydra calls it."""
        self._context, self._config = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the whole study.

        Args:
            arguments: overrides from the command line.
        """
        study, jobs = self._open_study(arguments)
        if hasattr(self._launcher, "launch_each"):
            self._launcher.launch_each(jobs, study.record, study.total)
        else:
            self._in_batches(study, jobs)
        print(f"study: {study.summary()}", flush=True)
        if best := study.best():
            chosen = " ".join(f"{key}={value}" for key, value in best.params.items())
            print(f"best: {chosen}, objective {best.value:.6g} (trial {best.number})", flush=True)

    def _open_study(self, arguments: list[str]) -> "tuple[SweepStudy, Iterator[tuple[int, list[str]]]]":
        """Open the study, and return it with the number and overrides of each trial to run."""
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise HydraException("hydra/sweeper=optuna needs Optuna 5: pip install 'qa_lm[optuna]'") from None
        from qa_lm.sweeps.optuna.space import as_override, search_space
        from qa_lm.sweeps.optuna.study import NAME, SweepStudy

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        overrides = [*(f"{key}={value}" for key, value in self.settings.params.items()), *arguments]
        space, fixed = search_space(parser.parse_overrides(overrides))
        folder, direction, own = Path(str(self._config.hydra.sweep.dir)).absolute(), self._direction(), self.settings
        lock_sweep(folder)
        OmegaConf.save(self._config, folder / "multirun.yaml")
        study = SweepStudy(folder, space, own.n_trials, direction, own.seed, own.startup_trials, self._pruning())

        def jobs() -> Iterator[tuple[int, list[str]]]:
            while (trial := study.ask()) is not None:
                chosen = [as_override(key, value) for key, value in trial.params.items()]
                # The job's callback (qa_lm/training/callbacks/pruning.py) reads its trial from these variables.
                trial_of_job = {"STORAGE": quoted(str(study.journal)), "STUDY": NAME, "TRIAL": str(trial.number)}
                variables = [f"++hydra.job.env_set.QA_LM_OPTUNA_{name}={value}" for name, value in trial_of_job.items()]
                yield trial.number, [*fixed, *chosen, *variables]

        return study, jobs()

    def _in_batches(self, study: "SweepStudy", jobs: "Iterator[tuple[int, list[str]]]") -> None:
        done = 0
        while batch := list(islice(jobs, self.settings.n_jobs)):
            returns = self._launcher.launch([overrides for _, overrides in batch], initial_job_idx=done)
            done += len(batch)
            for (number, _), job in zip(batch, returns, strict=True):
                failed = job.status is not JobStatus.COMPLETED
                study.record(number, None if failed or job.return_value is None else float(job.return_value))

    def _direction(self) -> "Direction":
        direction = self.settings.direction
        if direction not in (None, "minimize", "maximize"):
            raise HydraException(f"hydra.sweeper.direction={direction}: must be minimize or maximize")
        mode = OmegaConf.select(self._config, "monitor_mode", default="min")
        larger_is_better = str(getattr(mode, "value", mode)) == "max" if direction is None else direction == "maximize"
        return "maximize" if larger_is_better else "minimize"

    def _pruning(self) -> "Pruning | None":
        from qa_lm.sweeps.optuna.study import Pruning

        if not self.settings.prune:
            return None
        maximum = self.settings.max_epochs or OmegaConf.select(self._config, "trainer.max_epochs", default=None)
        known = isinstance(maximum, int) and maximum >= self.settings.min_epochs
        return Pruning(self.settings.min_epochs, maximum if known else "auto", self.settings.reduction_factor)
