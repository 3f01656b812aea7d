"""The three similarities, and that pairs which are left out do not count."""

import numpy as np
import pytest

from qa_lm.retrieval import ranking
from qa_lm.retrieval.known_pairs import KnownPairs
from qa_lm.retrieval.ranking import find_candidates
from qa_lm.retrieval.similarity import LeftOut, SimilarityIndex, tfidf_index
from tests.retrieval.faq import faq, pairs_of

PAIRS, OTHERS = faq(12)


def drawn_vectors(texts):
    """Unit vectors that depend on the text alone, with negative products too."""
    vectors = np.array([np.random.default_rng(list(text.encode())).normal(size=5) for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def drawn_index(pairs):
    return SimilarityIndex(pairs, drawn_vectors, drawn_vectors)


def without(pairs, gone):
    """The pairs without some, and the index of each distinct answer that is left among all answers."""
    kept = [place for place in range(len(pairs.questions)) if place not in gone]
    rest = pairs_of([(pairs.questions[place], pairs.answers[place]) for place in kept])
    return rest, [pairs.numbers[answer] for answer in rest.distinct]


def test_the_measures_are_what_they_say():
    questions = OTHERS.questions[:5]
    found = drawn_index(PAIRS).similarities(questions)
    assert found.shape == (5, 12, 3)
    whole = drawn_vectors(questions) @ drawn_vectors(PAIRS.texts).T
    asked = drawn_vectors(questions) @ drawn_vectors(PAIRS.questions).T
    for number in range(12):
        own = PAIRS.answer_of == number
        assert found[:, number, 0] == pytest.approx(whole[:, own].mean(axis=1), abs=1e-6)
        assert found[:, number, 1] == pytest.approx(whole[:, own].max(axis=1).clip(0), abs=1e-6)
        assert found[:, number, 2] == pytest.approx(asked[:, own].max(axis=1).clip(0) ** 4, abs=1e-6)


@pytest.mark.parametrize("with_answer", [False, True])
def test_a_pair_that_is_left_out_does_not_count(with_answer):
    for place in range(0, len(PAIRS.questions), 5):
        left_out = LeftOut(np.array([place]), with_answer)
        gone = np.flatnonzero(PAIRS.answer_of == PAIRS.answer_of[place]) if with_answer else [place]
        rest, numbers = without(PAIRS, gone)
        found = drawn_index(PAIRS).similarities([PAIRS.questions[place]], left_out)[0]
        wanted = drawn_index(rest).similarities([PAIRS.questions[place]])[0]
        np.testing.assert_allclose(found[numbers], wanted, atol=1e-6)
        assert not found[sorted({*range(12)} - {*numbers})].any()


@pytest.mark.parametrize("index_of", [drawn_index, tfidf_index])
def test_an_answer_of_which_all_is_left_out_has_similarity_zero(index_of):
    lonely = pairs_of([*zip(PAIRS.questions, PAIRS.answers, strict=True), ("Who are you?", "A model.")])
    places = np.array([0, len(lonely.questions) - 1])
    asked = [lonely.questions[place] for place in places]
    alone, with_answer = (index_of(lonely).similarities(asked, LeftOut(places, each)) for each in (False, True))
    assert not alone[1, 12].any()
    assert alone[0, 0].any()
    assert not with_answer[0, 0].any()
    assert not with_answer[1, 12].any()


def test_the_order_of_the_pairs_does_not_matter():
    order = np.random.default_rng(0).permutation(len(PAIRS.questions))
    moved = pairs_of([(PAIRS.questions[place], PAIRS.answers[place]) for place in order])
    found, other = (tfidf_index(each).similarities(OTHERS.questions) for each in (PAIRS, moved))
    numbers = [moved.numbers[answer] for answer in PAIRS.distinct]
    np.testing.assert_allclose(found, other[:, numbers], atol=1e-5)


def test_case_width_and_punctuation_do_not_matter():
    index = tfidf_index(KnownPairs(["What is the price?", "Who are you?"], ["5", "A model"]))
    plain, shouted = index.similarities(["what is the price", "\uff37HAT, is the PRICE!"])
    np.testing.assert_allclose(plain, shouted, atol=1e-6)
    assert plain[0, 2] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("question", ["", "?!", "\u4f60\u597d", "zzzz"])
def test_a_question_of_nothing_known_is_like_nothing(question):
    assert not tfidf_index(PAIRS).similarities([question]).any()


def test_blocks_of_questions_give_the_same_candidates(monkeypatch):
    places = np.arange(len(PAIRS.questions))
    left_out = LeftOut(places, False)
    whole = find_candidates([tfidf_index(PAIRS)], PAIRS.questions, left_out)
    monkeypatch.setattr(ranking, "COMPARISONS", 7 * len(PAIRS.questions))
    parts = find_candidates([tfidf_index(PAIRS)], PAIRS.questions, left_out)
    np.testing.assert_array_equal(whole.answers, parts.answers)
    np.testing.assert_allclose(whole.similarities, parts.similarities, atol=1e-6)


def test_candidates_are_the_most_similar_answers(monkeypatch):
    monkeypatch.setattr(ranking, "CANDIDATES", 3)
    indexes = [tfidf_index(PAIRS), drawn_index(PAIRS)]
    found = find_candidates(indexes, OTHERS.questions)
    similarities = np.concatenate([index.similarities(OTHERS.questions) for index in indexes], axis=2)
    assert found.answers.shape == (len(OTHERS.questions), 3)
    for row, answers in enumerate(found.answers):
        assert answers.tolist() == np.argsort(-similarities[row].sum(axis=1), kind="stable")[:3].tolist()
        np.testing.assert_array_equal(found.similarities[row], similarities[row, answers])
