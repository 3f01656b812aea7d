"""One training run: configuration in, run folder and result out."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from qa_lm.answering.evaluate import EvaluatedPair
from qa_lm.config import TrainConfig, Weights
from qa_lm.config_composition import resolved_yaml
from qa_lm.config_values import check_values
from qa_lm.data.repeats import answerable
from qa_lm.errors import UserError
from qa_lm.training import run_folder
from qa_lm.training.announcement import announce_data, announce_model
from qa_lm.training.assessment import assess
from qa_lm.training.board_scalars import validation_parts
from qa_lm.training.environment import describe_environment
from qa_lm.training.expectation import Expectation, expect
from qa_lm.training.export import export_model
from qa_lm.training.hyperparameters import flat_hyperparameters
from qa_lm.training.ledger_file import write_ledger
from qa_lm.training.loop import Loop, build_loop, quiet_lightning, restore_best
from qa_lm.training.outcome import outcome
from qa_lm.training.parts import Parts, build_parts
from qa_lm.training.precision import choose_precision, device_of
from qa_lm.training.prepare import PreparedData, prepare
from qa_lm.training.recipe import completed, wordings
from qa_lm.training.split_file import write_split
from qa_lm.training.tensorboard import log_end
from qa_lm.training.trainer_arguments import check_trainer_arguments

TERMINATED = 143
"""Exit code after SIGTERM, as shells have it."""
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


def train(config: TrainConfig, folder: Path) -> TrainingResult:
    """Train, keep the best model, ask it the questions, and fill the run folder.

    Args:
        config: all settings.
        folder: the run folder; made if it is not there.

    Raises:
        UserError: the settings or the data are wrong; nothing has been written then.
        SystemExit: after training, in all processes but the first, which does the rest.
        SystemExit: with code `TERMINATED`, on SIGTERM while training.
        KeyboardInterrupt: Ctrl-C. After both, `checkpoints/last.ckpt` holds what was trained so far.
        FailedWrite: a checkpoint cannot be written; those before are as they were.
    """
    quiet_lightning()
    started = time.perf_counter()
    check_values(config)
    check_trainer_arguments(config.trainer)
    precision, precision_words = choose_precision(config.trainer)
    loop = build_loop(config, folder, precision)
    first = loop.trainer.is_global_zero
    if first and (folder / run_folder.CONFIG).exists():
        raise UserError(
            f"{folder}: already holds a run, which would be lost; choose another folder with hydra.run.dir=FOLDER"
        )
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    lengths, longest = (
        prepared.examples.lengths(prepared.split.train),
        prepared.report.lengths["example_tokens"]["p100"],
    )
    facts = wordings(prepared.table.numbers("group_key")[prepared.split.train])
    config = completed(config, lengths, longest, prepared.row_tokens, facts)
    parts = build_parts(config, prepared, loop.trainer)
    if loop.recall_stopping:  # contradictions cannot all be answered
        sample = parts.data.recall_sample
        loop.recall_stopping.threshold *= answerable(prepared.table, prepared.split.train, sample)
        loop.recall_stopping.schedule_epochs = parts.epochs
    if loop.trainer.loggers:
        loop.board.parts = validation_parts(prepared)
    if first:
        announce_data(config, prepared, parts)
        announce_model(config, parts, precision_words)
        _write_beginning(config, folder, prepared)
    measure_started = time.perf_counter()
    expectation = _expectation(config, parts, loop, precision)
    fit_started = time.perf_counter()
    _fit(loop, parts)
    fit_seconds = time.perf_counter() - fit_started
    if not first:
        raise SystemExit(0)

    if loop.ledger:
        write_ledger(folder, prepared.table, loop.ledger.trained, loop.ledger.losses, loop.ledger.exact)
    if config.export_weights is Weights.best:
        restore_best(parts.module, loop)
    model = parts.module.model.eval()
    questions = [pair.question for side in prepared.split[:2] for pair in prepared.table.pairs(side[:GOLDEN])]
    export_model(model, prepared.tokenizer, prepared.template, questions, folder / run_folder.MODEL)
    assessed = assess(model, prepared, config.evaluation)
    if assessed.calibration:
        assessed.calibration.save(folder / run_folder.MODEL)
    answers = assessed.answers
    run_folder.write_jsonl(folder / run_folder.ANSWERS, [asdict(answer) for answer in answers])
    run_folder.write_json(folder / run_folder.BOARD, assessed.board)
    seconds = {
        "seconds": time.perf_counter() - started,
        "measure_seconds": fit_started - measure_started,
        "fit_seconds": fit_seconds,
    }
    metrics = outcome(config, prepared, parts, loop, answers, seconds, expectation)
    run_folder.write_json(folder / run_folder.METRICS, metrics)
    log_end(loop.trainer, flat_hyperparameters(config), metrics, answers, assessed.board)
    best = loop.best.best_model_score
    return TrainingResult(folder, metrics, answers, math.nan if best is None else float(best))


def _write_beginning(config: TrainConfig, folder: Path, prepared: PreparedData) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_text(folder / run_folder.CONFIG, resolved_yaml(config))
    environment = describe_environment(prepared.table.fingerprint, config.seed)
    run_folder.write_json(folder / run_folder.ENVIRONMENT, environment)
    run_folder.write_json(folder / run_folder.DATA_REPORT, prepared.report.as_dict())
    write_split(folder / run_folder.SPLIT, prepared.table, prepared.split)


def _expectation(config: TrainConfig, parts: Parts, loop: Loop, precision: str) -> Expectation | None:
    """What a few steps say, printed; only for packed rows in one process: other shapes differ from step to step."""
    if loop.trainer.world_size > 1 and config.compile:
        parts.module.compile_network()
    if not config.data.packing or loop.trainer.world_size > 1 or not parts.epochs:
        return None
    found = expect(parts.module, parts.data, precision, device_of(config.trainer), parts.epochs, config.compile)
    print(f"compiled: {found.compilation}")
    until = "until recall is reached" if config.stop_at_recall is not None else "at most"
    epochs = f"{found.epochs:.3g} epochs of {found.epoch_seconds:.2g} s"
    print(
        f"expected: {found.seconds:,.0f} s of training, {epochs} {until}; {found.memory / 1e9:.2f} GB of memory",
        flush=True,
    )
    return found


def _fit(loop: Loop, parts: Parts) -> None:
    try:
        loop.trainer.fit(parts.module, datamodule=parts.data)
    except SIGTERMException:  # raised at the end of a step, once last.ckpt is saved
        raise SystemExit(TERMINATED) from None
    except SystemExit:  # how Lightning ends on Ctrl-C, once it has saved last.ckpt
        if loop.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
