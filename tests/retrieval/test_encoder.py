"""A sentence encoder is kept with the model, answers without a network, and runs no code of its folder."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qa_lm.config.enums import AnswerMode
from qa_lm.errors import UserError
from qa_lm.evaluation.known import NEAREST_ENCODER, answerers, fit_known_answers
from qa_lm.inference.known_answers import KnownAnswers
from qa_lm.retrieval import encoder as module
from qa_lm.retrieval.encoder import SentenceEncoder
from qa_lm.training.train import train
from tests.conftest import ROOT, small_config
from tests.faults.attacks.hostile import refused, trap
from tests.retrieval.faq import faq
from tests.scripts_as_modules import ask, evaluate

__all__ = ["trap"]
PAIRS, OTHERS = faq(20)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^evaluation\.encoder: needs sentence-transformers: pip install 'qa_lm\[enc"
    ) as caught:
        SentenceEncoder("anything").load()
    assert "\n" not in str(caught.value)


if find_spec("sentence_transformers") is None:
    pytest.skip("needs sentence-transformers", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT with random weights, as sentence-transformers saves one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer  # type: ignore[import-not-found]
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for text in PAIRS.texts for word in text.replace("?", " ").replace(".", " ").split()})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    bert, plain = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("encoder")
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(vocab_size=len(words) + 2, max_position_embeddings=64, **sizes)).save_pretrained(bert)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(bert)
    transformer = Transformer(str(bert))
    SentenceTransformer(modules=[transformer, Pooling(32), Normalize()], device="cpu").save_pretrained(str(plain))
    return plain


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the encoder to damage."""
    return shutil.copytree(folder, tmp_path / "encoder")


def test_vectors_are_of_length_one_and_of_each_text(folder):
    encoder = SentenceEncoder(str(folder)).load()
    vectors = encoder.vectors(PAIRS.questions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[5:6], encoder.vectors(PAIRS.questions[5:6]), atol=1e-5)
    assert encoder.vectors([]).shape[0] == 0


def test_a_kept_encoder_answers_as_before(folder, tmp_path):
    known = fit_known_answers(PAIRS, encoder=SentenceEncoder(str(folder)).load())
    assert known.confidence
    known.save(tmp_path)
    found = KnownAnswers.load(tmp_path)
    assert found == known
    assert {path.suffix for path in (tmp_path / "encoder").rglob("*") if path.is_file()} <= {".json", ".safetensors"}
    for mode in (AnswerMode.nearest, AnswerMode.best):
        before, after = known.matches(OTHERS.questions, mode), found.matches(OTHERS.questions, mode)
        assert [each.answer for each in before] == [each.answer for each in after]
        for one, two in zip(before, after, strict=True):
            assert two.similarity == pytest.approx(one.similarity, abs=1e-5)
            assert two.probability == (one.probability and pytest.approx(one.probability, abs=1e-4))
    without_model: tuple[Any, Any, Any] = (None, None, None)
    ways = answerers(found, *without_model)
    assert list(ways) == ["known", "nearest (TF-IDF)", NEAREST_ENCODER, "best"]
    assert ways[NEAREST_ENCODER](OTHERS.questions) == [
        each.answer for each in found.matches(OTHERS.questions, AnswerMode.nearest)
    ]


def test_a_model_that_lost_its_encoder_is_not_valid(folder, tmp_path):
    fit_known_answers(PAIRS, encoder=SentenceEncoder(str(folder)).load()).save(tmp_path)
    shutil.rmtree(tmp_path / "encoder")
    with pytest.raises(UserError, match="is not valid: ranking needs 3 weights"):
        KnownAnswers.load(tmp_path)


def refusal(folder):
    with pytest.raises(UserError) as caught:
        SentenceEncoder(str(folder)).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


REFUSED = "is refused: its modules must be Transformer, Pooling, Normalize of sentence-transformers, and nothing in it"


@pytest.mark.parametrize(
    "kind",
    [
        "evil.Transformer",
        "sentence_transformers.base.modules.dense.Dense",
        "os.system",
        "sentence_transformersX.Pooling",
        None,
        7,
    ],
)
def test_a_foreign_module(changed, kind):
    edited(changed / "modules.json", lambda modules: modules[1].update(type=kind))
    assert REFUSED in refusal(changed)


@pytest.mark.parametrize("path", ["..", "../other", "/tmp"])
def test_a_module_outside_of_the_folder(changed, path):
    edited(changed / "modules.json", lambda modules: modules[1].update(path=path))
    assert REFUSED in refusal(changed)


KERNEL = {"attn_implementation": "kernels-community/evil"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("config.json", KERNEL),
        ("config.json", {"_attn_implementation": "kernels-community/evil"}),
        ("sentence_bert_config.json", {"model_kwargs": KERNEL}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ],
)
def test_a_configuration_that_names_code(changed, trap, monkeypatch, name, change):
    (changed / "evil.py").write_text(trap.code)
    monkeypatch.syspath_prepend(str(changed))
    edited(changed / name, lambda content: content.update(change))
    assert REFUSED in refusal(changed)
    assert not trap.sprang


