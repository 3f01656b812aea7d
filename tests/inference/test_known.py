"""The decoded answer is the most likely known one, by brute force over all of them; scores are transformers' own."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_lm.inference import known, scoring
from qa_lm.inference.known import AnswerTrie, TrieNode, known_answers
from qa_lm.inference.scoring import OUTSIDE, Continued, Scorer, pack_texts
from qa_lm.modeling import prediction
from qa_lm.modeling.causal_lm import build_causal_lm

ENTRIES, CONTEXT, EOS = 12, 32, 0
TOLERANCE = 2e-3
"""Nats of a whole answer by which one that is packed differs from one that stands alone; a tie is not an error."""
TOKENS = st.lists(st.integers(1, ENTRIES - 1), max_size=6)
ANSWERS = st.lists(TOKENS, min_size=1, max_size=12, unique_by=tuple)
PROMPTS = st.lists(st.lists(st.integers(1, ENTRIES - 1), min_size=1, max_size=10), min_size=1, max_size=4)


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen3"])
def model(request):
    torch.manual_seed(0)
    found = build_causal_lm(request.param, ENTRIES, 32, 1, 2, CONTEXT, 0.0, EOS).eval()
    with torch.no_grad():  # fresh weights find all answers about equally likely
        for parameter in found.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.4)
    return found


def own_scores(model, prompt, ids):
    """transformers' own log-probability of each id after a prompt."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    return [float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(ids)]


def check(model, prompt, answers, found):
    """That an answer is one of the known ones, with its own score, and that no other one is more likely."""
    number, answer = found
    totals = [sum(own_scores(model, prompt, ids)) for ids in answers]
    assert answer.stopped
    assert [*answer.ids, EOS] == answers[number]
    assert sum(answer.log_probabilities) == pytest.approx(totals[number], abs=TOLERANCE)
    assert totals[number] >= max(totals) - TOLERANCE


@settings(max_examples=12, deadline=None)
@given(prompts=PROMPTS, answers=ANSWERS)
def test_the_answer_is_the_most_likely_one(model, prompts, answers):
    answers = [[*ids, EOS] for ids in answers]
    for prompt, found in zip(prompts, known_answers(model, prompts, AnswerTrie(answers)), strict=True):
        check(model, prompt, answers, found)


@pytest.mark.parametrize("forward", [False, True])
def test_answers_that_begin_others_and_the_empty_one(model, forward):
    chain = [[*range(1, end), EOS] for end in range(1, ENTRIES)][:: 1 if forward else -1]
    prompts = [[first, second] for first in range(1, 9) for second in (1, 5)]
    found = known_answers(model, prompts, AnswerTrie(chain))
    for prompt, each in zip(prompts, found, strict=True):
        check(model, prompt, chain, each)


@pytest.fixture(scope="module")
def drawn():
    """Prompts and answers of a few branches."""
    draw = random.Random(0)
    stems = [[draw.randrange(1, ENTRIES) for _ in range(draw.randint(1, 4))] for _ in range(6)]
    ends = [[draw.randrange(1, ENTRIES) for _ in range(6)] for _ in range(25)]
    answers = {(*[*draw.choice(stems), *end][:6], EOS) for end in ends}  # of one length: the shortest would be the best
    prompts = [[draw.randrange(1, ENTRIES) for _ in range(draw.randint(1, 9))] for _ in range(6)]
    return prompts, sorted(map(list, answers), key=lambda _: draw.random())


@pytest.fixture(params=["cached", "packed", "alone"])
def way(request, monkeypatch):
    """How texts are scored: from a cache, or else packed where that is exact, or each alone."""
    monkeypatch.setattr(scoring, "continues_from_cache", lambda _: request.param == "cached")
    monkeypatch.setattr(scoring, "packs_exactly", lambda _: request.param == "packed")
    return request.param


@pytest.mark.parametrize("tokens", [1, 20, 1000])
def test_tokens_and_batches_change_nothing(model, drawn, tokens, way, monkeypatch):
    prompts, answers = drawn
    trie = AnswerTrie(answers)
    together = known_answers(model, prompts, trie)
    monkeypatch.setattr(known, "TOKENS", tokens)
    monkeypatch.setattr(known, "AT_ONCE", 3)
    monkeypatch.setattr(scoring, "POSITIONS", 128)
    monkeypatch.setattr(scoring, "PADDING", 2)
    several = known_answers(model, prompts, trie)
    single = [found for prompt in prompts[:3] for found in known_answers(model, [prompt], trie)]
    assert [number for number, _ in together] == [number for number, _ in several]
    assert [number for number, _ in together][:3] == [number for number, _ in single]
    for one, other in zip([*together, *together[:3]], [*several, *single], strict=True):
        assert one[1].log_probabilities == pytest.approx(other[1].log_probabilities, abs=1e-4)
    assert len({number for number, _ in together}) > 1


