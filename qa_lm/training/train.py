"""`train`: one training run, from settings to a run folder and a result.

    prepare -> resolve -> build -> measure -> budget -> fit -> finish

Each stage takes the results of the former ones. From `budget` on, which chooses the epochs that fit a time, the
settings are final. They are written right before `fit`.
"""

import os
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from qa_lm.config.compose import resolved_yaml
from qa_lm.config.enums import MODEL_AS_ENCODER
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.config.validate import check_values, nothing_held_out, without_validation
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.data.splits.file import write_split
from qa_lm.inference.export import export_architecture
from qa_lm.modeling.lora import save_settings
from qa_lm.retrieval.encoder import load_encoder
from qa_lm.run import run_folder
from qa_lm.run.atomic import write_json, write_text
from qa_lm.run.environment import describe_environment
from qa_lm.run.lock import run_lock
from qa_lm.training.announcement import announce, announce_estimate
from qa_lm.training.attention import attention_for_training
from qa_lm.training.budget.apply import budgeted
from qa_lm.training.budget.guard import budget_guard, seconds_left
from qa_lm.training.budget.memory import warn_about_peak, within_memory
from qa_lm.training.budget.smaller import SmallerModel
from qa_lm.training.build import Task, build_task
from qa_lm.training.checkpointing.interruption import TIME_LIMIT_SIGNALS, Interrupted, exit_on_signals, requeue
from qa_lm.training.checkpointing.resume import (
    RunState,
    check_same_data,
    check_same_model,
    delete_final_files,
    read_run_state,
    with_batch_size_of,
)
from qa_lm.training.compilation import compile_network, is_compiled, undo_compilation
from qa_lm.training.custom import CustomParts, with_targets
from qa_lm.training.distributed.agreement import DifferentRun, SameRun, settings_digest
from qa_lm.training.distributed.collectives import disconnect, disconnect_after_failure
from qa_lm.training.distributed.failures import as_lost_process
from qa_lm.training.distributed.launch import with_launch, without_launch
from qa_lm.training.distributed.whole import empty_copy, with_whole_model
from qa_lm.training.estimate import Estimate, estimate_training
from qa_lm.training.finetune.before import Before, ask_untrained, read_before
from qa_lm.training.finetune.start import PretrainedStart, find_start, with_start
from qa_lm.training.hardware import as_out_of_memory, choose_precision, device_of, process_count
from qa_lm.training.logging.hyperparameters import compared_hyperparameters, flat_hyperparameters
from qa_lm.training.logging.loggers import build_loggers, log_begin
from qa_lm.training.recipe import completed
from qa_lm.training.results import Timing, TrainingResult, finish
from qa_lm.training.trainer import TrainerSetup, build_trainer


class OtherProcess(SystemExit):
    """Ends a process that is not the first of several after training: only the first one writes the results."""


