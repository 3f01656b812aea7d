"""Chat templates: what a prompt is made of, and which ones are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.encoding import ChatTurn, PromptTemplate, encode_pairs, encode_prompts
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer, load_tokenizer
from qa_lm.errors import UserError
from tests.data.chat.chat_folders import CHATML, LLAMA3, QWEN, SPECIAL, TEMPLATES, chat_folder

ENDS = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama3": "<|eot|>", "gemma": "<|stop|>", "mistral": "</s>"}


PLAIN = PromptTemplate()


def by_chat(
    folder: Path, system: str | None = None, template: PromptTemplate = PLAIN
) -> tuple[TextTokenizer, PromptTemplate]:
    return with_special_tokens(folder, replace(template, chat=ChatTurn(system=system)))


def exported(tokenizer: TextTokenizer, folder: Path) -> Any:
    folder.mkdir()
    tokenizer.save(folder, context=64)
    return AutoTokenizer.from_pretrained(folder)


def conversation(pair: Pair, system: str | None) -> list[dict[str, str]]:
    turns = [("system", system), ("user", pair.question), ("assistant", pair.answer)]
    return [{"role": role, "content": text} for role, text in turns if text is not None]


@pytest.fixture(scope="module", params=TEMPLATES)
def style(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Any, Any]:
    """The name of a style, and a run's tokenizer, prompt template, and tokenizer of transformers in its model/."""
    folder = tmp_path_factory.mktemp("chat")
    tokenizer, template = by_chat(chat_folder(folder / "base", TEMPLATES[request.param]))
    return request.param, tokenizer, template, exported(tokenizer, folder / "model")


@given(st.text(max_size=30), st.text("ab \n.é한", max_size=9))
@settings(max_examples=150, deadline=None)
def test_a_prompt_has_the_ids_that_the_exported_chat_template_gives(style, question, answer):
    question = question.encode("utf-8", "ignore").decode()
    pair = Pair(question, f"It is {answer}.")
    _, tokenizer, template, transformers = style
    messages = conversation(pair, None)
    whole = transformers.apply_chat_template(messages[:1], add_generation_prompt=True).input_ids
    assert encode_prompts([question], tokenizer, template)[0] == whole
    (example,) = encode_pairs([pair], tokenizer, template)
    assert transformers.apply_chat_template(messages).input_ids[: len(example.ids)] == example.ids


def test_an_answer_ends_with_the_end_of_a_turn(style):
    name, tokenizer, template, transformers = style
    assert tokenizer.eos_token == transformers.eos_token == ENDS[name]
    assert tokenizer.end_ids == transformers.convert_tokens_to_ids(list(dict.fromkeys([ENDS[name], "</s>"])))
    assert template.answer == (" {answer}" if name == "mistral" else "{answer}")
    assert template.chat.strip == (name in ("llama3", "gemma"))


@pytest.mark.parametrize("token", SPECIAL)
def test_a_special_token_in_a_pair_is_text(style, token):
    _, tokenizer, template, transformers = style
    pair = Pair(f"Is{token} text?", f"Yes, {token} is.")
    (example,), (plain,) = (encode_pairs([each], tokenizer, template) for each in (pair, Pair("Is it text?", "Yes.")))
    special = set(transformers.convert_tokens_to_ids(SPECIAL))
    found, wanted = ([each for each in ids if each in special] for ids in (example.ids, plain.ids))
    assert found == wanted
    assert token in tokenizer.decode(example.answer_ids)
    ids = [
        transformers.apply_chat_template(conversation(pair, None), sanitize_control_tokens=safe).input_ids
        for safe in (False, True)
    ]
    assert [each[: len(example.ids)] == example.ids for each in ids] == [False, True]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_system_turn(name, tmp_path):
    folder = chat_folder(tmp_path / "base", TEMPLATES[name], jinja_file=False)
    if name == "gemma":
        with pytest.raises(UserError, match=r"cannot be used \(System role not supported\); leave out data.system"):
            by_chat(folder, "Be brief.")
        return
    tokenizer, template = by_chat(folder, "Be brief.")
    transformers = exported(tokenizer, tmp_path / "model")
    for question in ("Who?", " What is <s? "):
        messages = conversation(Pair(question, "A"), "Be brief.")
        whole = transformers.apply_chat_template(messages[:2], add_generation_prompt=True).input_ids
        assert encode_prompts([question], tokenizer, template)[0] == whole
    template.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == template
    for system in ("<s>", "Use <|im_end|>."):
        with pytest.raises(UserError, match=r"data.system: contains special tokens"):
            by_chat(folder, system)


