"""From a sweeper's overrides to jobs: composed, checked and named before anything runs."""

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import join

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.qa_lm_processes._jobs import Job, enter

KEY_DIGITS = 10
"""40 bits: among ten thousand jobs two share a key with probability 5e-5."""
LONGEST_NAME = 100
OF_THE_SWEEP = ("hydra.mode", "hydra.run.", "hydra.sweep.", "hydra.sweeper", "hydra.launcher", "hydra/")
"""Overrides that a job's own process is not given."""
LONG_NUMBER = re.compile(r"\d+\.\d{5,}(e[+-]?\d+)?")


class Points:
    """Makes jobs of overrides.

    Args:
        context: of the sweep, which holds Hydra's config loader.
        config: the sweep's own configuration.
        sweep: the sweep folder.
        identity, program: see `ProcessLauncher`.
    """

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        sweep: Path,
        identity: Callable[[DictConfig], str] | None,
        program: list[str] | None = None,
    ) -> None:
        self.context, self.config, self.sweep = context, config, sweep
        self.identity = identity or _resolved_yaml
        self.program = program or _started_program()
        self._swept = _swept_keys(config)

    def job(self, overrides: Sequence[str], number: int) -> Job:
        """A job of the sweep.

        Args:
            overrides: what the sweeper asks for.
            number: which job it is.

        Raises:
            whatever Hydra or the identity function raise of a configuration that is wrong.
        """
        composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(composed)  # ${hydra:...} looks there
        try:
            with open_dict(composed):
                task = composed.copy()
                del task["hydra"]
            text = self.identity(task)
        finally:
            HydraConfig.instance().cfg = before
        swept = [each for each in overrides if _key(each) in self._swept and not each.startswith("hydra.")]
        return Job(
            number,
            tuple(overrides),
            " ".join(_short(each) for each in swept),
            "_".join(re.sub(r"[^\w.+-]+", "-", _short(each)).strip("-") for each in swept)[:LONGEST_NAME],
            hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS],
            tuple(map(_key, swept)),
        )

    def enter(self, job: Job) -> Job:
        """The job, put into the sweep folder."""
        return replace(job, starts_before=enter(self.sweep, job))

    def command(self, job: Job, folder: Path, resume: str | None) -> list[str]:
        """The command line that runs a job by itself.

        Args:
            job: the job.
            folder: its folder.
            resume: an override that tells the script to go on with what is in the folder.
        """
        of_hydra = [str(each) for each in self.config.hydra.overrides.hydra if not str(each).startswith(OF_THE_SWEEP)]
        given = [*of_hydra, *job.overrides, *([resume] if resume else []), f"hydra.run.dir={quoted(str(folder))}"]
        return [sys.executable, *self.program, *_hydra_flags(), *given]


def _started_program() -> list[str]:
    """What follows `python` to start this script, or module, again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]


def go_on_command(sweep: Path) -> str:
    """What the user typed, with the sweep folder named: the command that goes on with this sweep."""
    named = [each for each in sys.orig_argv if not each.startswith("hydra.sweep.dir=")]
    return join([*named, f"hydra.sweep.dir={quoted(str(sweep))}"])


def quoted(text: str) -> str:
    """Text as a value in Hydra's grammar, quoted only where it must be."""
    if re.fullmatch(r"[\w./+-]+", text, flags=re.ASCII):
        return text
    return QuotedString(text, Quote.single).with_quotes()


def _swept_keys(config: DictConfig) -> set[str]:
    """Keys that differ from job to job."""
    given = [str(each) for each in config.hydra.overrides.task]
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    parsed = OverridesParser.create().parse_overrides(given)
    return {each.get_key_element().lstrip("+~") for each in parsed if each.is_sweep_override()} | {
        str(key).lstrip("+~") for key in params
    }


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _short(override: str) -> str:
    """The override with the last part of its key only, and numbers of four digits."""
    key, _, value = override.partition("=")
    value = LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", value)
    return f"{key.lstrip('+~').rpartition('.')[2]}={value}"


def _hydra_flags() -> list[str]:
    """The flags of Hydra's that choose configuration files."""
    given = get_args_parser().parse_args()
    flags = {"--config-path": given.config_path, "--config-name": given.config_name, "--config-dir": given.config_dir}
    return [word for flag, value in flags.items() if value is not None for word in (flag, value)]


def _resolved_yaml(task: DictConfig) -> str:
    try:
        return OmegaConf.to_yaml(task, resolve=True, sort_keys=True)
    except OmegaConfBaseException:  # an interpolation that only a running job can resolve
        return OmegaConf.to_yaml(task, sort_keys=True)
