"""The statistics of sweeps: against scipy's, and on planted data."""

import random

import pytest
from scipy import stats

from qa_lm.reporting.sweep.statistics import (
    Comparison,
    Difference,
    against_best,
    between_levels,
    difference,
    estimate,
    seeds_needed,
)

Values = dict[tuple[str, ...], dict[str, float]]
LEVELS = (("a", "b"), ("1", "2", "3"))


def test_one_cell_is_scipys_own_test():
    draw = random.Random(1)
    first, second = ({str(seed): draw.gauss(mean, 1.0) for seed in range(5)} for mean in (0.0, 1.0))
    paired = difference([(first, second)])
    theirs = stats.ttest_rel(list(first.values()), list(second.values()))
    assert paired.paired
    assert paired.p == pytest.approx(theirs.pvalue)
    assert (paired.low, paired.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    other_seeds = {f"other {seed}": value for seed, value in second.items() if seed != "4"}
    welch = difference([(first, other_seeds)])
    theirs = stats.ttest_ind(list(first.values()), list(other_seeds.values()), equal_var=False)
    assert not welch.paired
    assert welch.p == pytest.approx(theirs.pvalue)
    assert (welch.low, welch.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_seeds_that_one_side_lacks_are_left_out_of_the_pairs():
    found = difference([({"1": 1.0, "2": 2.0, "3": 9.0}, {"1": 0.5, "2": 1.7})])
    assert found.paired
    assert found.runs == 2
    assert found.value == pytest.approx(0.4)


def test_the_interval_is_students():
    found = estimate([1.0, 2.0, 4.0])
    theirs = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (found.low, found.high) == pytest.approx(theirs)
    assert estimate([1.0]).low is None


def test_one_seed_is_never_tested():
    values: Values = {("a",): {"1": 0.0}, ("b",): {"1": 1000.0}}
    compared = against_best(values, smaller_is_better=True)
    assert compared == [Comparison(("a",), ("b",), Difference(-1000.0))]
    assert compared[0].difference.significant is None


def test_no_spread_is_no_proof():
    three = difference([({"1": 9, "2": 9, "3": 9}, {"1": 10, "2": 10, "3": 10})])
    assert (three.p, three.low) == (0.25, None)
    assert difference([({"1": 9, "2": 9}, {"1": 9, "2": 9})]).p == 1.0
    apart = difference([({"1": 9, "2": 9, "3": 9}, {"4": 10, "5": 10, "6": 10})])
    assert apart.p == pytest.approx(2 / 20)


def test_the_correction_is_holms_over_all_pairs():
    draw = random.Random(2)
    values: Values = {
        (name,): {str(seed): draw.gauss(mean, 0.1) for seed in range(6)} for mean, name in enumerate("abcd")
    }
    compared = against_best(values, smaller_is_better=True)
    assert [each.other for each in compared] == [("b",), ("c",), ("d",)]
    ordered = sorted(each.difference.p for each in compared)  # type: ignore[type-var]
    expected = [min(1.0, p * (6 - rank)) for rank, p in enumerate(ordered)]  # type: ignore[operator]
    assert sorted(each.difference.p_corrected for each in compared) == pytest.approx(expected)  # type: ignore[type-var]
    assert [each.best for each in against_best(values, smaller_is_better=False)] == [("d",)] * 3


def simulated(draw: random.Random, effect: float, seeds: int, paired: bool, uneven: bool, two_knobs: bool) -> Values:
    """A sweep of six settings: noise of a standard deviation of 1, and what is planted at level b."""
    places = [(a, b) for a in LEVELS[0] for b in LEVELS[1]]
    shared = [draw.gauss(0, 1) for _ in range(seeds)]
    values: Values = {}
    for index, place in enumerate(places):
        spread = draw.choice((0.2, 1.0, 5.0)) if uneven else 1.0
        mean = effect if place[0] == "b" else 0.0
        values[place if two_knobs else (str(index),)] = {
            str(seed if paired else (index, seed)): mean + (shared[seed] if paired else 0.0) + draw.gauss(0, spread)
            for seed in range(seeds)
        }
    return values


def alarms(values: Values, two_knobs: bool) -> list[Comparison]:
    share = 0.5 if two_knobs else 1.0
    compared = against_best(values, True, share)
    if two_knobs:
        compared = [*compared, *(each for knob in between_levels(values, LEVELS, True, share) for each in knob)]
    assert all(each.difference.p_corrected is not None for each in compared)
    return [each for each in compared if each.difference.significant]


@pytest.mark.parametrize(
    ("seeds", "paired", "uneven", "two_knobs"),
    [
        (3, True, False, True),
        (3, True, True, True),
        (3, False, True, True),
        (2, False, True, True),
        (6, True, False, True),
        (6, True, False, False),
    ],
)
def test_false_alarms_come_in_at_most_one_sweep_of_twenty(seeds, paired, uneven, two_knobs):
    draw = random.Random(3)
    sweeps = [simulated(draw, 0.0, seeds, paired, uneven, two_knobs) for _ in range(400)]
    assert sum(bool(alarms(values, two_knobs)) for values in sweeps) <= 0.05 * len(sweeps)


@pytest.mark.parametrize("paired", [True, False])
def test_an_effect_that_is_there_is_found(paired):
    draw = random.Random(4)
    found = 0
    for _ in range(200):
        settled = alarms(simulated(draw, 3.0, 4, paired, False, True), True)
        # Every alarm is about the planted knob, or a false one.
        right = [each for each in settled if (each.best, each.other) == ("a", "b")]
        found += bool(right)
        assert all(-6 < each.difference.value < 0 for each in right)
    assert found >= 180


def test_an_interaction_is_no_seed_noise():
    """Level b helps much in one setting and little in another: with little seed noise both are seen as one effect."""
    draw = random.Random(5)
    values: Values = {
        (a, c): {str(seed): (gain if a == "b" else 0.0) + draw.gauss(0, 0.05) for seed in range(4)}
        for a in "ab"
        for c, gain in (("1", -4.0), ("2", -0.4))
    }
    (compared,) = between_levels(values, LEVELS, True)[0]
    assert compared.difference.significant
    assert compared.difference.value == pytest.approx(-2.2, abs=0.1)


def test_seeds_needed_give_the_power_that_they_promise():
    needed = seeds_needed(Difference(1.0, spread=1.5))
    assert needed == 20  # 1.5 * (1.96 + 0.84) squared is 17.6, and Student's t asks for a little more
    draw, seen = random.Random(6), 0
    for _ in range(400):
        gaps = {str(seed): draw.gauss(1.0, 1.5) for seed in range(needed)}
        seen += difference([(gaps, dict.fromkeys(gaps, 0.0))]).p < 0.05  # type: ignore[operator]
    assert 0.75 < seen / 400 < 0.86
    assert seeds_needed(Difference(0.001, spread=1.0)) is None
    assert seeds_needed(Difference(1.0)) is None
    assert seeds_needed(Difference(1e9, spread=1.0)) == 2
