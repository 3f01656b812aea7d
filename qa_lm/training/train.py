"""One training run: configuration in, run folder and result out."""

import math
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from qa_lm.config.compose import resolved_yaml
from qa_lm.config.schema import TrainConfig, Weights
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.config.validate import check_values, nothing_held_out, without_validation
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.data.quality.repeats import answerable
from qa_lm.data.split_file import write_split
from qa_lm.errors import UserError
from qa_lm.evaluation.assess import assess
from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.ledger.file import write_ledger
from qa_lm.modeling.causal_lm import hidden_states
from qa_lm.run import run_folder
from qa_lm.run.environment import describe_environment
from qa_lm.run.lock import run_lock
from qa_lm.training.announcement import (
    announce_data,
    announce_end,
    announce_expectation,
    announce_limits,
    announce_model,
)
from qa_lm.training.build import Parts, build_parts
from qa_lm.training.callbacks.board_scalars import validation_parts
from qa_lm.training.checkpointing.interruption import TIME_IS_SHORT, Interrupted, leaving_at_once, requeue
from qa_lm.training.checkpointing.resume import NEW, check_same_data, check_same_model, interrupted_run, reopen
from qa_lm.training.estimate import Expectation, expect
from qa_lm.training.export import export_architecture, export_model
from qa_lm.training.logging.hyperparameters import compared_hyperparameters, flat_hyperparameters
from qa_lm.training.logging.tensorboard import log_begin, log_end
from qa_lm.training.memory import as_out_of_memory
from qa_lm.training.precision import choose_precision, device_of
from qa_lm.training.recipe import completed
from qa_lm.training.results import outcome
from qa_lm.training.trainer import Loop, build_loop, restore_best

GOLDEN = 4
"""Questions of each side that `model/` carries as golden ones."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to."""

    folder: Path
    """The run folder."""
    metrics: dict[str, Any]
    """The content of metrics.json."""
    answers: list[EvaluatedPair]
    """The content of answers.jsonl."""
    objective: float
    """Best value of `monitor`, which a sweep optimises; nan if there was no validation."""


class OtherProcess(SystemExit):
    """Training is over in a process that is not the first of several: the first writes what follows."""


