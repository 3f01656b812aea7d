"""Greedy answers are transformers' own, token for token, whatever the draft; sampled ones follow their seed."""

import math
import random

import pytest
import torch

from qa_lm.inference import scoring
from qa_lm.inference.drafts import Draft, verify_drafts
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.sampling import Sampling, sample_answers
from qa_lm.modeling import prediction
from qa_lm.modeling.causal_lm import build_causal_lm

ARCHITECTURES = ("gpt2", "llama", "qwen3", "gpt_neox", "mistral")
ENTRIES, LIMIT = 60, 20


@pytest.fixture(scope="module")
def prompts():
    draw = random.Random(0)
    return [[draw.randrange(1, ENTRIES) for _ in range(draw.randint(1, 20))] for _ in range(60)]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES[3:]]


@pytest.fixture(scope="module", params=[*ARCHITECTURES[:3], *SLOW])
def model(request):
    torch.manual_seed(0)
    found = build_causal_lm(request.param, ENTRIES, 64, 2, 2, 64, 0.0, 0).eval()
    with torch.no_grad():  # fresh weights say one token for ever
        for parameter in found.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.2)
    return found


def generated(model, prompt, eos):
    """transformers' own greedy answer to one prompt."""
    inputs = torch.tensor([prompt])
    options = {"do_sample": False, "max_new_tokens": LIMIT, "pad_token_id": 0, "eos_token_id": eos}
    return model.generate(inputs, attention_mask=torch.ones_like(inputs), **options)[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def endless(model, prompts):
    """What transformers says where nothing ends an answer."""
    return [generated(model, prompt, -1) for prompt in prompts]


@pytest.fixture(scope="module")
def eos(endless):
    """The token that about a third of the answers come to, so that some stop and some do not."""
    return min(range(ENTRIES), key=lambda token: abs(sum(token in answer for answer in endless) - len(endless) // 3))


@pytest.fixture(scope="module")
def expected(model, prompts, eos, endless):
    assert generated(model, prompts[0], eos) == endless[0][: (*endless[0], eos).index(eos) + 1]
    answers = [(ids[: (*ids, eos).index(eos)], eos in ids) for ids in endless]
    assert 5 <= sum(stopped for _, stopped in answers) <= 55
    assert len({tuple(ids) for ids, _ in answers}) > 20
    return answers


def drafted(ids, draw):
    """The right draft, or one that is wrong somewhere, too short, or too long."""
    kind = draw.random()
    if kind < 0.3 and ids:
        place = draw.randrange(len(ids))
        return [*ids[:place], draw.randrange(1, ENTRIES), *ids[place + 1 :]]
    if kind < 0.5:
        return ids[: len(ids) // 2]
    return [*ids, 3, 4] if kind < 0.7 else ids


@pytest.mark.parametrize("check", [True, False])
def test_equal_transformers_generate_token_for_token(model, prompts, eos, expected, check, monkeypatch):
    monkeypatch.setattr(scoring, "POSITIONS", 256)  # several forward passes
    monkeypatch.setattr(prediction, "CHUNK_ROWS", 50)  # and several chunks in each
    monkeypatch.setattr(prediction, "CHUNK_LOGITS", 1)
    draw = random.Random(1)
    asked = [Draft(prompt, drafted(ids, draw)) for prompt, (ids, _) in zip(prompts, expected, strict=True)]
    found = greedy_answers(model, asked, eos, LIMIT, batch_size=16, check=check)
    assert [(answer.ids, answer.stopped) for answer in found] == expected


def test_log_probabilities_are_those_of_the_tokens(model, prompts, eos, expected):
    asked = [Draft(prompt, ids[: len(ids) // 2]) for prompt, (ids, _) in zip(prompts, expected, strict=True)]
    for prompt, draft, answer in zip(prompts, asked, greedy_answers(model, asked, eos, LIMIT, 16), strict=True):
        ids = [*answer.ids, eos] if answer.stopped else answer.ids
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
            draft_logits = model(torch.tensor([prompt + draft.answer])).logits[0, -1].log_softmax(-1)
        wanted = [float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(ids)]
        assert answer.log_probabilities == pytest.approx(wanted, abs=1e-4)
        assert answer.mean_log_probability == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)
        assert answer.eos_log_probability == pytest.approx(float(draft_logits[eos]), abs=1e-4)


def test_a_right_draft_costs_no_decoding(model, prompts, eos, expected, monkeypatch):
    from qa_lm.inference import greedy

    monkeypatch.setattr(greedy, "_decode", None)
    right = [(prompt, ids) for prompt, (ids, stopped) in zip(prompts, expected, strict=True) if stopped]
    found = greedy_answers(model, [Draft(*each) for each in right], eos, LIMIT)
    assert [answer.ids for answer in found] == [ids for _, ids in right]


def test_answers_respect_the_limit_and_the_context(model, eos):
    long = [[5] * 60]
    (answer,) = greedy_answers(model, [Draft(long[0], [7, 7, 7, 7, 7, 7, 7])], eos, LIMIT)
    assert len(answer.ids) + answer.stopped <= 4
    (answer,) = greedy_answers(model, [Draft([5], [7] * 30)], eos, 3)
    assert len(answer.ids) + answer.stopped <= 3
    assert greedy_answers(model, [], eos, 3) == []
    assert verify_drafts(model, [], eos) == []


def test_a_sequence_that_is_not_drafted_has_no_end_probability(model, eos):
    (answer,) = greedy_answers(model, [Draft([5], [])], eos, 3, check=False)
    assert math.isnan(answer.eos_log_probability)


def test_sampling_draws_by_its_seed(model, prompts, eos):
    def draw(seed, **options):
        return sample_answers(model, prompts[:20], eos, 8, Sampling(temperature=1.0, seed=seed, **options))

    assert draw(1) == draw(1)
    assert [each.ids for each in draw(1)] != [each.ids for each in draw(2)]
    greedy = greedy_answers(model, [Draft(prompt, []) for prompt in prompts[:20]], eos, 8, check=False)
    for drawn, wanted in zip(draw(1, top_k=1), greedy, strict=True):
        assert (drawn.ids, drawn.stopped) == (wanted.ids, wanted.stopped)
        assert drawn.log_probabilities == pytest.approx(wanted.log_probabilities, abs=1e-4)
