"""Train: `python scripts/train.py [group=choice] [key=value] [-m]`; docs/configuration.md has the settings."""

import logging
import math
import os
import sys
import traceback
from enum import Enum
from pathlib import Path

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from qa_lm.commands.exit_codes import discard_output, print_any_text
from qa_lm.config.arguments import config_dir, hydra_arguments
from qa_lm.config.compose import (
    conf_folder,
    implied_choices,
    read_config,
    register_schema,
    with_quoted_templates,
)
from qa_lm.config.explain import Folders, explain, is_configuration_error
from qa_lm.config.hydra_settings import composed_settings
from qa_lm.config.overrides import checked, without_hydra
from qa_lm.config.resume import resume_argument, resumed_config, run_folder_override
from qa_lm.config.schema import TrainConfig
from qa_lm.config.targets import failure_in_trusted
from qa_lm.config.validate import check_values
from qa_lm.data.sources import source_name
from qa_lm.errors import FailedWrite, JobFailed, LostProcess, OutOfMemory, UserError, sanitize
from qa_lm.quick_start import without_garbage_collection
from qa_lm.run import run_folder
from qa_lm.run.process_start import process_start
from qa_lm.sweeps.identity import job_identity
from qa_lm.sweeps.plugins import register_plugins
from qa_lm.threads import spin_briefly
from qa_lm.training.distributed.launch import check_run_folder, with_launch
from qa_lm.training.early_checks import check_early

CONF = conf_folder()

TRACEBACK = "QA_LM_TRACEBACK"
"""Environment variable that shows workers of a cluster whether the user set HYDRA_FULL_ERROR; `main` sets that too."""
WANTS_TRACEBACK = os.environ.get(TRACEBACK, os.environ.get("HYDRA_FULL_ERROR")) == "1"


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Environment variables with the number of this process among those that train together."""


class Failure(Enum):
    """Why a job ended without a result."""

    refused = "the settings are invalid"
    failed = "a file could not be written, memory was exhausted, own code raised an error, or training diverged"


ended: list[Failure] = []
"""Failed jobs: at most one for a single run. A sweep continues after a failed job."""
_is_main = False  # `main` was called in this process


def run(composed: DictConfig) -> float:
    """Run one job: train, write the report, print the results. Returns the value that a sweeper optimises."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        return _train(composed, folder)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, KeyboardInterrupt) or end.code not in (None, 0, 2):  # 2: the first process says why
            print(_interrupted(end, folder), file=sys.stderr)
            _remove_if_empty(folder)
        raise
    except (OSError, OutOfMemory, LostProcess) as error:
        if WANTS_TRACEBACK:
            raise
        return _ended(Failure.failed, _cannot_go_on(error, folder))
    except Exception as error:
        # Hydra would print its own message about an exception.
        if not WANTS_TRACEBACK and (failure := _failure_in_own_part(error, composed, folder)):
            return _ended(Failure.failed, failure)
        if WANTS_TRACEBACK or not is_configuration_error(error):
            if _in_worker() and not isinstance(error, JobFailed):
                traceback.print_exc()  # tracebacks are not sent back with the error
            raise
        _remove_if_empty(folder)
        return _ended(
            Failure.refused, explain(error, _folders(HydraConfig.get()), list(HydraConfig.get().overrides.task))
        )


