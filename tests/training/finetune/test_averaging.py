"""The finished model of a pretrained start: the average of the trained and the pretrained weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.schema import DataConfig, FinetuneConfig, TokenizerConfig, TrainConfig
from qa_lm.data.prepare import prepare
from qa_lm.inference.answerer import Answerer, load_causal_lm
from qa_lm.training.finetune.averaging import SHARES, Average, average
from qa_lm.training.train import TrainingResult, train
from tests.training.finetune.test_pretrained import finetune_config

KNOWN = Path("qa_lm/data/builtin/tutorial.jsonl").resolve()
"""The pairs that the pretrained model knows."""


@pytest.fixture(scope="module")
def base(learnt_run: TrainingResult) -> Path:
    return learnt_run.folder / "model"


def config_of(base: Path, pairs: Path, **changes: Any) -> TrainConfig:
    """Colours are trained, and what the model knew is held out."""
    config = finetune_config(base, pairs, data__validation_path=str(KNOWN), **changes)
    config.trainer["max_epochs"], config.optimizer.lr = 3, 7e-4
    config.export_weights = config.export_weights.last
    return config


@pytest.fixture(scope="module")
def trained(base: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps the trained weights."""
    return train(config_of(base, pairs), tmp_path_factory.mktemp("trained")).folder


def averaged_by_hand(base: Path, trained: Path, share: float) -> dict[str, torch.Tensor]:
    start, end = (load_file(folder / "model.safetensors") for folder in (base, trained / "model"))
    return {name: start[name] + share * (end[name] - start[name]) for name in start}


def test_a_share_of_the_trained_weights(base, pairs, trained, tmp_path):
    folder = train(config_of(base, pairs, finetune__average=0.25), tmp_path / "run").folder
    found, wanted = load_file(folder / "model" / "model.safetensors"), averaged_by_hand(base, trained, 0.25)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)


def test_an_averaged_adapter_is_the_averaged_model(base, pairs, tmp_path):
    folders = {}
    for share in (1.0, 0.5):
        config = config_of(base, pairs, finetune__method=FinetuneMethod.lora, finetune__average=share)
        folders[share] = train(config, tmp_path / str(share)).folder
    found, wanted = load_file(folders[0.5] / "model" / "model.safetensors"), averaged_by_hand(base, folders[1.0], 0.5)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)


def test_an_open_share_is_the_one_that_answers_most_held_out_pairs(base, pairs, trained, tmp_path, capsys):
    result = train(config_of(base, pairs, finetune__average=None), tmp_path / "run")
    right = {}
    for share in SHARES:
        model = load_causal_lm(trained / "model")
        model.load_state_dict(averaged_by_hand(base, trained, share), strict=False)
        answerer = replace(Answerer.load(trained), model=model.eval())
        known = [json.loads(line) for line in KNOWN.read_text(encoding="utf-8").splitlines()]
        answers = answerer.answer([pair["question"] for pair in known], 64)
        right[share] = sum(found.answer == pair["answer"] for found, pair in zip(answers, known, strict=True))
    share = result.metrics["finetune_average"]
    assert right[share] == max(right.values()) > right[1.0]
    counts = ", ".join(f"{each:g}: {number}" for each, number in right.items())
    line = f"average with the pretrained weights: {share:g} of the trained ones (of 10 held-out pairs answered by share"
    assert f"{line}: {counts})\n" in capsys.readouterr().out
    found, wanted = load_file(result.folder / "model" / "model.safetensors"), averaged_by_hand(base, trained, share)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)


@pytest.mark.parametrize(("dora", "fraction"), [(True, 0.5), (False, 1.0)])
def test_the_trained_weights_stay_where_no_share_can_be_chosen(base, trained, pairs, dora, fraction):
    """With DoRA, whose effect is not linear, and without held-out pairs."""
    data = DataConfig(path=str(pairs), train_fraction=fraction)
    prepared = prepare(data, TokenizerConfig("folder", path=str(trained / "model")), 256)
    model = load_causal_lm(trained / "model").eval()
    assert average(model, base, FinetuneConfig(average=None, dora=dora), False, prepared) == Average(1.0, {})
    saved = load_file(trained / "model" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items() if name in saved)
