"""The results of a run: model/, answers, the results table, metrics.json."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from qa_lm.config.enums import Weights
from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.data.splits.draw import KINDS
from qa_lm.evaluation.assess import assess
from qa_lm.evaluation.before.general import ask_again, general_board, save_general
from qa_lm.evaluation.evaluate import EvaluatedPair, exact_match
from qa_lm.inference.export import export_model
from qa_lm.ledger.file import write_ledger
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.modeling.lora import merged, save_adapter
from qa_lm.retrieval.encoder import Encoder
from qa_lm.run import run_folder
from qa_lm.run.atomic import write_json, write_jsonl
from qa_lm.training.announcement import announce_end
from qa_lm.training.budget.guard import guard_of
from qa_lm.training.build import Task
from qa_lm.training.callbacks.console import has_stopped
from qa_lm.training.estimate import Estimate
from qa_lm.training.finetune.averaging import Average, average
from qa_lm.training.finetune.before import Before
from qa_lm.training.finetune.start import PretrainedStart
from qa_lm.training.finetune.trimmed import copy_proof
from qa_lm.training.hardware import device_of, peak_memory
from qa_lm.training.logging.loggers import log_end
from qa_lm.training.trainer import TrainerSetup, restore_best

GOLDEN = 4
"""Number of training and of validation questions that `model/` stores as self-test questions."""


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run."""

    folder: Path
    """The run folder."""
    metrics: dict[str, Any]
    """The content of metrics.json."""
    answers: list[EvaluatedPair]
    """The content of answers.jsonl."""
    objective: float
    """Best value of `monitor`, which a sweep optimises; nan without a validation."""


@dataclass(frozen=True)
class Timing:
    """Times of a run until the end of training."""

    started: float
    """When the run started, from `time.perf_counter`: the start of the process for scripts, which do nothing else; the
    fork for the jobs of a sweep; the call of `train` from Python and in workers of a cluster, which may be old."""
    measure_seconds: float
    """Seconds of measuring and compiling before training."""
    fit_seconds: float
    """Seconds of training with its validations, in this process."""
    resumed_at_step: int | None
    """Optimizer step after which the run was resumed; None for a new run."""
    estimate: Estimate | None
    """Estimate before training; None if nothing was measured."""


def finish(
    config: TrainConfig,
    folder: Path,
    prepared: PreparedData,
    task: Task,
    setup: TrainerSetup,
    timing: Timing,
    encoder: Encoder | None,
    start: PretrainedStart | None = None,
    before: Before | None = None,
) -> TrainingResult:
    """Write the ledger, model/, answers, the results table, and finally metrics.json."""
    to_train = len(prepared.split.train)
    prepared = _only_trained(prepared, setup)
    never_trained = to_train - len(prepared.split.train)
    announce_end(setup, to_train, never_trained, task.no_validation_reason)
    setup.record.write_if_empty(setup.trainer)
    known = before.known if before else None
    if setup.ledger and len(prepared.split.train):
        write_ledger(folder, prepared.table, *setup.ledger.results(), known)
    if config.export_weights is Weights.best:
        restore_best(task.module, setup)
    setup.files.best.free()
    model, averaged = _finished_model(task, config, folder, prepared, start)
    model.eval()
    questions = [pair.question for side in prepared.split[:2] for pair in prepared.table.pairs(side[:GOLDEN])]
    export_model(model, prepared.tokenizer, prepared.template, questions, folder / run_folder.MODEL)
    assessed = assess(model, prepared, config.evaluation, encoder, known)
    copy_proof(folder)
    if assessed.known:
        assessed.known.save(folder / run_folder.MODEL)
    if assessed.calibration:
        assessed.calibration.save(folder / run_folder.MODEL)
    answers = assessed.answers
    write_jsonl(folder / run_folder.ANSWERS, [answer.record() for answer in answers])
    board = assessed.board | _general(model, folder, before)
    write_json(folder / run_folder.BOARD, board)
    metrics = outcome(config, prepared, task, setup, answers, timing, never_trained)
    if averaged:
        metrics["finetune_average"] = averaged.share
    if guard := guard_of(setup.trainer):
        metrics |= guard.metrics()
    log_end(setup.trainer, metrics, answers, board)
    write_json(folder / run_folder.METRICS, metrics)
    best = setup.best.best_model_score
    return TrainingResult(folder, metrics, answers, math.nan if best is None else float(best))