def main(program: list[str] | None = None) -> int:
    """Run Hydra, and print one or two lines for errors that the user can fix. Returns the exit code.

    Args:
        program: arguments of `python` that start a job of a sweep; None for the current script.
    """
    global _is_main
    _is_main = True
    spin_briefly()
    print_any_text()
    register_schema()
    register_plugins(job_identity, sweep_ended, program, ["qa_lm.commands.train", "qa_lm.sweeps.warm_up"])
    os.environ[TRACEBACK] = str(int(WANTS_TRACEBACK))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise exceptions instead of printing them
    sys.argv[1:] = with_quoted_templates(sys.argv[1:])
    try:
        sys.argv[1:] = hydra_arguments(sys.argv[1:])
        folder = resume_argument(sys.argv[1:])
        sys.argv[1:1] = [run_folder_override(folder)] if folder else implied_choices(sys.argv[1:], CONF)  # before -m
        settings = composed_settings(CONF, sys.argv[1:])
        if settings is not None and settings.resume is None:
            # Catches most mistakes early: Hydra composes twice more before `run`.
            settings, hydras = without_hydra(settings)
            check_early(checked(settings, hydras, _folders(hydras)))
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(run)()
        sys.stdout.flush()
    except JobFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        discard_output()
    except Exception as error:
        if WANTS_TRACEBACK or not is_configuration_error(error):
            raise
        print(f"error: {explain(error, Folders(CONF, config_dir(sys.argv[1:])), sys.argv[1:])}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 2 if Failure.refused in ended else 1 if Failure.failed in ended else 0


def sweep_ended(folder: Path) -> None:
    """Print and write the report of a sweep. The launcher calls it when all jobs have ended."""
    from qa_lm.reporting.sweep.report import write_sweep_report

    try:
        print(f"\n{write_sweep_report(folder)}", flush=True)
    except UserError as error:
        print(f"warning: the report of the sweep could not be written: {error}", file=sys.stderr)


def _train(composed: DictConfig, folder: Path) -> float:
    config = checked(composed, HydraConfig.get(), _folders(HydraConfig.get()))
    sweep = HydraConfig.get().runtime.choices.get("sweep")
    if sweep and HydraConfig.get().mode is RunMode.RUN and config.resume is None:  # jobs of a sweep have resume=auto
        raise UserError(f"sweep={sweep}: is a sweep: add -m")
    if config.resume is not None and (folder / run_folder.CONFIG).is_file():
        before = read_config(folder / run_folder.CONFIG)
        config = resumed_config(folder, config, list(HydraConfig.get().overrides.task))
        check_values(config)
        from qa_lm.training.checkpointing.resume import completed_run

        if over := completed_run(folder, before, config):
            if over.diverged:
                return _ended(Failure.failed, over.message)
            print(over.message, flush=True)
            return math.nan
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # its first import would log that it lists fonts
    check_early(config)
    with_launch(config.trainer, os.environ)
    check_run_folder(list(HydraConfig.get().overrides.hydra), os.environ)
    _print_start(config)
    # Imported late, so that configuration errors are reported within a second.
    with without_garbage_collection():
        from qa_lm.reporting.loss_curve import draw_loss_curve
        from qa_lm.reporting.run.command import COMMAND
        from qa_lm.reporting.run.next_steps import Terminal, next_steps
        from qa_lm.reporting.run.report import write_report
        from qa_lm.reporting.run.table import answers_table
        from qa_lm.training.checkpointing.interruption import exit_on_next_signal
        from qa_lm.training.hardware import tune_allocator
        from qa_lm.training.train import train
        from qa_lm.training.trainer import quiet_lightning

    # This process only trains, so its allocator, warnings and signal handlers may be changed.
    quiet_lightning()
    tune_allocator(config.trainer)
    try:
        result = train(config, folder, handle_signals=True, started=_started())
    except (KeyboardInterrupt, SystemExit):
        exit_on_next_signal()  # while this script and Hydra exit
        raise
    draw_loss_curve(folder)
    write_report(folder)
    terminal = Terminal(
        Path(HydraConfig.get().runtime.cwd), None if sys.argv[0] == COMMAND else CONF.parent / "scripts"
    )
    print(f"\n{answers_table(folder)}\n\n{next_steps(folder, terminal)}\n\n{folder}", flush=True)
    if result.metrics["diverged"]:
        message = f"training diverged: too many consecutive updates were not finite (see above); {folder}"
        return _ended(Failure.failed, message)
    return result.objective


def _print_start(config: TrainConfig) -> None:
    """Print what is trained, before the imports that take seconds; only in the first of several processes."""
    if any(os.environ.get(name, "0") != "0" for name in RANKS):
        return
    experiment = HydraConfig.get().runtime.choices.get("experiment")
    print(
        sanitize(f"starting: {source_name(config.data)}{f', experiment={experiment}' if experiment else ''}"),
        flush=True,
    )


def _folders(hydra: HydraConf) -> Folders:
    """Return the configuration folders of a job."""
    sources = [each.path for each in hydra.runtime.config_sources if each.provider == "command-line"]
    return Folders(CONF, Path(sources[0]) if sources else None)


def _ended(failure: Failure, message: str) -> float:
    """Record and print the failure of a job. In a worker of a cluster, also raise it: Hydra raises it again where the
    sweep was started, when all jobs have ended."""
    ended.append(failure)
    print(f"error: {message}", file=sys.stderr)
    if _in_worker():
        raise UserError(message) if failure is Failure.refused else JobFailed(message)
    return math.nan


def _started() -> float | None:
    """When the run started: with this process, if that runs nothing else."""
    return process_start() if _is_main and HydraConfig.get().mode is RunMode.RUN else None


def _in_worker() -> bool:
    """Whether this is a worker of submitit or Ray, which runs only `run`."""
    return not _is_main


def _interrupted(end: BaseException, folder: Path) -> str:
    how = "interrupted" if isinstance(end, KeyboardInterrupt) else "terminated"
    if not (folder / run_folder.CHECKPOINTS / run_folder.LAST).is_file():
        return f"{how}; no checkpoint was saved yet"
    return f"{how}; the checkpoint is in {folder}/checkpoints; to resume: resume={folder}"


def _cannot_go_on(error: OSError | OutOfMemory | LostProcess, folder: Path) -> str:
    if isinstance(error, OutOfMemory):
        return str(error)
    if isinstance(error, LostProcess):
        return str(error) + _kept_checkpoints(folder)
    what = str(error) if isinstance(error, FailedWrite) else f"{error.filename or folder}: {error.strerror or error}"
    return what + _kept_checkpoints(folder)


def _failure_in_own_part(error: Exception, composed: DictConfig, folder: Path) -> str | None:
    """Return one line about an error in a part of the user's own, such as a callback; None for any other error."""
    if is_configuration_error(error):
        return None
    trust = OmegaConf.to_container(composed).get("trust")  # type: ignore[union-attr]
    failure = failure_in_trusted(error, trust)
    return failure and f"{failure}; HYDRA_FULL_ERROR=1 shows the traceback{_kept_checkpoints(folder)}"


def _kept_checkpoints(folder: Path) -> str:
    kept = (folder / run_folder.CHECKPOINTS / run_folder.LAST).is_file()
    return f"; earlier checkpoints are in {folder}/checkpoints" if kept else ""


def _remove_if_empty(folder: Path) -> None:
    """Remove the empty folders that Hydra created below the working directory for a run that did not start."""
    here = Path(HydraConfig.get().runtime.cwd)
    for path in (folder, *folder.parents):
        if here not in path.parents:
            return
        try:
            path.rmdir()
        except OSError:
            return
