"""The module and the data module in scripts of others: a plain Trainer, any logger, `load_from_checkpoint`."""

import csv
import math

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
import yaml

from qa_lm.batch import Batch
from qa_lm.data.batches.batching import Row
from qa_lm.data.pairs import BUILTIN
from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import causal_lm_from_config, head, hidden_states, plain_config
from qa_lm.modeling.epoch_metrics import PairScores
from qa_lm.modeling.module import CausalLMModule
from tests.modeling.plain_lightning import curves, plain_trainer, ten_pairs, tiny
from tests.modeling.test_modeling import ARCHITECTURES, build

VALIDATED = {"val/loss", "val/exact_match", "val/bits_per_answer_byte", "train/recall", "train/recall_then_loss"}
VALIDATED |= {"val/exact_match_then_loss"}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A plain Trainer's folder, its data and its module after two epochs."""
    folder = tmp_path_factory.mktemp("plain")
    data = ten_pairs(test_path=str(BUILTIN["tutorial"]), batch_size=3)
    module = tiny(data, answer_bytes=data.prepared.answer_bytes(data.prepared.split.validation))
    plain_trainer(folder).fit(module, datamodule=data)
    return folder, data, module


def logits(module: CausalLMModule, batch: Batch) -> torch.Tensor:
    module.eval()
    with torch.no_grad():
        return head(module.model)(hidden_states(module.model, batch.inputs, batch.positions))


def test_any_logger_gets_what_a_plain_trainer_measures(fitted):
    folder, _, _ = fitted
    found = curves(folder)
    assert {name: len(values) for name, values in found.items() if "/" in name} == dict.fromkeys(
        VALIDATED | {"train/loss"}, 2
    )
    assert found["train/loss"][1] < found["train/loss"][0]
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["optimizer"]["lr"] == 3e-3


def test_the_numbers_are_those_of_a_run(small_run, tmp_path):
    """The same settings and seed in a plain script: every epoch of metrics.csv, to float32's digits."""
    checkpoint = torch.load(small_run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    pl.seed_everything(42, verbose=False)
    module = CausalLMModule.from_config(**checkpoint["hyper_parameters"])
    plain_trainer(tmp_path, epochs=25, precision="32-true").fit(module, datamodule=ten_pairs())
    with (small_run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    found = curves(tmp_path)
    for column, name in {
        "train_loss": "train/loss",
        "val_loss": "val/loss",
        "val_exact_match": "val/exact_match",
        "val_bits_per_answer_byte": "val/bits_per_answer_byte",
        "train_recall": "train/recall",
    }.items():
        assert found[name] == pytest.approx([float(row[column]) for row in rows], rel=1e-5), name
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, checkpoint["state_dict"][name]), name


def test_validation_test_and_prediction_agree(fitted, tmp_path):
    """The test pairs are all ten; their means are those of what `predict` says of each pair."""
    _, data, module = fitted
    trainer = plain_trainer(tmp_path)
    (validated, _) = trainer.validate(module, datamodule=data, verbose=False)
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    batches = trainer.predict(module, datamodule=data)
    assert batches
    assert all(isinstance(batch, PairScores) for batch in batches)
    indices, losses, exact, log_probabilities = (torch.cat(each) for each in zip(*batches, strict=True))
    split = data.split
    assert indices.tolist() == sorted([*split.train, *split.validation, *split.test])
    of_test = torch.isin(indices, torch.from_numpy(split.test).long())
    assert of_test.sum() == 10
    assert tested["test/exact_match"] == pytest.approx(float(exact[of_test].double().mean()))
    assert tested["test/loss"] > 0
    held_out = torch.isin(indices, torch.from_numpy(split.validation).long())
    bits = -float(log_probabilities[held_out].sum()) / math.log(2) / module.answer_bytes
    assert validated["val/bits_per_answer_byte"] == pytest.approx(bits, rel=1e-5)
    for place in range(3):  # the definition: transformers' own logits, one pair at a time
        batch = data.collate([Row([int(indices[place])])])
        answer = batch.in_answer[0]
        each = F.cross_entropy(logits(module, batch)[0][answer], batch.targets[0][answer], reduction="none")
        assert float(losses[place]) == pytest.approx(float(each.mean()), rel=1e-5)
        assert float(log_probabilities[place]) == pytest.approx(-float(each.sum()), rel=1e-5)
        assert bool(exact[place]) == bool(
            (logits(module, batch)[0][answer].argmax(-1) == batch.targets[0][answer]).all()
        )


@pytest.mark.parametrize("of_a_run", [False, True])
def test_a_checkpoint_alone_gives_the_module_back(fitted, small_run, of_a_run):
    folder, data, module = fitted
    path = small_run.folder / "checkpoints" / "best.ckpt" if of_a_run else folder / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    loaded = CausalLMModule.load_from_checkpoint(path, weights_only=True)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, checkpoint["state_dict"][name])
    assert dict(loaded.hparams) == checkpoint["hyper_parameters"]
    if not of_a_run:  # whose last epoch was its best
        batch = next(iter(data.predict_dataloader()))
        assert torch.equal(logits(loaded, batch), logits(module, batch))
        assert isinstance(loaded.make_optimizer(loaded.model), torch.optim.AdamW)
        assert [loaded.schedule(step) for step in range(5)] == [module.schedule(step) for step in range(5)]


