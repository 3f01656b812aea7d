"""Fit and evaluate the modes that answer with known answers: `qa_lm.inference.known_answers`.

All are fitted on trained questions that are left out of the known pairs, so no pair needs to be held out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from qa_lm.config.enums import AnswerMode
from qa_lm.data.augment import VARIANTS, Generator
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError
from qa_lm.evaluation.calibrate import fit_calibration, with_curve
from qa_lm.evaluation.evaluate import EvalSet, EvaluatedPair
from qa_lm.evaluation.metrics import Share, f1, normalised_exact_match, share
from qa_lm.inference.answerer import Answer
from qa_lm.inference.calibration import MIN_ANSWERS, Calibration
from qa_lm.inference.known_answers import KnownAnswers
from qa_lm.retrieval.confidence import fit_confidence, signs_of
from qa_lm.retrieval.encoder import Encoder
from qa_lm.retrieval.known_pairs import KnownPairs
from qa_lm.retrieval.ranking import Candidates, Ranking, find_candidates, fit_ranking
from qa_lm.retrieval.similarity import LeftOut

LEFT_OUT = 2000
"""Maximum number of trained questions that are left out to fit ranking and confidence, evenly spaced."""
EVALUATED = 200
"""Maximum number of pairs of a split on which the modes are compared, and of trained questions asked in variants."""
PRECISION = 0.9
"""Precision of the threshold with which unrelated questions are asked."""
NEAREST_TFIDF, NEAREST_ENCODER = "nearest (TF-IDF)", "nearest (encoder)"
"""Names of the copying baselines."""


def fit_known_answers(
    pairs: KnownPairs, mode: AnswerMode | None = None, encoder: Encoder | None = None
) -> KnownAnswers:
    """Fit the ranking of the known answers and its confidence; nothing is fitted for the mode `free`.

    Args:
        pairs: the trained pairs.
        mode: the default mode; None for that of the pairs, see `default_mode`.
        encoder: a sentence encoder, in addition to TF-IDF.
    """
    mode = mode or default_mode(pairs)
    known = KnownAnswers(pairs, mode, encoder=encoder)
    places = _left_out(pairs)
    if mode is AnswerMode.free or len(places) < 2 * MIN_ANSWERS:
        return known
    questions = [pairs.questions[place] for place in places]
    asked, left_out, without_answer = (
        find_candidates(known.indexes, questions, out) for out in (None, LeftOut(places, False), LeftOut(places, True))
    )
    right = pairs.answer_of[places]
    ranking = fit_ranking(_joined(asked, left_out), np.tile(right, 2))
    parts = [(signs_of(each, ranking), _first(each, ranking) == right) for each in (asked, left_out, without_answer)]
    signs, hits = (np.concatenate(each) for each in zip(*parts, strict=True))
    if min(hits.sum(), (~hits).sum()) < MIN_ANSWERS:
        return KnownAnswers(pairs, mode, ranking, encoder=encoder)
    confidence = fit_confidence(signs, hits)
    calibration = _calibrated(confidence.log_odds(signs), hits, len(places))
    return KnownAnswers(pairs, mode, ranking, confidence, calibration, encoder)


def default_mode(pairs: KnownPairs) -> AnswerMode:
    """`best` if pairs share answers, otherwise `free`."""
    return AnswerMode.best if pairs.shares_answers else AnswerMode.free


def _left_out(pairs: KnownPairs) -> np.ndarray:
    """Evenly spaced pairs of which another pair has the same answer."""
    counts = np.bincount(pairs.answer_of)
    places = np.flatnonzero(counts[pairs.answer_of] > 1)
    chosen: np.ndarray = places[np.unique(np.linspace(0, len(places) - 1, min(LEFT_OUT, len(places))).astype(np.int64))]
    return chosen


def _joined(one: Candidates, other: Candidates) -> Candidates:
    return Candidates(
        np.concatenate([one.answers, other.answers]), np.concatenate([one.similarities, other.similarities])
    )


def _first(candidates: Candidates, ranking: Ranking) -> np.ndarray:
    """Index of the first answer of each question, (questions,)."""
    first: np.ndarray = candidates.answers[
        np.arange(len(candidates.answers)), ranking.scores(candidates).argmax(axis=1)
    ]
    return first


def _calibrated(log_odds: np.ndarray, right: np.ndarray, count: int) -> Calibration:
    """Calibrate on all questions; the curve leaves out the trained ones, which are the first `count`.

    Of the questions of the curve a third has no known answer that is right.
    """
    calibration = fit_calibration(log_odds, right, {"left out": 2 * count, "train": count})
    kept = np.r_[count : 2 * count, 2 * count : len(right) : 2]
    return with_curve(calibration, log_odds[kept], right[kept])


def in_mode(evaluated: EvaluatedPair, pair: Pair, answer: Answer) -> EvaluatedPair:
    """The evaluation of a pair with another answer than the one that the model wrote."""
    accepted = (pair.answer, *pair.other_answers)
    return replace(
        evaluated,
        generated=answer.answer,
        exact_match=answer.answer in accepted,
        normalised_exact_match=normalised_exact_match(answer.answer, accepted),
        f1=f1(answer.answer, accepted),
        stopped=answer.stopped,
        log_probability=math.nan if answer.log_probability is None else answer.log_probability,
        eos_log_probability=math.nan,
        probability=answer.probability,
    )


Answerers = dict[str, Callable[[Sequence[str]], list[str]]]
"""By name, functions that answer questions."""


def answerers(
    known: KnownAnswers, model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate
) -> Answerers:
    """The ways to answer with known answers, by the name of their row on the board."""

    def matched(by: KnownAnswers, mode: AnswerMode) -> Callable[[Sequence[str]], list[str]]:
        return lambda questions: [match.answer for match in by.matches(questions, mode)]

    found: Answerers = {
        "known": lambda questions: [answer for answer, _ in known.most_likely(questions, model, tokenizer, template)],
        NEAREST_TFIDF: matched(KnownAnswers(known.pairs), AnswerMode.nearest),
    }
    if known.encoder:
        found[NEAREST_ENCODER] = matched(known, AnswerMode.nearest)
    return found | {"best": matched(known, AnswerMode.best)}


def known_board(
    known: KnownAnswers, ways: Answerers, sets: Sequence[EvalSet], evaluated: Sequence[EvaluatedPair]
) -> dict[str, Any]:
    """The entry `known_answers` of board.json.

    Args:
        known: the fitted known answers.
        ways: the result of `answerers`.
        sets: the pairs of each split.
        evaluated: the pairs as the model answered them itself.

    Returns:
        default_mode: the mode in which the model answers unless asked otherwise, by the name of its row.
        rows: for each split that was not trained and each mode: split, mode, n and exact_match with its interval, on
            the same pairs.
        not_in_file: for each split, n and how many of the model's own answers are not among the known ones.
        robustness: for each way of writing a trained question: variant, n, exact_match in the default mode.
        unrelated: n questions that have nothing to do with the pairs, and how many are refused, with the threshold.
    """
    copies = NEAREST_ENCODER if known.encoder else NEAREST_TFIDF
    default = copies if known.default_mode is AnswerMode.nearest else known.default_mode.value
    rows = []
    for each in sets:
        if each.split == "train" or not each.pairs:
            continue
        pairs = each.pairs[:EVALUATED]
        free = [pair.generated for pair in evaluated if pair.split == each.split][:EVALUATED]
        answers = {"free": free} | {name: answer([pair.question for pair in pairs]) for name, answer in ways.items()}
        rows += [
            {"split": each.split, "mode": name, "n": len(pairs), "exact_match": _score(pairs, given)}
            for name, given in answers.items()
        ]
    return {
        "default_mode": default,
        "rows": rows,
        "not_in_file": _not_in_file(known.pairs, evaluated),
        "robustness": robustness(known.pairs, ways.get(default)),
        "unrelated": _unrelated(known),
    }


def _score(pairs: Sequence[Pair], answers: Sequence[str]) -> dict[str, float]:
    right = [answer in (pair.answer, *pair.other_answers) for pair, answer in zip(pairs, answers, strict=True)]
    found = share(map(float, right))
    assert isinstance(found, Share)
    return found._asdict()


def _not_in_file(pairs: KnownPairs, evaluated: Sequence[EvaluatedPair]) -> list[dict[str, Any]]:
    splits = dict.fromkeys(pair.split for pair in evaluated)
    answers = {split: [pair.generated for pair in evaluated if pair.split == split] for split in splits}
    return [
        {"split": split, "n": len(given), "count": sum(answer not in pairs.numbers for answer in given)}
        for split, given in answers.items()
    ]


def robustness(pairs: KnownPairs, answer: Callable[[Sequence[str]], list[str]] | None) -> list[dict[str, Any]]:
    """Ask trained questions as people write them.

    Args:
        pairs: the trained pairs.
        answer: a function that answers questions; None, as in the default mode `free`, for no rows.
    """
    if answer is None:
        return []
    places = np.unique(np.linspace(0, len(pairs.questions) - 1, min(EVALUATED, len(pairs.questions))).astype(np.int64))
    rows = []
    for name, variant in VARIANTS.items():
        written = [
            (variant(pairs.questions[place], Generator.of(0, pairs.questions[place])), place) for place in places
        ]
        asked = [
            (question, Pair(question, pairs.answers[place])) for question, place in written if question is not None
        ]
        if asked:
            answers = answer([question for question, _ in asked])
            rows.append({"variant": name, "n": len(asked), "exact_match": _score([pair for _, pair in asked], answers)})
    return rows


def _unrelated(known: KnownAnswers) -> dict[str, Any] | None:
    if known.calibration is None:
        return None
    try:
        threshold = known.calibration.threshold_for(PRECISION)
    except UserError:
        threshold = 0.5
    matches = known.matches(unrelated_questions(known.pairs), AnswerMode.best)
    refused = sum((match.probability or 0.0) < threshold for match in matches)
    return {"n": len(matches), "refused": refused, "threshold": threshold}


def unrelated_questions(pairs: KnownPairs) -> list[str]:
    """200 questions of general knowledge and small talk, in Korean where the pairs are, otherwise in English."""
    text = "".join(pairs.questions[:1000])
    hangul = sum("\uac00" <= letter <= "\ud7a3" for letter in text)
    language = "ko" if hangul > 0.3 * sum(map(str.isalpha, text)) else "en"
    content = (files("qa_lm") / "evaluation" / f"unrelated_{language}.txt").read_text(encoding="utf-8")
    known = set(pairs.questions)
    return [question for question in content.splitlines() if question not in known]
