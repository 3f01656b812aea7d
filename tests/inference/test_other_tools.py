"""A pipeline of transformers, which knows nothing of qa_lm, gives the answers of model/."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, pipeline

from qa_lm.config.enums import AnswerMode, PromptKind
from qa_lm.config.schema import ModelConfig, TokenizerConfig
from qa_lm.data.chat.exported import ASKED, chat_templates, completed, literal, matching_template, own_part
from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.chat.rendering import has_chat_template, load_renderer
from qa_lm.data.encoding import ChatTurn, PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer
from qa_lm.inference.export import export_model
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.data.chat.chat_folders import TEMPLATES, chat_folder
from tests.data.pretrained.gguf_writing import EOS, tiny_model, tiny_tokenizer

LIMIT = 12
ODD = ["Is <|endoftext|> text?", "  spaces  at both\tends \n", "{{ x }}{% if %} é 한국 🙂", "</s><|im_end|>"]
PROMPTS = [
    "{question}",
    "Q: {question}\\nA:",
    "{{{question}}}",
    "{{{{ {question} }}}} {{% {{# '\\n\"\\\\n\\",
    "a\tb\r\n\\\\{question}\u2028é",
]


def messages(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def assert_a_pipeline_answers_as(answerer: Answerer, folder: Path, questions: list[str], limit: int) -> None:
    """With the question as a message, and with the written prompt."""
    transformers.utils.logging.disable_progress_bar()
    asked: Any = pipeline("text-generation", model=str(folder))
    options = {"max_new_tokens": limit, "return_full_text": False}
    template = answerer.template
    prompts = encode_prompts(questions, answerer.tokenizer, template)
    for question, ids, answer in zip(
        questions, prompts, answerer.answer(questions, limit, mode=AnswerMode.free), strict=True
    ):
        found = asked.tokenizer.apply_chat_template(messages(question), add_generation_prompt=True)["input_ids"]
        assert found == ids
        outputs = [asked(messages(question), **options)]
        if template.chat is None:
            outputs.append(asked(template.prompt_text(question), **options))
        for (output,) in outputs:
            assert template.answer_from(output["generated_text"]) == answer.answer


def test_a_run(learnt_run):
    """Its prompt is the question alone; nothing in a question is special."""
    folder = learnt_run.folder / "model"
    answerer, questions = Answerer.load(folder), [answer.question for answer in learnt_run.answers]
    assert sum(answer.exact_match for answer in learnt_run.answers) >= 5
    assert_a_pipeline_answers_as(answerer, folder, [*questions, *ODD], LIMIT)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_survives_as_a_chat_template(tmp_path, prompt):
    template = PromptTemplate.from_settings(prompt, " {answer}")
    tokenizer = TextTokenizer(tiny_tokenizer(), EOS)
    export_model(tiny_model(), tokenizer, template, [], tmp_path / "model")
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    for question in [*ODD, *ASKED]:
        conversation = [{"role": "system", "content": "No."}, *messages("Before?"), *messages(question)]
        text = loaded.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        assert text == template.prompt_text(question)
        found = loaded.apply_chat_template(conversation, add_generation_prompt=True)["input_ids"]
        assert found == encode_prompts([question], tokenizer, template)[0]


def test_braces_are_never_neighbours():
    assert literal("{{{%}}#}{#") == "'{' + '{' + '{' + '%' + '}' + '}#' + '}{' + '#'"
    for pair in ("{{", "}}", "{%", "{#", "#}"):
        assert pair not in literal("{{{%}}#}{#")


def started(folder: Path, template: str, kind: PromptKind, **changes: object) -> Path:
    """model/ of a run that starts from a tiny model with BOS and a chat template."""
    base = chat_folder(folder / "base", TEMPLATES[template])
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ids: dict[str, Any] = {"vocab_size": 330, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 128}
    LlamaForCausalLM(LlamaConfig(**sizes, **ids)).save_pretrained(base)
    none = dict.fromkeys(("architecture", "hidden_size", "layers", "heads", "context"))
    config = small_config(
        model=ModelConfig(path=str(base), **none),  # type: ignore[arg-type]
        tokenizer=TokenizerConfig(kind="model"),
        trainer__max_epochs=2,
        ledger=False,
        data__template=kind,
        **changes,
    )
    return train(config, folder / "run").folder / "model"


@pytest.mark.parametrize(
    ("template", "kind", "changes"),
    [
        ("llama3", PromptKind.plain, {}),
        ("llama3", PromptKind.chat, {}),
        ("qwen", PromptKind.chat, {"data__system": "Be 'brief'."}),
        ("chatml", PromptKind.chat, {"data__system": "Be brief.", "data__prompt": "Q: '{question}'\\n"}),
        ("chatml", PromptKind.chat, {"data__prompt": "{question}\\n"}),
    ],
)
def test_a_pretrained_start(tmp_path, template, kind, changes):
    folder = started(tmp_path, template, kind, **changes)
    answerer = Answerer.load(folder)
    assert bool(answerer.template.before)
    questions = ["What is 2 + 2?", "  How are you? ", "{{ x }}"]
    assert_a_pipeline_answers_as(answerer, folder, questions, LIMIT)


def test_the_chat_template_of_a_plain_prompt_is_not_that_of_a_chat_model(learnt_run, tmp_path):
    folder = learnt_run.folder / "model"
    assert (folder / "chat_template.jinja").is_file()
    assert not has_chat_template(folder)
    with pytest.raises(UserError, match="has no chat template"):
        load_renderer(folder)
    assert has_chat_template(chat_folder(tmp_path / "chat", TEMPLATES["qwen"]))


def test_a_template_that_gives_other_ids_is_not_written(tmp_path):
    folder = chat_folder(tmp_path / "base", TEMPLATES["chatml"])
    tokenizer, template = with_special_tokens(folder, PromptTemplate(chat=ChatTurn(system="Be brief.")))
    own = TEMPLATES["chatml"]
    candidates = chat_templates(template, "", own)
    assert candidates == [own, completed(own, "", "", "Be brief.")]
    assert [own_part(each) for each in candidates] == [own, own]
    assert matching_template(tokenizer, template, candidates) == candidates[1]
    assert matching_template(tokenizer, template, candidates[:1]) is None
    other = replace(template, before=template.before[:-1])
    assert matching_template(tokenizer, other, candidates) is None
    assert chat_templates(template, "", None) == []


def test_settings_have_the_names_of_transformers_4_and_5(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 32
    export_model(
        tiny_model(rope_parameters=rope), TextTokenizer(tiny_tokenizer(), EOS), PromptTemplate(), [], tmp_path / "model"
    )
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5e5
    assert config["rope_scaling"] == {name: value for name, value in rope.items() if name != "rope_theta"}
    loaded = Answerer.load(tmp_path / "model").model.config
    assert loaded.rope_parameters == rope
    tokenizer = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    generation = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert (generation["do_sample"], generation["temperature"], generation["top_k"]) == (False, 0.0, 1)


def test_qa_lm_does_not_warn_of_settings_for_other_tools(learnt_run, capsys):
    Answerer.load(learnt_run.folder)
    assert capsys.readouterr().err == ""
