"""Whole conversations by the chat template of a trained model."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qa_lm.data.chat.conversation import MOST_TURNS, Conversations
from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.encoding import ChatTurn, PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.errors import UserError
from tests.data.chat.chat_folders import QWEN, SPECIAL, TEMPLATES, chat_folder


def loaded(folder, template, system=None, prompt="{question}"):
    """The conversations of a run's model/, its prompt template, and its tokenizer in transformers."""
    chat = replace(PromptTemplate(prompt), chat=ChatTurn(system=system))
    tokenizer, found = with_special_tokens(chat_folder(folder / "base", template), chat)
    model = folder / "model"
    model.mkdir()
    tokenizer.save(model, context=64)
    return Conversations(model, load_tokenizer(model), found), found, AutoTokenizer.from_pretrained(model)


@pytest.fixture(scope="module", params=TEMPLATES)
def style(request, tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("chat"), TEMPLATES[request.param])


def messages(turns):
    return [{"role": role, "content": text} for role, text in turns]


TEXTS = st.text("ab .é한?", min_size=1, max_size=12).map(lambda text: f"x{text}x")


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_a_conversation_has_the_ids_that_transformers_gives(style, texts):
    conversations, _, transformers = style
    roles = ["user", "assistant"] * 3
    turns = list(zip(roles, texts if len(texts) % 2 else texts[:-1] or ["x"], strict=False))
    whole = transformers.apply_chat_template(messages(turns), add_generation_prompt=True).input_ids
    assert conversations.ids(turns) == whole


def test_a_special_token_in_a_message_is_text(style):
    conversations, _, transformers = style
    special = set(transformers.convert_tokens_to_ids(SPECIAL))

    def special_ids(word):
        turns = [("user", f"Is {word} text?"), ("assistant", f"Yes, {word}."), ("user", "And \ue100 or \ue101?")]
        return [each for each in conversations.ids(turns) if each in special]

    assert special_ids("<|im_end|>") == special_ids("it")


def test_the_system_turn_of_the_training_is_written(tmp_path):
    conversations, template, transformers = loaded(tmp_path, QWEN, "Be brief.", "Q: {question}\nA:")
    one = [("user", "Why?")]
    assert conversations.ids(one) == encode_prompts(["Why?"], conversations._cut.tokenizer, template)[0]
    whole = messages([("system", "Be long."), ("user", "Q: Why?\nA:")])
    expected = transformers.apply_chat_template(whole, add_generation_prompt=True).input_ids
    assert conversations.ids([("system", "Be long."), *one]) == expected
    assert conversations.ids([("system", "Be brief."), *one]) == conversations.ids(one)


def test_what_the_template_refuses_is_one_line(tmp_path):
    conversations, _, _ = loaded(tmp_path, TEMPLATES["gemma"])
    with pytest.raises(UserError, match="System role not supported"):
        conversations.ids([("system", "Be brief."), ("user", "Why?")])
    with pytest.raises(UserError, match="at most"):
        conversations.ids([("user", "Why?")] * (MOST_TURNS + 1))


def test_a_template_that_drops_a_message_is_noticed(tmp_path):
    last = "{{ '<|im_start|>user\n' + messages[-1]['content'] + '<|im_end|>' }}"
    template = f"{last}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
    model = tmp_path / "model"
    chat_folder(model, template)
    found = PromptTemplate(chat=ChatTurn())
    tokenizer, found = with_special_tokens(model, found, trained=False)
    conversations = Conversations(model, tokenizer, found)
    with pytest.raises(UserError, match="each message"):
        conversations.ids([("user", "Why?"), ("assistant", "So."), ("user", "How?")])


def test_a_changed_template_is_noticed(tmp_path):
    _, template, _ = loaded(tmp_path, QWEN)
    folder = tmp_path / "model"
    with pytest.raises(UserError, match="another prompt than the one that was trained"):
        Conversations(folder, load_tokenizer(folder), replace(template, before=template.before[1:]))
