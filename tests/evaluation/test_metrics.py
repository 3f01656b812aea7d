"""SQuAD's rules on cases worked by hand, and Wilson's intervals on published values."""

import pytest

from qa_lm.evaluation.metrics import f1, normalise_answer, normalised_exact_match, share


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("  an\tapple  a day ", "apple day"),
        ("U.S.A.", "usa"),  # punctuation goes without leaving a space
        ("rock-and-roll", "rockandroll"),
        ("theatre", "theatre"),  # articles are words, not letters
        ("The", ""),
        ("", ""),
        ("Straße — „Zitat“", "straße — „zitat“"),  # only ASCII punctuation goes
        ("서울은 수도입니다!", "서울은 수도입니다"),
        ("É", "é"),
    ],
)
def test_normalised_answers(text, normalised):
    assert normalise_answer(text) == normalised


@pytest.mark.parametrize(
    ("answer", "accepted", "same", "score"),
    [
        ("the Eiffel Tower!", ["Eiffel tower"], True, 1.0),
        ("in Paris", ["Paris"], False, 2 / 3),
        ("Paris Paris", ["Paris"], False, 2 / 3),  # words count as often as they stand
        ("Paris, Texas", ["London", "Texas"], False, 2 / 3),  # the best of the accepted ones
        ("London", ["Paris"], False, 0.0),
        ("", [""], True, 1.0),
        ("the", ["a"], True, 1.0),  # both have no words
        ("", ["Paris"], False, 0.0),
        ("Paris", ["the"], False, 0.0),
        ("서울 입니다", ["서울"], False, 2 / 3),
    ],
)
def test_exact_match_and_f1(answer, accepted, same, score):
    assert normalised_exact_match(answer, accepted) is same
    assert f1(answer, accepted) == pytest.approx(score)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval(right, n, low, high):
    found = share([1.0] * right + [0.0] * (n - right))
    mirrored = share([0.0] * right + [1.0] * (n - right))
    assert found
    assert mirrored
    assert found.value == pytest.approx(right / n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_no_values_have_no_share():
    assert share([]) is None
