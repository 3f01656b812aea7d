"""What the report on the data counts."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_lm.config.schema import DataConfig
from qa_lm.data.pairs import Pair
from qa_lm.data.prepare import prepare
from qa_lm.data.quality.checks import percentiles, summary
from qa_lm.data.quality.repeats import find_repeats, report_contradictions, report_repeats
from tests.conftest import table_of
from tests.prepared_pairs import GPT2, jsonl


@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_percentiles_are_numpys(values):
    expected = np.percentile(values, [0, 1, 5, 25, 50, 75, 95, 99, 100], method="inverted_cdf")
    assert list(percentiles(np.bincount(values)).values()) == expected.astype(int).tolist()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_repeats_and_contradictions_are_those_that_counting_finds(tmp_path_factory, rows):
    pairs = [Pair(f"q{q}", f"a{a}") for q, a in rows]
    table = table_of(pairs, tmp_path_factory.mktemp("table"))
    found = find_repeats(table, np.arange(len(pairs)))
    by_pair, by_question = Counter(rows), Counter(q for q, _ in rows)
    answers = {q: {a for p, a in rows if p == q} for q in by_question}
    assert found.questions == len(by_question)
    assert report_repeats(table, found)["count"] == len(rows) - len(by_pair)
    report = report_contradictions(table, found, 10, 100, 3.0)
    contradicted = [q for q in by_question if len(answers[q]) > 1]
    assert report["questions"] == len(contradicted)
    assert report["pairs"] == sum(by_question[q] for q in contradicted)
    best = sum(max(by_pair[q, a] for a in answers[q]) for q in by_question)
    assert report["best_recall"] == pytest.approx(best / len(rows))
    nats = -sum(math.log(by_pair[row] / by_question[row[0]]) for row in rows)
    assert report["best_answer_loss"] == pytest.approx(nats / 10, abs=1e-12)
    pair_nats = -sum(math.log(by_pair[row] / len(rows)) for row in rows)
    assert report["best_loss"] == pytest.approx((pair_nats - 3.0) / 100)
    for listed in report["listed"]:
        places = [f"pairs:{line}" for line, row in enumerate(rows, start=1) if f"q{row[0]}" == listed["question"]]
        assert listed["places"] == places[:20]
    firsts = [int(listed["places"][0].split(":")[1]) for listed in report["listed"]]
    assert firsts == sorted(firsts)


def test_slices_of_many_keys_find_the_same(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    pairs = [Pair(f"q{q}", f"a{a}") for q, a in generator.integers(0, [300, 3], (1000, 2))]
    table = table_of(pairs, tmp_path)
    whole = find_repeats(table, np.arange(1000))
    monkeypatch.setattr("qa_lm.data.keys.SLICE", 60)
    sliced = find_repeats(table, np.arange(1000))
    assert sliced.answer_nats == pytest.approx(whole.answer_nats)
    sliced.answer_nats, sliced.pair_nats = whole.answer_nats, whole.pair_nats
    assert sliced == whole


def test_the_best_loss_is_that_of_a_model_that_knows_the_file(tmp_path):
    """One question with two answers: no model answers more than half, or loses less than ln 2 per answer."""
    path = jsonl(tmp_path / "coin.jsonl", [("Heads or tails?", side) for side in ("heads", "tails")] * 10)
    data = prepare(DataConfig(path=str(path), split="shuffle"), GPT2, 256)
    report = data.report.contradictions
    assert report["best_recall"] == 0.5
    assert report["best_answer_loss"] * data.report.tokens["per_answer"] == pytest.approx(math.log(2))
    assert "no model can answer more than 50.00% of the pairs" in "\n".join(summary(data.report))


def test_the_first_token_is_given_and_so_no_loss(tmp_path):
    """Four pairs told apart by their first token alone: a model that knows them by heart loses nothing."""
    path = jsonl(tmp_path / "first.jsonl", [(word, "yes") for word in ("one", "two", "three", "four")])
    best = prepare(DataConfig(path=str(path)), GPT2, 256).report.contradictions
    assert best["best_loss"] == pytest.approx(0, abs=1e-9)
    path = jsonl(tmp_path / "second.jsonl", [(f"say {word}", "yes") for word in ("one", "two", "three", "four")])
    data = prepare(DataConfig(path=str(path)), GPT2, 256)
    assert data.report.contradictions["best_loss"] * data.report.tokens["per_example"] == pytest.approx(math.log(4))


def test_an_answer_that_several_pairs_accept_counts_for_all_of_them(tmp_path):
    pairs = [Pair("q", "Paris", ("paris",)), Pair("q", "paris", ("Paris", "PARIS")), Pair("q", "Rome"), Pair("r", "x")]
    table = table_of(pairs, tmp_path)
    found = find_repeats(table, np.arange(4))
    assert found.answered_best == 3
    assert report_contradictions(table, found, 1, 1, 0.0)["best_recall"] == 0.75
    assert report_contradictions(table, find_repeats(table, np.array([0, 1])), 1, 1, 0.0)["best_recall"] == 1


def faq(questions: int, answers: int, answer: str = "We answer this one in words, number {}.") -> list[tuple[str, str]]:
    return [(f"Wording {n} of {a}?", answer.format(a)) for a in range(answers) for n in range(questions)]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (faq(3, 40), "answers: 40 different ones; an answer has 3 questions (median; at most 3)"),
        ([*faq(1, 40), *faq(2, 1)], "answers: 40 different ones; an answer has 1 question (median; at most 2)"),
        (faq(1, 40), None),
        ([("Same?", "One.")] * 9 + [("Other?", "Two.")], None),  # repeats are no wordings
    ],
)
def test_how_many_answers_there_are_and_how_many_questions_each_has(tmp_path, pairs, said):
    report = prepare(DataConfig(path=str(jsonl(tmp_path / "faq.jsonl", pairs))), GPT2, 256).report
    assert report.counts["answers"] == len({answer for _, answer in pairs})
    assert [line for line in summary(report) if line.startswith("answers: ")] == ([said] if said else [])


@pytest.mark.parametrize(
    ("pairs", "offered"),
    [
        (faq(3, 40), True),
        ([*faq(2, 10), *[(f"Single {n}?", f"Only this question has it: {n}.") for n in range(15)]], True),
        ([*faq(2, 10), *[(f"Single {n}?", f"Only this question has it: {n}.") for n in range(25)]], False),
        (faq(50, 2), False),  # yes and no
        (faq(40, 7), False),  # classes
        (faq(3, 40, "{}"), False),  # numbers
        (faq(1, 40), False),
    ],
)
def test_a_faq_is_offered_a_split_by_wordings(tmp_path, pairs, offered):
    path = jsonl(tmp_path / "faq.jsonl", pairs)
    report = prepare(DataConfig(path=str(path)), GPT2, 256).report
    assert any("data.group=answer data.split=phrasing" in line for line in summary(report)) is offered
    if not offered:
        return
    for split in ("phrasing", "fact", "phrasing_and_fact"):
        data = prepare(DataConfig(path=str(path), group="answer", split=split), GPT2, 256)
        assert data.report.counts["groups"] == data.report.counts["answers"]
        assert not any("data.group" in line for line in summary(data.report))
        answers = [{pair.answer for pair in data.table.pairs(side)} for side in data.split[:2]]
        if split == "phrasing":
            assert answers[1] <= answers[0]
        if split == "fact":
            assert answers[0].isdisjoint(answers[1])