def test_no_questions(model):
    assert known_answers(model, [], AnswerTrie([[EOS]])) == []


@given(answers=ANSWERS)
def test_a_trie_holds_each_answer_once(answers):
    answers = [[*ids, EOS] for ids in answers]
    trie = AnswerTrie(answers)
    found: dict[int, list[int]] = {}
    nodes: list[tuple[list[int], TrieNode]] = [([], trie.root)]
    while nodes:
        ids, node = nodes.pop()
        assert node.answer == -1 or not node.children
        assert node.answer >= 0 or node is trie.root or len(node.children) > 1  # compressed
        if node.answer >= 0:
            found[node.answer] = ids
        for token, child in node.children.items():
            assert child.edge[0] == token
            nodes.append((ids + child.edge, child))
    assert found == dict(enumerate(answers))
    assert len(trie) == len(answers)


def test_scores_are_those_of_transformers(model, way, monkeypatch):
    monkeypatch.setattr(scoring, "POSITIONS", 128)  # several forward passes
    monkeypatch.setattr(prediction, "CHUNK_ROWS", 5)  # and several chunks in each
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 5)
    monkeypatch.setattr(scoring, "CHUNK_LOGITS", 1)
    draw = random.Random(0)
    prompts = [[draw.randrange(ENTRIES) for _ in range(draw.randint(1, 9))] for _ in range(6)]
    asked = []
    for _ in range(40):
        ids = [draw.randrange(ENTRIES) for _ in range(draw.randint(0, 9))]
        following = tuple(draw.sample(range(ENTRIES), draw.randint(0, 4)))
        asked.append(Continued(draw.randrange(6), ids, draw.randint(0, len(ids)), following))
    scorer = Scorer(model, prompts)
    assert (scorer.cached is not None) == (way == "cached")
    for _ in range(2):  # the cache stays as it is
        for each, found in zip(asked, scorer(asked), strict=True):
            prompt = prompts[each.prompt]
            wanted = own_scores(model, prompt, each.ids)[each.scored_from :]
            wanted += [own_scores(model, prompt + each.ids, [token])[0] for token in each.next_ids]
            assert found == pytest.approx(np.array(wanted), abs=1e-3)


@pytest.mark.parametrize("length", [1, 20, CONTEXT - 1, CONTEXT])
def test_beyond_the_context_every_token_is_equally_unlikely(model, way, length):
    prompt, ids = [1] * length, [2] * 40
    inside = CONTEXT - length + 1  # the last position says what follows it
    found, other = Scorer(model, [prompt, [1] * 2])([Continued(0, ids, 0, (3, 4)), Continued(1, [5], 0, (6,))])
    with torch.no_grad():
        logits = model(torch.tensor([(prompt + ids)[:CONTEXT]])).logits[0, length - 1 :].log_softmax(-1)
    assert found[:inside] == pytest.approx(logits[:, 2].numpy(), abs=1e-3)
    assert found[inside:].tolist() == [OUTSIDE] * (len(ids) + 2 - inside)
    assert other == pytest.approx(np.array(own_scores(model, [1, 1], [5, 6])), abs=1e-3)


def test_a_prompt_beyond_the_context(model, way):
    assert Scorer(model, [[1] * 40])([Continued(0, [], 0, (3, 4))])[0].tolist() == [OUTSIDE] * 2


def test_an_answer_that_does_not_fit_is_the_last_choice(model):
    answers = [[2] * 20 + [EOS], [3, 4, 5, EOS], [2] * 19 + [EOS]]
    ((number, _),) = known_answers(model, [[1] * 20], AnswerTrie(answers))
    assert number == 1
    ((number, answer),) = known_answers(model, [[1] * 20], AnswerTrie(answers[:1]))
    assert (number, answer.ids) == (0, answers[0][:-1])


def test_texts_longer_than_a_pass(monkeypatch):
    monkeypatch.setattr(scoring, "POSITIONS", 64)
    texts = [[5] * 100, [6, 7], [8] * 100]
    parts = list(pack_texts(texts))
    assert len(parts) == 2
    for part in parts:
        for number, (row, start) in part.starts.items():
            assert part.inputs[row, start : start + len(texts[number])].tolist() == texts[number]
            assert part.positions[row, start : start + len(texts[number])].tolist() == [*range(len(texts[number]))]
    assert sorted(number for part in parts for number in part.starts) == [0, 1, 2]
