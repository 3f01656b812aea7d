"""From a sweeper's overrides to jobs: composed, checked and named before anything runs."""

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

from qa_lm.sweeps.processes.jobs import Job, Record

KEY_DIGITS = 10
"""40 bits: among ten thousand jobs two share a key with probability 5e-5."""
LONGEST_NAME = 100
OF_THE_SWEEP = ("hydra.mode", "hydra.run.", "hydra.sweep.", "hydra.sweeper", "hydra.launcher", "hydra/")
"""Overrides of the sweep that its jobs do not get."""
LONG_NUMBER = re.compile(r"\d+\.\d{5,}(e[+-]?\d+)?")


@dataclass(frozen=True)
class Script:
    """What the script gives to the launcher; see `register_plugins`."""

    identity: Callable[[DictConfig], str]
    ended: Callable[[Path], None] | None
    program: list[str] | None


class JobFactory:
    """Makes jobs from overrides.

    Args:
        context: Hydra's, with its config loader.
        config: the composed configuration of the sweep.
        sweep: the sweep folder.
        script: what the script gives to the launcher.
        resume: an override that makes a job resume what is in its folder.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, sweep: Path, script: Script, resume: str | None
    ) -> None:
        self.context, self.config, self.sweep, self.script, self.resume = context, config, sweep, script, resume
        self._swept = _swept_keys(config)

    def job(self, overrides: Sequence[str], number: int) -> Job:
        """Make a job; it writes nothing.

        Args:
            overrides: all overrides of the job, from the sweeper.
            number: its place in the sweep, from 0.

        Raises:
            Exception: Hydra's or the identity function's, about a configuration that is wrong.
        """
        key = hashlib.sha256(self._identity(overrides, number).encode()).hexdigest()[:KEY_DIGITS]
        swept = [each for each in overrides if _key(each) in self._swept and not each.startswith("hydra.")]
        words = [_short(each) for each in swept]
        name = "_".join(re.sub(r"[^\w.+-]+", "-", word).strip("-") for word in words)[:LONGEST_NAME]
        # An earlier sweep over other settings may have given the folder another name.
        folder = next(iter(sorted(self.sweep.glob(f"*{key}"))), self.sweep / (f"{name}_{key}" if name else key))
        return Job(number, " ".join(words) or key, folder, Record(key, list(overrides), [_key(each) for each in swept]))

    def _identity(self, overrides: Sequence[str], number: int) -> str:
        composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(composed)  # ${hydra:...} looks there
        try:
            with open_dict(composed):
                task = composed.copy()
                del task["hydra"]
            return self.script.identity(task)
        finally:
            HydraConfig.instance().cfg = before

    def command(self, job: Job) -> list[str]:
        """The command line of a job's process."""
        of_hydra = [str(each) for each in self.config.hydra.overrides.hydra if not str(each).startswith(OF_THE_SWEEP)]
        given = [*of_hydra, *job.record.overrides, *([self.resume] if self.resume else [])]
        program = self.script.program or _started_program()
        return [sys.executable, *program, *_hydra_flags(), *given, f"hydra.run.dir={quoted(str(job.folder))}"]


def _started_program() -> list[str]:
    """The words after `python` that start this script, or module, again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]


def resume_command(sweep: Path) -> str:
    """The command that resumes this sweep: what the user typed, with the sweep folder."""
    typed = [each for each in sys.orig_argv if not each.startswith("hydra.sweep.dir=")]
    if sys.argv[0].startswith("qa-lm "):  # the installed command, which Python started by the path of a script
        typed = ["qa-lm", *typed[typed.index("train") :]]
    return join([*typed, f"hydra.sweep.dir={quoted(str(sweep))}"])


def quoted(text: str) -> str:
    """Text as a value in Hydra's grammar, in quotes only where it needs them."""
    if re.fullmatch(r"[\w./+-]+", text, flags=re.ASCII):
        return text
    return QuotedString(text, Quote.single).with_quotes()


def _swept_keys(config: DictConfig) -> set[str]:
    """Keys that differ between jobs."""
    given = [str(each) for each in config.hydra.overrides.task]
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    parsed = OverridesParser.create().parse_overrides(given)
    return {each.get_key_element().lstrip("+~") for each in parsed if each.is_sweep_override()} | {
        str(key).lstrip("+~") for key in params
    }


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _short(override: str) -> str:
    """The override with only the last part of its key, and long numbers rounded to four digits."""
    key, _, value = override.partition("=")
    value = LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", value)
    return f"{key.lstrip('+~').rpartition('.')[2]}={value}"


def _hydra_flags() -> list[str]:
    """Hydra's flags that choose configuration files, as this process got them."""
    given = get_args_parser().parse_args()
    flags = {"--config-path": given.config_path, "--config-name": given.config_name, "--config-dir": given.config_dir}
    return [word for flag, value in flags.items() if value is not None for word in (flag, value)]
