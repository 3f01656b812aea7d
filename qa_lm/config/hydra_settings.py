"""Hydra's own settings: those of sweeps, and a check that they name no third-party code.

The command line, `conf/` and the folder of `--config-dir` belong to the user, but they may be copied from someone else.
So a class is accepted by the package it comes from, as in all settings: below `hydra`, Hydra and its plugins.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from qa_lm.errors import UserError

CODE = ("_target_", "class", "()")
"""Keys below `hydra` whose values Hydra and Python's logging import and call."""
# No dot before the class: `hydra.utils.os.system` would reach what a module of Hydra imports.
ALLOWED = re.compile(
    r"hydra\._internal\.core_plugins\.basic_\w+\.Basic\w+|hydra_plugins\.qa_lm\.\w+"
    r"|hydra_plugins\.\w+\.\w+\.\w*(Launcher|Sweeper|Conf|Config)|optuna\.samplers\.\w+Sampler"
    r"|logging\.(Stream|File|Null)Handler|colorlog\.ColoredFormatter"
)
VARIABLES = re.compile("CUDA_VISIBLE_DEVICES|(MKL|OMP)_NUM_THREADS|TOKENIZERS_PARALLELISM|QA_LM_OPTUNA_[A-Z]+")
"""Environment variables that settings may set. Others, such as PATH, decide which programs run."""


@dataclass
class ProcessLauncherConf:
    """The settings `hydra.launcher.*` of `hydra/launcher=processes`."""

    _target_: str = "hydra_plugins.qa_lm.ProcessLauncher"
    jobs: int = 1
    """Maximum number of jobs at once; they share cores and GPUs."""
    resume: str | None = "resume=auto"
    """Override that makes the script resume what is in its run folder; null for a script without one."""
    fork: bool = True
    """Start jobs as forks of one process that has imported everything, on Linux; false starts each from scratch."""


@dataclass
class OptunaSweeperConf:
    """The settings `hydra.sweeper.*` of `hydra/sweeper=optuna`."""

    _target_: str = "hydra_plugins.qa_lm.OptunaSweeper"
    n_trials: int = 20
    """Trials of the study, including failed and pruned ones, over all starts."""
    direction: str | None = None
    """`minimize` or `maximize` the objective; null follows the setting `monitor_mode`, and minimizes without one."""
    seed: int = 42
    """Seed of the sampler."""
    startup_trials: int = 10
    """Random trials before TPE chooses."""
    prune: bool = True
    """Stop jobs that do worse than others after the same number of epochs (Hyperband)."""
    min_epochs: int = 1
    """Epochs that every job may train."""
    max_epochs: int | None = None
    """Epochs of a whole job; null follows the setting `trainer.max_epochs`."""
    reduction_factor: int = 3
    """One job in this many continues at each of Hyperband's rungs."""
    params: dict[str, Any] = field(default_factory=dict)
    """Key to search space, written as on the command line, which overrides it; see conf/sweep."""
    n_jobs: int = 1
    """Trials at once for launchers that run jobs in batches; `processes` uses its own setting `jobs`."""


def register_sweep_settings() -> None:
    """Register the settings of qa_lm's launcher and sweeper with Hydra."""
    store = ConfigStore.instance()
    store.store(group="hydra/launcher", name="processes", node=ProcessLauncherConf, provider="qa_lm")
    store.store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="qa_lm")


def composed_settings(conf: Path, arguments: list[str]) -> DictConfig | None:
    """Compose the settings as Hydra will, and refuse those that would make Hydra run third-party code.

    Returns all settings, with Hydra's own below `hydra`, for a single run; None for a sweep, and for options that only
    print.

    Args:
        conf: the folder of settings.
        arguments: the command line, without the program's name.

    Raises:
        UserError: a setting names code.
        Exception: an error of Hydra about settings that it cannot compose.
    """
    options = get_args_parser().parse_args(arguments)
    if options.experimental_rerun is not None:
        raise UserError("--experimental-rerun reads a pickle, which can run any code; give the settings instead")
    if options.config_path is not None:
        raise UserError("--config-path: the settings are in conf/; add another folder with --config-dir")
    if options.shell_completion:
        return None
    search_path = create_config_search_path(str(conf))
    if options.config_dir is not None:
        if not Path(options.config_dir).is_dir():
            raise UserError(f"--config-dir={options.config_dir}: no such folder")
        folder = f"file://{os.path.abspath(options.config_dir)}"
        search_path.prepend("command-line", folder, SearchPathQuery("schema", None))  # the schema must come last
    loader = ConfigLoaderImpl(search_path)
    name = options.config_name or "train"
    settings = loader.load_configuration(name, options.overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
    for key, value in _third_party_code(OmegaConf.to_container(settings.hydra, resolve=False), "hydra"):
        raise UserError(f"{key}={value}: refused, because settings may not name code to run", key)
    params = (settings.hydra.sweeper or {}).get("params") or {}  # the sweep of a file in conf/sweep
    if "trust" in params:
        raise UserError(
            "hydra.sweeper.params.trust: allowed on the command line only: add trust=PACKAGE there", "trust"
        )
    given = OverridesParser.create(loader).parse_overrides(options.overrides)
    is_sweep = options.multirun or params or any(each.is_sweep_override() for each in given)
    only_prints = options.help or options.hydra_help or options.cfg or options.info
    return None if is_sweep or only_prints else settings


def _third_party_code(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys, with their values, that name third-party code or the programs to run."""
    below = enumerate(node) if isinstance(node, list) else node.items() if isinstance(node, dict) else ()
    for name, value in below:
        if (name in CODE and not ALLOWED.fullmatch(str(value))) or (
            key == "hydra.job.env_set" and not VARIABLES.fullmatch(str(name))
        ):
            yield f"{key}.{name}", value
        yield from _third_party_code(value, f"{key}.{name}")
