"""The sweeper as Hydra sees it, and its settings.

    python scripts/train.py -m hydra/sweeper=optuna 'optimizer.lr=tag(log, interval(1e-5, 1e-2))'

Optuna is imported when a sweep begins: Hydra imports this file whenever any script of Hydra's starts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from hydra_plugins.qa_lm_optuna._study import Direction, Pruning, SweepStudy


@dataclass
class OptunaSweeperConf:
    """The settings `hydra.sweeper.*`."""

    _target_: str = "hydra_plugins.qa_lm_optuna.sweeper.OptunaSweeper"
    n_trials: int = 20
    """Trials of the study, failed and pruned ones included, however often it is interrupted."""
    direction: str | None = None
    """`minimize` or `maximize` the objective; null follows the setting `monitor_mode`, and minimizes where there is
    none."""
    seed: int = 42
    """Seed of what is drawn."""
    startup_trials: int = 10
    """Trials drawn at random before TPE chooses."""
    prune: bool = True
    """Whether jobs that do worse than others after as many epochs are stopped (Hyperband)."""
    min_epochs: int = 1
    """Epochs that every job may train."""
    max_epochs: int | None = None
    """Epochs of a whole job; null follows the setting `trainer.max_epochs`."""
    reduction_factor: int = 3
    """At each of Hyperband's rungs one job in this many goes on."""
    params: dict[str, Any] = field(default_factory=dict)
    """Key to what is searched, as on the command line, which has the last word; see conf/sweep."""
    n_jobs: int = 1
    """Trials at once, for launchers that take jobs by the batch; `processes` goes by its own `jobs`."""


class OptunaSweeper(Sweeper):
    """Asks Optuna for settings, has the launcher run them, and tells Optuna what came of it.

    Args:
        settings: see `OptunaSweeperConf`.
    """

    def __init__(self, **settings: object) -> None:
        self.settings = OptunaSweeperConf(**settings)  # type: ignore[arg-type]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a sweep needs."""
        self._context, self._config = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its end.

        Args:
            arguments: the command line's overrides.
        """
        study, jobs = self._begin(arguments)
        asked: list[int] = []

        def ask() -> list[str] | None:
            number, overrides = next(jobs, (None, None))
            if number is not None:
                asked.append(number)
            return overrides

        if hasattr(self._launcher, "launch_each"):
            self._launcher.launch_each(ask, lambda place, value: study.tell(asked[place], value), study.left)
        else:
            self._in_batches(study, jobs)
        print(f"study: {study.summary()}", flush=True)
        if best := study.best():
            chosen = " ".join(f"{key}={value}" for key, value in best.params.items())
            print(f"best: {chosen}, objective {best.value:.6g} (trial {best.number})", flush=True)

    def _begin(self, arguments: list[str]) -> "tuple[SweepStudy, Iterator[tuple[int, list[str]]]]":
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise HydraException("hydra/sweeper=optuna needs Optuna 5: pip install 'qa_lm[optuna]'") from None
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from hydra_plugins.qa_lm_optuna._space import as_override, search_space
        from hydra_plugins.qa_lm_optuna._study import NAME, SweepStudy
        from hydra_plugins.qa_lm_processes._points import quoted

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        given = [*(f"{key}={value}" for key, value in self.settings.params.items()), *arguments]
        space, fixed = search_space(parser.parse_overrides(given))
        folder = Path(str(self._config.hydra.sweep.dir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._config, folder / "multirun.yaml")
        own = self.settings
        study = SweepStudy(
            folder, space, own.n_trials, self._direction(), own.seed, own.startup_trials, self._pruning()
        )

        def jobs() -> Iterator[tuple[int, list[str]]]:
            while (trial := study.ask()) is not None:
                chosen = [as_override(key, value) for key, value in trial.params.items()]
                # Where the job's callback finds its trial: qa_lm/training/callbacks/pruning.py.
                told = {"STORAGE": quoted(str(study.journal)), "STUDY": NAME, "TRIAL": str(trial.number)}
                told_by = [f"++hydra.job.env_set.QA_LM_OPTUNA_{name}={value}" for name, value in told.items()]
                yield trial.number, [*fixed, *chosen, *told_by]

        return study, jobs()

    def _in_batches(self, study: "SweepStudy", jobs: "Iterator[tuple[int, list[str]]]") -> None:
        done = 0
        while batch := list(islice(jobs, self.settings.n_jobs)):
            returns = self._launcher.launch([overrides for _, overrides in batch], initial_job_idx=done)
            done += len(batch)
            for (number, _), found in zip(batch, returns, strict=True):
                failed = found.status is not JobStatus.COMPLETED
                study.tell(number, None if failed or found.return_value is None else float(found.return_value))

    def _direction(self) -> "Direction":
        given = self.settings.direction
        if given not in (None, "minimize", "maximize"):
            raise HydraException(f"hydra.sweeper.direction={given}: must be minimize or maximize")
        mode = OmegaConf.select(self._config, "monitor_mode", default="min")
        larger_is_better = str(getattr(mode, "value", mode)) == "max" if given is None else given == "maximize"
        return "maximize" if larger_is_better else "minimize"

    def _pruning(self) -> "Pruning | None":
        from hydra_plugins.qa_lm_optuna._study import Pruning

        if not self.settings.prune:
            return None
        most = self.settings.max_epochs or OmegaConf.select(self._config, "trainer.max_epochs", default=None)
        whole = isinstance(most, int) and most >= self.settings.min_epochs
        return Pruning(self.settings.min_epochs, most if whole else "auto", self.settings.reduction_factor)


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="qa_lm")
