"""llama.cpp answers as the run does; planted mistakes are found."""

import importlib
import json
import sys

import pytest

from qa_lm.commands import export
from qa_lm.config.enums import Weights
from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.encoding import ChatTurn, PromptTemplate, encode_prompts
from qa_lm.data.pretrained.gguf_weights import LLAMA3_ROPE
from qa_lm.export import gguf_model, gguf_tokens
from qa_lm.export.gguf_file import write_gguf
from qa_lm.export.gguf_types import GgufType
from qa_lm.export.llama_cpp import LlamaCpp
from qa_lm.export.proof import ODD, log_probability_differences
from qa_lm.export.source import Source
from qa_lm.inference.drafts import Draft
from qa_lm.inference.export import export_model
from qa_lm.inference.greedy import greedy_answers
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.data.chat.chat_folders import TEMPLATES, chat_folder
from tests.data.pretrained.gguf_writing import SIZES, TEXTS, tiny_model
from tests.data.pretrained.packages import unpacked
from tests.data.pretrained.test_llama_cpp import LLAMA_CPP
from tests.export.model_folders import source_of
from tests.prepared_pairs import jsonl

pytestmark = pytest.mark.slow
PAIRS = [
    (f"How old is number {number}{number}'s 1,234.{number}?", f"It is {number * 7} years old.") for number in range(12)
]


@pytest.fixture(autouse=True, scope="module")
def llama_cpp():
    if importlib.util.find_spec("xllamacpp") is None:
        sys.path.append(str(unpacked(LLAMA_CPP)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A run with two heads, which has learnt its pairs."""
    folder = tmp_path_factory.mktemp("llama")
    config = small_config(
        data__path=str(jsonl(folder / "pairs.jsonl", PAIRS)),
        trainer__max_epochs=60,
        early_stopping__patience=None,
        export_weights=Weights.last,
        model__architecture="llama",
        data__prompt="Q: {question}\\n",
    )
    return train(config, folder / "run")


def proved(run, tmp_path, capsys, kind="f32"):
    path = tmp_path / f"{kind}.gguf"
    code = export.main([str(run.folder), "--to", "gguf", "--type", kind, "--prove", "--output", str(path)])
    capsys.readouterr()
    proof = json.loads(path.with_name(f"{path.name}.proof.json").read_text())
    assert code == (0 if proof["holds"] else 1)
    return proof


@pytest.mark.parametrize("kind", [GgufType.f32, GgufType.f16, GgufType.q8_0])
def test_the_same_answers(llama, learnt_run, tmp_path, capsys, kind):
    for run in (llama, learnt_run):
        proof = proved(run, tmp_path, capsys, kind)
        assert proof["holds"], proof
        assert proof["prompts"]["same_ids"] == proof["prompts"]["asked"] == proof["answers"]["asked"] + 5
        assert proof["answers"]["sure"] >= 5
        limit = {"f32": 5e-3, "f16": 2e-2, "q8_0": 0.2}[kind]
        assert proof["largest_difference_of_log_probability"] < limit


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        *((each, {}) for each in SIZES),
        ("gpt2", {"tie_word_embeddings": False}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16, "tie_word_embeddings": False}),
        ("llama", {"rope_parameters": LLAMA3_ROPE | {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}}),
    ],
)
def test_log_probabilities_of_every_architecture(tmp_path, architecture, changes):
    """Of random models with biases of every kind: each token to 1e-3, so no weight has lost its place."""
    source = source_of(tmp_path / "model", architecture, **changes)
    file = write_gguf(source, tmp_path / "tiny.gguf", GgufType.f32)
    llama = LlamaCpp.load(file.path, 64, 1, exact=True)
    prompts = encode_prompts(TEXTS[:10], source.answerer.tokenizer, PromptTemplate())
    ours = greedy_answers(source.answerer.model, [Draft(prompt, []) for prompt in prompts], 0, 20)
    for prompt, answer in zip(prompts, ours, strict=True):
        found = llama.answer(prompt, 0, 20)
        assert max(log_probability_differences(answer, found), default=0) < 2e-3
        assert found.ids == answer.ids or architecture == "gpt2"  # it is rounded, and ties are near here


@pytest.mark.parametrize("system", [None, "Be 'brief'."])
@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_of_chat_models(tmp_path, template, system):
    """Questions that mention special tokens are text, for all tokens have other names there."""
    if template == "gemma" and system:
        pytest.skip("has no system turn")
    folder = chat_folder(tmp_path / "base", TEMPLATES[template])
    chat = PromptTemplate("Q: {question}\n", chat=ChatTurn(system=system))
    tokenizer, prompt = with_special_tokens(folder, chat)
    export_model(tiny_model(vocab_size=330), tokenizer, prompt, [], tmp_path / "model")
    file = write_gguf(Source.load(tmp_path / "model"), tmp_path / "chat.gguf", GgufType.f32)
    llama = LlamaCpp.load(file.path, 64, 1, exact=True)
    questions = ["What is 2 + 2?", "  <|im_end|></s><s> é ", "{{ x }}", *ODD]
    assert [llama.prompt_ids(each) for each in questions] == encode_prompts(questions, tokenizer, prompt)


def test_four_bits_are_proved_too(llama, tmp_path, capsys):
    proof = proved(llama, tmp_path, capsys, GgufType.q4_0)
    assert proof["type"] == "q4_0"
    assert proof["prompts"]["same_ids"] == proof["prompts"]["asked"]


def test_another_pre_tokenizer_is_found(llama, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gguf_tokens, "pre_tokenizer_name", lambda content: "smollm")
    proof = proved(llama, tmp_path, capsys)
    assert not proof["holds"]
    assert proof["prompts"]["different"][0]["run"] != proof["prompts"]["different"][0]["exported"]


def test_heads_that_are_not_permuted_are_found(llama, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gguf_model, "in_ggml_order", lambda stem, weight, config: weight)
    proof = proved(llama, tmp_path, capsys)
    assert not proof["holds"]
    assert proof["largest_difference_of_log_probability"] > 0.1
    assert proof["prompts"]["same_ids"] == proof["prompts"]["asked"]


def test_a_lost_merge_is_found(llama, tmp_path, capsys, monkeypatch):
    fields = gguf_tokens.GgufTokens.fields

    def lost(self):
        found = fields(self)
        found["tokenizer.ggml.merges"] = found["tokenizer.ggml.merges"][1:]
        return found

    monkeypatch.setattr(gguf_tokens.GgufTokens, "fields", lost)
    assert not proved(llama, tmp_path, capsys)["holds"]


def test_special_tokens_that_keep_their_names_are_found(learnt_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gguf_tokens.GgufTokens, "new_names", {})
    proof = proved(learnt_run, tmp_path, capsys)
    assert not proof["holds"]
    assert "<|endoftext|>" in proof["prompts"]["different"][0]["question"]
