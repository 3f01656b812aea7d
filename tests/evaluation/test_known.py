"""How the known answers are fitted and compared: precision on new phrasings, unrelated questions, too few pairs."""

from typing import Any

import numpy as np
import pytest

from qa_lm.config.enums import AnswerMode
from qa_lm.data.pairs import Pair
from qa_lm.evaluation.evaluate import EvalSet, EvaluatedPair
from qa_lm.evaluation.known import (
    EVALUATED,
    LEFT_OUT,
    answerers,
    fit_known_answers,
    in_mode,
    known_board,
    unrelated_questions,
)
from qa_lm.evaluation.metrics import share
from qa_lm.inference.answerer import Answer
from qa_lm.inference.known_answers import KnownAnswers
from qa_lm.retrieval.known_pairs import KnownPairs
from tests.retrieval.faq import faq, pairs_of

WITHOUT_MODEL: tuple[Any, Any, Any] = (None, None, None)
"""What the modes that copy take for model, tokenizer and template."""


@pytest.fixture(scope="module", params=[0, 1])
def asked(request):
    """Known answers of 60 answers with 4 phrasings each, and two phrasings that are not known."""
    pairs, others = faq(60, 4, request.param)
    return fit_known_answers(pairs), others


def test_the_precision_that_is_asked_for_is_met_on_new_phrasings(asked):
    known, others = asked
    threshold = known.calibration.threshold_for(0.9)
    matches = known.matches(others.questions, AnswerMode.best)
    right = [match.answer == answer for match, answer in zip(matches, others.answers, strict=True)]
    answered = [float(hit) for hit, match in zip(right, matches, strict=True) if match.probability >= threshold]
    assert len(answered) > 0.6 * len(right)
    interval = share(answered)
    assert interval
    assert interval.high >= 0.9
    assert np.mean(answered) > np.mean(right)


def test_unrelated_questions_are_refused(asked):
    known, _ = asked
    threshold = known.calibration.threshold_for(0.9)
    matches = known.matches(unrelated_questions(known.pairs), AnswerMode.best)
    assert len(matches) == 200
    assert sum(match.probability >= threshold for match in matches) <= 10


def test_probabilities_are_how_often_answers_are_right(asked):
    known, others = asked
    unknown = pairs_of([(question, "none") for question in unrelated_questions(known.pairs)])
    given = [
        (match, answer)
        for each in (others, unknown)
        for match, answer in zip(known.matches(each.questions, AnswerMode.best), each.answers, strict=True)
    ]
    right = np.array([match.answer == answer for match, answer in given])
    claimed = np.array([match.probability for match, _ in given])
    brier, base = ((claimed - right) ** 2).mean(), right.mean() * (1 - right.mean())
    assert brier < 0.5 * base
    assert brier < ((1 - claimed - right) ** 2).mean()


def test_the_curve_counts_no_question_whose_own_pair_is_known(asked):
    known, _ = asked
    assert known.calibration.held_out["pairs"] == 240 + 120  # every second one without a known answer
    assert known.calibration.fitted_on == {"left out": 480, "train": 240}


@pytest.mark.parametrize(("answers", "phrasings"), [(9, 4), (60, 1), (1, 6)])
def test_too_few_pairs_have_no_calibration(answers, phrasings):
    known = fit_known_answers(faq(answers, phrasings)[0])
    assert known.ranking is known.confidence is known.calibration is None
    assert {match.probability for match in known.matches(["price"], AnswerMode.best)} == {None}


def test_a_single_answer_can_never_be_confused():
    pairs = KnownPairs([f"question {number}" for number in range(60)], ["always"] * 60)
    assert fit_known_answers(pairs).matches(["anything"], AnswerMode.best)[0].answer == "always"


@pytest.mark.parametrize(("phrasings", "mode"), [(1, AnswerMode.free), (2, AnswerMode.best)])
def test_the_default_mode_follows_the_pairs(phrasings, mode):
    pairs, _ = faq(5, phrasings)
    assert fit_known_answers(pairs).default_mode is mode
    assert fit_known_answers(pairs, AnswerMode.known).default_mode is AnswerMode.known