def train(
    config: TrainConfig,
    folder: Path,
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    handle_signals: bool = False,
) -> TrainingResult:
    """Train, keep the best model, ask it the questions, and fill the run folder.

    Where the folder holds a run that was interrupted, and `config.resume` says so, that run is gone on with.

    Args:
        config: all settings.
        folder: the run folder; made if it is not there.
        callbacks: further callbacks of the Trainer.
        loggers: further loggers of the Trainer.
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
    signals = leaving_at_once() if handle_signals else nullcontext()
    with signals, run_lock(folder) if first else nullcontext():
        try:
            return _train(config, folder, first, callbacks, loggers, handle_signals)
        except (MemoryError, RuntimeError, OSError) as error:
            if words := as_out_of_memory(error, config):
                raise words from None
            raise


def _train(
    config: TrainConfig,
    folder: Path,
    first: bool,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    handle_signals: bool,
) -> TrainingResult:
    started = time.perf_counter()
    going_on = (folder / run_folder.CONFIG).exists()
    if going_on and config.resume is None and first:
        raise UserError(
            f"{folder}: already holds a run, which would be lost; choose another folder with hydra.run.dir=FOLDER, or "
            f"go on with it: resume={folder}"
        )
    run = interrupted_run(folder, tell=first) if going_on else NEW
    precision, precision_words = choose_precision(config.trainer)
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    environment = describe_environment(config.seed, prepared.fingerprints())
    if going_on:
        check_same_data(folder, environment, tell=first)
    config = completed(config, prepared.sizes())
    config = replace(config, resume=None, trainer={**config.trainer, "precision": precision})
    loop = build_loop(config, folder, precision, run.step, callbacks, loggers, handle_signals)
    parts = build_parts(config, prepared, loop.trainer)
    loop.bad_batches.table = prepared.table
    if run.checkpoint:
        check_same_model(run.checkpoint, parts.module)
    if loop.recall_stopping:  # contradictions cannot all be answered
        sample = parts.data.recall_sample
        loop.recall_stopping.threshold *= answerable(prepared.table, prepared.split.train, sample)
        loop.recall_stopping.schedule_epochs = parts.schedule_epochs
        loop.recall_stopping.steps_per_epoch = parts.steps_per_epoch
    if loop.trainer.loggers:
        loop.board.parts = validation_parts(prepared)
    if first:
        announce_data(config, prepared, parts)
        announce_model(config, parts, precision_words)
        announce_limits(loop.trainer, parts.no_validation)
        run_folder.clear_leftovers(folder)  # also of a process that was killed before this was a run
        if going_on:
            reopen(folder)
        else:
            _write_beginning(folder, prepared, parts, environment)
        # Settings come last: a folder without them holds no run.
        run_folder.write_text(folder / run_folder.CONFIG, resolved_yaml(config))
    measure_started = time.perf_counter()
    expectation = None
    if run.checkpoint is None:
        expectation = _expectation(config, parts, loop, precision)
        config = replace(config, compile=parts.module.hidden_states is not hidden_states)
        if first:
            run_folder.write_text(folder / run_folder.CONFIG, resolved_yaml(config))
    elif config.compile:
        parts.module.compile_network()
    measure_seconds = time.perf_counter() - measure_started
    log_begin(loop.trainer, compared_hyperparameters(config, folder), flat_hyperparameters(config))
    fit_started = time.perf_counter()
    _fit(loop, parts, run.checkpoint)
    fit_seconds = time.perf_counter() - fit_started
    if not first:
        raise OtherProcess(0)
    seconds = {
        "resumed_at_step": run.step,
        "measure_seconds": measure_seconds,
        "fit_seconds": fit_seconds,
    }
    return _end(config, folder, prepared, parts, loop, expectation, started, seconds)


def _end(
    config: TrainConfig,
    folder: Path,
    prepared: PreparedData,
    parts: Parts,
    loop: Loop,
    expectation: Expectation | None,
    started: float,
    times: dict[str, float | int | None],
) -> TrainingResult:
    """What follows training: model/, answers, the board, metrics.json last."""
    to_train = len(prepared.split.train)
    prepared = _only_trained(prepared, loop)
    never_trained = to_train - len(prepared.split.train)
    announce_end(loop, to_train, never_trained, parts.no_validation)
    loop.record.write_if_empty(loop.trainer)
    if loop.ledger and len(prepared.split.train):
        write_ledger(folder, prepared.table, *loop.ledger.of_trained())
    if config.export_weights is Weights.best:
        restore_best(parts.module, loop)
    loop.files.best.free()
    model = parts.module.model.eval()
    questions = [pair.question for side in prepared.split[:2] for pair in prepared.table.pairs(side[:GOLDEN])]
    export_model(model, prepared.tokenizer, prepared.template, questions, folder / run_folder.MODEL)
    assessed = assess(model, prepared, config.evaluation)
    if assessed.calibration:
        assessed.calibration.save(folder / run_folder.MODEL)
    answers = assessed.answers
    run_folder.write_jsonl(folder / run_folder.ANSWERS, [asdict(answer) for answer in answers])
    run_folder.write_json(folder / run_folder.BOARD, assessed.board)
    times = {"seconds": time.perf_counter() - started, **times}
    metrics = outcome(config, prepared, parts, loop, answers, times, expectation, never_trained)
    log_end(loop.trainer, metrics, answers, assessed.board)
    run_folder.write_json(folder / run_folder.METRICS, metrics)
    best = loop.best.best_model_score
    return TrainingResult(folder, metrics, answers, math.nan if best is None else float(best))


def _only_trained(prepared: PreparedData, loop: Loop) -> PreparedData:
    """Without the pairs that were to be trained but never were in a step."""
    train = prepared.split.train
    return replace(prepared, split=prepared.split._replace(train=train[loop.seen.mask.numpy()[train]]))


def _write_beginning(folder: Path, prepared: PreparedData, parts: Parts, environment: dict[str, Any]) -> None:
    architecture = folder / run_folder.CHECKPOINTS / run_folder.MODEL
    export_architecture(parts.module.model, prepared.tokenizer, prepared.template, architecture)
    run_folder.write_json(folder / run_folder.ENVIRONMENT, environment)
    run_folder.write_json(folder / run_folder.DATA_REPORT, prepared.report.as_dict())
    write_split(folder / run_folder.SPLIT, prepared.table, prepared.split)


def _expectation(config: TrainConfig, parts: Parts, loop: Loop, precision: str) -> Expectation | None:
    """What a few steps say, printed; only for packed rows in one process: other shapes differ from step to step."""
    if loop.trainer.world_size > 1 and config.compile:
        parts.module.compile_network()
    if not config.data.packing or loop.trainer.world_size > 1 or not parts.expected_epochs:
        return None
    device, epochs = device_of(config.trainer), parts.expected_epochs
    every = config.checkpoint.every_seconds
    found = expect(parts.module, parts.data, precision, device, epochs, config.compile, every)
    announce_expectation(config, found)
    return found


def _fit(loop: Loop, parts: Parts, checkpoint: Path | None) -> None:
    try:
        loop.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
    except Interrupted as end:  # last.ckpt is saved
        if end.number in TIME_IS_SHORT and loop.trainer.is_global_zero:
            print(requeue(), flush=True)
        if end.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    except SystemExit:  # how Lightning ends on a Ctrl-C before training
        if loop.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
