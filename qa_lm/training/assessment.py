"""What a trained model has learnt: its answers, how sure they are, and the board."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from qa_lm.answering.board import board
from qa_lm.answering.confidence import Calibration, as_board, calibrate
from qa_lm.answering.evaluate import EvaluatedPair, evaluate_pairs
from qa_lm.answering.relations import Relation, TrainedPairs, looked_through
from qa_lm.config import EvaluationConfig
from qa_lm.data.splits import KINDS
from qa_lm.training.prepare import PreparedData


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
    split = prepared.split
    reasons = {"validation": [KINDS[kind] for kind in split.held_out[: evaluation.max_pairs]]}
    trained = trained_pairs(prepared) if evaluation.max_pairs else None
    answers: list[EvaluatedPair] = []
    for name, side in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        asked = side[: evaluation.max_pairs]
        pairs = prepared.table.pairs(asked)
        relations: list[Relation] | None = trained.relations(pairs) if trained and name != "train" else None
        answers += evaluate_pairs(
            model,
            prepared.tokenizer,
            prepared.template,
            pairs,
            prepared.examples.examples(asked),
            split=name,
            held_out=reasons.get(name),
            relations=relations,
            batch_size=evaluation.batch_size,
            max_new_tokens=evaluation.max_new_tokens,
        )
    calibration = calibrate(answers)
    if calibration:
        answers = [replace(each, probability=calibration.probability(each.log_probability)) for each in answers]
    return Assessment(answers, calibration, board(answers, as_board(calibration)))


def trained_pairs(prepared: PreparedData) -> TrainedPairs:
    """The trained pairs of a run, to compare others with."""
    train = np.sort(prepared.split.train)
    pairs = prepared.table.pairs(train[looked_through(len(train))])
    return TrainedPairs([pair.question for pair in pairs], [pair.answer for pair in pairs])
