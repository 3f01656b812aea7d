"""Pairs to ids to batches: what exactly is supervised."""

import pytest

from qa_lm.batch import UNTRAINED
from qa_lm.data.batches.batching import Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.encoding import PromptTemplate, encode_pairs, encode_prompts
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import train_bpe
from tests.conftest import builtin, encoded

EOS = 50256
# "What is the capital of France?" and " The capital of France is Paris." in GPT-2's vocabulary.
QUESTION = [2061, 318, 262, 3139, 286, 4881, 30]
ANSWER = [383, 3139, 286, 4881, 318, 6342, 13]


def test_the_first_pair_of_the_tutorial_has_exactly_these_ids(gpt2, template, tmp_path):
    (example,) = encode_pairs(builtin("tutorial")[:1], gpt2, template)
    assert example.ids == [*QUESTION, *ANSWER, EOS]
    examples = encoded(builtin("tutorial")[:1], gpt2, template, tmp_path)
    batch = Collate(examples, train_on_question=True)([Row([0])])
    assert batch.inputs.tolist() == [[*QUESTION, *ANSWER]]
    assert batch.targets.tolist() == [[*QUESTION[1:], *ANSWER, EOS]]
    answer_only = Collate(examples, train_on_question=False)([Row([0])])
    assert answer_only.targets.tolist() == [[UNTRAINED] * 6 + ANSWER + [EOS]]
    assert batch.in_answer.tolist() == [[False] * 6 + [True] * 8]


def test_apart_equals_joined_for_the_tutorials_pairs(gpt2, template):
    pairs = builtin("tutorial")
    joined = gpt2.encode([f"{pair.question} {pair.answer}" for pair in pairs])
    assert [example.ids for example in encode_pairs(pairs, gpt2, template)] == [[*ids, EOS] for ids in joined]


@pytest.mark.parametrize("train_on_question", [True, False])
def test_rows_of_different_lengths(gpt2, template, train_on_question, tmp_path):
    examples = encode_pairs(builtin("tutorial"), gpt2, template)
    store = encoded(builtin("tutorial"), gpt2, template, tmp_path)
    batch = Collate(store, train_on_question)([Row([row]) for row in range(10)])
    assert batch.pairs == 10
    assert batch.tokens == sum(len(example.ids) - 1 for example in examples)
    for row, example in enumerate(examples):
        length = len(example.ids) - 1
        trained = batch.targets[row] != UNTRAINED
        assert batch.inputs[row, :length].tolist() == example.ids[:-1]
        assert batch.targets[row, length - 1] == EOS  # EOS is always a target
        assert not trained[length:].any()  # padding never is
        assert (batch.targets[row][trained] == batch.inputs[row].roll(-1)[trained])[:-1].all()  # shifted by one
        assert batch.pair[row].tolist() == [row] * length + [-1] * (batch.pair.shape[1] - length)
        assert trained.sum() == (length if train_on_question else len(example.answer_ids))
        assert batch.targets[row][batch.in_answer[row]].tolist() == example.answer_ids


def test_the_prompt_has_the_same_ids_in_training_and_when_asked(gpt2, template):
    pairs = builtin("tutorial")
    asked = encode_prompts([pair.question for pair in pairs], gpt2, template)
    examples = encode_pairs(pairs, gpt2, template)
    assert asked == [example.ids[: example.prompt_tokens] for example in examples]


@pytest.mark.parametrize("kind", ["gpt2", "bpe"])
def test_a_special_token_in_the_text_is_text(gpt2, template, kind):
    pair = Pair("What is <|endoftext|>?", "It is <|endoftext|>, as text.")
    tokenizer = gpt2 if kind == "gpt2" else train_bpe(pair[:2], 300)
    (example,) = encode_pairs([pair], tokenizer, template)
    assert example.ids.count(tokenizer.eos_id) == 1
    assert example.ids[-1] == tokenizer.eos_id
    assert tokenizer.decode(example.ids) == f"{pair.question} {pair.answer}"


def test_braces_in_a_question_are_text_and_the_template_survives_its_file(tmp_path):
    template = PromptTemplate("Q: {question}\nA:", " {answer}\n")
    assert template.prompt_text("{answer} {question}?") == "Q: {answer} {question}?\nA:"
    assert template.answer_from(template.answer_text("Paris")) == "Paris"
    template.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == template


def test_a_template_of_ones_own(gpt2):
    template = PromptTemplate.from_settings("Q: {question}\\nA:", " {answer}.")
    (example,) = encode_pairs([Pair("Who?", "Ada")], gpt2, template)
    assert gpt2.decode(example.ids[: example.prompt_tokens]) == "Q: Who?\nA:"
    assert example.answer_ids == [*gpt2.encode([" Ada."])[0], gpt2.eos_id]
    assert template.answer_from(gpt2.decode(example.answer_ids[:-1])) == "Ada"