def test_no_system_turn(tmp_path):
    for name in ("chatml", "llama3", "gemma", "mistral"):
        folder = chat_folder(tmp_path / name, TEMPLATES[name])
        assert by_chat(folder, "")[1].before == by_chat(folder)[1].before
    with pytest.raises(UserError, match=r"^data.system: the chat template of .* always writes a system turn; give"):
        by_chat(chat_folder(tmp_path / "qwen", QWEN), "")
    drops = QWEN.replace("== 'system' %}", "== 'system' %}{% if messages[0]['content'] %}", 1)
    drops = drops.replace("{%- else %}", "{% endif %}{%- else %}", 1)
    folder = chat_folder(tmp_path / "drops", drops)
    (own,), (none,) = (encode_prompts(["Who?"], *by_chat(folder, system)) for system in (None, ""))
    assert len(none) < len(own)
    assert own[-len(none) :] == none


def test_the_prompt_is_filled_before_it_becomes_a_turn(tmp_path):
    tokenizer, template = by_chat(
        chat_folder(tmp_path, LLAMA3), template=PromptTemplate("Q: {question}\n", " {answer}!")
    )
    pair = Pair("Who? ", "Ada")
    (example,) = encode_pairs([pair], tokenizer, template)
    assert tokenizer.decode(example.ids) == "user\n\nQ: Who?assistant\n\nAda!"
    assert template.prompt_text(pair.question) == "\n\nQ: Who?"
    assert template.answer_text(pair.answer) == "Ada!"
    assert template.answer_from("Ada!") == "Ada"


ENDLESS = CHATML.replace("'<|im_end|>' + '\n'", "'\n'")
REFUSED = {
    "has no chat template": None,
    r"cannot be used \(": "{% for message in messages %}",
    r"cannot be used \(no\)": "{{ raise_exception('no') }}",
    "changes the text of a question": CHATML.replace("message['content']", "message['content'] | lower"),
    "changes the white space around": CHATML.replace("message['content']", "message['content'].lstrip()"),
    "writes a question 2 times": CHATML.replace("message['content']", "message['content'] + message['content']"),
    "writes a question 0 times": "<s>Hello",
    "does not mark where an answer begins": CHATML.split("{% if add_gen")[0],
    "begins an answer in another way": CHATML.replace("assistant\n'", "assistant\n<think>\n'"),
    "does not write an answer once": "{{ '<|start|>' + messages[0]['content'] + '<|stop|>' }}",
    "does not end an answer with one special token": ENDLESS,
    "writes eos_token where no turn ends": "{{ eos_token }}" + CHATML,
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(tmp_path, message):
    folder = chat_folder(tmp_path, REFUSED[message])
    with pytest.raises(UserError, match=message) as error:
        by_chat(folder)
    assert str(error.value).startswith(f"{folder}: ")
    assert "\n" not in str(error.value)


def test_today_is_a_fixed_day(tmp_path):
    dated = "\n{{ strftime_now('%d %b') }}" + CHATML
    tokenizer, template = by_chat(chat_folder(tmp_path / "base", dated))
    assert tokenizer.decode(list(template.before)) == "\n26 Jul 2024"
    transformers = exported(tokenizer, tmp_path / "model")
    whole = transformers.apply_chat_template(conversation(Pair("Who?", "A"), None)[:1], add_generation_prompt=True)
    assert encode_prompts(["Who?"], tokenizer, template)[0] == whole.input_ids


def test_a_plain_prompt_begins_as_the_tokenizer_begins_texts(tmp_path):
    folder = chat_folder(tmp_path / "base", None)
    tokenizer, template = with_special_tokens(folder, PromptTemplate())
    transformers = exported(tokenizer, tmp_path / "model")
    questions = ["Who?", "  What is <s>?"]
    prompts = encode_prompts(questions, tokenizer, template)
    assert prompts == transformers(questions).input_ids
    assert {prompt[0] for prompt in prompts} == {transformers.convert_tokens_to_ids("<s>")}
    assert load_tokenizer(tmp_path / "model").prefix == template.before
