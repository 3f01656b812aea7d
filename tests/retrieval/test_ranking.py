"""The ranking of known answers and how sure it is."""

import numpy as np
import pytest

from qa_lm.evaluation.calibrate import fit_calibration, with_curve
from qa_lm.retrieval.confidence import MAX_LOG_ODDS, Confidence, fit_confidence, sign_count, signs_of
from qa_lm.retrieval.known_pairs import KnownPairs
from qa_lm.retrieval.ranking import DEFAULT_WEIGHT, Candidates, Ranking, find_candidates, fit_ranking
from qa_lm.retrieval.similarity import LeftOut, tfidf_index
from tests.retrieval.faq import faq

PAIRS, _ = faq()


def first(candidates, ranking):
    return candidates.answers[np.arange(len(candidates.answers)), ranking.scores(candidates).argmax(axis=1)]


def drawn_candidates(count, useful, useless=0.0):
    """Candidates whose first measure shows the right one, and whose last measure shows a wrong one."""
    draw = np.random.default_rng(0)
    similarities = draw.random((count, 4, 3))
    right = draw.integers(0, 4, count)
    similarities[np.arange(count), right, 0] += useful
    similarities[np.arange(count), right, 2] -= useless
    return Candidates(np.tile(np.arange(4), (count, 1)), similarities.astype(np.float32)), right


def test_a_trained_question_finds_its_own_answer():
    asked = find_candidates([tfidf_index(PAIRS)], PAIRS.questions)
    left_out = find_candidates([tfidf_index(PAIRS)], PAIRS.questions, LeftOut(np.arange(len(PAIRS.questions)), False))
    fitted = fit_ranking(left_out, PAIRS.answer_of)
    for ranking in (Ranking.default(1), fitted):
        assert first(asked, ranking).tolist() == PAIRS.answer_of.tolist()


def test_a_measure_that_shows_the_answer_gets_the_weight_and_none_is_negative():
    candidates, right = drawn_candidates(2000, 0.3, 2.0)
    ranking = fit_ranking(candidates, right)
    assert min(ranking.weights) >= 0
    assert ranking.weights[2] == 0
    assert ranking.weights[0] > 2 * ranking.weights[1]
    assert (first(candidates, ranking) == right).mean() > (first(candidates, Ranking.default(1)) == right).mean()


def test_the_prior_holds_where_there_is_nothing_to_fit():
    candidates, right = drawn_candidates(50, 0.5)
    assert fit_ranking(candidates, np.full(50, 99)) == Ranking.default(1)  # never among the candidates
    equal = Candidates(candidates.answers, np.ones_like(candidates.similarities))
    assert fit_ranking(equal, right).weights == pytest.approx((DEFAULT_WEIGHT,) * 3)
    few = fit_ranking(Candidates(candidates.answers[:1], candidates.similarities[:1]), right[:1])
    assert few.weights == pytest.approx((DEFAULT_WEIGHT,) * 3, abs=1)


def test_signs_are_those_of_the_first_answer():
    similarities = np.array([[[0.1, 0.2, 0.9], [0.5, 0.5, 0.5]]], np.float32)
    candidates = Candidates(np.array([[3, 4]]), similarities)
    ranking = Ranking((1.0, 1.0, 0.0))  # the second is first, and the first has the most similar question
    (signs,) = signs_of(candidates, ranking)
    assert signs == pytest.approx([1.0, 0.7, 0.7, 0.5, 0.5, 0.5, 0], abs=1e-6)
    two = Candidates(candidates.answers, np.concatenate([similarities, similarities[:, ::-1]], axis=2))
    assert signs_of(two, Ranking.default(2)).shape == (1, sign_count(2))


def test_a_file_with_one_answer_has_no_other():
    only = find_candidates([tfidf_index(KnownPairs(["Who?"], ["I"]))], ["Who?"])
    (signs,) = signs_of(only, Ranking.default(1))
    assert len(signs) == sign_count(1)
    assert signs[2] == MAX_LOG_ODDS
    assert signs[1] == 0


def test_the_confidence_is_fitted_to_what_is_right():
    draw = np.random.default_rng(0)
    signs = draw.normal(size=(4000, 3)) * [1, 10, 1] + [0, 5, 0]
    right = draw.random(4000) < 1 / (1 + np.exp(-(2 * signs[:, 0] - 0.1 * signs[:, 1] + 1)))
    confidence = fit_confidence(signs, right)
    assert confidence.coefficients == pytest.approx((2, -0.1, 0), abs=0.15)
    assert confidence.intercept == pytest.approx(1, abs=0.2)
    assert confidence.log_odds(signs[:2]) == pytest.approx(signs[:2] @ confidence.coefficients + confidence.intercept)


@pytest.mark.parametrize("count", [400, 4000])  # Platt scaling, isotonic regression
def test_log_odds_that_are_far_too_sure_are_corrected(count):
    draw = np.random.default_rng(0)
    odds = draw.normal(0, 2, count)
    right = draw.random(count) < 1 / (1 + np.exp(-odds))
    claimed = 1 / (1 + np.exp(-5 * odds))
    calibration = fit_calibration(5 * odds, right, {"left out": count})
    found = np.array([calibration.probability(each) for each in 5 * odds])
    assert calibration.brier < ((claimed - right) ** 2).mean() - 0.03
    for low in (0.2, 0.6):
        inside = (found >= low) & (found < low + 0.2)
        assert right[inside].mean() == pytest.approx(found[inside].mean(), abs=0.15)


def test_confidence_in_the_wrong_answers_shows_in_the_curve():
    draw = np.random.default_rng(0)
    odds = draw.normal(0, 2, 2000)
    right = draw.random(2000) < 1 / (1 + np.exp(-odds))
    calibration = fit_calibration(odds, right, {"left out": 2000})
    flipped = with_curve(calibration, odds, ~right)
    best, worst = calibration.curve[10], flipped.curve[10]
    assert best["precision"] > 0.85
    assert worst["precision"] < 0.15
    assert Confidence((1.0,), 0.0).log_odds(np.array([[2.0]])).tolist() == [2.0]
