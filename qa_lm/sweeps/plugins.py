"""Register `hydra/launcher=processes` and `hydra/sweeper=optuna` with Hydra; their settings are in `qa_lm.config`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from qa_lm.sweeps.optuna.sweeper import OptunaSweeper
from qa_lm.sweeps.processes.factory import Script
from qa_lm.sweeps.processes.launcher import ProcessLauncher


def register_plugins(
    identity: Callable[[DictConfig], str],
    ended: Callable[[Path], None] | None = None,
    program: list[str] | None = None,
    modules: Sequence[str] = (),
) -> None:
    """Register the launcher and the sweeper. Call it before `hydra.main` runs, and again to change the arguments.

    Args:
        identity: called with each job's composed configuration before any job starts. It raises an error if the
            configuration is invalid, and returns a text that identifies the job.
        ended: called with the sweep folder when all jobs have ended.
        program: arguments of `python` that start a job; by default those that started this process.
        modules: what a job imports. On Linux, jobs are forked from a process that has imported them, and begin sooner.
            Importing them must start no threads. Without modules each job is a new process.
    """
    ProcessLauncher.script = Script(identity, ended, program, modules)
    plugins = Plugins.instance()
    for plugin in (ProcessLauncher, OptunaSweeper):
        plugins.register(plugin)
        # Hydra creates launchers and sweepers only by names that start with "hydra_plugins.". This alias does, and the
        # class stays importable: launchers for clusters pickle it by reference.
        plugins.class_name_to_class[f"hydra_plugins.qa_lm.{plugin.__name__}"] = plugin
