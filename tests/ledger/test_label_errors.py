"""Training dynamics, minority answers, answer consistency and the label error score."""

import numpy as np
import pytest

from qa_lm.data.pairs import Pair
from qa_lm.data.quality.minority import minority_answers
from qa_lm.data.quality.similarity import answer_consistency
from qa_lm.ledger.training_dynamics import LOSS_WEIGHT, MINORITY_WEIGHT, is_high, label_error_score, training_dynamics
from tests.conftest import builtin, table_of


@pytest.mark.parametrize(
    ("exact", "learnt_at", "first_exact", "forgotten"),
    [
        ([0, 0, 0, 0], 0, 0, 0),
        ([1, 1, 1, 1], 1, 1, 0),
        ([0, 1, 0, 1], 4, 2, 1),
        ([1, 0, 1, 0], 0, 1, 2),
        ([0, 0, 1, 1], 3, 3, 0),
        ([0, 1, -1, 1], 2, 2, 0),
        ([0, 1, 1, -1], 2, 2, 0),
        ([0, 1, -1, 0], 0, 2, 1),
        ([-1, -1, -1, -1], 0, 0, 0),
    ],
)
def test_training_dynamics(exact, learnt_at, first_exact, forgotten):
    losses = [np.array([np.nan if now < 0 else 4.0 - epoch], np.float32) for epoch, now in enumerate(exact)]
    found = training_dynamics(losses, [np.array([now], np.int8) for now in exact], 1)
    seen = [float(loss[0]) for loss in losses if not np.isnan(loss[0])]
    assert (found.learnt_at[0], found.first_exact[0], found.forgotten[0]) == (learnt_at, first_exact, forgotten)
    np.testing.assert_allclose(found.last_loss[0], seen[-1] if seen else np.nan)
    np.testing.assert_allclose(found.mean_loss[0], np.mean(seen) if seen else np.nan)


def test_high_values():
    assert not is_high(np.ones(100)).any()
    assert not is_high(np.zeros(0)).any()
    assert np.flatnonzero(is_high(np.arange(100.0))).tolist() == [95, 96, 97, 98, 99]


def test_minority_answers(tmp_path):
    asked = "how long may a parcel be that is sent abroad by post"
    pairs = [
        Pair("Who wrote it?", "Ada"),  # 0
        Pair("who wrote it", "ada."),  # 1: the same question and the same answer
        Pair("Who wrote  it??", "Bob"),  # 2: a minority answer
        Pair("When?", "1901"),  # 3: one against one
        Pair("when", "1902"),
        Pair(f"{asked}?", "60 cm"),  # 5
        Pair(f"{asked} now?", "60 cm"),
        Pair(f"{asked} today?", "90 cm"),  # 7: a minority answer
        Pair("Capital of A?", "X", group="A"),  # 8
        Pair("Name the seat of government of A.", "X", group="A"),
        Pair("A is ruled from?", "Y", group="A"),  # 10: a minority answer
        Pair("Is one even?", "no"),  # 11: two say yes, two no
        Pair("is one even", "no"),
        Pair("is one even!", "yes"),
        Pair("is one even...", "yes"),
        Pair("Which?", "red"),  # 15
        Pair("which", "red"),
        Pair("which??", "blue", other_answers=("red",)),  # 17 accepts what the others say
        *(Pair("Half of them?", answer) for answer in ("a", "a", "b", "c")),  # 18
        *(Pair("Where are two alone?", answer) for answer in ("a", "a", "a", "b", "b")),  # 22
    ]
    table = table_of(pairs, tmp_path)
    expected = {2: ("the same question", 0), 7: ("a near-duplicate", 5), 10: ("the same fact", 8)}
    assert minority_answers(table, np.arange(27)) == expected
    assert minority_answers(table, np.arange(1, 27)) == {7: expected[7], 10: expected[10]}  # pair 0 is not trained
    assert minority_answers(table, np.arange(0)) == {}
    strangers = table_of([Pair("Who?", "x"), Pair("Where?", "x"), Pair("When?", "y")], tmp_path)
    assert minority_answers(strangers, np.arange(3)) == {}


def test_an_answer_of_another_question_has_a_low_consistency(tmp_path):
    """Ten commands with five questions each, of which two have each other's answers."""
    names = [name * 2 for name in ("axel", "brno", "cdkr", "dhol", "erfu", "fjrd", "gnom", "hxak", "inuk", "jolt")]
    pairs = [Pair(f"{name}: what is its mode number {i}", f"{name} --{'xyzuv'[i]}") for name in names for i in range(5)]
    pairs[7], pairs[31] = pairs[7]._replace(answer=pairs[31].answer), pairs[31]._replace(answer=pairs[7].answer)
    table = table_of(pairs, tmp_path)
    found = answer_consistency(table, np.arange(50))
    assert set(np.argsort(found)[:2]) == {7, 31}
    assert found[[7, 31]].max() < 0.1 < 0.5 < np.delete(found, [7, 31]).min()
    without = np.delete(np.arange(50), 3)
    assert answer_consistency(table, without).shape == (49,)
    assert set(without[np.argsort(answer_consistency(table, without))[:2]]) == {7, 31}
    assert answer_consistency(table, np.arange(0)).shape == (0,)
    assert np.isfinite(answer_consistency(table_of([Pair("same", "same")] * 3, tmp_path), np.arange(3))).all()


def test_pairs_are_compared_within_blocks_of_neighbours(tmp_path, monkeypatch):
    pairs = builtin("capitals")[:70]
    table = table_of(pairs, tmp_path)
    halves = [answer_consistency(table_of(half, tmp_path), np.arange(35)) for half in (pairs[:35], pairs[35:])]
    assert not np.allclose(answer_consistency(table, np.arange(70)), np.concatenate(halves), atol=0.01)
    monkeypatch.setattr("qa_lm.data.quality.similarity.BLOCK", 40)
    np.testing.assert_allclose(answer_consistency(table, np.arange(70)), np.concatenate(halves), atol=1e-5)


def test_the_label_error_score_adds_three_terms():
    loss, consistency = np.array([1.0, 2, 3, np.nan]), np.array([0.9, 0.1, 0.5, 0.5])
    found = label_error_score(loss, consistency, np.array([False, False, True, False]))
    consistency_term, loss_term = np.log([1, 4, 4 / 3, 4 / 3]), np.log([4 / 3, 2, 4, 1])
    np.testing.assert_allclose(
        found, consistency_term + LOSS_WEIGHT * loss_term + [0, 0, MINORITY_WEIGHT, 0], rtol=1e-6
    )
    assert label_error_score(loss[:0], consistency[:0], np.zeros(0, bool)).shape == (0,)
