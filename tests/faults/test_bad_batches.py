"""Losses and gradients that are not finite: reported, skipped, recorded; too many in a row end training."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qa_lm.modeling.gradients import clip
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.callbacks.bad_batches import WINDOW, BadBatches
from qa_lm.training.train import train
from tests.conftest import small_config, weights_in


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], factor: float = float("nan")) -> None:
    """Multiply the loss of these training steps, counted from 1."""
    original, calls = CausalLMModule.training_step, 0

    def poisoned(self, batch, batch_idx):
        nonlocal calls
        calls += 1
        loss = original(self, batch, batch_idx)
        return loss * factor if calls in steps else loss

    monkeypatch.setattr(CausalLMModule, "training_step", poisoned)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "bad_batches.jsonl").read_text().splitlines()]


def test_a_bad_step_is_skipped_with_a_warning(tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {3})
    result = train(small_config(), tmp_path / "run")
    said = capsys.readouterr().out
    assert (
        "warning: step 3: the gradient is not finite; this update is skipped, and its pairs are in bad_batches.jsonl"
        in said
    )
    assert result.metrics["skipped_steps"] == 1
    assert result.metrics["diverged"] is False
    (record,) = records(result.folder)
    assert (record["kind"], record["epoch"], record["step"]) == ("skipped", 1, 3)
    assert record["gradient_norm"] == "nan"
    assert [pair["file"] for pair in record["pairs"]] == ["tutorial"]
    assert set(record["pairs"][0]) == {"file", "line", "question", "answer"}
    assert all(torch.isfinite(weight).all() for weight in weights_in(result.folder).values())
    assert result.metrics["final_train_loss"] < 6


def test_a_loss_that_is_no_number_is_no_part_of_the_epochs(tmp_path, monkeypatch):
    forward, calls = CausalLMModule.forward, 0

    def poisoned(self, batch):
        nonlocal calls
        calls += self.training
        sums = forward(self, batch)
        return sums._replace(loss=sums.loss * float("nan")) if calls == 3 and self.training else sums

    monkeypatch.setattr(CausalLMModule, "forward", poisoned)
    result = train(small_config(trainer__max_epochs=1), tmp_path / "run")
    (record,) = records(result.folder)
    assert (record["step"], record["loss"]) == (3, "nan")
    assert 4 < result.metrics["final_train_loss"] < 7


def test_a_skipped_step_changes_no_weight(tmp_path, monkeypatch):
    """All steps of the second epoch are bad: the weights are those after the first."""
    one = train(small_config(trainer__max_epochs=1), tmp_path / "one")
    poison(monkeypatch, set(range(9, 17)))
    two = train(small_config(trainer__max_epochs=2), tmp_path / "two")
    for name, weight in weights_in(one.folder).items():
        assert torch.equal(weight, weights_in(two.folder)[name]), name


def test_accumulated_batches_are_all_named(tmp_path, monkeypatch):
    poison(monkeypatch, {5})
    result = train(small_config(trainer__accumulate_grad_batches=3), tmp_path / "run")
    (record,) = records(result.folder)
    assert record["step"] == 2
    assert len(record["pairs"]) == 3


def test_too_many_in_a_row_end_training_with_the_best_kept(tmp_path, monkeypatch, capsys):
    poison(monkeypatch, set(range(11, 100)), float("inf"))
    monkeypatch.setattr("qa_lm.training.callbacks.bad_batches.MAX_IN_A_ROW", 4)
    result = train(small_config(trainer__max_epochs=9), tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count("; this update is skipped") == 3
    assert "Stopped: 4 updates in a row were skipped." in said
    assert result.metrics["diverged"] is True
    assert result.metrics["stopped_early"] is True
    assert result.metrics["steps"] == 14
    assert (result.folder / "checkpoints" / "best.ckpt").exists()
    assert (result.folder / "model" / "model.safetensors").exists()


def test_clipping_returns_the_norm_and_removes_bad_gradients():
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0, 0]), torch.tensor([0.0, 4])
    assert clip(parameters, 1.0, None) == 5
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0, 0], abs=1e-5)
    assert clip(parameters, 0.5, "value") == pytest.approx(1, abs=1e-5)
    assert parameters[1].grad.tolist() == [0, 0.5]
    assert clip(parameters, None, None) > 0
    parameters[1].grad[0] = float("inf")
    assert not torch.isfinite(clip(parameters, 1.0, None))
    assert parameters[0].grad is None
    assert parameters[1].grad is None


def test_a_spike_of_the_loss_is_recorded(tmp_path):
    table: Any = SimpleNamespace(
        sources=["pairs"],
        numbers=lambda column: {"source": [0] * 9, "line": [7] * 9}[column],
        pairs=lambda places: [SimpleNamespace(question="q", answer="a") for _ in places],
    )
    guard = BadBatches(tmp_path / "bad.jsonl", table)
    module = CausalLMModule.__new__(CausalLMModule)
    torch.nn.Module.__init__(module)
    trainer: Any = SimpleNamespace(
        is_last_batch=False,
        accumulate_grad_batches=1,
        current_epoch=0,
        global_step=0,
        world_size=1,
        is_global_zero=True,
    )
    losses = [2.0 + 0.1 * (-1) ** step for step in range(WINDOW + 5)] + [9.0, 2.0, 2.5]
    for step, loss in enumerate(losses, start=1):
        trainer.global_step = step
        module.step_loss, module.gradient_norm = torch.tensor(loss), torch.tensor(1.0)
        guard.on_train_batch_end(trainer, module, None, SimpleNamespace(indices=torch.tensor([4])), step)
    assert [(record["kind"], record["step"], record["loss"]) for record in records_of(tmp_path / "bad.jsonl")] == [
        ("spike", WINDOW + 6, 9.0)
    ]


def records_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
