"""Create jobs from a sweeper's overrides. All are composed, checked and named before any of them runs."""

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from qa_lm.sweeps.processes.forks import can_fork
from qa_lm.sweeps.processes.jobs import Job, Record

KEY_DIGITS = 10
"""Hexadecimal digits of a key. With 40 bits, two of ten thousand jobs share a key with a probability of 5e-5."""
MAX_NAME = 100
SWEEP_ONLY = ("hydra.mode", "hydra.run.", "hydra.sweep.", "hydra.sweeper", "hydra.launcher", "hydra/")
"""Overrides of the sweep that are not passed to its jobs."""
LONG_NUMBER = re.compile(r"\d+\.\d{5,}(e[+-]?\d+)?")


@dataclass(frozen=True)
class Script:
    """What the script passes to the launcher; see `register_plugins`."""

    identity: Callable[[DictConfig], str]
    ended: Callable[[Path], None] | None
    program: list[str] | None
    modules: Sequence[str] = ()


class JobFactory:
    """Creates jobs from overrides.

    Args:
        context: Hydra's context, with its config loader.
        config: the composed configuration of the sweep.
        sweep: the sweep folder.
        script: what the script passes to the launcher.
        resume: the override that makes a job resume the run in its folder.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, sweep: Path, script: Script, resume: str | None
    ) -> None:
        self.context, self.config, self.sweep, self.script, self.resume = context, config, sweep, script, resume
        self._swept = _swept_keys(config)

    def job(self, overrides: Sequence[str], number: int) -> Job:
        """Create a job, without writing anything.

        Args:
            overrides: all overrides of the job, from the sweeper.
            number: number of the job in the sweep, from 0.

        Raises:
            Exception: the configuration is invalid, according to Hydra or to the identity function.
        """
        swept = [each for each in overrides if _key(each) in self._swept and not each.startswith("hydra.")]
        # A budget does not make it another job, unless that is what differs between the jobs.
        budgets = [each for each in swept if _key(each).startswith("budget.")]
        identity = "".join([self._identity(overrides, number), *budgets])
        key = hashlib.sha256(identity.encode()).hexdigest()[:KEY_DIGITS]
        labels = [_short(each) for each in swept]
        name = "_".join(re.sub(r"[^\w.+-]+", "-", label).strip("-") for label in labels)[:MAX_NAME]
        # An earlier sweep over other settings may have named the folder differently.
        folder = next(iter(sorted(self.sweep.glob(f"*{key}"))), self.sweep / (f"{name}_{key}" if name else key))
        return Job(
            number, " ".join(labels) or key, folder, Record(key, list(overrides), [_key(each) for each in swept])
        )

    def _identity(self, overrides: Sequence[str], number: int) -> str:
        composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(composed)  # ${hydra:...} is resolved there
        try:
            with open_dict(composed):
                task = composed.copy()
                del task["hydra"]
            return self.script.identity(task)
        finally:
            HydraConfig.instance().cfg = before

    def command(self, job: Job) -> list[str]:
        """Return the command line of a job's process."""
        of_hydra = [str(each) for each in self.config.hydra.overrides.hydra if not str(each).startswith(SWEEP_ONLY)]
        given = [*of_hydra, *job.record.overrides, *([self.resume] if self.resume else [])]
        return [sys.executable, *self.program(), *_hydra_flags(), *given, f"hydra.run.dir={quoted(str(job.folder))}"]

    def program(self) -> list[str]:
        """Return the arguments of `python` that start a job, without its settings."""
        return self.script.program or _started_program()

    def can_fork(self) -> bool:
        """Whether the jobs can be forked from a process that has imported the modules of the script."""
        # Libraries read the number of threads when they are imported. Hydra sets these variables only in the jobs.
        late = [*(OmegaConf.select(self.config, "hydra.job.env_set") or {}), *self.config.hydra.overrides.hydra]
        return bool(self.script.modules) and can_fork(self.program()) and "NUM_THREADS" not in " ".join(map(str, late))


def _started_program() -> list[str]:
    """Arguments of `python` that start this script, or module, again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]


def resume_command(sweep: Path) -> str:
    """Return the command that resumes this sweep: what the user typed, with the sweep folder."""
    typed = [each for each in sys.orig_argv if not each.startswith("hydra.sweep.dir=")]
    if sys.argv[0].startswith("qa-lm "):  # the installed command, a script that Python started by its path
        typed = ["qa-lm", *typed[typed.index("train") :]]
    return join([*typed, f"hydra.sweep.dir={quoted(str(sweep))}"])


def quoted(text: str) -> str:
    """Format text as a value in Hydra's grammar, quoted only if necessary."""
    if re.fullmatch(r"[\w./+-]+", text, flags=re.ASCII):
        return text
    return QuotedString(text, Quote.single).with_quotes()


def _swept_keys(config: DictConfig) -> set[str]:
    """Return the keys that differ between jobs."""
    given = [str(each) for each in config.hydra.overrides.task]
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    parsed = OverridesParser.create().parse_overrides(given)
    return {each.get_key_element().lstrip("+~") for each in parsed if each.is_sweep_override()} | {
        str(key).lstrip("+~") for key in params
    }


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _short(override: str) -> str:
    """Shorten an override: the last part of its key, and long numbers rounded to four digits."""
    key, _, value = override.partition("=")
    value = LONG_NUMBER.sub(lambda number: f"{float(number[0]):.4g}", value)
    return f"{key.lstrip('+~').rpartition('.')[2]}={value}"


def _hydra_flags() -> list[str]:
    """Return Hydra's flags for configuration files, as passed to this process."""
    given = get_args_parser().parse_args()
    flags = {"--config-path": given.config_path, "--config-name": given.config_name, "--config-dir": given.config_dir}
    return [word for flag, value in flags.items() if value is not None for word in (flag, value)]
