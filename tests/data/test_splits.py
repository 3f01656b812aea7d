"""Splits: nothing leaks, nothing depends on the order of the file, and the tutorial's is the tutorial's."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.pairs import normalise_question, text_key
from qa_lm.data.prepare import prepare
from qa_lm.data.quality.near import NEAR, near_groups
from qa_lm.data.splits.draw import UNSEEN_FACT, UNSEEN_PHRASING, group_split, leaks, shuffled_split, unit_split
from qa_lm.errors import UserError
from tests.conftest import builtin

GPT2 = TokenizerConfig("gpt2")


def keys(texts: list[str]) -> np.ndarray:
    return np.array([text_key(text) for text in texts], np.uint64)


def test_the_shuffle_is_the_tutorials():
    pairs = builtin("tutorial")
    expected = list(pairs)
    random.seed(42)
    random.shuffle(expected)
    split = shuffled_split(len(pairs), 0.8, 42)
    assert [pairs[index] for side in split[:2] for index in side] == expected
    assert {pairs[index].question for index in split.validation} == {
        "What is the capital of France?",
        "What is the capital of Germany?",
    }


@pytest.mark.parametrize(("count", "fraction", "train"), [(2, 0.8, 1), (2, 0.1, 1), (3, 0.99, 2), (10, 0.8, 8)])
def test_both_sides_of_a_split_have_a_pair(count, fraction, train):
    for split in (
        shuffled_split(count, fraction, 0),
        unit_split(keys(list("abcdefghij"[:count])), keys(list("klmnopqrst"[:count])), fraction, 0, "question"),
    ):
        assert (len(split.train), len(split.validation)) == (train, count - train)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=2, max_size=60),
    st.integers(0, 2**31),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_a_split_by_units_never_parts_one_and_does_not_know_the_files_order(drawn, seed, shuffler):
    def sides(rows):
        units, pairs = keys([str(unit) for unit, _ in rows]), keys([f"{unit} {answer}" for unit, answer in rows])
        split = unit_split(units, pairs, 0.8, seed, "question")
        assert sorted([*split.train, *split.validation]) == list(range(len(rows)))
        return [[rows[index] for index in side] for side in split[:2]]

    if len({unit for unit, _ in drawn}) == 1:
        with pytest.raises(UserError, match="all have one question"):
            sides(drawn)
        return
    train, validation = sides(drawn)
    assert {unit for unit, _ in train}.isdisjoint(unit for unit, _ in validation)
    assert train
    assert validation
    other = list(drawn)
    shuffler.shuffle(other)
    assert sides(other) == [train, validation]


def test_another_seed_is_another_split_and_the_share_is_kept():
    units = keys([str(i) for i in range(1000)])
    one, other = (unit_split(units, units, 0.8, seed, "question") for seed in (0, 1))
    assert len(one.train) == len(other.train) == 800
    assert 60 < len(np.setdiff1d(one.validation, other.validation)) < 200


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=3, max_size=60),
    st.integers(1, 2),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=300, deadline=None)
def test_held_out_phrasings_are_of_trained_facts_and_held_out_facts_of_none(rows, number, facts, seed):
    groups = np.array([0 if fact == 0 else text_key(str(fact)) for fact, _ in rows], np.uint64)
    questions = keys([f"{fact} {wording}" for fact, wording in rows])
    try:
        split = group_split(groups, questions, questions, 0.8, seed, number, facts)
    except UserError as error:
        assert any(words in str(error) for words in ("no pair has a group", "is held out", "all have one group"))  # noqa: PT017
        return
    assert sorted([*split.train, *split.validation]) == list(range(len(rows)))
    trained = {rows[index][0] for index in split.train}
    trained_questions = {rows[index] for index in split.train}
    phrasings: dict[int, set[tuple[int, int]]] = {}
    for index, why in zip(split.validation, split.held_out, strict=True):
        fact, wording = rows[index]
        assert fact != 0
        assert (fact in trained) == (why == UNSEEN_PHRASING)
        assert (fact, wording) not in trained_questions
        if why == UNSEEN_PHRASING:
            phrasings.setdefault(fact, set()).add((fact, wording))
    assert all(len(held_out) == number for held_out in phrasings.values())
    for fact in trained - {0}:
        total = len({row for row in rows if row[0] == fact})
        assert (fact in phrasings) is (total > number)
    if not facts:
        assert (split.held_out == UNSEEN_PHRASING).all()
    elif len(set(groups.tolist()) - {0}) > 1:
        assert (split.held_out == UNSEEN_FACT).any()


def test_every_wording_is_held_out_somewhere_and_trained_elsewhere():
    rows = [(f"fact {fact}", f"wording {wording}") for fact in range(60) for wording in range(6)]
    groups, questions = keys([fact for fact, _ in rows]), keys([f"{w} of {f}" for f, w in rows])
    split = group_split(groups, questions, questions, 0.8, 0, 1, False)
    for side in split[:2]:
        assert {rows[index][1] for index in side} == {f"wording {wording}" for wording in range(6)}


def near(questions: list[str]) -> np.ndarray:
    return near_groups(questions, keys([normalise_question(question) for question in questions]))


def test_near_duplicates_form_groups():
    questions = [
        "who sang the national anthem at the super bowl",
        "How far is it to the moon?",
        "how far is it to the moon",
    ]
    questions += ["Who sang the national anthem in the super bowl?", "What is the capital of France?", "x", "y", "X?"]
    groups = near(questions)
    assert groups[0] == groups[3]
    assert groups[1] == groups[2]
    assert groups[5] == groups[7]
    assert len(set(groups.tolist())) == 5
    assert len(near([])) == 0


def as_sets(questions: list[str], groups: np.ndarray) -> set[frozenset[str]]:
    return {
        frozenset(question for question, other in zip(questions, groups, strict=True) if other == group)
        for group in set(groups.tolist())
    }


def near_pairs(questions: list[str]) -> list[tuple[str, str]]:
    """Near ones by comparing all with all."""
    pieces = {}
    for question in questions:
        text = normalise_question(question)
        pieces[question] = {text[i : i + 4] for i in range(max(1, len(text) - 3))}
    return [
        (one, other)
        for one, other in itertools.combinations(pieces, 2)
        if len(pieces[one] & pieces[other]) >= NEAR * len(pieces[one] | pieces[other])
    ]


def chains_of(questions: list[str]) -> set[frozenset[str]]:
    groups = [{question} for question in dict.fromkeys(questions)]
    for one, other in near_pairs(questions):
        joined = [group for group in groups if one in group or other in group]
        groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("seed", range(5))
def test_near_groups_are_those_of_comparing_all_in_whatever_order(seed):
    dice = random.Random(seed)
    words = ["moon", "river", "anthem", "capital", "invented", "highest", "mountain", "author"]
    questions = [" ".join(dice.choices(words, k=dice.randrange(3, 9))) for _ in range(120)]
    questions += [question.replace("moon", "moons", 1) for question in questions[:60]]
    expected = chains_of(questions)
    assert 5 < sum(len(group) > 1 for group in expected) < len(expected)
    assert as_sets(questions, near(questions)) == expected
    dice.shuffle(questions)
    assert as_sets(questions, near(questions)) == expected


def test_near_questions_of_one_template_stay_together():
    """Hundreds are equal in most bands, and only those of similar numbers are near."""
    dice = random.Random(0)
    template = "Compute the sum of the following two whole numbers please: {} plus {}"
    questions = [template.format(dice.randrange(10**5), dice.randrange(10**5)) for _ in range(300)]
    pairs, groups = near_pairs(questions), dict(zip(questions, near(questions).tolist(), strict=True))
    assert 200 < len(pairs) < 40_000
    assert len(set(groups.values())) > 1
    parted = sum(groups[one] != groups[other] for one, other in pairs)
    assert parted <= 2  # what has no band in common


def test_one_group_cannot_be_split_by_facts():
    groups = keys(["g"] * 4)
    with pytest.raises(UserError, match="all have one group"):
        group_split(groups, keys(list("abcd")), keys(list("abcd")), 0.8, 0, 1, True)


def test_near_groups_of_thousands_alike_do_not_depend_on_the_order():
    """Where not all can be compared, what is compared is a function of the set."""
    dice = random.Random(0)
    towns = ["".join(dice.choices("abcdefgh", k=dice.randrange(3, 12))) for _ in range(3000)]
    questions = [f"How many people live in {town}?" for town in towns]
    expected = as_sets(questions, near(questions))
    assert 100 < max(map(len, expected)) < 2900
    dice.shuffle(questions)
    assert as_sets(questions, near(questions)) == expected


def jsonl(folder, name, pairs):
    path = folder / name
    path.write_text("".join(f'{{"question": "{question}", "answer": "{answer}"}}\n' for question, answer in pairs))
    return str(path)


@pytest.mark.parametrize("kind", ["question", "near"])
def test_a_file_in_another_order_and_format_trains_the_same_pairs_in_the_same_order(tmp_path, kind):
    words = random.Random(1)
    pairs = [(f"What is {words.randbytes(6).hex()} to {words.randbytes(6).hex()}?", str(i)) for i in range(300)]
    pairs += [(question.lower(), "again") for question, _ in pairs[:20]]
    shuffled = list(pairs)
    random.Random(0).shuffle(shuffled)
    orders = []
    for name, each in (("one.jsonl", pairs), ("two.jsonl", shuffled)):
        prepared = prepare(DataConfig(path=jsonl(tmp_path, name, each), split=kind), GPT2, 256)
        orders.append([prepared.table.pairs(side) for side in prepared.split[:2]])
        assert prepared.report.repeated_questions == {"validation": 0, "test": 0}
    assert orders[0] == orders[1]


def test_files_for_validation_and_test_with_their_leaks_counted(tmp_path):
    train = jsonl(tmp_path, "train.jsonl", [(f"q{i}?", str(i)) for i in range(20)])
    validation = jsonl(tmp_path, "validation.jsonl", [("Q3", "3"), ("new?", "x"), ("q4", "5")])
    test = jsonl(tmp_path, "test.jsonl", [("other?", "x"), ("q5?", "5")])
    prepared = prepare(DataConfig(path=train, validation_path=validation, test_path=test), GPT2, 256)
    assert [len(side) for side in prepared.split[:3]] == [20, 3, 2]
    assert prepared.report.repeated_questions == {"validation": 2, "test": 1}
    assert (
        "pairs of validation with the question of a trained pair: 2; their scores do not show generalisation"
        in prepared.report.warnings
    )
    only_test = prepare(DataConfig(path=train, test_path=test), GPT2, 256)
    assert [len(side) for side in only_test.split[:3]] == [16, 4, 2]
    with pytest.raises(UserError, match="named twice|holds no pairs"):
        prepare(DataConfig(path=train, validation_path=jsonl(tmp_path, "empty.jsonl", [])), GPT2, 256)


def test_the_tutorials_shuffle_leaks_where_questions_repeat(tmp_path):
    path = jsonl(tmp_path, "twice.jsonl", [(f"q{i}?", str(i)) for i in range(20)] * 2)
    prepared = prepare(DataConfig(path=path, split="shuffle"), GPT2, 256)
    assert prepared.report.repeated_questions["validation"] > 0
    assert leaks(prepared.split, prepared.table.numbers("normalised_key")) == prepared.report.repeated_questions


def test_capitals_hold_out_phrasings_and_facts():
    data = DataConfig(builtin="capitals", split="phrasing_and_fact", train_fraction=0.9)
    prepared = prepare(data, GPT2, 256)
    held_out = prepared.report.held_out
    trained = {pair.group for pair in prepared.table.pairs(prepared.split.train)}
    assert held_out["unseen phrasing of a trained fact"] == len(trained)
    assert held_out["unseen fact"] >= 6 * 19
    assert len(trained) + held_out["unseen fact"] // 7 == prepared.report.counts["groups"]
    with pytest.raises(UserError, match="no pair has a group"):
        prepare(DataConfig(builtin="tutorial", split="fact"), GPT2, 256)
