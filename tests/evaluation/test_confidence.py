"""Calibration on planted miscalibration, abstaining, and the file."""

import dataclasses
import json

import numpy as np
import pytest

from qa_lm.errors import UserError
from qa_lm.evaluation.calibrate import calibrate, coverage_and_precision, evaluated_board_entry, fit_calibration
from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.inference.calibration import Calibration


def planted(count, seed=0):
    """A model far too sure of itself: at mean log-probability x an answer is right with probability e^(8x)."""
    draw = np.random.default_rng(seed)
    x = -draw.exponential(0.15, count)
    truth = np.exp(8 * x)
    return x, truth, draw.random(count) < truth


@pytest.mark.parametrize(("count", "method"), [(300, "platt"), (4000, "isotonic")])
def test_planted_miscalibration_is_mended(count, method):
    x, _, right = planted(count)
    calibration = fit_calibration(x, right, {"validation": count})
    assert calibration.method == method
    fresh, truth, _ = planted(20_000, seed=1)
    found = np.array([calibration.probability(each) for each in fresh])
    claimed = np.exp(fresh)
    error, error_before = abs(found - truth).mean(), abs(claimed - truth).mean()
    assert error_before > 0.3
    assert error < 0.06
    assert (np.diff(found[np.argsort(fresh)]) >= -1e-9).all()
    assert calibration.brier < ((claimed - np.exp(8 * fresh)) ** 2).mean() + (truth * (1 - truth)).mean()


def test_the_curve_is_what_abstaining_gives():
    probabilities, right = np.array([0.9, 0.8, 0.8, 0.3]), np.array([True, True, False, False])
    assert coverage_and_precision(probabilities, right) == [
        {"threshold": pytest.approx(0.85), "coverage": 0.25, "precision": 1.0},
        {"threshold": pytest.approx(0.55), "coverage": 0.75, "precision": pytest.approx(2 / 3)},
        {"threshold": 0.0, "coverage": 1.0, "precision": 0.5},
    ]
    assert len(coverage_and_precision(np.linspace(0, 1, 5000), np.ones(5000, bool))) == 100


def test_the_threshold_for_a_precision_holds_on_fresh_answers():
    x, _, right = planted(4000)
    calibration = fit_calibration(x, right, {"validation": 4000})
    threshold = calibration.threshold_for(0.7)
    fresh, _, fresh_right = planted(20_000, seed=2)
    answered = np.array([calibration.probability(each) for each in fresh]) >= threshold
    assert answered.mean() > 0.1
    assert fresh_right[answered].mean() == pytest.approx(0.7, abs=0.05)


def pair(split, right, log_probability):
    blank = {field.name: "" for field in dataclasses.fields(EvaluatedPair)}
    changes = {"split": split, "exact_match": right, "log_probability": log_probability, "probability": None}
    return EvaluatedPair(**blank | changes)


def test_what_it_is_fitted_on():
    wrong = [pair("validation", False, -1 - n / 100) for n in range(30)]
    right = [pair("validation", True, -n / 100) for n in range(30)]
    trained = [pair("train", True, -n / 1000) for n in range(50)]
    alone, both = calibrate(wrong + right + trained), calibrate(wrong + trained)
    assert alone
    assert both
    assert alone.fitted_on == {"validation": 60}
    assert both.fitted_on == {"validation": 30, "train": 50}
    assert both.probability(-0.01) > 0.9 > 0.1 > both.probability(-1.2)
    few = calibrate(wrong * 10 + right[:25] + trained)  # under a tenth of the held-out answers are right
    assert few
    assert few.fitted_on == {"validation": 325, "train": 50}
    assert calibrate(wrong) is None
    assert calibrate([pair("train", n % 2 == 0, -n / 100) for n in range(90)]) is None  # nothing was held out
    assert calibrate(trained) is None
    assert calibrate([]) is None


