"""llama.cpp answers as the run does; planted mistakes are found."""

import importlib
import json
import sys

import pytest

from qa_lm.commands import export
from qa_lm.export import gguf_model, gguf_tokens
from qa_lm.export.gguf_types import GgufType
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.data.pretrained.packages import unpacked
from tests.data.pretrained.test_llama_cpp import LLAMA_CPP
from tests.prepared_pairs import jsonl

pytestmark = pytest.mark.slow
PAIRS = [
    (f"How old is number {number}{number}'s 1,234.{number}?", f"It is {number * 7} years old.") for number in range(40)
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
        trainer__max_epochs=80,
        early_stopping__patience=None,
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
        limit = {"f32": 1e-4, "f16": 5e-3, "q8_0": 0.2}[kind]
        assert proof["largest_difference_of_log_probability"] < limit


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
    assert proof["answers"]["sure_and_same"] < proof["answers"]["sure"]
    assert proof["prompts"]["same_ids"] == proof["prompts"]["asked"]


def test_a_lost_merge_is_found(llama, tmp_path, capsys, monkeypatch):
    fields = gguf_tokens.GgufTokens.fields

    def lost(self):
        found = fields(self)
        found["tokenizer.ggml.merges"] = found["tokenizer.ggml.merges"][:-1]
        return found

    monkeypatch.setattr(gguf_tokens.GgufTokens, "fields", lost)
    assert not proved(llama, tmp_path, capsys)["holds"]


def test_special_tokens_that_keep_their_names_are_found(learnt_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gguf_tokens.GgufTokens, "new_names", {})
    proof = proved(learnt_run, tmp_path, capsys)
    assert not proof["holds"]
    assert "<|endoftext|>" in proof["prompts"]["different"][0]["question"]