def test_a_loaded_module_can_be_trained_on(fitted, tmp_path):
    folder, data, _ = fitted
    loaded = CausalLMModule.load_from_checkpoint(folder / "best.ckpt")
    plain_trainer(tmp_path, 1).fit(loaded, datamodule=data)
    assert curves(tmp_path)["train/loss"][0] < curves(folder)["train/loss"][0]


def test_a_module_of_functions_can_be_loaded_but_not_trained(fitted, tmp_path):
    _, data, module = fitted
    own = CausalLMModule(module.model, lambda model: torch.optim.SGD(model.parameters(), 0.1), lambda step: 1.0)
    trainer = plain_trainer(tmp_path, 1)
    trainer.fit(own, datamodule=data)
    loaded = CausalLMModule.load_from_checkpoint(tmp_path / "best.ckpt")
    (tested,) = plain_trainer(tmp_path / "test").test(loaded, datamodule=data, verbose=False)
    assert tested["test/loss"] > 0
    with pytest.raises(UserError, match="has no optimizer"):
        plain_trainer(tmp_path / "again").fit(loaded, datamodule=data)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_plain_configuration_gives_the_same_model(architecture, attention):
    model = build(architecture, vocab_size=50, dropout=0.1)
    model.set_attn_implementation(attention)
    again = causal_lm_from_config(plain_config(model))
    again.load_state_dict(model.state_dict())
    ids = torch.arange(12).reshape(2, 6)
    assert torch.equal(again.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    assert again.config.to_diff_dict() == model.config.to_diff_dict()
    assert again.config._attn_implementation == attention


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": {"model_type": "gtp2"}}, "did you mean"),
        ({"model": {"model_type": "gpt2", "hiden_size": 64}}, "model: hiden_size: gpt2 has no such argument; did you"),
        ({"optimizer": {"lr": 1e-3, "kind": "adam"}}, "optimizer: kind='adam' is unknown; choose adamw or muon"),
        ({"optimizer": {"lr": 1e-3, "dtype": "float8"}}, "dtype='float8' is unknown"),
        ({"schedule": {"kind": "cos", "steps": 5}}, "schedule: kind='cos' is unknown; choose one of constant"),
    ],
)
def test_wrong_values_are_refused(wrong, words):
    right = {"model": {"model_type": "gpt2", "vocab_size": 9, "hidden_size": 8, "n_layer": 1, "n_head": 1}}
    with pytest.raises(UserError, match=words):
        CausalLMModule.from_config(**(right | wrong))
