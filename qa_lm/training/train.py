"""One training run: settings in, run folder and result out.

    prepare -> resolve -> build -> measure -> fit -> finish

Each stage takes what the ones before returned. From `measure` on the settings are final; they are written right before
`fit`.
"""

import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from qa_lm.config.compose import resolved_yaml
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.config.validate import check_values, nothing_held_out, without_validation
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.data.split_file import write_split
from qa_lm.inference.export import export_architecture
from qa_lm.modeling.causal_lm import hidden_states
from qa_lm.run import run_folder
from qa_lm.run.atomic import write_json, write_text
from qa_lm.run.environment import describe_environment
from qa_lm.run.lock import run_lock
from qa_lm.training.announcement import announce, announce_expectation
from qa_lm.training.build import Parts, build_parts
from qa_lm.training.checkpointing.interruption import TIME_LIMIT_SIGNALS, Interrupted, exit_on_signals, requeue
from qa_lm.training.checkpointing.resume import (
    RunState,
    check_same_data,
    check_same_model,
    delete_final_files,
    read_run_state,
)
from qa_lm.training.custom import CustomParts, with_targets
from qa_lm.training.estimate import Expectation, expect
from qa_lm.training.logging.hyperparameters import compared_hyperparameters, flat_hyperparameters
from qa_lm.training.logging.tensorboard import log_begin
from qa_lm.training.memory import as_out_of_memory
from qa_lm.training.precision import choose_precision, device_of
from qa_lm.training.recipe import completed
from qa_lm.training.results import Course, TrainingResult, finish
from qa_lm.training.trainer import Loop, build_loop


class OtherProcess(SystemExit):
    """Training is over in a process that is not the first of several: the first writes what follows."""


def train(
    config: TrainConfig,
    folder: Path,
    *,
    custom: CustomParts | None = None,
    handle_signals: bool = False,
) -> TrainingResult:
    """Train, keep the best model, ask it the questions, and fill the run folder.

    Where the folder holds a run that was interrupted, and `config.resume` says so, that run is resumed.

    Args:
        config: all settings.
        folder: the run folder; made if it is not there.
        custom: the user's own parts, beside those that the settings name.
        handle_signals: whether Ctrl-C and SIGTERM finish the step that runs and save it, as in a script that ends
            then. If not, the process's own handlers stay.

    Raises:
        UserError: the settings or the data are wrong, or another process writes the folder; nothing has been written.
        OtherProcess: after training, in all processes except the first; a `SystemExit` with code 0.
        Interrupted: with `handle_signals`, on SIGTERM; a `SystemExit` with code 143.
        KeyboardInterrupt: Ctrl-C. After both, with `handle_signals`, `checkpoints/last.ckpt` holds what was trained.
        FailedWrite: a checkpoint cannot be written; those before are as they were.
        OutOfMemory: memory is used up.
    """
    check_values(config)
    check_trainer_arguments(config.trainer)
    first = getattr(rank_zero_only, "rank", 0) == 0  # of several processes the first writes
    if nothing_held_out(config.data) and config.monitor.startswith("val/"):
        config = without_validation(config)
        if first:
            print("no validation: the best checkpoint is chosen by train/recall, and nothing stops training early")
    signals = exit_on_signals() if handle_signals else nullcontext()
    with signals, run_lock(folder) if first else nullcontext():
        try:
            return _train(config, folder, first, custom or CustomParts(), handle_signals)
        except (MemoryError, RuntimeError, OSError) as error:
            if words := as_out_of_memory(error, config):
                raise words from None
            raise


def _train(
    config: TrainConfig,
    folder: Path,
    first: bool,
    custom: CustomParts,
    handle_signals: bool,
) -> TrainingResult:
    started = time.perf_counter()
    custom = with_targets(custom, config)
    run = read_run_state(folder, config, verbose=first)
    precision = choose_precision(config.trainer)
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    environment = describe_environment(config.seed, prepared.fingerprints())
    if run.exists:
        check_same_data(folder, environment, verbose=first)
    config = completed(config, prepared.sizes())
    config = replace(config, resume=None, trainer={**config.trainer, "precision": precision.name})
    loop = build_loop(config, folder, prepared, run.step, custom, handle_signals)
    parts = build_parts(config, prepared, loop.trainer, custom)
    if run.checkpoint:
        check_same_model(run.checkpoint, parts.module)
    if first:
        announce(config, prepared, parts, loop.trainer, precision.reason)
    measure_started = time.perf_counter()
    expectation = _measure(config, parts, loop, run)
    config = replace(config, compile=parts.module.hidden_states is not hidden_states)
    measure_seconds = time.perf_counter() - measure_started
    if first:
        _write_beginning(config, folder, prepared, parts, environment, run)
    log_begin(loop.trainer, compared_hyperparameters(config, folder), flat_hyperparameters(config))
    fit_started = time.perf_counter()
    _fit(loop, parts, run.checkpoint)
    course = Course(started, measure_seconds, time.perf_counter() - fit_started, run.step, expectation)
    if not first:
        raise OtherProcess(0)
    return finish(config, folder, prepared, parts, loop, course)


def _measure(config: TrainConfig, parts: Parts, loop: Loop, run: RunState) -> Expectation | None:
    """Compile the network if it is wanted or pays; estimate time and memory from a few steps and print them.

    None for a resumed run, for several processes, and without packing: other shapes differ from step to step.
    """
    alone = loop.trainer.world_size == 1
    if config.compile and (run.checkpoint or not alone):
        parts.module.compile_network()
    if run.checkpoint or not alone or not config.data.packing or not parts.expected_epochs:
        return None
    device, epochs = device_of(config.trainer), parts.expected_epochs
    every = config.checkpoint.every_seconds
    found = expect(parts.module, parts.data, config.trainer["precision"], device, epochs, config.compile, every)
    announce_expectation(config, found)
    return found


def _write_beginning(
    config: TrainConfig,
    folder: Path,
    prepared: PreparedData,
    parts: Parts,
    environment: dict[str, Any],
    run: RunState,
) -> None:
    """The files of a run that begins, its settings last: a folder without them holds no run."""
    run_folder.clear_leftovers(folder)  # also of a process that was killed before this was a run
    if run.exists:
        delete_final_files(folder)
    else:
        architecture = folder / run_folder.CHECKPOINTS / run_folder.MODEL
        export_architecture(parts.module.model, prepared.tokenizer, prepared.template, architecture)
        write_json(folder / run_folder.ENVIRONMENT, environment)
        write_json(folder / run_folder.DATA_REPORT, prepared.report.as_dict())
        write_split(folder / run_folder.SPLIT, prepared.table, prepared.split)
    write_text(folder / run_folder.CONFIG, resolved_yaml(config))


def _fit(loop: Loop, parts: Parts, checkpoint: Path | None) -> None:
    try:
        loop.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
    except Interrupted as end:  # last.ckpt is saved
        if end.number in TIME_LIMIT_SIGNALS and loop.trainer.is_global_zero:
            print(requeue(), flush=True)
        if end.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    except SystemExit:  # how Lightning ends on a Ctrl-C before training
        if loop.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