def _general(model: PreTrainedModel, folder: Path, before: Before | None) -> dict[str, Any]:
    """Ask the general questions again; the entry `general` of board.json, for a pretrained start only."""
    if before is None:
        return {}
    started = time.perf_counter()
    answers = ask_again(model, before.tokenizer, before.template, before.general)
    save_general(answers, folder)
    print(f"after training: asked the general questions again in {time.perf_counter() - started:.1f} s", flush=True)
    return {"general": general_board(answers)}


def _finished_model(
    task: Task, config: TrainConfig, folder: Path, prepared: PreparedData, start: PretrainedStart | None
) -> tuple[PreTrainedModel, Average | None]:
    """The trained model in float32, averaged with the pretrained one; with LoRA, write the adapter and merge it."""
    model = task.module.model.float().eval()
    averaged = average(model, start.base.folder, config.finetune, bool(task.adapter), prepared) if start else None
    if averaged and averaged.right:
        print(averaged, flush=True)
    if task.adapter:
        save_adapter(task.adapter, folder / run_folder.ADAPTER, str(config.model.path), prepared.trim is not None)
        model = merged(task.adapter)
    return model, averaged


def _only_trained(prepared: PreparedData, setup: TrainerSetup) -> PreparedData:
    """Remove training pairs that were never in a training step."""
    train = prepared.split.train
    return replace(prepared, split=prepared.split._replace(train=train[setup.seen.mask.numpy()[train]]))


def outcome(
    config: TrainConfig,
    prepared: PreparedData,
    task: Task,
    setup: TrainerSetup,
    answers: list[EvaluatedPair],
    timing: Timing,
    never_trained: int,
) -> dict[str, Any]:
    """Return the content of metrics.json.

    Args:
        config: all settings.
        prepared: the pairs, without training pairs that were never in a training step.
        task: the module and its data.
        setup: the Trainer and its callbacks.
        timing: times of the run, and the estimate.
        answers: the answers at the end.
        never_trained: number of training pairs that were never in a training step.
    """
    record, rows, throughput = setup.record, setup.record.rows, setup.throughput
    best_score = setup.best.best_model_score
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
        "stopped_early": _stopped_early(setup),
        "diverged": setup.bad_batches.diverged,
        "skipped_steps": setup.bad_batches.skipped,
        "epochs_run": len(rows),
        "steps": setup.trainer.global_step,
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
        "parameters": parameter_count(task.module.model),
        "seed": config.seed,
        "seconds": time.perf_counter() - timing.started,
        "resumed_at_step": timing.resumed_at_step,
        "measure_seconds": timing.measure_seconds,
        "fit_seconds": timing.fit_seconds,
        "train_seconds": throughput.seconds,
        "train_tokens": throughput.tokens,
        "tokens_per_second": throughput.tokens / throughput.seconds if throughput.seconds else None,
        "expected_fit_seconds": timing.estimate and timing.estimate.seconds,
        "expected_memory": timing.estimate and timing.estimate.memory,
        "peak_memory": peak_memory(device_of(config.trainer)),
    }


def _stopped_early(setup: TrainerSetup) -> bool:
    early, recall = setup.early_stopping, setup.recall_stopping
    by_recall = recall is not None and (recall.reached or recall.plateaued)
    guard = guard_of(setup.trainer)
    by_budget = guard is not None and guard.stopped
    return by_recall or by_budget or setup.bad_batches.diverged or (early is not None and has_stopped(early))
