"""A pretrained model that compares the questions itself: `evaluation.encoder=model`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from qa_lm.commands import export
from qa_lm.config.enums import AnswerMode
from qa_lm.config.validate import check_values
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer
from qa_lm.inference.known_answers import KnownAnswers
from qa_lm.retrieval import model_encoder
from qa_lm.retrieval.model_encoder import FILE, ModelEncoder
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.retrieval.faq import faq
from tests.training.finetune.test_pretrained import base, finetune_config

__all__ = ["base"]
PAIRS, OTHERS = faq(20, phrasings=3)


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    root = tmp_path_factory.mktemp("faq")
    file = root / "faq.jsonl"
    rows = zip(PAIRS.questions, PAIRS.answers, strict=True)
    file.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows), encoding="utf-8")
    config = finetune_config(base, file)
    config.data.train_fraction, config.trainer["max_epochs"] = 1.0, 1
    config.evaluation = replace(config.evaluation, mode=None, encoder="model", max_pairs=20)
    return train(config, root / "run").folder


def loaded(run: Path) -> tuple[Answerer, KnownAnswers, ModelEncoder]:
    answerer = Answerer.load(run)
    assert answerer.known
    assert isinstance(answerer.known.encoder, ModelEncoder)
    return answerer, answerer.known, answerer.known.encoder


def test_the_run_keeps_the_vectors_and_answers_with_them(run):
    answerer, known, encoder = loaded(run)
    assert known.default_mode is AnswerMode.best
    assert known.ranking
    assert len(known.ranking.weights) == 6  # three similarities by TF-IDF and three by the model
    fresh = ModelEncoder.fitted(answerer.model, answerer.tokenizer, PAIRS)
    assert list(fresh.known) == list(encoder.known)
    texts = [*PAIRS.texts[:3], *OTHERS.questions[:3]]
    for other in (fresh, loaded(run)[2]):
        np.testing.assert_allclose(other.vectors(texts), encoder.vectors(texts), atol=1e-5)
    assert [each.mode for each in answerer.answer(list(OTHERS.questions[:2]), 8)] == ["best", "best"]


def test_a_vector_is_the_last_hidden_state_of_the_prompt_alone(run):
    """Also in a batch with longer texts, and in standard deviations from the mean of the known texts."""
    answerer, _, encoder = loaded(run)
    text = "What about fees?"
    ids = answerer.tokenizer.encode([f'This sentence : "{text}" means in one word:"'])
    with torch.no_grad():
        state = answerer.model.base_model(torch.tensor(ids)).last_hidden_state[0, -1].numpy()
    wanted = (state - encoder.mean) / encoder.deviation
    (found, *_) = encoder.vectors([text, "What about fees and everything else that is longer?"])
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)
    states = model_encoder._hidden_states(answerer.model, answerer.tokenizer, PAIRS.texts)
    np.testing.assert_allclose(states.mean(axis=0), encoder.mean, atol=1e-4)


def test_a_text_longer_than_the_context_is_cut(run):
    assert np.isfinite(loaded(run)[2].vectors(["word " * 500])).all()


def test_a_damaged_file_is_one_line(run, tmp_path):
    path = run / "model" / FILE
    before = path.read_bytes()
    try:
        path.write_bytes(before[: len(before) // 2])
        with pytest.raises(UserError, match=rf"{FILE}: is not valid") as caught:
            Answerer.load(run)
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(before)


def test_vectors_of_another_model_are_refused(run, tmp_path):
    copy = shutil.copytree(run / "model", tmp_path / "model")
    tensors = load_file(copy / FILE)
    save_file({name: tensor[..., :-1].copy() for name, tensor in tensors.items()}, copy / FILE)
    with pytest.raises(UserError, match=rf"{FILE}: is not valid: it belongs to another model"):
        Answerer.load(copy)


def test_an_export_keeps_the_vectors(run, tmp_path):
    assert export.main([str(run), "--to", "safetensors", "--dtype", "f32", "--output", str(tmp_path / "exported")]) == 0
    names = {path.name for path in (run / "model").iterdir()}
    assert {path.name for path in (tmp_path / "exported").iterdir()} == names
    question = [OTHERS.questions[0]]
    assert loaded(tmp_path / "exported")[0].answer(question, 8) == loaded(run)[0].answer(question, 8)


def test_a_model_from_scratch_is_no_encoder():
    config = small_config()
    config.evaluation.encoder = "model"
    with pytest.raises(UserError, match=r"^evaluation\.encoder=model: needs a pretrained model"):
        check_values(config)