def test_a_pickle_is_not_read(changed, trap):
    (changed / "model.safetensors").unlink()
    torch.save(trap, changed / "pytorch_model.bin")
    torch.load(changed / "pytorch_model.bin", weights_only=False)
    assert trap.sprang
    assert "cannot be loaded" in refusal(changed)
    assert not trap.sprang


@pytest.mark.parametrize("content", [b"", b"{", b"7", b"[7]", b"{}", b"[" * 100_000, b"\xff", b'[{"type": "x"}]'])
@pytest.mark.parametrize("name", ["modules.json", "config.json"])
def test_damaged_files(changed, name, content):
    (changed / name).write_bytes(content)
    assert refusal(changed).startswith((f"{changed}: is ", f"evaluation.encoder: {changed} cannot be loaded"))


def test_weights_in_the_form_of_a_pickle(changed):
    """Refused even where they hold tensors alone."""
    weights = changed / "model.safetensors"
    torch.save(load_file(weights), changed / "pytorch_model.bin")
    weights.unlink()
    assert "cannot be loaded" in refusal(changed)


def test_weights_that_are_cut_off(changed):
    weights = changed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in refusal(changed)


def test_a_folder_of_something_else(tmp_path):
    assert "is not a sentence encoder" in refusal(tmp_path)


@pytest.mark.parametrize("place", ["./none", "/none", "~/none", "a/b/c"])
def test_a_folder_that_does_not_exist(place):
    assert refusal(place) == f"evaluation.encoder: no such folder: {place}"


def test_an_encoder_that_is_not_there_ends_a_run_before_it_trains(tmp_path, monkeypatch):
    def no_encoder(encoder):
        raise UserError(f"evaluation.encoder: {encoder.place} cannot be loaded")

    monkeypatch.setattr(SentenceEncoder, "load", no_encoder)
    with pytest.raises(UserError, match="owner/name cannot be loaded"):
        train(small_config(evaluation__encoder="owner/name"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_name_on_the_hub_without_a_network():
    assert refusal("nobody/no-such-encoder").startswith("evaluation.encoder: nobody/no-such-encoder cannot be loaded: ")


def test_a_name_on_the_hub_that_cannot_be_reached_is_refused_at_once():
    """By itself sentence-transformers takes over a minute."""
    code = "from qa_lm.retrieval.encoder import load_encoder; import sentence_transformers; load_encoder('owner/name')"
    unreachable = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=unreachable, timeout=45, capture_output=True, text=True, check=False
    )
    assert "UserError: evaluation.encoder: owner/name cannot be loaded: " in done.stderr


def test_an_encoder_of_the_hub_is_checked_like_a_folder(changed, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **limits: str(changed))
    assert SentenceEncoder("owner/name").load().vectors(["Hi"]).shape == (1, 32)
    edited(changed / "config.json", lambda content: content.update(KERNEL))
    assert REFUSED in refusal("owner/name")


def test_a_run_with_an_encoder_asks_without_the_folder_it_came_from(changed, tmp_path, capsys, monkeypatch):
    rows = zip(PAIRS.questions, PAIRS.answers, strict=True)
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    config = small_config(
        data__path=str(tmp_path / "faq.jsonl"),
        data__cache=str(tmp_path / "cache"),
        evaluation__mode=None,
        evaluation__encoder=str(changed),
        trainer__max_epochs=1,
    )
    folder = train(config, tmp_path / "run").folder
    shutil.rmtree(changed)
    rows = json.loads((folder / "board.json").read_text())["known_answers"]["rows"]
    assert [row["mode"] for row in rows] == ["free", "known", "nearest (TF-IDF)", "nearest (encoder)", "best"]
    capsys.readouterr()
    assert ask.main([str(folder), PAIRS.questions[0], "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["answer"], record["mode"]) == (PAIRS.answers[0], "best")
    with monkeypatch.context() as without:
        without.setattr(module, "find_spec", lambda name: None)
        for mode in ("free", "known"):
            assert ask.main([str(folder), PAIRS.questions[0], "--mode", mode, "--explain"]) == 0
            assert evaluate.main([str(folder), "--mode", mode, "--out", str(tmp_path / mode)]) == 0
        assert capsys.readouterr().err.endswith("are not compared: sentence-transformers is not installed\n")
        for command, question in ((ask, PAIRS.questions[:1]), (evaluate, [])):
            for mode in ("nearest", "best"):
                assert "needs sentence-transformers" in refused(
                    command.main, [str(folder), *question, "--mode", mode], capsys
                )
    edited(folder / "model" / "encoder" / "modules.json", lambda modules: modules[0].update(type="evil.Transformer"))
    assert REFUSED in refused(ask.main, [str(folder), PAIRS.questions[0]], capsys)