def train(
    config: TrainConfig,
    folder: Path,
    *,
    custom: CustomParts | None = None,
    handle_signals: bool = False,
    started: float | None = None,
) -> TrainingResult:
    """Train a model, evaluate the best one, and write the run folder.

    If the folder holds an interrupted run and `config.resume` is set, that run is resumed.

    Args:
        config: all settings.
        folder: the run folder. It is created if it does not exist.
        custom: your own parts, in addition to those that the settings name.
        handle_signals: whether Ctrl-C and SIGTERM finish the current step, save and end training, as a script wants it.
            If not, the signal handlers of the process stay.
        started: when the run started, from `time.perf_counter`; None for now.

    Raises:
        UserError: the settings or the data are invalid, or another process writes the folder. Nothing was written.
        OtherProcess: after training, in all processes except the first; a `SystemExit` with code 0.
        Interrupted: with `handle_signals`, on SIGTERM; a `SystemExit` with code 143.
        KeyboardInterrupt: Ctrl-C. After both, with `handle_signals`, `checkpoints/last.ckpt` holds the trained state.
        FailedWrite: a checkpoint cannot be written. Former checkpoints are unchanged.
        OutOfMemory: memory is used up.
        LostProcess: another process of the run ended, or does not answer.
    """
    started = time.perf_counter() if started is None else started
    check_values(config)
    check_trainer_arguments(config.trainer)
    config = replace(config, trainer=with_launch(config.trainer, os.environ))
    first = getattr(rank_zero_only, "rank", 0) == 0  # only the first of several processes writes
    if nothing_held_out(config.data) and config.monitor.startswith("val/"):
        config = without_validation(config)
        if first:
            print("no validation: the best checkpoint is chosen by train/recall, and nothing stops training early")
    signals = exit_on_signals() if handle_signals else nullcontext()
    with signals, run_lock(folder) if first else nullcontext():
        try:
            try:
                return _train(config, folder, first, custom or CustomParts(), handle_signals, started)
            except SmallerModel as smaller:
                config = smaller.config
            return _train(config, folder, first, custom or CustomParts(), handle_signals, started)
        except (MemoryError, RuntimeError, OSError) as error:
            if out_of_memory := as_out_of_memory(error, config):
                raise out_of_memory from error
            if lost := as_lost_process(error):
                raise lost from error
            raise
        finally:
            disconnect_after_failure()


def _train(
    config: TrainConfig,
    folder: Path,
    first: bool,
    custom: CustomParts,
    handle_signals: bool,
    started: float,
) -> TrainingResult:
    given, guards = config, budget_guard(config, started)
    custom = with_targets(custom, config)
    run = read_run_state(folder, config, verbose=first)
    custom = replace(custom, loggers=build_loggers(config, folder, run.step, custom.loggers))
    precision = choose_precision(config.trainer)
    named = config.evaluation.encoder if first else None
    encoder = load_encoder(named) if named != MODEL_AS_ENCODER else None  # a wrong one ends the run before training
    start = find_start(config)
    if start:
        config = with_start(config, start)
    prepared = prepare(config.data, start.tokenizer if start else config.tokenizer, config.model.context)
    environment = describe_environment(config.seed, prepared.fingerprints() | (start.facts if start else {}))
    if run.exists:
        check_same_data(folder, environment, verbose=first)
    config = completed(with_batch_size_of(run, config), prepared.sizes(), process_count(config.trainer))
    config = replace(config, resume=None, trainer={**config.trainer, "precision": precision.name})
    if config.budget.memory is not None and not run.exists:  # a run that is resumed has its batches
        config, prepared = within_memory(config, given, prepared, custom, start, verbose=first)
    facts = environment | {"resumed_after_step": run.step, "settings": settings_digest(config)}
    custom = replace(custom, callbacks=[*custom.callbacks, SameRun(facts), *guards])
    setup = build_trainer(config, folder, prepared, custom, handle_signals)
    task = build_task(config, prepared, setup.trainer, custom, start)
    if run.checkpoint:
        check_same_model(run.checkpoint, task.module)
    if first:
        announce(config, prepared, task, setup.trainer, precision.reason, start)
    ask_started = time.perf_counter()
    before = _before(config, folder, prepared, task, run, start) if first and start else None
    measure_started = time.perf_counter()
    with attention_for_training(task.module.model, config):
        estimate = _measure(config, task, setup, run)
        asked_seconds = measure_started - ask_started
        config, task, estimate = budgeted(config, given, prepared, task, setup, estimate, asked_seconds)
        config = replace(config, compile=is_compiled(task.module))
        measure_seconds = time.perf_counter() - measure_started
        if first:
            _write_first_files(_stored(config, given, run), folder, prepared, task, environment, run, start, before)
        log_begin(setup.trainer, folder, compared_hyperparameters(config, folder), flat_hyperparameters(config))
        fit_started, empty = time.perf_counter(), empty_copy(task, setup.trainer)
        try:
            _fit(setup, task, run.checkpoint)
        except DifferentRun:
            if first and not run.exists:
                (folder / run_folder.CONFIG).unlink()  # so that the folder holds no run
                run_folder.remove_leftovers(folder)
            raise
        task = with_whole_model(task, setup.trainer, empty)
        disconnect(setup.trainer)
        undo_compilation(task.module)
    timing = Timing(started, measure_seconds, time.perf_counter() - fit_started, run.step, estimate)
    if not first:
        raise OtherProcess(0)
    return finish(config, folder, prepared, task, setup, timing, encoder, start, before)