def held_out_curve():
    """Of the 40 most probable of 100 held-out answers 38 are right, of the others a third; all trained ones are."""
    held_out = [pair("validation", n not in (7, 23), -0.1 - n / 1000) for n in range(40)]
    held_out += [pair("validation", n % 3 == 1, -1 - n / 100) for n in range(60)]
    return held_out, [pair("train", True, -n / 10_000) for n in range(400)]


def test_a_precision_is_counted_on_held_out_pairs_alone():
    held_out, trained = held_out_curve()
    calibration = calibrate(held_out + trained)
    assert calibration
    assert calibration.held_out == {"pairs": 100, "right": 58, "needed": 20}
    threshold = calibration.threshold_for(0.95)
    answered = [each for each in held_out if calibration.probability(each.log_probability) >= threshold]
    claimed = next(point for point in calibration.curve if point["threshold"] == threshold)
    assert claimed["coverage"] == len(answered) / 100 == 0.4
    assert claimed["precision"] == sum(each.exact_match for each in answered) / len(answered) == 0.95
    assert (
        "on 100 held-out questions 40.0% were answered, and 95.0% of these answers were right"
        in calibration.expected(threshold)
    )
    with pytest.raises(
        UserError, match=r"100.0% is not reached: at best 95.7%"
    ):  # 22 of 23, before the second wrong one
        calibration.threshold_for(1.0)


def test_a_map_with_few_right_held_out_answers_makes_no_precision():
    wrong = [pair("validation", n < 3, -1 - n / 100) for n in range(24)]
    calibration = calibrate(wrong + [pair("train", True, -n / 1000) for n in range(96)])
    assert calibration
    assert calibration.source == "24 held-out and 96 trained pairs"
    message = r"^--precision: only 3 of 24 answers to held-out questions are right, and at least 20 are needed"
    with pytest.raises(UserError, match=message):
        calibration.threshold_for(0.1)
    assert calibration.probability(-0.01) > calibration.probability(-1.1)  # --abstain-below has its map


def test_a_file_of_an_older_version_makes_no_precision(tmp_path):
    x, _, right = planted(300)
    fit_calibration(x, right, {"validation": 300}).save(tmp_path)
    found = json.loads((tmp_path / "confidence.json").read_text())
    del found["held_out"]
    (tmp_path / "confidence.json").write_text(json.dumps(found))
    old = Calibration.load(tmp_path)
    assert old
    assert 0 <= old.probability(-0.1) <= 1
    with pytest.raises(UserError, match=r"^--precision: confidence.json was written by an older version"):
        old.threshold_for(0.5)


def test_the_board_counts_abstaining_on_pairs_that_were_not_trained():
    held_out, trained = held_out_curve()
    calibration = calibrate(held_out + trained)
    assert calibration
    answers = [
        dataclasses.replace(each, probability=calibration.probability(each.log_probability))
        for each in held_out + trained
    ]
    found = evaluated_board_entry(calibration, answers, calibration.threshold_for(0.95))
    assert found
    assert found["curve"] == calibration.curve
    assert found["held_out"] == calibration.held_out
    shares = {"coverage": 0.4, "precision": 0.95, "asked": {"validation": 100}}
    assert {name: found["abstaining"][name] for name in shares} == shares
    only_trained = evaluated_board_entry(calibration, answers[100:], 0.0)
    assert only_trained
    assert only_trained["abstaining"]["asked"] == {"train": 400}


def test_the_file_is_read_back_and_damage_is_told(tmp_path):
    assert Calibration.load(tmp_path) is None
    x, _, right = planted(300)
    calibration = fit_calibration(x, right, {"validation": 300})
    calibration.save(tmp_path)
    assert Calibration.load(tmp_path) == calibration
    (tmp_path / "confidence.json").write_text('{"method": "platt"}')
    with pytest.raises(UserError, match=r"confidence.json: is not a valid calibration"):
        Calibration.load(tmp_path)
