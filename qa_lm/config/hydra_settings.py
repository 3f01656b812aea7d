"""Hydra's own settings: those of sweeps, and a check that refuses settings which would run code.

A settings file may come from someone else. Below `hydra` it could name any function: callbacks, launchers and sweepers
by `_target_`, handlers and formatters of logging by `class` and `()`. Hydra refuses only a list of known dangerous
functions, and calls the others before qa_lm runs. So the settings are composed once for this check, which accepts only
what belongs to Hydra and its plugins.
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

# Launchers and sweepers of Hydra, of this project and of Hydra's plugins, and the samplers of Optuna's.
TARGETS = re.compile(
    r"hydra\._internal\.core_plugins\.(basic_launcher\.BasicLauncher|basic_sweeper\.BasicSweeper)"
    r"|hydra_plugins\.qa_lm\.(ProcessLauncher|OptunaSweeper)"
    r"|hydra_plugins\.\w+\.\w+\.(?!RayAWSLauncher)\w*(Launcher|Sweeper|Conf|Config)"
    r"|optuna\.samplers\.\w+Sampler"
)
LOGGING = re.compile(r"logging\.(Stream|File|Null)Handler|colorlog\.ColoredFormatter")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
# Below the open keys, interpolations may only refer to Hydra's own settings and to the time.
INTERPOLATIONS = re.compile(r"\$\{(?!(hydra[.:]|now:))")
OPEN = ("launcher", "sweeper", "callbacks", "hydra_logging", "job_logging")
"""Keys of `hydra` whose contents its schema does not restrict."""
LAUNCHER = {
    "hydra.launcher.setup": (),
    "hydra.launcher.additional_parameters": ("begin", "mail-type", "mail-user", "nice", "requeue", "reservation"),
    "hydra.launcher.ray": ("init", "remote"),
    "hydra.launcher.ray.init": ("address", "include_dashboard", "log_to_driver", "num_cpus", "num_gpus"),
    "hydra.launcher.ray.remote": ("max_retries", "memory", "num_cpus", "num_gpus"),
}
"""Allowed keys below these settings of the SLURM and Ray launchers. The others can run commands: lines for the shell,
options of sbatch that name files, environments of Ray's workers."""
COMPLETION = re.compile(r"(install|uninstall|query)=(bash|fish|zsh)")
ADDRESSES = (None, "auto", "local")
"""Allowed addresses of Ray. Other machines would exchange pickles with this one; users name them by RAY_ADDRESS."""
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"),
    *("QA_LM_OPTUNA_STORAGE", "QA_LM_OPTUNA_STUDY", "QA_LM_OPTUNA_TRIAL"),
)
"""Environment variables that settings may set. Others, such as PATH, decide which programs run."""


@dataclass
class ProcessLauncherConf:
    """The settings `hydra.launcher.*` of `hydra/launcher=processes`."""

    _target_: str = "hydra_plugins.qa_lm.ProcessLauncher"
    jobs: int = 1
    """Maximum number of jobs at once; they share cores and GPUs."""
    resume: str | None = "resume=auto"
    """Override that makes the script resume what is in its run folder; null for a script without one."""


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


def refuse_code(conf: Path, arguments: list[str]) -> DictConfig | None:
    """Refuse a command line whose settings would make Hydra run third-party code.

    Returns the composed settings, with Hydra's own below `hydra`, for a single run; None for a sweep, and for options
    that only print.

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
    if options.shell_completion:  # composes settings only to complete their names
        if len(options.overrides) != 1 or not COMPLETION.fullmatch(options.overrides[0]):
            raise UserError("-sc: write -sc install=bash, or another of install, uninstall, query; bash, fish, zsh")
        return None
    search_path = create_config_search_path(str(conf))
    if options.config_dir is not None:
        if not Path(options.config_dir).is_dir():
            raise UserError(f"--config-dir={options.config_dir}: no such folder")
        folder = f"file://{os.path.abspath(options.config_dir)}"
        search_path.prepend("command-line", folder, SearchPathQuery("schema", None))  # the schema must come last
    loader = ConfigLoaderImpl(search_path)
    name = options.config_name or "train"

    def composed(overrides: list[str]) -> DictConfig:
        config = loader.load_configuration(name, overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
        for key, text in _code(OmegaConf.to_container(config.hydra, resolve=False)):
            raise UserError(f"{key}={text}: refused, because settings may not name code to run", key)
        return config

    settings = composed(options.overrides)
    params = (settings.hydra.sweeper or {}).get("params") or {}  # the sweep of a file in conf/sweep
    given = OverridesParser.create(loader).parse_overrides(options.overrides)
    keys = {each.get_key_element() for each in given}
    if "trust" in params:
        raise UserError(
            "hydra.sweeper.params.trust: allowed on the command line only: add trust=PACKAGE there", "trust"
        )
    swept = [f"{key}={value}" for key, value in params.items() if key not in keys]
    for overrides in _jobs(loader, [*swept, *options.overrides]):
        composed(overrides)
    only_prints = options.help or options.hydra_help or options.cfg or options.info
    one = not (options.multirun or swept or only_prints or any(each.is_sweep_override() for each in given))
    return settings if one else None


def _jobs(loader: ConfigLoaderImpl, overrides: list[str]) -> Iterator[list[str]]:
    """Yield the overrides for each choice in a sweep over a group, because each choice adds a file."""
    for place, override in enumerate(OverridesParser.create(loader).parse_overrides(overrides)):
        if override.is_discrete_sweep() and loader.get_group_options(override.key_or_group):
            key = override.input_line.partition("=")[0] if override.input_line else override.key_or_group
            for choice in override.sweep_string_iterator():
                yield [*overrides[:place], f"{key}={choice}", *overrides[place + 1 :]]


def _code(settings: Any) -> Iterator[tuple[str, str]]:
    """Yield the keys, with their values, that run code or could run it."""
    for name in OPEN:
        yield from _code_below(settings.get(name), f"hydra.{name}")
    for name in ("launcher", "job", "sweep"):  # a line break would end the comment that sbatch reads an option from
        yield from _commands_below(settings.get(name), f"hydra.{name}")
    yield from ((f"hydra.callbacks.{name}", str(value)) for name, value in (settings.get("callbacks") or {}).items())
    for name, value in (settings["job"].get("env_set") or {}).items():
        if name not in VARIABLES:
            yield f"hydra.job.env_set.{name}", str(value)


def _commands_below(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        allowed = LAUNCHER.get(key)
        for name, value in node.items():
            below = f"{key}.{name}"
            elsewhere = below == "hydra.launcher.ray.init.address" and value not in ADDRESSES
            if elsewhere or (value and allowed is not None and name not in allowed):
                yield below, str(value)
            elif "\n" in str(name):
                yield f"{key}.{name!r}", repr(value)
            else:
                yield from _commands_below(value, below)
    elif isinstance(node, list):
        if node and LAUNCHER.get(key) == ():
            yield key, str(node)
    elif isinstance(node, str) and ("\n" in node or (node and LAUNCHER.get(key) == ())):
        yield key, repr(node)


def _code_below(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            below = f"{key}.{name}"
            allowed = TARGETS if name == "_target_" else LOGGING if name in ("()", "class") else None
            if allowed and not allowed.fullmatch(str(value)):
                yield below, str(value)
            else:
                yield from _code_below(value, below)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _code_below(value, f"{key}.{number}")
    elif isinstance(node, str) and (
        INTERPOLATIONS.search(node) or (node.startswith(("ext://", "cfg://")) and node not in STREAMS)
    ):
        yield key, node
