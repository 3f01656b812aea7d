"""metrics.json: what a run came to."""

import math
from typing import Any

from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.data.splits import KINDS
from qa_lm.evaluation.evaluate import EvaluatedPair, exact_match
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.training.build import Parts
from qa_lm.training.estimate import Expectation
from qa_lm.training.memory import peak_memory
from qa_lm.training.precision import device_of
from qa_lm.training.trainer import Loop


def outcome(
    config: TrainConfig,
    prepared: PreparedData,
    parts: Parts,
    loop: Loop,
    answers: list[EvaluatedPair],
    times: dict[str, float | int | None],
    expectation: Expectation | None,
    never_trained: int,
) -> dict[str, Any]:
    """The content of metrics.json.

    Args:
        config: all settings.
        prepared: the pairs; of those to train, the ones that were in a training step.
        parts: what was trained.
        loop: how it went.
        answers: the questions asked at the end.
        times: seconds of the whole run, of measuring and compiling before training, of training with its validations;
            since the run was gone on with, if it was.
        expectation: what had been expected.
        never_trained: how many pairs to train were in no training step.
    """
    record, best_score = loop.record, loop.best.best_model_score
    rows = record.rows
    best = None if best_score is None else record.best_validation(float(best_score))
    best_epoch, _, _, best_loss = best or (None, None, None, math.nan)
    return {
        "best_epoch": best_epoch,
        "best_val_loss": best_loss if math.isfinite(best_loss) else None,
        "final_train_loss": rows[-1]["train_loss"] if rows else None,
        "final_val_loss": rows[-1]["val_loss"] if rows else None,
        "final_val_bits_per_answer_byte": rows[-1]["val_bits_per_answer_byte"] if rows else None,
        "final_train_recall": rows[-1]["train_recall"] if rows else None,
        "objective": None if best_score is None else float(best_score),
        "exported_weights": config.export_weights.value,
        "stopped_early": any(
            (
                loop.early_stopping is not None and loop.early_stopping.stopped_epoch > 0,
                loop.recall_stopping is not None and (loop.recall_stopping.reached or loop.recall_stopping.given_up),
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
        **times,
        "train_seconds": record.train_seconds,
        "train_tokens": record.train_tokens,
        "tokens_per_second": record.train_tokens / record.train_seconds if record.train_seconds else None,
        "expected_fit_seconds": expectation and expectation.seconds,
        "expected_memory": expectation and expectation.memory,
        "peak_memory": peak_memory(device_of(config.trainer)),
    }
