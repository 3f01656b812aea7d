"""Hydra's knowledge of `hydra/launcher=processes` and `hydra/sweeper=optuna`; their settings are in `qa_lm.config`."""

from collections.abc import Callable
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
) -> None:
    """Register the launcher and the sweeper; call it before `hydra.main` runs, and again to change the arguments.

    Args:
        identity: gets each job's composed configuration before any job starts. It raises if the configuration is
            wrong, and returns a text that is equal for equal jobs.
        ended: gets the sweep folder once all jobs are over.
        program: the words after `python` that start a job; by default those that started this process.
    """
    ProcessLauncher.script = Script(identity, ended, program)
    plugins = Plugins.instance()
    for plugin in (ProcessLauncher, OptunaSweeper):
        plugins.register(plugin)
        # Hydra makes launchers and sweepers only by names that begin with "hydra_plugins.". An alias satisfies it, and
        # leaves the class where it can be imported: launchers for clusters pickle it by reference.
        plugins.class_name_to_class[f"hydra_plugins.qa_lm.{plugin.__name__}"] = plugin