def _before(
    config: TrainConfig, folder: Path, prepared: PreparedData, task: Task, run: RunState, start: PretrainedStart
) -> Before:
    """What the pretrained model knows before training; a resumed run reads it, since it is asked once."""
    saved = read_before(folder, prepared, start) if run.exists else None
    if saved:
        return saved
    with task.adapter.disable_adapter() if task.adapter else nullcontext():  # an untrained one adds only time
        return ask_untrained(task.module.model, prepared, start, config.seed, device_of(config.trainer))


def _measure(config: TrainConfig, task: Task, setup: TrainerSetup, run: RunState) -> Estimate | None:
    """Compile the network if that is wanted or pays. Estimate time and memory from a few steps, and print them.

    Returns None for a resumed run, for several processes, and without packing, where shapes differ between steps,
    unless a budget needs the estimate.
    """
    alone = setup.trainer.world_size == 1
    if config.compile and (run.checkpoint or not alone):
        compile_network(task.module)
    is_worth = config.data.packing or config.budget.time is not None
    if run.checkpoint or not alone or not is_worth or not task.estimated_epochs:
        return None
    device, epochs = device_of(config.trainer), task.estimated_epochs
    every, left = config.checkpoint.every_seconds, seconds_left(setup.trainer)
    precision, compiled = config.trainer["precision"], config.compile if config.data.packing else False
    estimate = estimate_training(task.module, task.data, precision, device, epochs, compiled, every, left)
    announce_estimate(config, estimate)
    warn_about_peak(config, estimate.memory)
    return estimate


def _stored(config: TrainConfig, given: TrainConfig, run: RunState) -> TrainConfig:
    """The settings for config.yaml, which do not depend on the number of processes of now."""
    if run.rows is not None:
        config = replace(config, data=replace(config.data, batch_size=given.data.batch_size))
    return without_launch(config, os.environ)


def _write_first_files(
    config: TrainConfig,
    folder: Path,
    prepared: PreparedData,
    task: Task,
    environment: dict[str, Any],
    run: RunState,
    start: PretrainedStart | None,
    before: Before | None,
) -> None:
    """Write the files of a new run. The settings come last: they mark the folder as a run folder."""
    run_folder.remove_leftovers(folder)  # also of a process that was killed before the settings were written
    if run.exists:
        delete_final_files(folder)
    else:
        architecture = folder / run_folder.CHECKPOINTS / run_folder.MODEL
        export_architecture(task.module.model, prepared.tokenizer, prepared.template, architecture)
        if task.adapter and start:
            save_settings(task.adapter, start.base.folder, architecture)
        if prepared.trim:
            prepared.trim.save(architecture)
        write_json(folder / run_folder.ENVIRONMENT, environment)
        write_json(folder / run_folder.DATA_REPORT, prepared.report.as_dict())
        write_split(folder / run_folder.SPLIT, prepared.table, prepared.split)
    if before:
        before.save(folder, prepared)
    write_text(folder / run_folder.CONFIG, resolved_yaml(config))


def _fit(setup: TrainerSetup, task: Task, checkpoint: Path | None) -> None:
    try:
        setup.trainer.fit(task.module, datamodule=task.data, ckpt_path=checkpoint)
    except Interrupted as end:  # last.ckpt is saved
        if end.number in TIME_LIMIT_SIGNALS:
            if setup.trainer.is_global_zero:
                print(requeue(), flush=True)
            setup.trainer.strategy.barrier()  # srun may end all tasks when one has ended
        if end.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    except SystemExit:  # Lightning raises it on a Ctrl-C before training
        if setup.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
