"""The end of a run: model/, answers, the results table, metrics.json."""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qa_lm.config.enums import Weights
from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.data.splits import KINDS
from qa_lm.evaluation.assess import assess
from qa_lm.evaluation.evaluate import EvaluatedPair, exact_match
from qa_lm.inference.export import export_model
from qa_lm.ledger.file import write_ledger
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.run import run_folder
from qa_lm.run.atomic import write_json, write_jsonl
from qa_lm.training.announcement import announce_end
from qa_lm.training.build import Parts
from qa_lm.training.estimate import Expectation
from qa_lm.training.logging.tensorboard import log_end
from qa_lm.training.memory import peak_memory
from qa_lm.training.precision import device_of
from qa_lm.training.trainer import Loop, restore_best

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


@dataclass(frozen=True)
class Course:
    """How a run went, until training was over."""

    started: float
    """Of this process, by `time.perf_counter`."""
    measure_seconds: float
    """Of measuring and compiling before training."""
    fit_seconds: float
    """Of training with its validations; since the run was resumed, if it was."""
    resumed_at_step: int | None
    expectation: Expectation | None
    """None if nothing was measured."""


def finish(
    config: TrainConfig, folder: Path, prepared: PreparedData, parts: Parts, loop: Loop, course: Course
) -> TrainingResult:
    """What follows training: the ledger, model/, answers, the results table, metrics.json last."""
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
    write_jsonl(folder / run_folder.ANSWERS, [asdict(answer) for answer in answers])
    write_json(folder / run_folder.BOARD, assessed.board)
    metrics = outcome(config, prepared, parts, loop, answers, course, never_trained)
    log_end(loop.trainer, metrics, answers, assessed.board)
    write_json(folder / run_folder.METRICS, metrics)
    best = loop.best.best_model_score
    return TrainingResult(folder, metrics, answers, math.nan if best is None else float(best))


def _only_trained(prepared: PreparedData, loop: Loop) -> PreparedData:
    """Without the pairs that were to be trained but never were in a step."""
    train = prepared.split.train
    return replace(prepared, split=prepared.split._replace(train=train[loop.seen.mask.numpy()[train]]))


def outcome(
    config: TrainConfig,
    prepared: PreparedData,
    parts: Parts,
    loop: Loop,
    answers: list[EvaluatedPair],
    course: Course,
    never_trained: int,
) -> dict[str, Any]:
    """The content of metrics.json.

    Args:
        config: all settings.
        prepared: the pairs; of those to train, the ones that were in a training step.
        parts: what was trained.
        loop: the Trainer and its callbacks.
        course: how it went.
        answers: of the questions asked at the end.
        never_trained: how many pairs to train were in no training step.
    """
    record, rows, best_score = loop.record, loop.record.rows, loop.best.best_model_score
    best = best_score is not None and record.best_validation(float(best_score))
    best_epoch, _, _, best_loss = best or (None, None, None, math.nan)
    return {
        "best_epoch": best_epoch,
        "best_val_loss": best_loss if math.isfinite(best_loss) else None,
        "final_train_loss": rows[-1]["train_loss"] if rows else None,
        "final_val_loss": rows[-1]["val_loss"] if rows else None,
        "final_val_bits_per_answer_byte": rows[-1]["val_bits_per_answer_byte"] if rows else None,
        "final_train_recall": rows[-1]["train_recall"] if rows else None,
        "logged": record.last_logged(),
        "objective": None if best_score is None else float(best_score),
        "exported_weights": config.export_weights.value,
        "stopped_early": any(
            (
                loop.early_stopping is not None and loop.early_stopping.stopped_epoch > 0,
                loop.recall_stopping is not None and (loop.recall_stopping.reached or loop.recall_stopping.plateaued),
                loop.bad_batches.diverged,
            )
        ),
        "diverged": loop.bad_batches.diverged,
        "skipped_steps": loop.bad_batches.skipped,
        "epochs_run": len(rows),
        "steps": loop.trainer.global_step,
        "recall": exact_match([answer for answer in answers if answer.split == "train"]),
        "val_exact_match": exact_match([answer for answer in answers if answer.split == "validation"]),
        "test_exact_match": exact_match([answer for answer in answers if answer.split == "test"]),
        "exact_match_by_reason": {
            reason: exact_match([answer for answer in answers if answer.held_out == reason])
            for reason in KINDS
            if reason and any(answer.held_out == reason for answer in answers)
        },
        "pairs_trained": len(prepared.split.train),
        "pairs_never_trained": never_trained,
        "pairs_validation": len(prepared.split.validation),
        "parameters": parameter_count(parts.module.model),
        "seed": config.seed,
        "seconds": time.perf_counter() - course.started,
        "resumed_at_step": course.resumed_at_step,
        "measure_seconds": course.measure_seconds,
        "fit_seconds": course.fit_seconds,
        "train_seconds": record.train_seconds,
        "train_tokens": record.train_tokens,
        "tokens_per_second": record.train_tokens / record.train_seconds if record.train_seconds else None,
        "expected_fit_seconds": course.expectation and course.expectation.seconds,
        "expected_memory": course.expectation and course.expectation.memory,
        "peak_memory": peak_memory(device_of(config.trainer)),
    }