def test_at_most_some_questions_are_left_out(monkeypatch):
    assert LEFT_OUT == 2000
    monkeypatch.setattr("qa_lm.evaluation.known.LEFT_OUT", 50)
    calibration = fit_known_answers(faq(30)[0]).calibration
    assert calibration
    assert calibration.fitted_on == {"left out": 100, "train": 50}


def test_korean_pairs_are_asked_in_korean():
    pairs = pairs_of([("\ubc30\uc1a1\uc740 \uc5bc\ub9c8\ub098 \uac78\ub9ac\ub098\uc694?", "3\uc77c")])
    korean, english = unrelated_questions(pairs), unrelated_questions(faq(5)[0])
    assert len(korean) == len(english) == 200
    assert any("\uac00" <= letter <= "\ud7a3" for letter in korean[0])
    assert english[0].isascii()
    assert english[0] not in unrelated_questions(pairs_of([(english[0], "known")]))


def evaluated(pair, generated, split):
    fixed: dict[str, Any] = {
        "normalised_exact_match": False,
        "f1": 0.0,
        "stopped": True,
        "held_out": "",
        "relation": "",
    }
    fixed |= {"nearest_question": "", "nearest_is_right": None, "most_common_is_right": None}
    numbers: dict[str, Any] = {"log_probability": -0.5, "eos_log_probability": -0.1}
    return EvaluatedPair(
        pair.question, pair.answer, generated, generated == pair.answer, split=split, **fixed, **numbers
    )


def test_the_board_counts_every_mode_on_the_same_pairs(asked):
    known, others = asked
    pairs = [Pair(*each) for each in zip(others.questions, others.answers, strict=True)]
    trained = [Pair(*each) for each in zip(known.pairs.questions, known.pairs.answers, strict=True)][:30]
    answers = [
        evaluated(pair, pair.answer if number % 4 else "made up", "validation") for number, pair in enumerate(pairs)
    ]
    answers += [evaluated(pair, pair.answer, "train") for pair in trained]
    ways = {name: way for name, way in answerers(known, *WITHOUT_MODEL).items() if name != "known"}
    sets = [EvalSet("train", trained, []), EvalSet("validation", pairs, []), EvalSet("test", [], [])]
    found = known_board(known, ways, sets, answers)
    assert [(row["split"], row["mode"]) for row in found["rows"]] == [
        ("validation", mode) for mode in ("free", "nearest (TF-IDF)", "best")
    ]
    assert {row["n"] for row in found["rows"]} == {len(pairs)}
    assert len(pairs) <= EVALUATED
    best = np.mean(
        [m.answer == p.answer for m, p in zip(known.matches(others.questions, AnswerMode.best), pairs, strict=True)]
    )
    assert [row["exact_match"]["value"] for row in found["rows"]][::2] == pytest.approx([0.75, best])
    assert found["not_in_file"] == [
        {"split": "validation", "n": 120, "count": 30},
        {"split": "train", "n": 30, "count": 0},
    ]
    assert found["default_mode"] == "best"
    assert [row["variant"] for row in found["robustness"]][:2] == ["lower case", "no final mark"]
    assert found["robustness"][0]["exact_match"]["value"] > 0.9
    assert found["unrelated"]["n"] == 200
    assert found["unrelated"]["refused"] >= 190


def test_the_default_mode_nearest_has_its_row_and_its_variants():
    known = KnownAnswers(faq(10)[0], AnswerMode.nearest)
    found = known_board(known, answerers(known, *WITHOUT_MODEL), [], [])
    assert found["default_mode"] == "nearest (TF-IDF)"
    assert found["robustness"][0]["n"] > 20
    assert found["unrelated"] is None


def test_an_answer_in_another_mode_is_scored_anew():
    pair = Pair("Q", "The answer.", ("Another.",))
    before = evaluated(pair, "wrong", "validation")
    right = in_mode(before, pair, Answer("Q", "Another.", True, 2, None, 0.75, "best", True))
    assert (right.generated, right.exact_match, right.probability) == ("Another.", True, 0.75)
    assert np.isnan(right.log_probability)
    close = in_mode(before, pair, Answer("Q", "answer", True, 1, -0.25, None, "known", True))
    assert (close.exact_match, close.normalised_exact_match, close.log_probability) == (False, True, -0.25)
