"""Evaluate a trained model: its answers, their calibrated confidence, and the scoreboard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from qa_lm.config.enums import MODEL_AS_ENCODER, AnswerMode
from qa_lm.config.schema import EvaluationConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.data.splits.draw import KINDS
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.evaluation.before.known_before import KnownBefore
from qa_lm.evaluation.board import board
from qa_lm.evaluation.calibrate import board_entry, calibrate
from qa_lm.evaluation.evaluate import EvalSet, EvaluatedPair, evaluate_pairs
from qa_lm.evaluation.known import answerers, default_mode, fit_known_answers, known_board
from qa_lm.evaluation.overlap import TrainedPairs
from qa_lm.inference.calibration import Calibration
from qa_lm.inference.known_answers import KnownAnswers
from qa_lm.retrieval.encoder import Encoder
from qa_lm.retrieval.known_pairs import KnownPairs, sample_indices
from qa_lm.retrieval.model_encoder import ModelEncoder


@dataclass(frozen=True)
class Assessment:
    """The evaluation at the end of a run."""

    answers: list[EvaluatedPair]
    """The content of answers.jsonl."""
    calibration: Calibration | None
    known: KnownAnswers | None
    """None without trained pairs."""
    board: dict[str, Any]
    """The content of board.json."""


def assess(
    model: PreTrainedModel,
    prepared: PreparedData,
    evaluation: EvaluationConfig,
    encoder: Encoder | None,
    before: KnownBefore | None = None,
) -> Assessment:
    """Evaluate the model on each split, on at most `evaluation.max_pairs` pairs per split."""
    trained = trained_pairs(prepared) if evaluation.max_pairs and len(prepared.split.train) else None
    answers: list[EvaluatedPair] = []
    sets = eval_sets(prepared, ("train", "validation", "test"), evaluation.max_pairs, before)
    for eval_set in sets:
        answers += evaluate_pairs(
            model,
            prepared.tokenizer,
            prepared.template,
            eval_set,
            trained.overlaps(eval_set.pairs) if trained and eval_set.split != "train" else None,
            evaluation.batch_size,
            evaluation.max_new_tokens,
        )
    calibration = calibrate(answers)
    if calibration:
        answers = [replace(each, probability=calibration.probability(each.log_probability)) for each in answers]
    known = _known_answers(trained, evaluation, encoder, model, prepared.tokenizer) if trained else None
    entry = None
    if known and known.default_mode is not AnswerMode.free:
        entry = known_board(known, answerers(known, model, prepared.tokenizer, prepared.template), sets, answers)
    return Assessment(answers, calibration, known, board(answers, board_entry(calibration), entry))


def _known_answers(
    trained: TrainedPairs,
    evaluation: EvaluationConfig,
    encoder: Encoder | None,
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
) -> KnownAnswers:
    # A repeat does not count as a phrasing.
    distinct = dict.fromkeys(zip(trained.questions, trained.answers, strict=True))
    pairs = KnownPairs([question for question, _ in distinct], [answer for _, answer in distinct])
    mode = evaluation.mode or default_mode(pairs)
    if evaluation.encoder == MODEL_AS_ENCODER and mode in (AnswerMode.nearest, AnswerMode.best):
        encoder = ModelEncoder.fitted(model, tokenizer, pairs)
    return fit_known_answers(pairs, mode, encoder)


def eval_sets(
    prepared: PreparedData, splits: Sequence[str], max_pairs: int, before: KnownBefore | None = None
) -> list[EvalSet]:
    """The first pairs of each split, at most `max_pairs` per split."""
    sets = []
    for name in splits:
        indices = getattr(prepared.split, name)[:max_pairs]
        held_out = [KINDS[kind] for kind in prepared.split.held_out[:max_pairs]] if name == "validation" else None
        known = before.of(indices) if before else None
        sets.append(EvalSet(name, prepared.table.pairs(indices), prepared.examples.examples(indices), held_out, known))
    return sets


def trained_pairs(prepared: PreparedData) -> TrainedPairs:
    """The trained pairs of a run, as the reference for overlap and baselines."""
    train = np.sort(prepared.split.train)
    pairs = prepared.table.pairs(train[sample_indices(len(train))])
    return TrainedPairs([pair.question for pair in pairs], [pair.answer for pair in pairs])
