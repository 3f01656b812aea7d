"""What a trained model has learnt: its answers, how sure they are, and the board."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from qa_lm.config.schema import EvaluationConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.data.splits.draw import KINDS
from qa_lm.evaluation.board import board
from qa_lm.evaluation.calibrate import as_board, calibrate
from qa_lm.evaluation.evaluate import Asked, EvaluatedPair, evaluate_pairs
from qa_lm.evaluation.overlap import TrainedPairs, looked_through
from qa_lm.inference.calibration import Calibration


@dataclass(frozen=True)
class Assessment:
    """What is asked at the end of a run."""

    answers: list[EvaluatedPair]
    """The content of answers.jsonl."""
    calibration: Calibration | None
    board: dict[str, Any]
    """The content of board.json."""


def assess(model: PreTrainedModel, prepared: PreparedData, evaluation: EvaluationConfig) -> Assessment:
    """Ask the model the pairs of each split, `evaluation.max_pairs` at most, and judge its answers."""
    trained = trained_pairs(prepared) if evaluation.max_pairs and len(prepared.split.train) else None
    answers: list[EvaluatedPair] = []
    for asked in asked_pairs(prepared, ("train", "validation", "test"), evaluation.max_pairs):
        answers += evaluate_pairs(
            model,
            prepared.tokenizer,
            prepared.template,
            asked,
            trained.relations(asked.pairs) if trained and asked.split != "train" else None,
            evaluation.batch_size,
            evaluation.max_new_tokens,
        )
    calibration = calibrate(answers)
    if calibration:
        answers = [replace(each, probability=calibration.probability(each.log_probability)) for each in answers]
    return Assessment(answers, calibration, board(answers, as_board(calibration)))


def asked_pairs(prepared: PreparedData, splits: Sequence[str], most: int) -> list[Asked]:
    """The first pairs of each of the splits, at most so many."""
    found = []
    for name in splits:
        side = getattr(prepared.split, name)[:most]
        held_out = [KINDS[kind] for kind in prepared.split.held_out[:most]] if name == "validation" else None
        found.append(Asked(name, prepared.table.pairs(side), prepared.examples.examples(side), held_out))
    return found


def trained_pairs(prepared: PreparedData) -> TrainedPairs:
    """The trained pairs of a run, to compare others with."""
    train = np.sort(prepared.split.train)
    pairs = prepared.table.pairs(train[looked_through(len(train))])
    return TrainedPairs([pair.question for pair in pairs], [pair.answer for pair in pairs])
